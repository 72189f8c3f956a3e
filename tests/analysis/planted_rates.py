"""Learning rates of real schedulers, as planned or with one of the mistakes that people make, written as logs are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.optim import lr_scheduler as of_torch
from transformers import get_scheduler

from parsers.finish import finish
from parsers.run import Run

PEAK = 3e-4
Make = Callable[[torch.optim.Optimizer, int], Any]


@dataclass(frozen=True)
class Family:
    """A schedule as the library makes it for `n` steps, and the plan that says the same."""

    name: str
    make: Make
    plan: Callable[[int], dict[str, Any]]
    warm: bool = False
    unwarmed: Make | None = None


def _hf(name: str, warm: Callable[[int], int], **own: Any) -> Make:
    return lambda o, n: get_scheduler(name, o, warm(n), n, scheduler_specific_kwargs=own or None)


def tenth(n: int) -> int:
    return max(n // 10, 2)


def nothing(n: int) -> int:
    return 0


def _wsd(warm: Callable[[int], int]) -> Make:
    return lambda o, n: get_scheduler(
        "warmup_stable_decay", o, warm(n), n, scheduler_specific_kwargs={"num_decay_steps": n // 4}
    )


def _plan(schedule: str, **own: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"schedule": schedule, "peak": PEAK, "total_steps": n, "warmup_steps": tenth(n), **own}


FAMILIES = (
    Family("linear", _hf("linear", tenth), _plan("linear"), True, _hf("linear", nothing)),
    Family("cosine", _hf("cosine", tenth), _plan("cosine"), True, _hf("cosine", nothing)),
    Family(
        "polynomial",
        _hf("polynomial", tenth, power=2.0, lr_end=1e-7),
        _plan("polynomial", power=2.0, min=1e-7),
        True,
        _hf("polynomial", nothing, power=2.0, lr_end=1e-7),
    ),
    Family("wsd", _wsd(tenth), lambda n: {**_plan("wsd")(n), "decay_steps": n // 4}, True, _wsd(nothing)),
    Family(
        "restarts",
        lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, n // 5),
        lambda n: {"schedule": "cosine_with_restarts", "peak": PEAK, "first_cycle": n // 5, "total_steps": n},
    ),
    Family(
        "multistep",
        lambda o, n: of_torch.MultiStepLR(o, [n // 3, n * 2 // 3], gamma=0.2),
        lambda n: {"schedule": "multistep", "peak": PEAK, "milestones": [n // 3, n * 2 // 3], "gamma": 0.2},
    ),
    Family(
        "exponential",
        lambda o, n: of_torch.ExponentialLR(o, 0.01 ** (1 / n)),
        lambda n: {"schedule": "exponential", "peak": PEAK, "gamma": 0.01 ** (1 / n)},
    ),
    Family(
        "onecycle",
        lambda o, n: of_torch.OneCycleLR(o, PEAK, total_steps=n),
        lambda n: {"schedule": "onecycle", "peak": PEAK, "total_steps": n},
    ),
)


def rates(
    make: Make, n: int, *, length: int | None = None, calls: Callable[[int], int] = lambda _: 1, lr: float = PEAK
):
    """The rate of each of `n` steps, under a scheduler made for `length` and stepped `calls(i)` times after step i."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    found = []
    with warnings.catch_warnings():  # schedulers warn of the order and number of calls, which are the mistakes here
        warnings.simplefilter("ignore")
        scheduler = make(optimizer, length or n)
        left = length or n  # OneCycleLR refuses to be stepped beyond its length
        for i in range(n):
            found.append(optimizer.param_groups[0]["lr"])  # the scheduler counts its own calls: no need to train
            for _ in range(calls(i)):
                left -= 1
                if left > 0 or not isinstance(scheduler, of_torch.OneCycleLR):
                    scheduler.step()
    return np.array(found)


