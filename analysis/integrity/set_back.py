"""A step that falls while the clock goes on as ever: a counter that was set back, and no process that began anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.findings import Finding
from analysis.integrity.stream_findings import Part
from parsers.run import Run

__all__ = ["goes_on", "set_back"]

#: Formats whose attempts the writer itself tells apart: there a restart is a fact.
_TOLD = ("aftertrain", "tensorboard")
#: Fewer intervals than this do not say what is usual.
_FEWEST = 10
#: In fewer seconds no process loads its libraries, its data and a checkpoint.
_TOO_SOON_S = 5.0


def goes_on(seconds: NDArray[np.float64], between: float) -> bool:
    """Whether the time between two records is one of the usual intervals, so that no restart can lie in it.

    It must not be longer than 95 % of the intervals; and where that is time enough to start a process, these must be so
    even (5 % and 95 % within a fifth of their middle) that a restart would have to hit the beat.

    >>> goes_on(np.array([0.5] * 20), 0.5), goes_on(np.array([0.5] * 20), 30.0), goes_on(np.full(20, 60.0), 20.0)
    (True, False, False)
    """
    if len(seconds) < _FEWEST:
        return False
    low, middle, high = np.quantile(seconds, [0.05, 0.5, 0.95])
    if not 0 <= between <= high * (1 + 1e-9) or middle <= 0:
        return False
    return bool(between < _TOO_SOON_S or (between >= low and high - low <= 0.4 * middle))


def set_back(run: Run, parts: Sequence[Part]) -> Iterator[Finding]:
    """A finding where a later attempt, which the steps alone made one, begins without any pause.

    A log without attempt numbers is parted where its steps go back, as a resumed run writes them. A resume takes time.
    Needs times, and ten intervals before.
    """
    if run.format in _TOLD or len(parts) < 2:
        return
    groups = [list(group) for _, group in groupby(parts, key=lambda part: (part.rank, part.split, part.tag))]
    for group in sorted(groups, key=lambda one: -sum(part.records for part in one)):  # the densest tells the step best
        for former, later in pairwise(sorted(group, key=lambda part: part.attempt)):
            if not len(former.steps) or not len(later.steps) or later.steps[0] > former.steps.max():
                continue
            between = _between(run, former, later)
            if between is not None and goes_on(former.seconds, between):
                yield _finding(run.name, former, later, between)
                return  # each split tells the same


def _between(run: Run, former: Part, later: Part) -> float | None:
    """Seconds from the last record of an attempt to the first of the next; None without times."""
    here = (pl.col("rank") == former.rank) & (pl.col("split") == former.split) & (pl.col("tag") == former.tag)
    rows = run.lazy().filter(here & pl.col("attempt").is_in([former.attempt, later.attempt]))
    times = rows.group_by("attempt").agg(first=pl.col("time").min(), last=pl.col("time").max()).collect()
    known = {row[0]: row[1:] for row in times.iter_rows()}
    end, begin = known[former.attempt][1], known[later.attempt][0]
    return None if end is None or begin is None else float((begin - end).total_seconds())


def _finding(run: str, former: Part, later: Part, between: float) -> Finding:
    last, first = int(former.steps[-1]), int(later.steps[0])
    usual = float(np.median(former.seconds))
    return Finding(
        "step-regression",
        "warning",
        run,
        f"the step goes back from {last} to {first}{former.where}, and the clock goes on by {between:.3g} s (usually "
        f"{usual:.3g} s): the counter was set back, for no process begins anew in that time",
        first_step=first,
        last_step=last,
        evidence={
            "times": 1,
            "from_step": last,
            "to_step": first,
            "seconds_between": between,
            "usual_seconds": usual,
            "series": former.tag,
        },
        causes=(
            f"the step counter was set back while training went on ({between:.3g} s between the records)",
            "another counter was logged from there on (of a phase, of an epoch, of batches)",
        ),
        suggestions=(
            "log a global step that never falls",
            f"add {last - first} steps to what follows before you draw it beside other runs",
        ),
    )
