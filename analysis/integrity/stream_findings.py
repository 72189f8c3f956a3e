"""What is wrong with a log as a log, in findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.limits import Gauge
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["LARGE_HOLE", "Part", "judge_parts", "truncation"]

Whole = NDArray[np.int64]
#: Words with which the parsers say that input ends too early.
_CUT = re.compile(r"\b(is cut|was cut|cut here|cut off|no footer|without a footer|truncated)\b", re.IGNORECASE)
#: Rejects that tell of a doubt only: the record itself was read.
_READ = re.compile(r"\b(kept as an event|read without)\b", re.IGNORECASE)
#: Share of records that could not be read from which it is a warning, and critical.
_WARN_LOST, _CRITICAL_LOST = 0.01, 0.2
#: A hole of so many rhythms is worth a warning whatever its share of the run.
LARGE_HOLE = 10
#: Stalls that took so much of the wall time, and over an hour, are critical.
_CRITICAL_STALL, _HOUR_S = 0.25, 3600.0


@dataclass(frozen=True, eq=False)
class Part:
    """The longest series of one rank, attempt and split, with the places where something is wrong.

    `steps` as logged (empty where unknown); `every` its rhythm; `before`, `after` the steps around each hole;
    `sampled` says that only a random sample of its records is left, so that nothing can be said of missing ones;
    `backward` the records after which the step falls; `seconds` the intervals (empty without times) that begin at
    `starts`; `jumps`, `stalls` the intervals in which the clock is wrong or the run stood still.
    """

    rank: int
    attempt: int
    split: str
    tag: str
    records: int
    steps: Whole
    every: int | None
    before: Whole
    after: Whole
    backward: Whole
    seconds: NDArray[np.float64]
    starts: NDArray[np.float64]
    usual_s: float | None
    jumps: Whole
    stalls: Whole
    sampled: bool = False
    #: How many usual intervals each of `seconds` is long.
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def missing(self) -> int | None:
        """Steps in holes; None without a rhythm."""
        if self.every is None:
            return None
        return int((np.round((self.after - self.before) / self.every) - 1).sum())

    @property
    def where(self) -> str:
        """Rank, attempt and split in words, where they say something."""
        words = [self.split] if self.split else []
        words += [f"rank {self.rank}"] if self.rank else []
        words += [f"attempt {self.attempt}"] if self.attempt else []
        return f" ({', '.join(words)})" if words else ""

    def place(self, record: int) -> str:
        """A record in words: its step where known, else its number."""
        return f"step {self.steps[record]}" if len(self.steps) else f"record {record}"

    def step_at(self, record: int) -> int | None:
        """Step of a record, where known."""
        return int(self.steps[record]) if len(self.steps) else None


def truncation(run: Run, records: int) -> Iterator[Finding]:
    """Findings about input that was lost and about an event stream without its end."""
    reasons = [str(reason) for reason in run.rejects["reason"] if not _READ.search(str(reason))]
    cut = [reason for reason in reasons if _CUT.search(reason)]
    if reasons:
        yield _lost(run, len(reasons), records + run.events.height, cut)
    if not cut and run.format == "aftertrain" and (records or run.events.height):
        finding = _without_end(run)
        if finding is not None:
            yield finding


def _lost(run: Run, lost: int, read: int, cut: Sequence[str]) -> Finding:
    share = lost / (lost + read)
    severity: Severity = "critical" if share >= _CRITICAL_LOST and lost > 1 else "info"
    if severity == "info" and (share >= _WARN_LOST or cut):
        severity = "warning"
    first = run.rejects.row(0, named=True)
    end = run.last_step if cut and len(cut) == lost else None  # all that is lost comes after what was read
    place = f"{first['file']}:{first['line']}" if first["line"] is not None else str(first["file"])
    return Finding(
        "truncated-stream",
        severity,
        run.name,
        f"{lost} piece{'s' if lost > 1 else ''} of the log could not be read, {share:.1%} of its records"
        f"{f', {len(cut)} of them cut' if cut else ''}; the first is {place}: {first['reason']}",
        first_step=end,
        evidence={"rejects": lost, "cut": len(cut), "read": read, "share_lost": share, "first_reason": first["reason"]},
        causes=(
            "the process was killed while it wrote (cut lines)"
            if cut
            else "other text is mixed into the log (rejects)",
            "the disk was full, or the file was copied while it was written",
            "several processes write into one file",
        ),
        suggestions=(
            "look at the rejects of the run: each names its line and reason",
            "copy the log again from where it was written",
            "let every process write its own file",
        ),
    )


def _without_end(run: Run) -> Finding | None:
    ends = run.events_of("end")
    last = run.lazy().select(pl.col("attempt").max()).collect().item()
    done = ends.filter(pl.col("attempt") >= (last or 0))
    if done.is_empty():
        return Finding(
            "truncated-stream",
            "warning",
            run.name,
            f"the event stream has no end record after step {run.last_step}: the process was killed, or still runs",
            first_step=run.last_step,
            last_step=run.last_step,
            evidence={"end_records": ends.height, "last_attempt": last, "planned_steps": _planned(run)},
            causes=(
                "the process was killed (out of memory, time limit, pre-emption)",
                "the run is still being written",
            ),
            suggestions=(
                "look at the scheduler's log and the system's for the last minute of the run",
                "resume from the last checkpoint; close the recorder, or use it as a context manager",
            ),
        )
    status = payload_object(done["payload"][-1]).get("status")
    if status not in ("failed", "interrupted"):
        return None
    return Finding(
        "truncated-stream",
        "info",
        run.name,
        f"the run says that it {'failed' if status == 'failed' else 'was interrupted'} after step {run.last_step}",
        last_step=run.last_step,
        evidence={"end_records": ends.height, "status": str(status), "planned_steps": _planned(run)},
    )


def _planned(run: Run) -> int | None:
    return run.planned.max_steps


def judge_parts(run: str, parts: Sequence[Part], gauge: Gauge | None = None) -> list[Finding]:
    """One finding a kind about the part that shows it most, with the number of parts that show it."""
    gauge = Gauge() if gauge is None else gauge
    for part in parts:
        if part.missing is not None:
            gauge.keep("missing-steps", part.missing / max(_expected(part), 1))
    found = []
    for size, judge in (
        (lambda p: p.missing or 0, _missing),
        (lambda p: len(p.backward), _backward),
        (lambda p: len(p.jumps), _skew),
        (lambda p: float(p.seconds[p.stalls].sum()), _stall),
    ):
        shown = [part for part in parts if size(part)]
        if shown:
            found.append(judge(run, max(shown, key=size), len(shown), gauge))
    return found


def _expected(part: Part) -> int:
    """Steps that the rhythm of a part promises."""
    rises = bool(np.all(part.steps[1:] > part.steps[:-1]))  # nearly every part: then no step is there twice
    return (len(part.steps) if rises else len(np.unique(part.steps))) + (part.missing or 0)


def _missing(run: str, part: Part, parts: int, gauge: Gauge) -> Finding:
    missing, every = part.missing or 0, part.every or 1
    limit, scale = gauge.limits.of("missing-steps"), gauge.limits.scale("missing-steps")
    largest = int(np.argmax(part.after - part.before))
    expected = _expected(part)
    wide = int(part.after[largest] - part.before[largest]) // every - 1
    severity: Severity = "warning" if missing / expected >= limit or wide >= LARGE_HOLE * scale else "info"
    return Finding(
        "missing-steps",
        severity,
        run,
        f"{missing} of {expected} steps that a record every {every} step{'s' if every > 1 else ''} promises are missing"
        f"{part.where}, the largest hole from {part.before[largest]} to {part.after[largest]}",
        first_step=int(part.before[0]),
        last_step=int(part.after[-1]),
        evidence={
            "missing": missing,
            "expected": expected,
            "share_missing": missing / expected,
            "limit": limit,
            "every": every,
            "holes": len(part.before),
            "largest_hole": wide,
            "series": part.tag,
            "parts": parts,
        },
        causes=(
            "records were lost (a full disk, a queue that dropped them)",
            "the run was resumed after later steps were lost",
        ),
        suggestions=(
            "compare with the scheduler's log at these steps",
            "do not average over the hole as if it were there",
        ),
    )


def _backward(run: str, part: Part, parts: int, _: Gauge) -> Finding:
    to = part.steps[part.backward + 1]
    place = int(part.backward[0])
    count = len(part.backward)
    counts_again = count >= 2 and len(np.unique(to)) == 1 and int(to[0]) == int(part.steps.min())
    return Finding(
        "step-regression",
        "info" if counts_again else "warning",
        run,
        f"the step goes back {count} time{'s' if count > 1 else ''} within one attempt{part.where}, "
        f"first from {part.steps[place]} to {part.steps[place + 1]}"
        + (": it begins again each time, as a counter within epochs does" if counts_again else ""),
        first_step=int(part.steps[place + 1]),
        last_step=int(part.steps[part.backward[-1]]),
        evidence={
            "times": count,
            "from_step": int(part.steps[place]),
            "to_step": int(part.steps[place + 1]),
            "series": part.tag,
            "parts": parts,
        },
        causes=(
            "the run was resumed from a checkpoint without saying so (few times)",
            "several processes write into one log (many times)",
        ),
        suggestions=("log a global step that never falls", "give each process and each attempt its own file"),
    )


def _skew(run: str, part: Part, parts: int, gauge: Gauge) -> Finding:
    worst = int(part.jumps[np.argmax(np.abs(part.seconds[part.jumps]))])
    size = float(part.seconds[worst])
    return Finding(
        "clock-skew",
        "warning",
        run,
        f"the clock {'goes back' if size < 0 else 'leaps'} {len(part.jumps)} times{part.where}, at most by "
        f"{_duration(abs(size))} after {part.place(worst)}",
        first_step=part.step_at(int(part.jumps[0])),
        last_step=part.step_at(int(part.jumps[-1]) + 1),
        evidence={
            "times": len(part.jumps), "largest_s": size, "back_s": max(0.0, -float(part.seconds.min())),
            "limit": gauge.limits.of("clock-skew"), "series": part.tag, "parts": parts,
        },
        causes=(
            "local time was logged and summer time ended (an hour exactly)" if abs(size) in (3600.0, 7200.0) else
            "the machine's clock was set during the run",
            "records of several machines stand in one series",
        ),
        suggestions=("log UTC, and durations from a monotonic clock", "synchronise the machines (NTP)"),
    )  # fmt: skip


def _stall(run: str, part: Part, parts: int, gauge: Gauge) -> Finding:
    longest = int(part.stalls[np.argmax(part.seconds[part.stalls])])
    lost = float(part.seconds[part.stalls].sum())
    share = lost / max(float(part.seconds[part.seconds > 0].sum()), 1e-9)
    usual = part.usual_s or 0.0
    critical = share >= _CRITICAL_STALL and lost >= _HOUR_S
    return Finding(
        "stall",
        "critical" if critical else "warning",
        run,
        f"the log stood still for {_duration(float(part.seconds[longest]))} after {part.place(longest)}{part.where}, "
        f"where a record comes every {_duration(usual)}; {len(part.stalls)} such pauses take {share:.0%} of the time",
        first_step=part.step_at(int(part.stalls[0])),
        last_step=part.step_at(int(part.stalls[-1]) + 1),
        evidence={
            "stalls": len(part.stalls),
            "longest_s": float(part.seconds[longest]),
            "times_usual": float(part.times[part.stalls].max()),
            "limit": gauge.limits.of("stall"),
            "usual_s": usual,
            "lost_s": lost,
            "share_of_time": share,
            "parts": parts,
        },
        causes=(
            "waiting for data or a shared file system (no evaluation or checkpoint in the pause)",
            "the job was suspended, or a collective operation hung until its timeout",
        ),
        suggestions=(
            "look at the loader and the storage at that time",
            "log data time apart from step time",
        ),
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172800 else f"{seconds / 86400:.3g} days"