def run_of(
    values: np.ndarray,
    plan: dict[str, Any] | None,
    *,
    first: int = 0,
    every: int = 1,
    attempt: np.ndarray | None = None,
    per_epoch: int | None = None,
    name: str = "lr",
    config: dict[str, Any] | None = None,
    max_steps: int | None = None,
    form: str = "jsonl",
    learns: bool = True,
) -> Run:
    """A log of the rates, every so many steps, with a loss that falls beside them."""
    steps = np.arange(len(values))
    keep = steps[::every]
    loss = 0.5 + 0.02 * np.sin(keep * 1.7) + 2.0 * (np.exp(-3.0 * keep / max(len(values), 1)) if learns else 1.0)
    rows = {
        "step": np.concatenate([keep, keep]) + first,
        "tag": [name] * len(keep) + ["loss"] * len(keep),
        "value": np.concatenate([values[keep], loss]),
        "attempt": np.concatenate([(attempt[keep] if attempt is not None else keep * 0)] * 2),
    }
    if per_epoch:
        rows["epoch"] = np.concatenate([keep, keep]) / per_epoch
    frame = pl.DataFrame(rows)
    frame = frame.with_columns(pl.col("attempt").cast(pl.Int32), pl.col("step").cast(pl.Int64))
    plans: dict[str, Any] = {} if plan is None else {"lr": plan}
    if max_steps is not None:
        plans["max_steps"] = max_steps
    return finish("r", "r", form, frame, plan=plans, config=config or {})


@dataclass(frozen=True)
class Planted:
    """A log with one mistake, and the names of the explanations that say it."""

    run: Run
    names: frozenset[str]


def _planted(run: Run, *names: str) -> Planted:
    return Planted(run, frozenset(names))


def twice(family: Family, n: int, every: int) -> Planted:
    values = rates(family.make, n, calls=lambda _: 2)
    return _planted(run_of(values, family.plan(n), every=every), "stepped-too-often")


def four_times(family: Family, n: int, every: int) -> Planted:
    values = rates(family.make, n, calls=lambda _: 4)
    return _planted(run_of(values, family.plan(n), every=every), "stepped-too-often")


