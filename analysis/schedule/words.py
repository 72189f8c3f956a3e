"""The words of each explanation: what happened, why it may have, and what to do, with the numbers of the case."""

from __future__ import annotations

from collections.abc import Callable

from analysis.schedule.candidates import Candidate, Scene
from analysis.schedule.rates import Rate

__all__ = ["EXPLANATIONS", "WORDS", "slightly_late"]

#: Name of each explanation -> what it says of a schedule, in general.
EXPLANATIONS = {
    "zero": "the rate is 0 all along",
    "wrong-peak": "every rate is the planned one times one factor",
    "not-restored": "after a resume the schedule begins again from its start",
    "never-decays": "the rate stays at its peak",
    "stepped-too-often": "the scheduler is stepped several times a step",
    "stepped-per-epoch": "the scheduler is stepped once an epoch instead of once a step",
    "epochs-as-steps": "lengths that were meant in epochs are counted in steps",
    "micro-batches": "the log counts micro-batches and the scheduler optimiser steps",
    "other-length": "all lengths of the schedule are off by one factor",
    "no-warmup": "the warm-up is missing",
    "other-warmup": "the warm-up has another length",
    "other-end": "the decay ends elsewhere",
    "rises-again": "the rate rises again after the planned end",
    "other-minimum": "the decay ends at another rate",
    "other-cycles": "restarts come at another period",
    "other-milestones": "the drops come at other steps",
    "other-gamma": "the drops are larger or smaller",
    "other-power": "the polynomial has another power",
    "other-decay": "the decay has another length",
    "other-schedule": "another schedule was used",
    "made-anew": "the schedule begins again in the midst of the run",
    "shifted": "the schedule counts its steps from elsewhere",
    "single-record": "one record departs, and its neighbours are as planned",
    "cannot-tell": "no simple change of the plan gives these rates",
}

_Words = tuple[str, tuple[str, ...], tuple[str, ...]]


