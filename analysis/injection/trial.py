"""One fault on trial: planted at several places and sizes, diagnosed, and held against what the run has by itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis.diagnose import Diagnosis, diagnose
from analysis.findings import Finding
from analysis.inject import inject
from analysis.injection.fault import Fault
from analysis.rules import Rules
from eventstream.errors import InputError
from parsers.run import Run

if TYPE_CHECKING:
    from analysis.norms import Norms

__all__ = ["Judge", "Trial", "Verdict", "found_in", "grid"]

#: Sizes of the grid are this far apart: what they do to the log, over its smallest effect.
_STEP = 1.1
#: The smallest effect of the grid, as a share of the default's, and the largest: what lies beyond is of no use.
_SMALL, _LARGE = 1e-3, 1e3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a fault: the smallest size found (None where none, or it has no size), the share of the places at
    which it was found at default size, the mean delay there, what else was said, and why it was not
    judged, or could not be planted."""

    fault: Fault
    metric: str | None = None
    smallest: float | None = None
    found_at: float = 0.0
    delay: float | None = None
    instead: tuple[str, ...] = ()
    unjudged: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The diagnosis, with the rules and norms of a project."""

    rules: Rules
    norms: Norms | None = None

    def __call__(self, run: Run, *checks: str) -> Diagnosis:
        """The judgement of a run, by some checks or (without any) by all."""
        return diagnose(run, checks=checks or None, rules=self.rules, norms=self.norms)


@dataclass(slots=True, eq=False)
class Trial:
    """A fault, the check that should find it, who judges, the diagnosis of the run as it is, and where to plant."""

    run: Run
    fault: Fault
    check: str
    judge: Judge
    basis: Diagnosis
    places: Sequence[float]
    seed: int = 0
    _seen: dict[float, bool] = field(default_factory=dict)

    def verdict(self) -> Verdict:
        """Planted at default size everywhere, then smaller, or larger where that was not found."""
        fault = self.fault
        planted, reasons = self._planted()
        if not planted:
            return Verdict(fault, refused=reasons[0])
        hits = [self._hit(made, self.check) for made in planted.values()]
        found_at = sum(hit is not None for hit in hits) / len(hits)
        self._seen[fault.default] = 2 * found_at >= 1
        delays = [hit[1] for hit in hits if hit is not None and hit[1] is not None]
        middle = list(planted.values())[len(planted) // 2]
        whole = self.judge(middle)
        return Verdict(
            fault,
            metric=_note(middle).metric,
            smallest=self._smallest(list(planted)) if fault.sized else None,
            found_at=found_at,
            delay=float(np.mean(delays)) if delays else None,
            instead=self._besides(whole, hits[len(planted) // 2] is not None),
            unjudged=next((n.reason for n in whole.not_applicable if n.kind == fault.kind), ""),
        )

    def _planted(self) -> tuple[dict[float, Run], list[str]]:
        """The run with the fault at default size at every place where it can be, and why it cannot at others."""
        planted: dict[float, Run] = {}
        reasons = []
        for place in self.places if self.fault.placed else self.places[:1]:
            try:
                planted[place] = inject(self.run, self.fault.kind, at=place, seed=self.seed)
            except InputError as error:
                reasons.append(str(error))
        return planted, reasons

    def _hit(self, made: Run, *checks: str) -> tuple[Finding, float | None] | None:
        findings = self.judge(made, *checks).findings
        return found_in(findings, self.basis.findings, self.fault, _note(made).step, self._span)

    @property
    def _span(self) -> float:
        """Steps from the first to the last of the run."""
        first = self.run.catalogue["first_step"].min()
        last = self.run.last_step
        return float((last or 0) - first) if isinstance(first, int) else 0.0

    def _is_found(self, size: float, places: list[float]) -> bool:
        """Whether a size is found at half of the places or more; asked of as few as decide it."""
        if size not in self._seen:
            hits = misses = 0
            for place in places:
                made = inject(self.run, self.fault.kind, at=place, size=size, seed=self.seed)
                hit = self._hit(made, self.check)
                hits, misses = hits + (hit is not None), misses + (hit is None)
                if 2 * hits >= len(places) or 2 * misses > len(places):
                    break
            self._seen[size] = 2 * hits >= len(places)
        return self._seen[size]

    def _smallest(self, places: list[float]) -> float | None:
        """The smallest size of the grid that is found, by bisection from the default down, or up from it."""
        sizes = grid(self.fault)
        middle = sizes.index(self.fault.default)
        if self._is_found(sizes[middle], places):
            low, high = 0, middle
            if self._is_found(sizes[0], places):
                return sizes[0]
        else:
            low, high = middle, len(sizes) - 1
            if middle == high or not self._is_found(sizes[-1], places):
                return None
        while high - low > 1:
            half = (low + high) // 2
            low, high = (low, half) if self._is_found(sizes[half], places) else (half, high)
        return sizes[high]

    def _besides(self, diagnosis: Diagnosis, hit: bool) -> tuple[str, ...]:
        """Kinds of warning or worse that the run has not by itself, without the one that was planted and found.

        That kind is among them where it was reported, and for another place.
        """
        own = {_key(f) for f in self.basis.findings}
        said = (f for f in diagnosis.findings if f.severity != "info" and _key(f) not in own)
        return tuple(sorted({f.kind for f in said} - ({self.fault.kind} if hit else set())))


def grid(fault: Fault) -> list[float]:
    """Sizes of rising effect, 10 % apart, from a thousandth of the default's effect to a thousand times it.

    The effect of a size is its distance from the size that changes nothing; of sizes that multiply beyond tenfold (a
    gradient norm times 1,000) its logarithm. Whole numbers where the fault counts.

    >>> from analysis.inject import FAULTS
    >>> sizes = grid(FAULTS["level-shift"])
    >>> sizes.index(2.0) > 10, round(sizes[sizes.index(2.0) - 1], 3)
    (True, 1.909)
    """
    many = fault.nothing == 1 and fault.default > 10
    default = math.log(fault.default) if many else fault.default - fault.nothing
    count = round(math.log(1 / _SMALL, _STEP))
    effects = [default * _STEP**n for n in range(-count, count + 1)]
    top = math.log(fault.highest) if many else fault.highest - fault.nothing
    sizes = [math.exp(e) if many else fault.nothing + e for e in effects if e <= top * (1 + 1e-12)]
    if fault.counted:
        sizes = [float(round(size)) for size in sizes]
    kept = {fault.default, *(s for s in sizes if fault.lowest <= s <= fault.highest and s != fault.nothing)}
    return sorted(s for s in kept if s == fault.default or abs(s - fault.default) > 1e-9 * abs(fault.default))


def found_in(
    findings: Iterable[Finding], own: Iterable[Finding], fault: Fault, onset: int | None, span: float
) -> tuple[Finding, float | None] | None:
    """The finding that names the fault, and how far it is from the onset as a share of the run; None for none.

    A finding names it when it is of its kind, a warning or worse (unless the kind is information by design), not one
    of those that the run has by itself, and begins near the onset. The nearest counts.
    """
    known = {_key(f) for f in own}
    fit: list[tuple[float, Finding, float | None]] = []
    for finding in findings:
        if finding.kind != fault.kind or (finding.severity == "info" and not fault.info) or _key(finding) in known:
            continue
        delay = _delay(finding, onset, span)
        if delay is None or delay <= fault.tolerance:
            fit.append((delay or 0.0, finding, delay))
    nearest = min(fit, key=lambda one: one[0], default=None)
    return None if nearest is None else (nearest[1], nearest[2])


def _delay(finding: Finding, onset: int | None, span: float) -> float | None:
    """Distance of a finding's beginning from the onset; None where either has no step."""
    begins = finding.first_step if finding.first_step is not None else finding.last_step
    if onset is None or begins is None or not span:
        return None
    return abs(begins - onset) / span


def _key(finding: Finding) -> tuple[str, str, str | None, int | None]:
    return finding.kind, finding.severity, finding.metric, finding.first_step


@dataclass(frozen=True, slots=True)
class _Note:
    """The step of the onset and the metric, as `inject` wrote them down."""

    step: int | None
    metric: str | None


def _note(run: Run) -> _Note:
    told = json.loads(run.events_of("injected")["payload"][-1])
    return _Note(told["step"], told["metric"])
