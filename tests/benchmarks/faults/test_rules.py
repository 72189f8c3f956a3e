"""Plain rules on series whose verdict can be seen, and their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from analysis.kinds import KINDS
from benchmarks.faults.rules import KINDS_OF, global_z, rolling_iqr, smdebug
from benchmarks.faults.rules_seen import Seen, Track, seen_of
from benchmarks.faults.score_found import Found
from benchmarks.training_curves import run_of


def seen(times: np.ndarray | None = None, **series: np.ndarray) -> Seen:
    found = seen_of(run_of(series))
    if times is None:
        return found
    clock = Track("time", np.arange(len(times), dtype=float), times)
    return Seen(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, "clock": clock})


def names(rule: Callable[[Seen], Iterator[Found]], what: Seen) -> list[str]:
    return [one.name for one in rule(what)]


FALLING = 2.0 / (1 + 0.05 * np.arange(300))


def test_what_rules_may_stand_for_are_kinds_of_ours() -> None:
    assert {kind for kinds in KINDS_OF.values() for kind in kinds} <= set(KINDS)


def test_a_global_z_score_flags_the_start_of_a_falling_loss_and_a_stretch_once() -> None:
    found = list(global_z(seen(loss=FALLING)))
    assert [one.first_step for one in found] == [0]
    flat = np.ones(300) + 0.01 * np.sin(np.arange(300))
    flat[200:203] = 5.0
    found = list(global_z(seen(loss=flat)))
    assert [(one.first_step, one.last_step) for one in found] == [(200, 202)]


def test_a_rolling_fence_flags_a_spike_and_leaves_the_first_rows_alone() -> None:
    noisy = np.random.default_rng(1).normal(1.0, 0.01, 200)
    noisy[10] = noisy[150] = 3.0
    assert 150 in [one.first_step for one in rolling_iqr(seen(loss=noisy))]
    assert 10 not in [one.first_step for one in rolling_iqr(seen(loss=noisy))]
    assert list(rolling_iqr(seen(loss=noisy[:40]))) == []


def test_a_rolling_fence_is_that_of_a_slow_loop() -> None:
    loss = np.random.default_rng(2).lognormal(size=180)
    slow = []
    for row in range(50, 180):
        low, high = np.quantile(loss[row - 50 : row], [0.25, 0.75])
        if not low - 1.5 * (high - low) <= loss[row] <= high + 1.5 * (high - low):
            slow.append(row)
    found = [
        row for one in rolling_iqr(seen(loss=loss)) for row in range(one.first_step or 0, (one.last_step or 0) + 1)
    ]
    assert found == slow


def test_a_falling_loss_and_falling_norms_leave_the_published_rules_silent() -> None:
    assert names(smdebug, seen(loss=FALLING, grad_norm=1.0 + FALLING)) == []


@pytest.mark.parametrize(
    ("rule", "series"),
    [
        ("LossNotDecreasing", {"loss": FALLING[::-1]}),
        ("ExplodingTensor", {"loss": np.where(np.arange(300) == 250, np.nan, FALLING)}),
        ("VanishingGradient", {"loss": FALLING, "grad_norm": np.geomspace(1, 1e-9, 300)}),
        ("UnchangedTensor", {"loss": np.maximum(FALLING, 0.5)}),
        ("AllZero", {"loss": np.maximum(FALLING - 0.5, 0)}),
        ("DeadRelu", {"loss": FALLING, "dead_units": np.linspace(0, 0.9, 300)}),
        ("WeightUpdateRatio", {"loss": FALLING, "update_ratio": np.where(np.arange(300) > 9, 0.0, 1e-3)}),
    ],
)
def test_each_published_rule_fires_on_what_it_is_for(rule: str, series: dict[str, np.ndarray]) -> None:
    assert rule in names(smdebug, seen(**series))


def test_the_first_broken_value_of_all_series_is_told() -> None:
    late, early = FALLING.copy(), FALLING.copy()
    late[200], early[100] = np.nan, np.inf
    (found,) = [one for one in smdebug(seen(loss=late, grad_norm=early)) if one.name == "ExplodingTensor"]
    assert (found.first_step, found.metric) == (100, "grad_norm")


def test_half_an_hour_without_a_row_is_a_stall_and_ten_slow_rows_are_no_step_outlier() -> None:
    seconds = np.ones(300)
    seconds[150] = 1900
    (found,) = [one for one in smdebug(seen(np.cumsum(seconds), loss=FALLING)) if one.name == "StalledTraining"]
    assert found.first_step == 150
    for slow, fires in ((10, False), (11, True)):
        seconds = np.ones(300)
        seconds[100 : 100 + slow] = 30
        assert ("StepOutlier" in names(smdebug, seen(np.cumsum(seconds), loss=FALLING))) == fires
