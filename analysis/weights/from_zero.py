"""Tensors that were all zero before and are not after: their change has no ratio to what they were."""

from __future__ import annotations

import math

import polars as pl

from analysis.findings import Finding
from analysis.gradient.scene import some

__all__ = ["beyond_from_zero", "ranked", "shares"]

#: Rows of tensors that were all zero before, and are not after.
_LEFT_ZERO = (pl.col("norm_a") == 0) & (pl.col("update_norm") > 0)


def ranked(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of differences, most changed first: a tensor that was all zero has no ratio (null), and stands where that
    of its change to the norm of all tensors before would place it.

    An infinite ratio would put a bias that takes its first step above everything else that happened.

    >>> names, norms, steps = ["a", "b", "c"], [10.0, 0.0, 4.0], [0.1, 2.0, 1.0]
    >>> frame = pl.DataFrame({"name": names, "norm_a": norms, "update_norm": steps, "update_ratio": [0.01, None, 0.25]})
    >>> ranked(frame).select("name", "update_ratio").rows()
    [('c', 0.25), ('b', None), ('a', 0.01)]
    """
    ordered = shares(frame).sort("share", descending=True, nulls_last=True, maintain_order=True)
    ratio = pl.when(_LEFT_ZERO).then(None).otherwise(pl.col("update_ratio")).alias("update_ratio")
    return ordered.drop("share").with_columns(ratio)


def shares(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with `share`, the change over what it is held against: the tensor before, or all where it was zero."""
    of_all = pl.col("update_norm") / _norm_of_all(frame)
    return frame.with_columns(share=pl.when(_LEFT_ZERO).then(of_all).otherwise(pl.col("update_ratio")))


def beyond_from_zero(frame: pl.DataFrame, run_name: str, max_drift: float) -> list[Finding]:
    """A critical `weight-drift` for tensors that left zero by more than `max_drift` of the norm of all tensors.

    Where everything was zero, whatever is not any more lies beyond every bar.
    """
    size = _norm_of_all(frame)
    rows = [(name or tensor, norm) for name, tensor, norm in _left(frame) if norm > max_drift * size]
    if not rows:
        return []
    name, norm = max(rows, key=lambda row: row[1])
    share = norm / size if size else math.inf
    more = f"; so did {len(rows) - 1} more" if len(rows) > 1 else ""
    of_all = f"{share:.3g} of the norm of all tensors before, more than {max_drift:g}" if size else "all tensors were 0"
    return [
        Finding(
            "weight-drift",
            "critical",
            run_name,
            f"{name} was all 0 and has a norm of {norm:.3g} now: {of_all}{more}",
            metric=name,
            evidence={
                "update_ratio": share,
                "max_drift": max_drift,
                "tensors": len(rows),
                "tensor_names": some([name for name, _ in rows], 8),
            },
            causes=(
                "the weights are those of another training or step: a layer that had not begun to learn has now",
                "a layer that one of the two saves holds zeros of was loaded or made anew",
            ),
            suggestions=(
                "compare what made the two: commit, data, seed, steps, element type",
                "raise --max-drift where so much change is meant",
            ),
        )
    ]


def _left(frame: pl.DataFrame) -> list[tuple[str, str, float]]:
    return list(frame.filter(_LEFT_ZERO).select("parameter", "name", "update_norm").iter_rows())


def _norm_of_all(frame: pl.DataFrame) -> float:
    return math.hypot(*frame["norm_a"].drop_nulls().drop_nans().to_list())
