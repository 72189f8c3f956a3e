"""What a difference of two checkpoints fails on: tensors that moved further than allowed, lost or broken ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from analysis.findings import Finding
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.integrity import corrupt, unsafe
from analysis.weights.saved import Saved
from analysis.weights.structure import structure
from parsers.checkpoints.checkpoint import Checkpoint

__all__ = ["drift_of", "findings_of_diff", "total_drift"]

_NO_STATISTICS = pl.DataFrame()
#: Cosine of two models below which they share nothing; random matrices of a thousand weights stay below 0.1.
_COMMON = 0.1


def total_drift(frame: pl.DataFrame) -> float | None:
    """Norm of all changes over that of all values before; None where no tensor is in both, or all are 0.

    >>> total_drift(pl.DataFrame({"update_norm": [3.0, 4.0, None], "norm_a": [6.0, 8.0, None]}))
    0.5
    """
    return drift_of(frame["update_norm"].to_list(), frame["norm_a"].to_list())


def drift_of(changes: Sequence[float | None], before: Sequence[float | None]) -> float | None:
    """The same of the norms of the changes, and of the tensors before.

    >>> drift_of([3.0, 4.0, None], [6.0, 8.0, None])
    0.5
    """
    both = [
        (d, w) for d, w in zip(changes, before, strict=True) if d is not None and w is not None and math.isfinite(d)
    ]
    size = math.hypot(*(w for _, w in both))
    return math.hypot(*(d for d, _ in both)) / size if size > 0 else None


def findings_of_diff(
    before: Checkpoint, after: Checkpoint, frame: pl.DataFrame, *, run_name: str, max_drift: float | None
) -> list[Finding]:
    """Damage and unsafe calls of both, tensors that are lost, new or of another shape, and those beyond `max_drift`.

    With `max_drift` a check is asked for: what else is a warning about the list of tensors is critical too, and so is
    a tensor that is finite before and not after.
    """
    one, two = (Saved(checkpoint.path.name, checkpoint, _NO_STATISTICS) for checkpoint in (before, after))
    found = [*corrupt(one, run_name), *unsafe(one, run_name), *corrupt(two, run_name), *unsafe(two, run_name)]
    listed = [*structure(one, two, run_name, renamed="warning"), *_unrelated(frame, run_name)]
    if max_drift is None:
        return [*found, *listed]
    found += [replace(f, severity="critical") if f.severity == "warning" else f for f in listed]
    return [*found, *_broken(frame, run_name), *_beyond(frame, run_name, max_drift)]


def _unrelated(frame: pl.DataFrame, run_name: str) -> list[Finding]:
    """Weights whose directions have nothing in common: those of another model, or of another training."""
    rows = frame.filter((pl.col("role") == "weights") & pl.col("cosine").is_not_null() & (pl.col("norm_a") > 0))
    rows = rows.filter(pl.col("shape_a").list.len() >= 2)  # gains and biases of all models are alike
    product = math.fsum(c * a * b for c, a, b in rows.select("cosine", "norm_a", "norm_b").iter_rows())
    size = math.hypot(*rows["norm_a"].to_list()) * math.hypot(*rows["norm_b"].to_list()) if rows.height else 0.0
    if size <= 0 or abs(cosine := product / size) >= _COMMON:
        return []
    return [
        Finding(
            "checkpoint-mismatch",
            "info",
            run_name,
            f"the matrices of the two have nothing in common (cosine {cosine:.2g} over {rows.height} of them): "
            "they are of another model, or of another training from its start",
            evidence={"what": "nothing in common", "cosine": cosine, "tensors": rows.height},
            causes=("one of the two is not the save that was meant: another base model, seed or run",),
            suggestions=("compare origin and checksum of both before anything is concluded from the difference",),
        )
    ]


def _broken(frame: pl.DataFrame, run_name: str) -> list[Finding]:
    """One finding for all tensors that were finite and are so no longer: the worst is named, the others counted."""
    sound, nan = (pl.col("nan_a") == 0) & (pl.col("inf_a") == 0), (pl.col("nan_a") == 0) & (pl.col("nan_b") > 0)
    rows = frame.filter(nan | (sound & (pl.col("inf_b") > 0))).sort("nan_b", "inf_b", descending=True)
    if rows.is_empty():
        return []
    names = [name or tensor for name, tensor in rows.select("parameter", "name").iter_rows()]
    nan_b, inf_b = rows["nan_b"].to_list(), rows["inf_b"].to_list()
    said = f"{nan_b[0]:,} NaN" if nan_b[0] else f"{inf_b[0]:,} infinite value{'' if inf_b[0] == 1 else 's'}"
    more = f"; so do {len(names) - 1} more of {frame.height} tensors" if len(names) > 1 else ""
    kind = KINDS["checkpoint-non-finite"]
    return [
        Finding(
            "checkpoint-non-finite",
            "critical",
            run_name,
            f"{names[0]} holds {said} that it did not hold before{more}",
            metric=names[0],
            evidence={
                "what": "not finite",
                "nan": sum(nan_b),
                "infinite": sum(inf_b),
                "tensors": len(names),
                "tensor_names": some(names, 8),
            },
            causes=kind.causes,
            suggestions=kind.suggestions,
        )
    ]


def _beyond(frame: pl.DataFrame, run_name: str, max_drift: float) -> list[Finding]:
    """One finding for all tensors that moved further than allowed: the worst is named, the others are counted."""
    beyond = frame.filter(pl.col("update_ratio") > max_drift)
    if beyond.is_empty():
        return []
    worst = beyond.row(0, named=True)
    names = [name or tensor for name, tensor in beyond.select("parameter", "name").iter_rows()]
    more = f"; so did {len(names) - 1} more of {frame.height} tensors" if len(names) > 1 else ""
    return [
        Finding(
            "weight-drift",
            "critical",
            run_name,
            f"{names[0]} changed by {worst['update_ratio']:.3g} of its norm, more than {max_drift:g}{more}",
            metric=names[0],
            evidence={
                "update_ratio": worst["update_ratio"],
                "max_drift": max_drift,
                "tensors": len(names),
                "tensor_names": some(names, 8),
            },
            causes=("the weights are those of another training, step or precision",),
            suggestions=(
                "compare what made the two: commit, data, seed, steps, element type",
                "raise --max-drift where so much change is meant",
            ),
        )
    ]
