"""What counts as found, as true and as a false alarm, and the figures that follow, for any judge of logs.

- A finding counts from warning upward. It is true when one of its kinds is the planted fault, or one of the kinds that
  the truth names as its real consequences.
- A faulty run is found when the judge tells a true finding. Kinds that are information by design (`INFORMATION`) count
  at any level, and so do all findings of other programs, whose levels mean other things.
- It is named when a true finding has the planted kind itself, and placed when it also begins within 5 % of the run of
  where the fault does.
- Precision: true findings of all findings that count, over faulty runs. In `overall_precision` those of healthy runs
  stand below the line too.
- A false alarm is a finding that counts, in a healthy run.
- The onset error is the distance between the first step of the first true finding (of the planted kind, if there is
  one), in the order told, and the onset, over the length of the run. A finding that names no step speaks of the whole
  run: it is right about a fault that is there from the start, and of any other it tells no onset, and is not placed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_intervals import Interval, mean_of_shares, median_interval, poisson, wilson
from benchmarks.faults.score_truth import OBVIOUS_TO_MIDDLE, Truth

__all__ = ["INFORMATION", "PLACED", "Figure", "Outcome", "Score", "outcome_of", "score_of"]

#: Kinds whose findings are told as information, since they are facts about a log and no faults of a training.
#: Values that are carried on are of their sort: a way of logging, told as such, and no harm unless they hide how few
#: evaluations there are (then it is a warning).
INFORMATION = frozenset(
    {"outlier", "sampled-series", "micro-batch-steps", "epoch-only", "stale-values", "update-ratio", "clipping"}
)
#: So near to the onset, as a share of the run, a finding is placed.
PLACED = 0.05


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its 95 % interval; None where there was nothing to count."""

    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run held against its truth: the findings that are true, and the alarms that are not."""

    truth: Truth
    told: Told
    true: tuple[Found, ...]
    false: tuple[Found, ...]
    onset_error: float | None

    @property
    def found(self) -> bool:
        return bool(self.true)

    @property
    def named(self) -> bool:
        return any(self.truth.fault in one.kinds for one in self.true)

    @property
    def placed(self) -> bool:
        return self.named and self.onset_error is not None and self.onset_error <= PLACED


def outcome_of(truth: Truth, told: Told, *, any_level: bool = False) -> Outcome:
    """A run's findings parted into true and false ones; `any_level` takes information for found as well."""
    true, false = [], []
    for one in told.found:
        fits = truth.true_kinds & set(one.kinds)
        if fits and (one.counts or any_level or fits & INFORMATION):
            true.append(one)
        elif one.counts:
            false.append(one)
    true.sort(key=lambda one: truth.fault not in one.kinds)  # the planted kind before its consequences, else as told
    return Outcome(truth, told, tuple(true), tuple(false), _onset_error(truth, true))


def _onset_error(truth: Truth, true: Sequence[Found]) -> float | None:
    if not true:
        return None
    onset, said = truth.onset_step or 0, true[0].first_step
    if said is None:
        return 0.0 if onset <= PLACED * truth.last_step else None
    return abs(said - onset) / max(truth.last_step, 1)


@dataclass(frozen=True)
class Score:
    """The figures of one judge over some runs."""

    judge: str
    outcomes: tuple[Outcome, ...]
    faulty: tuple[Outcome, ...] = field(init=False)
    healthy: tuple[Outcome, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "faulty", tuple(one for one in self.outcomes if one.truth.fault is not None))
        object.__setattr__(self, "healthy", tuple(one for one in self.outcomes if one.truth.fault is None))

    @property
    def kinds(self) -> list[str]:
        """The faults that were planted, by name."""
        return sorted({str(one.truth.fault) for one in self.faulty})

    def cell(self, kind: str, magnitudes: Iterable[int], said: str = "found") -> tuple[int, int]:
        """Runs of a fault at some magnitudes that are `found` (or `named`, or `placed`), and all of them."""
        wanted = set(magnitudes)
        runs = [one for one in self.faulty if one.truth.fault == kind and one.truth.magnitude in wanted]
        return sum(getattr(one, said) for one in runs), len(runs)

    def recall(self, kind: str, magnitudes: Iterable[int], said: str = "found") -> Figure:
        hits, of = self.cell(kind, magnitudes, said)
        return Figure(hits / of if of else None, wilson(hits, of))

    def macro_recall(self, magnitudes: Iterable[int] = OBVIOUS_TO_MIDDLE, said: str = "found") -> Figure:
        """The mean over faults of their recall: each fault weighs the same, however many runs it has."""
        wanted = tuple(magnitudes)
        cells = [cell for cell in (self.cell(kind, wanted, said) for kind in self.kinds) if cell[1]]
        value = statistics.fmean(hits / of for hits, of in cells) if cells else None
        return Figure(value, mean_of_shares(cells))

    def precision(self, kind: str | None = None) -> Figure:
        """Over faulty runs, of one fault or of all."""
        runs = [one for one in self.faulty if kind in (None, one.truth.fault)]
        return _precision(runs)

    def overall_precision(self) -> Figure:
        """Over healthy runs too."""
        return _precision(self.outcomes)

    def precision_of_kind(self, kind: str) -> Figure:
        """Of the alarms that say `kind`, over all runs, those that are true."""
        true = sum(one.counts and kind in one.kinds for run in self.outcomes for one in run.true)
        false = sum(kind in one.kinds for run in self.outcomes for one in run.false)
        return _share(true, true + false)

    def false_alarms(self) -> Figure:
        """Per healthy run."""
        count, runs = sum(len(one.false) for one in self.healthy), len(self.healthy)
        return Figure(count / runs if runs else None, poisson(count, runs))

    def runs_flagged(self) -> Figure:
        """The share of healthy runs with a false alarm."""
        return _share(sum(bool(one.false) for one in self.healthy), len(self.healthy))

    def onset_error(self, kind: str | None = None) -> Figure:
        """The median over the runs found, of one fault or of all, as a share of the run."""
        errors = [
            one.onset_error for one in self.faulty if one.onset_error is not None and kind in (None, one.truth.fault)
        ]
        return Figure(statistics.median(errors) if errors else None, median_interval(errors))

    def confusion(self, kind: str) -> Counter[str]:
        """What is said in runs of a fault (magnitude 1 to 4) that is not found: names of findings, or nothing."""
        said: Counter[str] = Counter()
        for one in self.faulty:
            if one.truth.fault == kind and not one.found and one.truth.magnitude in OBVIOUS_TO_MIDDLE:
                said.update({false.name for false in one.false} or {"nothing"})
        return said

    def unread(self) -> list[Outcome]:
        """The runs whose log it could not read, or broke on."""
        return [one for one in self.outcomes if not one.told.read]

    def only_read(self) -> Score:
        """The same over the runs that it read."""
        return Score(self.judge, tuple(one for one in self.outcomes if one.told.read))


def _precision(runs: Iterable[Outcome]) -> Figure:
    true = false = 0
    for one in runs:
        true += sum(found.counts for found in one.true)
        false += len(one.false)
    return _share(true, true + false)


def _share(hits: int, of: int) -> Figure:
    return Figure(hits / of if of else None, wilson(hits, of))


def score_of(judge: str, truths: Sequence[Truth], told: Sequence[Told], *, any_level: bool = False) -> Score:
    """The score of what a judge told of runs, in their order."""
    pairs = zip(truths, told, strict=True)
    return Score(judge, tuple(outcome_of(truth, said, any_level=any_level) for truth, said in pairs))
