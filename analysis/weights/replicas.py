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
from analysis.weights.values import dot
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

    Shards are no replicas: of other keys or other shapes nothing is said, and values that have nothing to do with one
    another are information, for shards look so, and copies that were never synchronised do, too. Statistics of
    normalisation are each rank's own without synchronised batch norm, and are left out. Critical beyond rounding
    (1e-5 of the norm), else a warning: replicas take the same steps, and are the same bit by bit.
    """
    gauge = Gauge() if gauge is None else gauge
    found = []
    for (first, one), (rank, two) in ((replicas[0], other) for other in replicas[1:]):
        apart, count = _differences(one, two), len(one.of_role("weights"))
        # Pieces of one tensor (tensor or expert parallel) have nothing in common; norms beside them are replicated.
        pieces = [gap for gap in apart if gap.cosine < _ALIKE]
        if len(pieces) > len(apart) / 2:
            found.append(_unlike(run_name, step, first, rank, len(pieces), count))
        elif apart:
            alike = [gap for gap in apart if gap.cosine >= _ALIKE]
            found.append(_finding(run_name, step, first, rank, alike, count, gauge))
    return found


def _differences(one: Checkpoint, two: Checkpoint) -> list[_Apart]:
    """Tensors in which two copies differ; none where their names or shapes say that they are shards."""
    mine, theirs = ({t.parameter: t for t in c.of_role("weights")} for c in (one, two))
    if mine.keys() != theirs.keys() or any(mine[name].shape != theirs[name].shape for name in mine):
        return []
    judged = [
        name
        for name, tensor in mine.items()
        if DTYPES[tensor.dtype].kind == "float" and not is_buffer(tensor.parameter)
    ]
    return [
        _apart(one, mine[name], two, theirs[name])
        for name in judged
        if not same_values(one, mine[name], two, theirs[name])
    ]


def _unlike(run_name: str, step: int | None, first: int, rank: int, pieces: int, tensors: int) -> Finding:
    """Information: two saves of the same names and shapes whose values have nothing to do with one another."""
    return Finding(
        "rank-divergence",
        "info",
        run_name,
        f"the weights of rank {rank} have nothing in common with those of rank {first} ({pieces} of {tensors} "
        "tensors): pieces of one model, or copies that were never synchronised",
        first_step=step,
        last_step=step,
        evidence={
            "what": f"weights of rank {rank}",
            "how": "apart",
            "rank": rank,
            "tensors": pieces,
            "tensors_compared": tensors,
        },
        causes=(
            "each rank keeps its own piece of every tensor (tensor or expert parallel, sharded parameters)",
            "each rank trained a model of its own: another seed, and no DistributedDataParallel around it",
        ),
        suggestions=(
            "where the ranks should be copies: compare their seeds, and a checksum of the weights after the first step",
        ),
    )


def _apart(one: Checkpoint, mine: Tensor, two: Checkpoint, theirs: Tensor) -> _Apart:
    sums = np.zeros(4)
    for a, b in zip(numbers(one, mine), numbers(two, theirs), strict=False):
        sums += [dot(a, a), dot(b, b), dot(a, b), dot(a - b, a - b)]
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
