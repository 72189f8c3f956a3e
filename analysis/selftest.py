"""`selftest`: which faults would have been caught in this run, from which size on, and which it could not show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.checks import CHECKS
from analysis.diagnose import Diagnosis
from analysis.figures import COLOURS, axes, style
from analysis.findings import Status
from analysis.inject import FAULTS, fault_of
from analysis.injection.trial import Judge, Trial, Verdict
from analysis.kinds import KINDS
from analysis.result import Result
from analysis.rules import Rules, rules_of
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.norms import Norms

__all__ = ["SelfTest", "selftest"]

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.String,
    "family": pl.String,
    "metric": pl.String,
    "unit": pl.String,
    "smallest_found": pl.Float64,
    "default_size": pl.Float64,
    "default_size_found": pl.Boolean,
    "found_at": pl.Float64,
    "delay": pl.Float64,
    "said_instead": pl.List(pl.String),
    "not_judged": pl.String,
    "not_injectable": pl.String,
}
_FRAME = pl.Schema(_COLUMNS)


@dataclass(frozen=True, eq=False, repr=False)
class SelfTest(Result):
    """What would have been caught in a run. `frame` has one row a kind of fault:

    kind, family; metric that the fault went into (null for the log as a whole); unit of the size (empty for a fault
    that is there or not); smallest_found (size that was still found at half of the places or more, to 10 %; null where
    none was); default_size; default_size_found (at half of the places or more); found_at (share of the places where it
    was, at default size); delay (mean distance of the finding's first step from the onset there, as a share of the run;
    null where the fault has no onset); said_instead (kinds of warning or worse that were reported besides, at default
    size and the middle place; the kind itself where it was placed elsewhere); not_judged (why the diagnosis did not
    judge the kind there, in its own words; empty where it did); not_injectable (why it cannot be planted, with what to
    record; empty where it can).

    `findings` are none: nothing here is about the run itself. `basis` is the status of the run as it is, and
    `basis_kinds` what it has at warning or worse: a fault beside another one is harder to tell. `judged_at` are the
    places.
    """

    basis: Status
    basis_kinds: tuple[str, ...]
    judged_at: tuple[float, ...]

    @property
    def caught(self) -> pl.DataFrame:
        """The rows of the kinds that were found at default size."""
        return self.frame.filter(pl.col("default_size_found"))

    @property
    def missed(self) -> pl.DataFrame:
        """The rows of the kinds that could be planted and were not found at default size."""
        return self.frame.filter(~pl.col("default_size_found") & (pl.col("not_injectable") == ""))

    @property
    def unseen(self) -> pl.DataFrame:
        """The rows of the kinds that this log cannot show, with what to record."""
        return self.frame.filter(pl.col("not_injectable") != "")

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        tried = self.caught.height + self.missed.height
        return (
            f"{self.caught.height} of {tried} faults would have been caught at default size; "
            f"{self.unseen.height} more cannot show in this log"
        )

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The smallest size that is found as a share of the default, a bar a kind; `options` go to the bars.

        Kinds without a size, and those that were not found, have no bar and are named all the same.
        """
        rows = self.frame.filter(pl.col("not_injectable") == "").reverse()
        drawn = axes(ax, height=max(2.0, 0.22 * rows.height + 1.2))
        share = rows.select(pl.col("smallest_found") / pl.col("default_size")).to_series().to_numpy()
        with style():
            drawn.barh(np.arange(rows.height), share, **{"color": COLOURS["blue"], **options})
            names = [_label(*row) for row in rows.select("kind", "unit", "smallest_found", "default_size_found").rows()]
            drawn.set_yticks(np.arange(rows.height), names, parse_math=False)
        if np.isfinite(share).any():
            drawn.set_xscale("log")
        drawn.set_xlabel("smallest size found, as a share of the default size")
        drawn.set_title(f"{self.run}: {self.summary}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn

    def __repr__(self) -> str:
        lines = [f"<SelfTest of {self.run}: {self.summary}; as it is, the run is {self.basis}>"]
        for row in self.frame.iter_rows(named=True):
            if not row["not_injectable"]:
                label = _label(row["kind"], row["unit"], row["smallest_found"], row["default_size_found"])
                lines.append(f"  {'found' if row['default_size_found'] else 'MISSED':6} {label}")
        return "\n".join(lines)


def _label(kind: str, unit: str, smallest: float | None, found: bool) -> str:
    if not unit:
        return f"{kind} ({'found' if found else 'not found'})"
    return f"{kind} ({'not found' if smallest is None else f'from {smallest:.3g} {unit}'})"


def selftest(
    run: Run,
    *,
    kinds: Iterable[str] | None = None,
    at: Sequence[float] = (0.3, 0.6, 0.9),
    rules: Rules | Mapping[str, Any] | None = None,
    norms: Norms | Path | str | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> SelfTest:
    """Which faults the diagnosis would have caught in `run`, and from which size on.

    Every fault of `kinds` (default: all of `analysis.inject.FAULTS`) is planted at each place of `at` (shares of the
    run, or steps) at its default size, and judged by the check concerned; at the middle place the whole diagnosis says
    what else comes of it. Then the smallest size that is still found at half of the places or more is searched on a
    geometric grid of 10 % steps, by bisection. Found means: a finding of that kind, warning or worse (of kinds that are
    information by design: any), that the run as it is does not have, and that begins within a tenth of the run from the
    onset (more for faults that grow slowly, see `analysis.injection`). The search takes it that what is larger is not
    harder to find. What is not found at default size is tried up to
    a thousand times of it. 1,000 points of ten series take some ten seconds.

    `rules` and `norms` are those of `diagnose`: what a project ignores is not found here either, and its own limits
    count. `progress` is called as `progress(done, total, kind)`. A run that is not healthy is a poor basis, which
    `basis` says; a log without any number can show nothing, and every row says so. Raises `ValueError` for an unknown
    kind and for places that are none.

    >>> import numpy as np, polars as pl
    >>> from parsers.finish import finish
    >>> noise = np.random.default_rng(0).normal(0, 0.05, 300)
    >>> loss = (2 * np.exp(-np.arange(300) / 60) + 0.5) * np.exp(noise)
    >>> run = finish("r", "r", "jsonl", pl.DataFrame({"tag": ["loss"] * 300, "step": range(300), "value": loss}))
    >>> tested = selftest(run, kinds=["loss-spike", "overfitting"])
    >>> tested.frame["default_size_found"].to_list(), tested.frame["smallest_found"][0] < 3
    ([True, False], True)
    >>> print(tested.frame["not_injectable"][1])
    r: overfitting cannot be planted: the log has no eval loss; record it: rec.log(step, {'loss': loss}, split='eval')
    """
    wanted = list(FAULTS) if kinds is None else [fault_of(kind).kind for kind in dict.fromkeys(kinds)]
    places = tuple(at)
    if not places:
        raise ValueError("at is empty: give one place or more, as shares of the run (0.6) or steps (4200)")
    _ = run.scalars  # read once: every fault is planted into the same numbers
    judge = Judge(rules if isinstance(rules, Rules) else rules_of(rules or {}), _norms_of(norms))
    basis = judge(run)
    rows = []
    for number, kind in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted), kind)
        rows.append(_row(Trial(run, FAULTS[kind], _check_of(kind), judge, basis, places, seed).verdict()))
    return SelfTest(
        run=run.name,
        frame=pl.DataFrame(rows, schema=_FRAME, orient="row"),
        basis=basis.status,
        basis_kinds=_alarms(basis),
        judged_at=places,
    )


def _norms_of(norms: Norms | Path | str | None) -> Norms | None:
    """The norms, read once."""
    if norms is None:
        return None
    from analysis.norms import Norms, read_norms

    return norms if isinstance(norms, Norms) else read_norms(norms)


def _check_of(kind: str) -> str:
    return next(check.name for check in CHECKS if kind in check.kinds)


def _alarms(diagnosis: Diagnosis) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.kind for f in diagnosis.findings if f.severity != "info"))


def _row(verdict: Verdict) -> tuple[Any, ...]:
    fault = verdict.fault
    return (
        fault.kind,
        KINDS[fault.kind].family,
        verdict.metric,
        fault.unit,
        verdict.smallest,
        fault.default if fault.sized else None,
        verdict.found_at >= 0.5,
        verdict.found_at,
        verdict.delay,
        list(verdict.instead),
        verdict.unjudged,
        verdict.refused,
    )
