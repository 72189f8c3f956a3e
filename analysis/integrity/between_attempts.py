"""Steps that are missing between two attempts of a run: the later one begins well after the earlier ones ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.integrity.stream_findings import LARGE_HOLE, Part

__all__ = ["Gap", "gaps_between", "judge_gaps"]

#: Looks up the steps of a rank and split, between two steps, that any series of theirs has.
Lookup = Callable[[Part, int, int], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """What is missing before `part`, a later attempt: the steps around each hole, and the attempt that ended before."""

    part: Part
    former: int
    before: NDArray[np.int64]
    after: NDArray[np.int64]

    @property
    def missing(self) -> int:
        """Records that the rhythm of the part promises and nobody has."""
        return int((np.round((self.after - self.before) / (self.part.every or 1)) - 1).sum())


def gaps_between(parts: Sequence[Part], logged: Lookup) -> Iterator[Gap]:
    """The holes before the first step of each attempt that begins after all earlier ones of its series have ended.

    A hole is wider than one and a half rhythms; of two attempts with different rhythms the wider counts. A part without
    steps or without a rhythm is judged with nothing, and what any series of the rank and split has (`logged`) is there.
    """
    for _, group in groupby(parts, key=lambda part: (part.rank, part.split)):
        end: int | None = None
        former, every = 0, 0
        for part in sorted(group, key=lambda part: part.attempt):
            if not len(part.steps):
                continue
            first, widest = int(part.steps.min()), max(every, part.every or 0)
            if end is not None and part.every and first - end > 1.5 * widest:
                gap = _gap(part, former, widest, np.concatenate([[end], logged(part, end, first), [first]]))
                if len(gap.before):
                    yield gap
            last, every = int(part.steps.max()), part.every or every
            if end is None or last > end:
                end, former = last, part.attempt


def _gap(part: Part, former: int, every: int, steps: NDArray[np.int64]) -> Gap:
    steps = np.unique(steps)
    wide = np.flatnonzero(np.diff(steps) > 1.5 * every)
    return Gap(part, former, steps[wide], steps[wide + 1])


def judge_gaps(run: str, gaps: Sequence[Gap], scale: float = 1.0) -> list[Finding]:
    """One finding about the widest gap, with the number of all; none where nothing is missing.

    It is a warning from 10 records on, times `scale`.
    """
    if not gaps:
        return []
    gap = max(gaps, key=lambda one: one.missing)
    part, every = gap.part, gap.part.every or 1
    first, last = int(gap.before[0]), int(gap.after[-1])
    severity: Severity = "warning" if gap.missing >= LARGE_HOLE * scale else "info"
    several = f"; {len(gaps)} attempts begin like that" if len(gaps) > 1 else ""
    where = f" of rank {part.rank}" if part.rank else ""
    return [
        Finding(
            "missing-steps",
            severity,
            run,
            f"attempt {gap.former}{where} ends at step {first} and attempt {part.attempt} begins at step {last}: "
            f"{gap.missing} records, one every {every} step{'s' if every > 1 else ''}, are missing between{several}",
            first_step=first,
            last_step=last,
            evidence={
                "missing": gap.missing,
                "every": every,
                "attempt_before": gap.former,
                "attempt_after": part.attempt,
                "series": part.tag,
                "parts": len(gaps),
            },
            causes=(
                f"the log between the last save or flush of attempt {gap.former} and the restart is lost "
                f"({gap.missing} records to step {last})",
                "another process trained these steps and did not record them here",
            ),
            suggestions=(
                "look for the log of the attempt between, on the machine that trained it",
                "flush the log at every checkpoint, so that both are lost together or not at all",
                "do not average over the hole as if it were there",
            ),
        )
    ]
