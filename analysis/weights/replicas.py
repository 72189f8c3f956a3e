"""`rank-divergence`: copies of one model on several processes that should be the same, bit by bit, and are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.saved import is_buffer, numbers, same_values
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["findings_of_replicas"]

#: Replicas that came apart still resemble each other; pieces of one tensor do not.
_ALIKE = 0.5
#: Differences within float32 arithmetic: replicas that add up in another order; they grow, and are told.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class _Apart:
    """A tensor in which a rank differs from the first one: the relative distance and the cosine."""

    parameter: str
    distance: float
    cosine: float


def findings_of_replicas(
    replicas: Sequence[tuple[int, Checkpoint]],
    *,
    run_name: str,
    step: int | None = None,
    gauge: Gauge | None = None,
) -> list[Finding]:
    """A finding for each rank whose copy of the model differs from that of the lowest rank.

    Shards are no replicas: other keys, other shapes, or values that have nothing to do with one another. Statistics
    of normalisation are each rank's own without synchronised batch norm, and are left out. Critical beyond rounding
    (1e-5 of the norm), else a warning: replicas take the same steps, and are the same bit by bit.
    """
    gauge = Gauge() if gauge is None else gauge
    found = []
    for (first, one), (rank, two) in ((replicas[0], other) for other in replicas[1:]):
        apart = _differences(one, two)
        if apart:
            found.append(_finding(run_name, step, first, rank, apart, len(one.of_role("weights")), gauge))
    return found


def _differences(one: Checkpoint, two: Checkpoint) -> list[_Apart]:
    """Tensors in which two copies differ; none where they are shards."""
    mine, theirs = ({t.parameter: t for t in c.of_role("weights")} for c in (one, two))
    if mine.keys() != theirs.keys() or any(mine[name].shape != theirs[name].shape for name in mine):
        return []
    judged = [
        name
        for name, tensor in mine.items()
        if DTYPES[tensor.dtype].kind == "float" and not is_buffer(tensor.parameter)
    ]
    apart = [
        _apart(one, mine[name], two, theirs[name])
        for name in judged
        if not same_values(one, mine[name], two, theirs[name])
    ]
    # Pieces of one tensor (tensor or expert parallel) have nothing in common; norms beside them are replicated.
    shards = [gap for gap in apart if gap.cosine < _ALIKE]
    return [] if len(shards) > len(apart) / 2 else [gap for gap in apart if gap.cosine >= _ALIKE]


def _apart(one: Checkpoint, mine: Tensor, two: Checkpoint, theirs: Tensor) -> _Apart:
    sums = np.zeros(4)
    for a, b in zip(numbers(one, mine), numbers(two, theirs), strict=False):
        sums += [float(a @ a), float(b @ b), float(a @ b), float((a - b) @ (a - b))]
    size = float(np.sqrt(max(sums[0] * sums[1], 0.0)))
    if not np.isfinite(sums).all() or size == 0:
        return _Apart(mine.parameter, float("inf"), 1.0)
    return _Apart(mine.parameter, float(np.sqrt(sums[3] / max(sums[0], sums[1]))), float(sums[2] / size))


def _finding(
    run_name: str, step: int | None, first: int, rank: int, apart: list[_Apart], tensors: int, gauge: Gauge
) -> Finding:
    worst = max(apart, key=lambda gap: gap.distance)
    severity: Severity = "critical" if worst.distance > _ROUNDING else "warning"
    kind = KINDS["rank-divergence"]
    return Finding(
        "rank-divergence",
        severity,
        run_name,
        f"the weights of rank {rank} are not those of rank {first}: {len(apart)} of {tensors} tensors differ, most "
        f"{worst.parameter}, by {worst.distance:.2g} of its norm",
        metric=worst.parameter,
        first_step=step,
        last_step=step,
        evidence={
            "what": f"weights of rank {rank}",
            "how": "apart",
            "rank": rank,
            "difference": worst.distance,
            "limit": gauge.limits.of("rank-divergence", worst.parameter),
            "tensors": len(apart),
            "tensors_compared": tensors,
            "tensor_names": some((gap.parameter for gap in apart), 8),
        },
        causes=_causes(worst, len(apart) / max(tensors, 1)),
        suggestions=kind.suggestions,
    )


def _causes(worst: _Apart, share: float) -> tuple[str, ...]:
    own = "these parameters are not synchronised: outside DDP, or their gradients are not reduced"
    whole = "the ranks began from different weights, or took steps of different size or number"
    device = "a faulty device of that process"
    return (whole, own, device) if share > 0.9 else (own, device, whole)
