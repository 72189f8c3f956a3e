"""The indicators of a run's health: which kinds decide on each, and what it shows; none judges anything itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from analysis.diagnose import Diagnosis
from analysis.findings import Finding, status_of
from analysis.indicators.readings import Reading, level_of, measured, similarity, trend_of_loss
from analysis.kinds import KINDS
from analysis.limits import Limits

__all__ = ["INDICATORS", "Indicator", "State", "Vital", "states_of", "vital"]

State = Literal["healthy", "warning", "critical", "unknown"]


@dataclass(frozen=True, slots=True)
class Indicator:
    """A name, the kinds of finding that decide on it, and the number that it shows."""

    name: str
    kinds: tuple[str, ...]
    reading: Callable[[Diagnosis], Reading | None]


@dataclass(frozen=True, slots=True)
class Vital:
    """An indicator of one run: its state with the reason, its number, and what range of it is healthy."""

    name: str
    state: State
    reason: str
    healthy: str
    reading: Reading | None
    first_step: int | None
    findings: tuple[Finding, ...]


def _measure(kind: str) -> Callable[[Diagnosis], Reading | None]:
    return lambda diagnosis: measured(diagnosis, kind)


def _level(role: str) -> Callable[[Diagnosis], Reading | None]:
    return lambda diagnosis: level_of(diagnosis.source, role)


INDICATORS: tuple[Indicator, ...] = (
    Indicator("loss_trend", ("divergence", "plateau", "oscillation"), lambda d: trend_of_loss(d.source)),
    Indicator("finite_numbers", ("non-finite", "hidden-non-finite"), lambda d: None),
    Indicator("gradient_norm", ("exploding-gradient", "vanishing-gradient", "clipping"), _level("grad_norm")),
    Indicator("parameter_norm", ("update-ratio",), _level("param_norm")),
    Indicator("learning_rate", ("lr-schedule",), _level("learning_rate")),
    Indicator("memory", ("memory-growth", "memory-overflow"), _level("memory")),
    Indicator("throughput", ("throughput-drop", "stall"), _measure("throughput-drop")),
    Indicator("mode_collapse", ("mode-collapse",), _measure("mode-collapse")),
    Indicator("discriminator_dominance", ("discriminator-dominance",), _measure("discriminator-dominance")),
    Indicator("generator_dominance", ("generator-dominance",), _measure("generator-dominance")),
    Indicator("discriminator_skill", ("discriminator-idle",), _measure("discriminator-idle")),
    Indicator("imbalance", ("player-imbalance",), _measure("player-imbalance")),
    Indicator("speaker_similarity", ("embedding-collapse", "low-separation"), similarity),
)


def vital(indicator: Indicator, diagnosis: Diagnosis, limits: Limits) -> Vital:
    """The indicator by what a diagnosis found: the worst finding of its kinds, `unknown` where none could be judged."""
    found = tuple(f for f in diagnosis.findings if f.kind in indicator.kinds)
    state, first = _state(indicator, diagnosis), None
    if found:  # a diagnosis has its findings in order, the worst first
        why, first = found[0].message, found[0].first_step
    elif state == "healthy":
        why = f"looked for and not found: {', '.join(k for k in indicator.kinds if k in diagnosis.judged)}"
    else:
        why = next((n.reason for n in diagnosis.not_applicable if n.kind in indicator.kinds), "not asked for")
    return Vital(indicator.name, state, why, _range(indicator, limits), indicator.reading(diagnosis), first, found)


def states_of(diagnosis: Diagnosis) -> dict[str, State]:
    """The state of each indicator without its number: nothing of the run is read."""
    return {indicator.name: _state(indicator, diagnosis) for indicator in INDICATORS}


def _state(indicator: Indicator, diagnosis: Diagnosis) -> State:
    found = [f for f in diagnosis.findings if f.kind in indicator.kinds]
    judged = any(kind in diagnosis.judged for kind in indicator.kinds)
    return status_of(found) if found or judged else "unknown"


def _range(indicator: Indicator, limits: Limits) -> str:
    """The limits in force, of the kinds that have one."""
    told = []
    for kind in indicator.kinds:
        if (limit := KINDS[kind].limit) is not None:
            side = "below" if limit.above else "above"
            told.append(
                f"{side} {limits.of(kind):.3g} {limit.unit}" + (f" ({kind})" if len(indicator.kinds) > 1 else "")
            )
    return "; ".join(told)
