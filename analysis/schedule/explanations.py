"""Why an observed learning rate is not the planned one: the best explanation, in words with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from analysis.schedule.candidates import Candidate, Scene, candidates, stairs_of
from analysis.schedule.compared import Compared, rising_in_a_line, shapes_of
from analysis.schedule.rates import Rate, Surroundings
from analysis.schedule.search import evidence_of
from analysis.schedule.words import WORDS
from parsers.lr_schedule import Schedule

__all__ = ["CANNOT_TELL", "Explanation", "explain"]

#: The share of rows that a schedule must give within 0.2 % of the peak to count as what happened.
_CLOSELY = 0.98
#: Else within 2 %, where it also leaves at most this share of the distance from the plan.
_WITHIN, _LEFT = 0.95, 0.2
#: A schedule that leaves more room than this (in peaks, within one step) says little; beyond the second, nothing.
_NARROW, _WIDE = 0.3, 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What happened instead of the plan: `name` (a key of `words.EXPLANATIONS`), `sentence` with the numbers.

    `causes` and `suggestions` belong to it, `candidate` is the schedule that gives the observed rates (None where
    none was found).
    """

    name: str
    sentence: str
    causes: tuple[str, ...]
    suggestions: tuple[str, ...]
    candidate: Candidate | None = None


CANNOT_TELL = Explanation(
    "cannot-tell",
    "no simple change of the plan gives these rates; it cannot be told from this log what happened",
    ("the plan that was read is not the one that was used: no change of one of its numbers gives the observed rates",),
    (
        "compare the plan with the code that makes the scheduler",
        "record the scheduler's state (last_epoch, _step_count) beside the rate, so that the log can tell",
    ),
)


def explain(rate: Rate, declared: Schedule, compared: Compared, around: Surroundings) -> Explanation:
    """The simplest change of the plan that gives the observed rates; `CANNOT_TELL` where none does.

    A change that gives 98 % of the rows within 0.2 % of the peak (and one step, see `envelope`) is taken at once, in
    the order from simple to complex; else the best of those that give 95 % within 2 %, where it leaves at most a fifth
    of the distance from the plan.
    """
    seen: list[tuple[Scene, Candidate]] = []
    for scene in _scenes(rate, declared, compared.schedule, around):
        for one in candidates(scene):
            if one.fit.closely >= _CLOSELY and one.fit.width <= _NARROW:
                return _worded(scene, one)
            seen.append((scene, one))
    left = _LEFT * float(compared.apart.mean())
    near = [(scene, one) for scene, one in seen if one.fit.within >= _WITHIN and one.fit.error <= left]
    narrow = [pair for pair in near if pair[1].fit.width <= _NARROW]
    wide = [pair for pair in near if _NARROW < pair[1].fit.width <= _WIDE]
    best = min(narrow or wide, key=lambda pair: pair[1].fit.error, default=None)
    return CANNOT_TELL if best is None else _worded(*best)


def _scenes(rate: Rate, declared: Schedule, best: Schedule, around: Surroundings) -> Iterator[Scene]:
    """The plan as declared, then in the reading that was nearest, then with other shapes of what it left unsaid.

    The nearest reading of a plan that was missed may be led astray by what went wrong.
    """
    peak = best.peak if rate.multiplier or "peak" not in declared.stated else declared.peak
    first = replace(declared, peak=peak)
    found = evidence_of(rate, max(peak, float(rate.values.max(initial=0.0))) or 1.0)
    stairs = stairs_of(rate)
    per_epoch = rate.steps_per_epoch if declared.tick == 1 else declared.tick
    shapes = (replace(first, anneal=shape) for shape in shapes_of(first))
    for plan in dict.fromkeys((first, best, *rising_in_a_line(first), *shapes)):
        yield Scene(rate, plan, found, around, per_epoch, stairs)


def _worded(scene: Scene, one: Candidate) -> Explanation:
    sentence, causes, suggestions = WORDS[one.name](scene, one)
    if one.factor != 1.0:
        sentence += f", and every rate is {one.factor:.3g} times the planned one"
    return Explanation(one.name, sentence, causes, suggestions, one)
