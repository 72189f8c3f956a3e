from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.lr_schedule import SCHEDULES
from parsers.plans.schedule_names import schedule_named

TORCH = {
    "StepLR": "step", "MultiStepLR": "multistep", "ExponentialLR": "exponential", "CosineAnnealingLR": "cosine",
    "CosineAnnealingWarmRestarts": "cosine_with_restarts", "OneCycleLR": "onecycle", "PolynomialLR": "polynomial",
    "ReduceLROnPlateau": "plateau", "ConstantLR": None, "LinearLR": None, "CyclicLR": None, "LambdaLR": None,
    "SequentialLR": None, "ChainedScheduler": None, "MultiplicativeLR": None,
}  # fmt: skip
TRANSFORMERS = {
    "linear": "linear", "cosine": "cosine", "cosine_with_restarts": "cosine_with_restarts", "polynomial": "polynomial",
    "constant": "constant", "constant_with_warmup": "constant_with_warmup", "inverse_sqrt": "inverse_sqrt",
    "reduce_lr_on_plateau": "plateau", "cosine_with_min_lr": "cosine", "cosine_warmup_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd", "greedy": None,
}  # fmt: skip
OTHERS = {
    "get_cosine_schedule_with_warmup": "cosine", "get_linear_schedule_with_warmup": "linear",
    "get_cosine_with_hard_restarts_schedule_with_warmup": "cosine_with_restarts", "warmup_cosine": "cosine",
    "LinearWarmupCosineAnnealingLR": "cosine", "linear_warmup_cosine_decay": "cosine", "1cycle": "onecycle",
    "inverse-square-root": "inverse_sqrt", "poly": "polynomial", "WSD": "wsd", "none": "constant",
    "SchedulerType.COSINE": "cosine", "linear_warmup": None, "noam": None, "WarmupLR": None, "DDPMScheduler": None,
    "piecewise_constant": None, "": None, "...": None,
}  # fmt: skip


@pytest.mark.parametrize(("name", "form"), [*TORCH.items(), *TRANSFORMERS.items(), *OTHERS.items()])
def test_names_of_libraries_mean_what_they_do_and_open_ones_nothing(name: str, form: str | None) -> None:
    assert schedule_named(name) == form
    assert form is None or form in SCHEDULES


def test_every_scheduler_of_torch_is_known_or_left_open_on_purpose() -> None:
    import torch.optim.lr_scheduler as schedulers

    there = {name for name in schedulers.__all__ if name != "LRScheduler"}
    assert there <= set(TORCH), "a scheduler that torch added is to be looked at"


@given(st.text(max_size=200))
def test_any_text_is_a_known_schedule_or_none(text: str) -> None:
    assert schedule_named(text) in (None, *SCHEDULES)
