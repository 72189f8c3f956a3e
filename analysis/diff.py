"""`diff`: what changed from one checkpoint to another, tensor by tensor, usable as a check for regressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, style
from analysis.findings import SEVERITIES
from analysis.result import Result
from analysis.story.listing import plain
from analysis.weights.from_zero import beyond_from_zero, ranked, shares
from analysis.weights.names_beside import short
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.tensors import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Diff", "diff"]

#: Rows of the figure, and characters of a name beside it: more cannot be read.
_ROWS, _LONGEST = 30, 44


@dataclass(frozen=True, eq=False, repr=False)
class Diff(Result):
    """What changed between two checkpoints. `frame` has one row a tensor, most changed first, with the columns of
    `analysis.weights.differences`; a tensor that was all zero before has no `update_ratio` (null), and stands where its
    change over the norm of all tensors would place it. `drift` is the norm of all changes over that of all weights
    before (null where no tensor is in both), `max_drift` the bar that was asked for.
    """

    drift: float | None
    max_drift: float | None = None

    @property
    def summary(self) -> str:
        """How many tensors changed, were added or went, and the whole change, in one line."""
        counts = dict(self.frame.group_by("status").len().iter_rows())
        told = [f"{counts[name]} {word}" for name, word in _WORDS.items() if counts.get(name)]
        moved = "" if self.drift is None else f"; ||b-a|| / ||a|| = {self.drift:.3g}"
        return f"{', '.join(told) or 'no tensors'}{moved}"

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """||b - a|| / ||a|| of the tensors that changed most, and what was asked for as a line; `options` go to the
        markers. Of tensors that were all zero it is the change over the norm of all tensors, as squares.
        """
        drawn = axes(ax, height=4.2)
        moved = shares(self.frame).filter((pl.col("share") > 0) & pl.col("share").is_finite()).head(_ROWS)
        names = [
            short(name or other, _LONGEST) + ("" if role == "weights" else f" ({role})")
            for name, other, role in moved.select("parameter", "name", "role").iter_rows()
        ]
        left_zero = moved["update_ratio"].is_null().to_numpy()
        values, places = moved["share"].to_numpy(), np.arange(moved.height)
        with style():
            look = {"color": COLOURS["blue"], "marker": "o", "linestyle": "", **options}
            drawn.plot(values[~left_zero], places[~left_zero], **look)
            if left_zero.any():
                look |= {"marker": "s", "markerfacecolor": "none", "label": "was all 0: over the norm of all tensors"}
                drawn.plot(values[left_zero], places[left_zero], **look)
            if self.max_drift:
                drawn.axvline(self.max_drift, color=COLOURS["vermilion"], label=f"at most {self.max_drift:g}")
            if left_zero.any() or self.max_drift:
                drawn.legend()
        drawn.set_yticks(range(len(names)), names, parse_math=False)
        drawn.invert_yaxis()
        if names:
            drawn.set_xscale("log")
        drawn.set_xlabel("||b - a|| / ||a|| of the tensor")
        drawn.set_ylabel("tensor")
        drawn.set_title(plain(f"{self.run}: {self.summary}"[:100]), parse_math=False, loc="left", fontsize=10)
        return drawn


#: Statuses of a tensor, in the order in which the summary tells them.
_WORDS = {
    "changed": "changed",
    "same": "the same",
    "dtype": "of another type",
    "shape": "of another shape",
    "added": "added",
    "removed": "removed",
}


def diff(
    a: Path | str,
    b: Path | str,
    *,
    max_drift: float | None = None,
    roles: Iterable[Role] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Diff:
    """What changed from checkpoint `a` to checkpoint `b`, most first; both are mapped and read once, side by side.

    Tensors are matched by the name that the model has for them, whatever wraps it (`module.`, `_orig_mod.`,
    `state_dict.`). `roles` are what is compared of weights, ema, optimizer, other; by default the weights, and the
    averages where both have some. With `max_drift` a tensor whose ||b - a|| / ||a|| is larger is a critical
    `weight-drift`, and so is one that is finite in `a` and not in `b`: the check for regressions (`aftertrain
    checkpoints B --against A --max-drift 0.01`). A tensor that was all zero has no such ratio: its change is held
    against the norm of all tensors of `a`, so that a bias that takes its first step is no regression, and a layer of
    zeros that is as large as the others now is one. Tensors added, removed, renamed or of another shape
    are a `checkpoint-mismatch`: a warning, critical with `max_drift`; of another element type information. So are
    matrices whose directions have nothing in common (a cosine below 0.1 over all of them): those of another model or
    training.

    Raises `InputError` for a path without a checkpoint, `ValueError` for a `max_drift` that is negative or NaN.

    >>> import numpy as np, tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> np.savez(place / "a.npz", w=np.ones(4), b=np.zeros(2))
    >>> np.savez(place / "b.npz", w=np.full(4, 1.5), b=np.zeros(2))
    >>> found = diff(place / "a.npz", place / "b.npz", max_drift=0.1)
    >>> found.frame.select("name", "status", "update_ratio").rows()
    [('w', 'changed', 0.5), ('b', 'same', 0.0)]
    >>> [(f.kind, f.severity, f.metric) for f in found.findings]
    [('weight-drift', 'critical', 'w')]
    """
    from analysis.weights.differences import differences
    from analysis.weights.drift_between import findings_of_diff, total_drift

    if max_drift is not None and (math.isnan(max_drift) or max_drift < 0):
        raise ValueError(f"max_drift: expected a ratio of 0 or more, such as 0.01, found {max_drift!r}")
    name = " -> ".join(_names(Path(a), Path(b)))
    with open_checkpoint(a) as before, open_checkpoint(b) as after:
        averaged = all(one.of_role("ema") for one in (before, after))
        chosen: tuple[Role, ...] = ("weights", "ema") if averaged else ("weights",)
        frame = ranked(differences(before, after, roles=chosen if roles is None else tuple(roles), progress=progress))
        found = findings_of_diff(before, after, frame, run_name=name, max_drift=max_drift)
    if max_drift is not None:
        found += beyond_from_zero(frame, name, max_drift)
    found.sort(key=lambda one: -SEVERITIES.index(one.severity))
    return Diff(run=name, frame=frame, findings=tuple(found), drift=total_drift(frame), max_drift=max_drift)


def _names(a: Path, b: Path) -> tuple[str, str]:
    """The two paths without what they have in common at their beginning; names alone where that says enough."""
    one, two = a.absolute().parts, b.absolute().parts
    if one[-1] != two[-1] or one == two:
        return one[-1], two[-1]
    common = next((n for n, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), 0)
    return "/".join(one[common:]), "/".join(two[common:])
