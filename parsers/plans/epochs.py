"""How many steps an epoch has in a log that tells both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from parsers.run import Run

__all__ = ["steps_between_epochs"]

#: Epochs needed, and how far one may be from the usual length: the last batch of an epoch may be a short one.
_FEWEST, _NEAR = 3, 0.02


def steps_between_epochs(run: Run) -> int | None:
    """Steps from the last record of an epoch to that of the next, the same for nearly all; None where unsteady.

    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": "loss", "step": range(0, 400, 10), "epoch": [s // 100 for s in range(0, 400, 10)],
    ...     "value": 1.0})
    >>> steps_between_epochs(finish("a", "a", "csv", rows))
    100
    """
    known = run.lazy().filter(pl.col("epoch").is_not_null() & pl.col("step").is_not_null())
    ends = (
        known.group_by(pl.col("epoch").floor(), maintain_order=False).agg(pl.col("step").max())
        .sort("epoch").collect()
    )  # fmt: skip
    if ends.height < _FEWEST + 1:
        return None
    apart = (ends["step"].diff().drop_nulls() / ends["epoch"].diff().drop_nulls())[:-1]
    usual = apart.median()
    if not isinstance(usual, float) or usual < 1:
        return None
    near = ((apart - usual).abs() <= max(_NEAR * usual, 1.0)).mean()
    return round(usual) if isinstance(near, float) and near >= 0.9 else None
