"""The formulas of schedules give what the libraries give that people train with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as of_torch
from transformers import get_scheduler

from parsers.lr_schedule import SCHEDULES, Schedule, schedule_of

PEAK = 3e-4


def stepped(make: Callable[[torch.optim.Optimizer], object], steps: int, lr: float = PEAK) -> np.ndarray:
    """The rates that a real scheduler gives, one before each of its steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():  # OneCycleLR and others warn of how they are called, which is not judged here
            warnings.simplefilter("ignore")
            scheduler.step()  # type: ignore[attr-defined]
    return np.array(rates)


def planned(steps: int, **lr: object) -> np.ndarray:
    made, odd = schedule_of({"peak": PEAK, **lr})
    assert made is not None and not odd, odd
    return made.at(np.arange(steps), beyond="hold")


SIZES = [(20, 0), (20, 5), (137, 1), (300, 30), (1000, 999)]


@pytest.mark.parametrize(("total", "warmup"), SIZES)
@pytest.mark.parametrize(
    ("name", "own", "theirs"),
    [
        ("linear", {}, {}),
        ("cosine", {}, {}),
        ("cosine", {"cycles": 1.5}, {"num_cycles": 1.5}),
        ("cosine_with_restarts", {"cycles": 3}, {"num_cycles": 3}),
        ("polynomial", {"power": 2.0, "min": 1e-7}, {"power": 2.0, "lr_end": 1e-7}),
        ("polynomial", {"power": 0.9, "min": 1e-6}, {"power": 0.9, "lr_end": 1e-6}),
        ("constant", {}, {}),
        ("constant_with_warmup", {}, {}),
        ("inverse_sqrt", {}, {}),
        ("inverse_sqrt", {"decay_steps": 77}, {"timescale": 77}),
        ("cosine_with_min_lr", {"min": PEAK / 10}, {"min_lr_rate": 0.1}),
    ],
)
def test_schedules_are_those_of_transformers(name: str, own: dict, theirs: dict, total: int, warmup: int):
    asked = 0 if name == "constant" else warmup
    real = stepped(
        lambda o: get_scheduler(
            name, o, asked, total, scheduler_specific_kwargs=None if name == "constant" else theirs
        ),
        total,
    )
    ours = planned(total, schedule=name, warmup_steps=asked, total_steps=total, **own)
    np.testing.assert_allclose(ours, real, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("anneal", ["cosine", "linear", "1-sqrt"])
@pytest.mark.parametrize(("total", "warmup", "decay"), [(100, 10, 20), (333, 0, 100), (50, 25, 25)])
def test_warmup_stable_decay_is_that_of_transformers(total: int, warmup: int, decay: int, anneal: str):
    theirs = {"num_decay_steps": decay, "decay_type": anneal, "min_lr_ratio": 0.1}
    real = stepped(
        lambda o: get_scheduler("warmup_stable_decay", o, warmup, total, scheduler_specific_kwargs=theirs), total
    )
    ours = Schedule("wsd", PEAK, warmup, total, PEAK / 10, start=PEAK / 10, decay=decay, anneal=anneal)
    np.testing.assert_allclose(ours.at(np.arange(total)), real, rtol=1e-9)


@pytest.mark.parametrize("size", [12, 100, 777])
@pytest.mark.parametrize(
    ("lr", "theirs"),
    [
        ({"schedule": "CosineAnnealingLR", "min": 1e-5}, lambda o, n: of_torch.CosineAnnealingLR(o, n, eta_min=1e-5)),
        ({"schedule": "polynomial", "power": 2.0}, lambda o, n: of_torch.PolynomialLR(o, n, power=2.0)),
        ({"schedule": "linear", "min": PEAK / 4}, lambda o, n: of_torch.LinearLR(o, 1.0, 0.25, total_iters=n)),
        ({"schedule": "ExponentialLR", "gamma": 0.97}, lambda o, n: of_torch.ExponentialLR(o, 0.97)),
        ({"schedule": "StepLR", "step_size": 7, "gamma": 0.5}, lambda o, n: of_torch.StepLR(o, 7, 0.5)),
        ({"schedule": "MultiStepLR", "milestones": [3, 8, 50]}, lambda o, n: of_torch.MultiStepLR(o, [3, 8, 50])),
        (
            {"schedule": "cosine_with_restarts", "first_cycle": 5, "cycle_mult": 1, "min": 1e-6},
            lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, 5, 1, eta_min=1e-6),
        ),
        (
            {"schedule": "cosine_with_restarts", "first_cycle": 5, "cycle_mult": 2},
            lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, 5, 2),
        ),
        ({"schedule": "OneCycleLR"}, lambda o, n: of_torch.OneCycleLR(o, PEAK, total_steps=n)),
        (
            {"schedule": "onecycle", "pct_start": 0.1, "start": PEAK / 10, "min": PEAK / 1000},
            lambda o, n: of_torch.OneCycleLR(
                o, PEAK, total_steps=n, pct_start=0.1, div_factor=10, final_div_factor=100
            ),
        ),
    ],
)
def test_schedules_are_those_of_torch(lr: dict, theirs: Callable, size: int):
    real = stepped(lambda o: theirs(o, size), size)
    np.testing.assert_allclose(planned(size, total_steps=size, **lr), real, rtol=1e-6, atol=1e-12)


