"""The estimate of the time that remains, against a simulated clock whose future is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from eventstream.step_times import StepTimes

TOTAL = 2000


def clock(
    step_time: Callable[[int], float],
    *,
    pause: float = 0.0,
    every: int = 0,
    first: int = 0,
    log_every: int = 1,
) -> Iterator[tuple[int, float, bool]]:
    """(step, time at which it was done, whether an announced pause came before it)."""
    now, paused = 1.7e9, False
    for step in range(first, TOTAL + 1):
        now += step_time(step)
        if step % log_every == 0:
            yield step, now, paused
            paused = False
        if every and step % every == 0 and step > first:
            now, paused = now + pause, True


def follow(times: StepTimes, events: Iterator[tuple[int, float, bool]], since: int) -> list[float]:
    """Relative errors of the estimate from step `since` on, the last tenth left out."""
    told, end = [], 0.0
    for step, now, paused in events:
        if paused:
            times.pause()
        times.step(step, now)
        end = now
        if since <= step <= TOTAL * 0.9:
            told.append((now, times.remaining(TOTAL)))
    assert told
    assert all(left is not None for _, left in told)
    return [abs(left - (end - now)) / (end - now) for now, left in told]


def jitter(mean: float, share: float = 0.1) -> Callable[[int], float]:
    noise = random.Random(7)
    return lambda _: mean * max(0.1, noise.gauss(1.0, share))


def test_steady_steps_are_told_exactly_after_a_slow_first_one():
    steady = clock(lambda step: 60.0 if step == 1 else 0.5)
    assert max(follow(StepTimes(), steady, 20)) < 1e-6


def test_nothing_is_said_before_it_is_known_and_then_it_stays_known():
    times, said = StepTimes(), []
    for step, now, _ in clock(lambda _: 2.0):
        times.step(step, now)
        said.append(times.remaining(TOTAL) is not None)
        if step == 40:
            break
    assert said == [False] * 6 + [True] * 35


@pytest.mark.parametrize("mean", [1e-3, 1.0, 300.0])
def test_jitter_leaves_the_estimate_within_a_twentieth_on_the_whole(mean):
    errors = sorted(follow(StepTimes(), clock(jitter(mean)), 20))
    assert errors[int(len(errors) * 0.95)] < 0.05


def test_steps_logged_every_tenth_are_told_as_well():
    assert max(follow(StepTimes(), clock(jitter(0.2), log_every=10), 200)) < 0.05


def test_announced_pauses_are_no_steps_and_come_again():
    paused = clock(jitter(1.0, 0.02), pause=30.0, every=100)
    errors = follow(StepTimes(), paused, 120)
    assert max(errors) < 0.05


def test_a_pause_that_was_not_announced_is_no_step_either():
    times = StepTimes()
    hitches = clock(lambda step: 3600.0 if step == 300 else 1.0)
    assert max(follow(times, hitches, 301)) < 1e-6
    assert times.seconds_per_step == pytest.approx(1.0)


def test_a_loop_whose_every_fourth_step_is_slow_is_told_by_its_mean():
    accumulating = clock(lambda step: 4.0 if step % 4 == 0 else 1.0)
    assert max(follow(StepTimes(), accumulating, 30)) < 0.05


@pytest.mark.parametrize("factor", [0.25, 2.0, 10.0])
def test_another_speed_is_known_after_twenty_steps(factor):
    slower = clock(lambda step: 1.0 if step <= 500 else factor)
    assert max(follow(StepTimes(), slower, 521)) < 0.05


def test_a_resumed_training_is_told_by_its_own_steps():
    assert max(follow(StepTimes(), clock(lambda _: 2.0, first=1500), 1520)) < 1e-6


def test_a_training_that_goes_back_begins_anew_and_late_records_change_nothing():
    times = StepTimes()
    for step, now, _ in clock(lambda _: 1.0):
        times.step(step, now)
        times.step(step - 3, now - 3.0)  # from a device, late
        if step == 100:
            break
    assert times.remaining(TOTAL) == pytest.approx(1900.0)
    times.step(50, now + 600.0)
    assert times.remaining(TOTAL) is None
    for step in range(51, 60):
        times.step(step, now + 600.0 + 5.0 * (step - 50))
    assert times.remaining(TOTAL) == pytest.approx(5.0 * (TOTAL - 59))


def test_the_end_is_no_time_away_and_never_negative():
    times = StepTimes()
    for step, now, _ in clock(lambda _: 1.0):
        times.step(step, now)
    assert times.remaining(TOTAL) == 0.0
    assert times.remaining(TOTAL - 500) == 0.0
