"""What moves with a fault where a real one would move it too: the parts of the loss, and the gradient norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.injection.draft import Draft, Part
from analysis.injection.shapes import Floats
from parsers.naming.role_layout import SeriesRole

__all__ = ["follow", "losses_become", "norms_become"]

Factor = Callable[[Floats], Floats]


def follow(draft: Draft, loss: SeriesRole, factor: Factor, *, norms: float = 0.0) -> None:
    """Every other loss of the same side takes the factor of `loss`; gradient norms its power `norms` (0: they stay).

    The logarithm of a perplexity takes the factor, which keeps it the exponential of its loss. Nothing of this without
    `consequences`.
    """
    if not draft.consequences:
        return
    for other in draft.of_role("loss", "component_loss", side=loss.side):
        if other != loss:
            draft.scale(other, factor)
    for other in draft.of_role("perplexity", side=loss.side):
        draft.change(other, lambda part: _power(part, factor(part.rows)))
    if norms:
        norms_become(draft, lambda rows: factor(rows) ** norms)


def norms_become(draft: Draft, factor: Factor) -> None:
    """All gradient norms of training times a factor."""
    for norm in draft.of_role("grad_norm"):
        draft.scale(norm, factor)


def losses_become(draft: Draft, loss: SeriesRole, how: Callable[[Part], Floats]) -> None:
    """The loss as `how` makes it; the others of its side take the same factor at the same place."""
    told: list[tuple[Floats, Floats]] = []

    def keep(part: Part) -> Floats:
        values = how(part)
        with np.errstate(divide="ignore", invalid="ignore"):
            times = values / part.value
        told.append((part.rows, np.where(np.isfinite(times), times, 1.0)))
        return values

    draft.change(loss, keep)
    rows, times = told[0]
    order = np.argsort(rows, kind="stable")
    follow(draft, loss, lambda at: np.interp(at, rows[order], times[order]))


def _power(part: Part, factor: Floats) -> Floats:
    """The values to a power behind the onset, without leaving what a float can hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        raised = np.where(part.value > 0, np.abs(part.value) ** factor, part.value)
    return np.where(part.inside, np.minimum(raised, 1e300), part.value)