def test_a_cosine_that_is_stepped_beyond_its_end_rises_as_that_of_torch_does():
    real = stepped(lambda o: of_torch.CosineAnnealingLR(o, 50, eta_min=1e-5), 140)
    ours = Schedule("cosine", PEAK, total=50, minimum=1e-5).at(np.arange(140), beyond="continue")
    np.testing.assert_allclose(ours, real, rtol=1e-6)


def test_a_warm_up_in_front_of_step_decays_counts_as_a_sequence_of_torch_does():
    def sequence(o: torch.optim.Optimizer) -> object:
        first = of_torch.LinearLR(o, 0.1, 1.0, total_iters=10)
        return of_torch.SequentialLR(o, [first, of_torch.MultiStepLR(o, [20, 40])], [10])

    with warnings.catch_warnings():  # SequentialLR itself steps its schedulers before the optimizer
        warnings.simplefilter("ignore")
        real = stepped(sequence, 80)
    ours = Schedule("multistep", PEAK, 10, start=PEAK / 10, milestones=(20, 40), after_warmup=True)
    np.testing.assert_allclose(ours.at(np.arange(80)), real, rtol=1e-9)


def test_epochs_become_steps_by_their_length_and_stairs_hold_the_rate_within_one():
    made, odd = schedule_of(
        {"schedule": "cosine", "peak": 1.0, "total_steps": 10, "unit": "epoch", "steps_per_epoch": 50}
    )
    assert made is not None and not odd and made.end == 500
    stairs = made.at_steps(np.arange(500), stairs=True)
    assert len(set(stairs.tolist())) == 10 and stairs[49] == 1.0 and made.at_steps(250).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("lr", "said"),
    [
        ({}, "plan.lr.schedule: missing"),
        ({"schedule": 3}, "expected a name, found 3"),
        ({"schedule": "cosinus"}, "did you mean 'cosine'"),
        ({"schedule": "linear", "peak": 1.0}, "a linear schedule cannot be compared without total_steps"),
        ({"schedule": "multistep"}, "without milestones"),
        ({"schedule": "step"}, "without step_size"),
        ({"schedule": "exponential"}, "without gamma"),
        ({"schedule": "wsd", "total_steps": 5}, "without decay_steps"),
        ({"schedule": "cosine_with_restarts"}, "without first_cycle or total_steps"),
        ({"schedule": "constant", "peak": "high"}, "plan.lr.peak: expected a number of at least 0, found 'high'"),
        ({"schedule": "constant", "peak": math.nan}, "plan.lr.peak: expected a number"),
        ({"schedule": "constant", "warmup_steps": -3}, "plan.lr.warmup_steps: expected a number of at least 0"),
        ({"schedule": "multistep", "milestones": "30"}, "plan.lr.milestones: expected a list of numbers, found '30'"),
        ({"schedule": "constant", "unit": "token"}, "expected 'step' or 'epoch', found 'token'"),
        ({"schedule": "constant", "unit": "epoch"}, "nothing says how long one is"),
        ({"schedule": "constant", "warm": 3}, "plan.lr.warm: unknown key"),
    ],
)
def test_what_a_plan_does_not_say_or_says_wrongly_is_told(lr: dict, said: str):
    assert any(said in sentence for sentence in schedule_of(lr)[1])


@given(
    name=st.sampled_from(SCHEDULES),
    peak=st.floats(1e-12, 1e3),
    warmup=st.integers(0, 50),
    total=st.integers(1, 200),
    share=st.floats(0, 1),
    beyond=st.sampled_from(["hold", "continue"]),
)
def test_a_rate_never_leaves_the_span_from_nothing_to_the_peak(name, peak, warmup, total, share, beyond):
    made = Schedule(
        name,
        peak,
        warmup,
        total,
        peak * share,
        milestones=(3.0, 9.0),
        step_size=4.0,
        first_cycle=7.0 if share > 0.5 else None,
        decay=5.0,
        stated=frozenset({"min"}),
    )
    rates = made.at(np.arange(300), beyond=beyond)
    assert rates.shape == (300,) and np.isfinite(rates).all()
    assert rates.min() >= -1e-12 * peak and rates.max() <= peak * (1 + 1e-9)