def _steps(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def _end(scene: Scene) -> float:
    return (scene.plan.total or 0.0) * scene.plan.tick


def _tail(one: Candidate, end: float) -> str:
    return f", and rises again after step {_steps(end)}" if one.fit.beyond == "continue" else ""


def _wrong_peak(scene: Scene, one: Candidate) -> _Words:
    c = one.number
    scaled = [f"{n} processes" for n in (scene.around.processes,) if n and abs(c / n - 1) < 0.02]
    scaled += [f"accumulation of {n}" for n in (scene.around.accumulation,) if n and abs(c / n - 1) < 0.02]
    causes = (
        *(f"the rate was scaled for {what}, as many as the configuration names" for what in scaled),
        "another base rate was set than the plan has: the observed rates are the planned ones times one factor",
        "a rule that scales the rate with the batch or the number of processes was applied, or applied twice",
    )
    tries = ("set the base rate of the optimizer to the planned peak", "state the scaled rate in the plan")
    return f"every rate is {c:.3g} times the planned one", causes, tries


def _not_restored(scene: Scene, one: Candidate) -> _Words:
    at = _steps(one.at or 0.0)
    causes = (f"the state of the scheduler was not restored: after step {at} the rate repeats that of the beginning",)
    tries = (
        "save and load scheduler.state_dict() with the optimizer's",
        "pass last_epoch to the scheduler at a resume",
    )
    return f"after the resume at step {at} the schedule begins again from its start", causes, tries


def _made_anew(scene: Scene, one: Candidate) -> _Words:
    at = _steps(one.at or 0.0)
    causes = (
        f"a new scheduler was made at step {at} (a phase began, or a restart that the log does not show)",
        "the scheduler's state was loaded from an earlier checkpoint",
    )
    return (
        f"at step {at} the schedule begins again from its start",
        causes,
        (
            "look at what the code does at that step",
            "keep one scheduler over all phases, or state the restart in the plan",
        ),
    )


def _never_decays(scene: Scene, one: Candidate) -> _Words:
    causes = (
        "scheduler.step() is not called once the warm-up is over: the rate stays at the peak",
        "the schedule was set up for far more steps than were trained, or is stepped once an epoch: it hardly began",
    )
    tries = ("call scheduler.step() after every optimizer.step()", "check the number of steps given to the scheduler")
    return "the decay never starts: the rate stays at its peak", causes, tries


def _too_often(scene: Scene, one: Candidate) -> _Words:
    k = round(1 / one.number)
    times = {2: "twice", 3: "three times"}.get(k, f"{k} times")
    causes = []
    if scene.around.processes == k:
        causes.append(f"a prepared scheduler is stepped once for each of the {k} processes (Accelerate)")
    if scene.around.accumulation == k:
        causes.append(f"it is stepped at each of the {k} micro-batches of an optimiser step")
    causes.append(
        f"scheduler.step() is called {times} a step (by the loop and by the framework): all lengths are 1/{k}"
    )
    if not scene.plan.warmup and scene.plan.total:
        causes.append(
            f"or it was set up for {_steps(_end(scene) / k)} steps; without a warm-up both give the same rates"
        )
    tries = ("call scheduler.step() in one place only, once an optimiser step", "count its calls for ten steps")
    end = _tail(one, _end(scene) * one.number)
    return f"the scheduler is stepped {times} a step: the schedule runs {k} times as fast{end}", tuple(causes), tries


def _per_epoch(scene: Scene, one: Candidate) -> _Words:
    k = _steps(one.number)
    epoch = f"an epoch has {k} steps" if scene.per_epoch else f"the rate changes every {k} steps"
    causes = (f"scheduler.step() is called once an epoch, and its lengths are in steps: {epoch}",)
    tries = ("call scheduler.step() after every optimizer.step()", "or give the scheduler its lengths in epochs")
    return f"the scheduler is stepped once every {k} steps, as once an epoch, instead of once a step", causes, tries


def _epochs_as_steps(scene: Scene, one: Candidate) -> _Words:
    k = _steps(1 / one.number)
    causes = (f"milestones and lengths in epochs were counted in steps: they come {k} times too early",)
    tries = ("call scheduler.step() once an epoch", "or multiply its lengths by the steps of an epoch")
    return f"lengths that were meant in epochs (of {k} steps) are counted in steps", causes, tries


def _micro_batches(scene: Scene, one: Candidate) -> _Words:
    k = _steps(one.number)
    causes = (f"gradients are accumulated over {k} micro-batches: the log counts these, the scheduler optimiser steps",)
    tries = ("log optimiser steps", f"or give the scheduler 1/{k} of the micro-batches as its length")
    return f"the scheduler is stepped once every {k} steps of the log, as gradients are accumulated", causes, tries


def _other_length(scene: Scene, one: Candidate) -> _Words:
    k, end = one.number, _end(scene)
    size = f": {_steps(end * k)} steps instead of {_steps(end)}" if end else ""
    causes = (
        "its lengths were computed from another number of steps (processes, batch, accumulation or epochs differ)",
        f"the scheduler is stepped {1 / k:.3g} times a step",
    )
    tries = ("compute total and warm-up steps from the optimiser steps of one process", "check where it is stepped")
    return f"all of the schedule is {k:.3g} times as long as planned{size}{_tail(one, end * k)}", causes, tries


def _no_warmup(scene: Scene, one: Candidate) -> _Words:
    length = _steps(scene.plan.warmup * scene.plan.tick)
    causes = (
        f"the warm-up was not given to the scheduler: the first rate is {scene.rate.values[0]:.3g}",
        "the run continues another, whose warm-up was over",
    )
    tries = (f"give the scheduler its {length} warm-up steps", "look at the loss and gradient norm of the first steps")
    return f"the warm-up of {length} steps is missing", causes, tries


def _other_warmup(scene: Scene, one: Candidate) -> _Words:
    plan = scene.plan
    planned = plan.warmup or (plan.pct_start or 0.3) * (plan.total or 0.0) * (plan.name == "onecycle")
    was, now = planned * plan.tick, one.number
    more = "longer" if now > was else "shorter"
    said = f"the warm-up takes {_steps(now)} steps instead of {_steps(was)} ({more})"
    if not was:
        said = f"the rate warms up for {_steps(now)} steps, which the plan does not have"
    causes = (
        "the warm-up was computed from another number of steps (a share of the total, or epochs)",
        "the warm-up steps of another configuration were used",
    )
    return said, causes, ("give the scheduler the planned warm-up steps",)


def _other_end(scene: Scene, one: Candidate) -> _Words:
    end = _end(scene)
    last = float(scene.rate.steps[-1])
    when = f"at step {_steps(one.number)}" if one.number <= last else f"only at step {_steps(one.number)}"
    early = "early" if one.number < end else "late"
    causes = (
        f"total_steps is {_steps(one.number)} instead of {_steps(end)}: epochs, batch or accumulation were counted"
        " otherwise",
    )
    tries = ("give the scheduler the number of optimiser steps that the run will make",)
    said = f"the decay ends too {early}, {when} instead of {_steps(end)}{_tail(one, one.number)}"
    return said, causes, tries


def _rises_again(scene: Scene, one: Candidate) -> _Words:
    causes = ("a cosine is stepped beyond its end (T_max of torch's CosineAnnealingLR) and climbs again",)
    tries = ("stop stepping the scheduler at its end, or set T_max to the steps of the run",)
    return f"the rate rises again after the planned end at step {_steps(one.number)}", causes, tries


def _other_minimum(scene: Scene, one: Candidate) -> _Words:
    said = f"the decay ends at {one.number:.3g} instead of {scene.plan.minimum:.3g}"
    return said, ("another minimum was given to the scheduler",), ("set the minimum (eta_min, min_lr) as planned",)


def _other_cycles(scene: Scene, one: Candidate) -> _Words:
    plan = scene.plan
    cycle = plan.first_cycle or ((plan.total or 0.0) - plan.warmup) / (plan.cycles or 1.0)
    said = f"the first restart comes after {_steps(one.number)} steps instead of {_steps(cycle * plan.tick)}"
    causes = ("the period was given in another unit (epochs, batches) or computed from another number of steps",)
    return said, causes, ("set the period (T_0, num_cycles) in the unit in which the scheduler is stepped",)


def _other_milestones(scene: Scene, one: Candidate) -> _Words:
    plan = scene.plan
    planned = (plan.milestones[0] if plan.milestones else plan.step_size or 0.0) * plan.tick
    said = f"the first drop comes at step {_steps(one.number)} instead of {_steps(planned)}"
    causes = ("the milestones are those of another configuration, or in another unit",)
    return said, causes, ("set the milestones in the unit in which the scheduler is stepped",)


def _number_of(what: str, key: str, planned: Callable[[Scene], float | None]) -> Callable[[Scene, Candidate], _Words]:
    def worded(scene: Scene, one: Candidate) -> _Words:
        was = planned(scene)
        said = f"{what} is {one.number:.4g}" + ("" if was is None else f" instead of {was:.4g}")
        return said, (f"another {key} was given to the scheduler",), (f"set {key} as planned",)

    return worded


def _other_schedule(scene: Scene, one: Candidate) -> _Words:
    used, planned = one.fit.schedule.name.replace("_", " "), scene.plan.name.replace("_", " ")
    causes = ("another scheduler was made than the plan names (a default of the framework, or an override)",)
    return f"the schedule is {used}, and {planned} was planned", causes, ("check which scheduler the code makes",)


def slightly_late(steps: float, rate: Rate) -> bool:
    """Whether a schedule is late by no more steps than mixed precision skips: its loss scale is found by overflows."""
    return 0 < steps <= max(0.05 * float(rate.steps[-1]), 40.0)


def _shifted(scene: Scene, one: Candidate) -> _Words:
    away = "later" if one.number > 0 else "earlier"
    skipped = "steps whose gradients overflowed were skipped, and the scheduler with them (mixed precision)"
    causes = (
        *((skipped,) if slightly_late(one.number, scene.rate) else ()),
        "the scheduler was continued from another run, or its count was set (last_epoch)",
        "the log counts its steps from elsewhere than the scheduler",
    )
    tries = (
        "compare the scheduler's last_epoch with the logged step",
        "reset it for a new run, restore it for a resumed",
    )
    return f"the schedule runs {_steps(abs(one.number))} steps {away} than the log counts", causes, tries


#: Name of an explanation -> its sentence, ranked causes and suggestions; those that no candidate tells are not here.
WORDS: dict[str, Callable[[Scene, Candidate], _Words]] = {
    "wrong-peak": _wrong_peak,
    "not-restored": _not_restored,
    "made-anew": _made_anew,
    "never-decays": _never_decays,
    "stepped-too-often": _too_often,
    "stepped-per-epoch": _per_epoch,
    "epochs-as-steps": _epochs_as_steps,
    "micro-batches": _micro_batches,
    "other-length": _other_length,
    "no-warmup": _no_warmup,
    "other-warmup": _other_warmup,
    "other-end": _other_end,
    "rises-again": _rises_again,
    "other-minimum": _other_minimum,
    "other-cycles": _other_cycles,
    "other-milestones": _other_milestones,
    "other-gamma": _number_of("the factor of the drops", "gamma", lambda s: s.plan.gamma),
    "other-power": _number_of("the power of the polynomial", "power", lambda s: s.plan.power),
    "other-decay": _number_of(
        "the length of the decay", "decay_steps", lambda s: None if s.plan.decay is None else s.plan.decay * s.plan.tick
    ),
    "other-schedule": _other_schedule,
    "shifted": _shifted,
}