def per_epoch(family: Family, n: int, every: int) -> Planted:
    length = max(n // 12, 2)
    values = rates(family.make, n, calls=lambda i: int((i + 1) % length == 0))
    # Of these a dozen ticks change nothing: the first milestone lies beyond the run, a cosine has hardly begun.
    never = ("never-decays",) if family.name in ("multistep", "restarts") else ()
    return _planted(run_of(values, family.plan(n), every=every, per_epoch=length), "stepped-per-epoch", *never)


def no_warmup(family: Family, n: int, every: int) -> Planted | None:
    if family.unwarmed is None:
        return None
    return _planted(run_of(rates(family.unwarmed, n), family.plan(n), every=every), "no-warmup")


def long_warmup(family: Family, n: int, every: int) -> Planted | None:
    if not family.warm:
        return None
    plan = family.plan(n)
    return _planted(run_of(rates(family.make, n), {**plan, "warmup_steps": tenth(n) // 3}, every=every), "other-warmup")


def wrong_peak(family: Family, n: int, every: int) -> Planted:
    values = rates(family.make, n) * 3.0
    return _planted(run_of(values, family.plan(n), every=every), "wrong-peak")


def never_decays(family: Family, n: int, every: int) -> Planted | None:
    if family.name == "onecycle":
        return None
    make = _hf("constant_with_warmup", tenth if family.warm else nothing)
    return _planted(run_of(rates(make, n), family.plan(n), every=every), "never-decays")


def half_total(family: Family, n: int, every: int) -> Planted:
    """Without a warm-up a schedule of half the length is the same as one that is stepped twice, and is said so too."""
    values = rates(family.make, n, length=n // 2)
    names = ["other-end", "other-length", "other-milestones", "other-cycles", "other-gamma"]
    also = ["stepped-too-often"]  # all lengths are halved, the warm-up with them: the same rates
    return _planted(run_of(values, family.plan(n), every=every), *names, *also)


def early_end(family: Family, n: int, every: int) -> Planted | None:
    """The warm-up as planned, the end too early."""
    if family.name not in ("linear", "cosine", "polynomial"):
        return None
    values = rates(family.make, n * 3 // 5, length=n * 3 // 5)
    plan = {**family.plan(n), "warmup_steps": tenth(n * 3 // 5)}
    values = np.concatenate([values, np.full(n - len(values), values[-1] * 0)])
    if family.name == "polynomial":
        values[n * 3 // 5 :] = 1e-7
    return _planted(run_of(values, plan, every=every), "other-end")


def too_long(family: Family, n: int, every: int) -> Planted:
    values = rates(family.make, n, length=n * 5 // 2)
    names = ("other-end", "other-length", "other-milestones", "other-cycles", "other-gamma")
    also = ("never-decays",) if family.name == "wsd" else ()
    return _planted(run_of(values, family.plan(n), every=every), *names, *also)


def not_restored(family: Family, n: int, every: int) -> Planted:
    border = n * 37 // 100  # in the midst of a cycle: at its end a restart would be as planned
    values = np.concatenate([rates(family.make, border, length=n), rates(family.make, n - border, length=n)])
    attempt = (np.arange(n) >= border).astype(int)
    return _planted(run_of(values, family.plan(n), every=every, attempt=attempt), "not-restored")


def batches(family: Family, n: int, every: int) -> Planted:
    """The log counts micro-batches, and the scheduler is stepped once in four of them."""
    values = rates(family.make, n, calls=lambda i: int((i + 1) % 4 == 0))
    run = run_of(values, family.plan(n), every=every, config={"gradient_accumulation_steps": 4})
    never = ("never-decays",) if family.name == "multistep" else ()
    return _planted(run, "micro-batches", *never)


def other_period(family: Family, n: int, every: int) -> Planted | None:
    if family.name != "restarts":
        return None
    values = rates(lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, n // 3), n)
    return _planted(run_of(values, family.plan(n), every=every), "other-cycles", "other-length")


def climbs_again(family: Family, n: int, every: int) -> Planted | None:
    """CosineAnnealingLR is stepped beyond its T_max, as planned until then."""
    if family.name != "cosine":
        return None
    values = rates(lambda o, n: of_torch.CosineAnnealingLR(o, n * 3 // 5), n)
    plan = {"schedule": "cosine", "peak": PEAK, "total_steps": n * 3 // 5}
    return _planted(run_of(values, plan, every=every), "rises-again")


def milestones_as_steps(family: Family, n: int, every: int) -> Planted | None:
    """Milestones in epochs, of a scheduler that is stepped at each step."""
    if family.name != "multistep":
        return None
    length = max(n // 12, 2)
    values = rates(lambda o, n: of_torch.MultiStepLR(o, [4, 8], gamma=0.2), n)
    plan = {"schedule": "multistep", "peak": PEAK, "milestones": [4, 8], "gamma": 0.2}
    plan |= {"unit": "epoch", "steps_per_epoch": length}
    run = run_of(values, plan, every=every, per_epoch=length)
    return _planted(run, "epochs-as-steps", *(("other-milestones",) if every > 1 else ()))


def other_factor(family: Family, n: int, every: int) -> Planted | None:
    if family.name != "multistep":
        return None
    values = rates(lambda o, n: of_torch.MultiStepLR(o, [n // 3, n * 2 // 3], gamma=0.5), n)
    return _planted(run_of(values, family.plan(n), every=every), "other-gamma")


def other_floor(family: Family, n: int, every: int) -> Planted | None:
    if family.name not in ("linear", "cosine"):
        return None
    values = rates(family.make, n)
    values[tenth(n) :] = 0.3 * PEAK + 0.7 * values[tenth(n) :]
    names = ["other-minimum", *(["other-end"] if family.name == "linear" else [])]  # a line that ends later is the same
    return _planted(run_of(values, family.plan(n), every=every), *names)


def another_schedule(family: Family, n: int, every: int) -> Planted | None:
    if family.name not in ("linear", "cosine"):
        return None
    return _planted(run_of(rates(_hf("inverse_sqrt", tenth), n), family.plan(n), every=every), "other-schedule")


def twice_and_tripled(family: Family, n: int, every: int) -> Planted:
    values = 3.0 * rates(family.make, n, calls=lambda _: 2)
    return _planted(run_of(values, family.plan(n), every=every), "stepped-too-often")


def zero(family: Family, n: int, every: int) -> Planted:
    return _planted(run_of(np.zeros(n), family.plan(n), every=every, learns=False), "zero")


FAULTS = (
    twice,
    four_times,
    per_epoch,
    no_warmup,
    long_warmup,
    wrong_peak,
    never_decays,
    half_total,
    early_end,
    too_long,
    not_restored,
    batches,
    other_period,
    climbs_again,
    milestones_as_steps,
    other_factor,
    other_floor,
    another_schedule,
    twice_and_tripled,
    zero,
)


# ---- as planned: every scheduler of the libraries, logged in every manner ----


def _sequence(o: torch.optim.Optimizer, n: int) -> Any:
    first = of_torch.LinearLR(o, 0.01, 1.0, total_iters=tenth(n))
    return of_torch.SequentialLR(o, [first, of_torch.CosineAnnealingLR(o, n - tenth(n))], [tenth(n)])


def _plateau(o: torch.optim.Optimizer, n: int) -> Any:
    scheduler = of_torch.ReduceLROnPlateau(o, factor=0.3, patience=n // 6)
    stepped = scheduler.step
    scheduler.step = lambda *_: stepped(1.0)  # type: ignore[method-assign]
    return scheduler


def _wsd_of(decay: str) -> Make:
    return lambda o, n: get_scheduler(
        "warmup_stable_decay",
        o,
        tenth(n),
        n,
        scheduler_specific_kwargs={"num_decay_steps": n // 5, "decay_type": decay, "min_lr_ratio": 0.1},
    )


def _bare(schedule: str, **own: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"schedule": schedule, "peak": PEAK, "total_steps": n, **own}


HEALTHY = (
    *FAMILIES,
    Family("constant", _hf("constant", nothing), _bare("constant")),
    Family("constant after a warm-up", _hf("constant_with_warmup", tenth), _plan("constant_with_warmup")),
    Family("inverse square root", _hf("inverse_sqrt", tenth), _plan("inverse_sqrt")),
    Family(
        "cosine to a tenth",
        _hf("cosine_with_min_lr", tenth, min_lr_rate=0.1),
        _plan("cosine_with_min_lr", min=PEAK / 10),
    ),
    Family("cosine to an end that nobody said", _hf("cosine_with_min_lr", tenth, min_lr_rate=0.1), _plan("cosine")),
    Family(
        "cosine whose warm-up starts at a rate",
        _hf("cosine_warmup_with_min_lr", tenth, min_lr_rate=0.1, warmup_lr_rate=0.05),
        _plan("cosine", min=PEAK / 10),
    ),
    Family("hard restarts", _hf("cosine_with_restarts", tenth, num_cycles=4), _plan("cosine_with_restarts", cycles=4)),
    Family(
        "step",
        lambda o, n: of_torch.StepLR(o, n // 4, 0.5),
        lambda n: {**_bare("step")(n), "step_size": n // 4, "gamma": 0.5},
    ),
    Family("polynomial of torch", lambda o, n: of_torch.PolynomialLR(o, n, power=0.9), _bare("polynomial", power=0.9)),
    Family("linear to a half", lambda o, n: of_torch.LinearLR(o, 1.0, 0.5, n), _bare("linear", min=PEAK / 2)),
    Family("cosine of torch", lambda o, n: of_torch.CosineAnnealingLR(o, n, PEAK / 50), _bare("cosine", min=PEAK / 50)),
    Family(
        "longer restarts",
        lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, max(n // 15, 2), 2),
        lambda n: {**_bare("cosine_with_restarts")(n), "first_cycle": max(n // 15, 2), "cycle_mult": 2},
    ),
    Family(
        "linear one cycle",
        lambda o, n: of_torch.OneCycleLR(o, PEAK, total_steps=n, anneal_strategy="linear"),
        _bare("onecycle"),
    ),
    Family("sequence of two", _sequence, _plan("cosine")),
    Family("plateau", _plateau, _bare("plateau")),
    Family(
        "linear last phase", _wsd_of("linear"), lambda n: {**_plan("wsd")(n), "decay_steps": n // 5, "min": PEAK / 10}
    ),
    Family("last phase of a root", _wsd_of("1-sqrt"), lambda n: {**_plan("wsd")(n), "decay_steps": n // 5}),
)


def plain(values: np.ndarray) -> np.ndarray:
    return values


def printed(form: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.array([float(format(v, form)) for v in values])


def single_precision(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def logged_late(values: np.ndarray) -> np.ndarray:
    """Written after the scheduler was stepped."""
    return np.append(values[1:], values[-1])


#: What is logged of the rates, from which step on, and how often.
MANNERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int, int]] = {
    "every step": (plain, 0, 1),
    "counted from 1": (plain, 1, 1),
    "after the scheduler's step": (logged_late, 0, 1),
    "every 10 steps, from 1": (plain, 1, 10),
    "every 50 steps": (plain, 0, 50),
    "printed to 3 figures": (printed(".2e"), 0, 1),
    "printed to 6 places": (printed(".6f"), 0, 1),
    "printed to 4 places": (printed(".4f"), 0, 1),
    "in single precision, every 7": (single_precision, 0, 7),
}


def healthy(family: Family, n: int, manner: str, *, with_plan: bool, resumed: bool = False) -> Run:
    """A log of a scheduler that did what was planned; `resumed` runs went on from where they were."""
    change, first, every = MANNERS[manner]
    attempt = (np.arange(n) >= n * 2 // 5).astype(int) if resumed else None
    form = "text" if "printed" in manner else "jsonl"
    return run_of(
        change(rates(family.make, n)),
        family.plan(n) if with_plan else None,
        first=first,
        every=every,
        attempt=attempt,
        form=form,
    )
