"""Train against eval: planted faults are found, healthy runs stay silent, and the parts agree with references."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import scipy.stats
from numpy.typing import NDArray

from analysis.generalisation.overfitting import STUDENT, find_turn
from analysis.generalisation.pairing import find_pairs
from analysis.generalisation.scale_mismatch import find_mismatch
from analysis.generalisation.smoothing import smooth_at
from analysis.generalisation.trend import theil_sen
from analysis.train_eval_gap import train_eval_gap
from parsers.finish import finish
from parsers.run import Run

Floats = NDArray[np.float64]
Shape = Callable[[Floats], Floats]


def falling(t: Floats) -> Floats:
    """From 2.3 to 0.3, as a loss falls."""
    return 2.0 * np.exp(-5 * t) + 0.3


def overfit(rise: float, turn: float = 0.4) -> Shape:
    """Eval that falls with train and, from `turn` on, rises to `1 + rise` times its level there."""

    def shape(t: Floats) -> Floats:
        return (2.0 * np.exp(-8 * t) + 0.5) * np.where(t > turn, 1 + rise * (t - turn) / (1 - turn), 1.0)

    return shape


def gap_run(
    seed: int,
    evaluated: Shape,
    *,
    train: Shape = falling,
    evals: int = 40,
    noise: float = 0.03,
    train_noise: float = 0.1,
    train_points: int = 1000,
    tags: tuple[str, str] = ("train/loss", "eval/loss"),
    steps: int = 10_000,
) -> Run:
    """A run of `steps` steps with multiplicative noise on both curves (shares; lognormal)."""
    rng = np.random.default_rng(seed)
    at = np.linspace(1, steps, train_points).round().astype(np.int64)
    when = np.linspace(steps / evals, steps, evals).round().astype(np.int64)
    values = train(at / steps) * np.exp(train_noise * rng.normal(size=train_points))
    judged = evaluated(when / steps) * np.exp(noise * rng.normal(size=evals))
    return from_series({tags[0]: (at, values), tags[1]: (when, judged)})


def from_series(series: dict[str, tuple[NDArray[np.int64], Floats]]) -> Run:
    """A run of (step, value) arrays by tag."""
    frames = [pl.DataFrame({"tag": [tag] * len(x), "step": x, "value": y}) for tag, (x, y) in series.items()]
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames))


SEEDS = 50


def kinds(run: Run) -> dict[str, str]:
    return {f.kind: f.severity for f in train_eval_gap(run).findings}


# ---- planted faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rise", "evals", "noise", "least"),
    [(1.0, 20, 0.01, 1.0), (1.0, 40, 0.05, 1.0), (0.5, 40, 0.03, 0.95), (0.3, 100, 0.02, 0.98), (1.0, 500, 0.15, 0.98)],
)
def test_planted_overfitting_is_found(rise: float, evals: int, noise: float, least: float):
    found = [kinds(gap_run(s, overfit(rise), evals=evals, noise=noise)).get("overfitting") for s in range(SEEDS)]
    hits = sum(severity in ("warning", "critical") for severity in found)
    assert hits >= least * SEEDS
    if rise >= 1:
        assert sum(s == "critical" for s in found) >= 0.9 * hits, "eval that ends half worse is critical"


def test_the_best_step_and_the_onset_lie_at_the_planted_turn():
    for seed in range(SEEDS):
        gap = train_eval_gap(gap_run(seed, overfit(1.0), evals=100, noise=0.02))
        summary = gap.summaries["loss"]
        assert summary.onset_x is not None
        assert 3000 <= summary.best_x <= 5000 <= summary.onset_x + 1500 <= 7500
        assert summary.share_after_best == pytest.approx((10_000 - summary.best_x) / 9_900)
        assert gap.findings[0].first_step == summary.onset_x and gap.findings[0].evidence["best_step"] == summary.best_x


def test_overfitting_of_an_accuracy_is_its_fall_while_train_rises():
    def up(t: np.ndarray) -> np.ndarray:
        return 0.99 - 0.8 * np.exp(-6 * t)

    def down(t: np.ndarray) -> np.ndarray:
        return 0.85 - 0.7 * np.exp(-9 * t) - 0.3 * np.maximum(t - 0.4, 0)

    hits = Counter[str]()
    for seed in range(SEEDS):
        run = gap_run(seed, down, train=up, noise=0.005, train_noise=0.02, tags=("train/accuracy", "val/accuracy"))
        hits.update(kinds(run).keys())
        run = gap_run(seed, up, train=up, noise=0.005, train_noise=0.02, tags=("train/accuracy", "val/accuracy"))
        assert "overfitting" not in kinds(run)
    assert hits["overfitting"] == SEEDS


@pytest.mark.parametrize("factor", [2, 4, 8, 1 / 4, 1 / 8])
def test_a_whole_factor_as_of_gradient_accumulation_is_named(factor: float):
    whole = round(max(factor, 1 / factor))
    named = 0
    for seed in range(SEEDS):
        found = train_eval_gap(gap_run(seed, lambda t: factor * falling(t), evals=50, noise=0.01, train_noise=0.03))
        finding = next(f for f in found.findings if f.kind == "train-eval-scale-mismatch")
        named += finding.evidence["whole_factor"] == whole
        assert finding.severity == "warning" and finding.evidence["low"] <= finding.evidence["high"]
    assert named >= 0.9 * SEEDS


def test_a_sum_instead_of_a_mean_and_a_missing_component_are_told_apart():
    for seed in range(SEEDS):
        for shape, form in ((lambda t: 37.5 * falling(t), "factor"), (lambda t: falling(t) + 0.9, "offset")):
            found = train_eval_gap(gap_run(seed, shape, noise=0.02))
            mismatch = {f.kind: f for f in found.findings}["train-eval-scale-mismatch"]
            assert mismatch.evidence["form"] == form
            assert mismatch.evidence["size"] == pytest.approx({"factor": 37.5, "offset": 0.9}[form], rel=0.1)


def test_accuracy_in_percent_against_fractions_is_a_scale_mismatch():
    run = gap_run(
        0, lambda t: 80 * (1 - np.exp(-5 * t)), train=lambda t: 0.8 * (1 - np.exp(-5 * t)), train_noise=0.01,
        tags=("train_accuracy", "eval_accuracy"),
    )  # fmt: skip
    finding = train_eval_gap(run).findings[0]
    assert (finding.kind, finding.evidence["form"]) == ("train-eval-scale-mismatch", "percent")


@pytest.mark.parametrize("leak", [0.3, 0.03])
def test_eval_far_below_train_after_an_equal_start_is_suspicious(leak: float):
    def shape(t: np.ndarray) -> np.ndarray:
        return falling(t) * (leak + (1 - leak) * np.exp(-25 * t))

    severities = Counter(kinds(gap_run(s, shape)).get("suspiciously-good") for s in range(SEEDS))
    assert severities["info" if leak > 0.1 else "warning"] == SEEDS


def test_perfect_eval_accuracy_from_the_start_is_suspicious_unless_train_is_perfect_too():
    def train(t: np.ndarray) -> np.ndarray:
        return 0.9 - 0.4 * np.exp(-5 * t)

    steps, ones = np.arange(100, 2100, 100), np.ones(20)
    at = np.arange(1, 2001)
    run = from_series({"train/acc": (at, train(at / 2000)), "val/acc": (steps, ones)})
    assert kinds(run) == {"suspiciously-good": "warning"}
    run = from_series({"train/acc": (at, np.ones(2000)), "val/acc": (steps, ones)})
    assert kinds(run) == {}


def test_memorising_without_learning_is_a_large_gap_with_a_warning():
    shape: Shape = lambda t: 2.2 + 0 * t  # noqa: E731
    train: Shape = lambda t: 2.3 * np.exp(-6 * t) + 0.01  # noqa: E731
    assert all(kinds(gap_run(s, shape, train=train)).get("train-eval-gap") == "warning" for s in range(SEEDS))


@pytest.mark.parametrize(("excess", "severity"), [(0.7, "warning"), (0.3, "info")])
def test_a_gap_of_a_quarter_of_the_first_train_loss_is_a_warning_and_begins_where_it_opens(
    excess: float, severity: str
):
    """Other eval data: the gap opens while both fall, without any rise of eval."""

    def shape(t: np.ndarray) -> np.ndarray:
        return falling(t) + excess * np.clip((t - 0.2) / 0.1, 0, 1)

    for seed in range(SEEDS):
        found = {f.kind: f for f in train_eval_gap(gap_run(seed, shape, noise=0.01)).findings}
        gap = found["train-eval-gap"]
        assert gap.severity == severity and 2000 <= (gap.first_step or 0) <= 3500


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_gap_between_curves_that_have_settled_is_a_warning_though_it_is_small_against_the_start(noise: float):
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        steps, evals = np.arange(400), np.arange(0, 400, 16)
        down = np.exp(-steps / 40)
        train = (0.15 + 0.95 * down) * np.exp(noise * rng.normal(size=400))
        held_out = (0.25 + 0.85 * down[evals]) * np.exp(noise * rng.normal(size=len(evals)))
        run = from_series({"loss": (steps, train), "eval_loss": (evals, held_out)})
        (gap,) = [f for f in train_eval_gap(run).findings if f.kind == "train-eval-gap"]
        assert gap.severity == "warning" and gap.evidence["settled"] and "differs" in gap.causes[0]


def test_the_gap_of_a_run_that_diverged_is_information():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        steps, evals = np.arange(400), np.arange(0, 400, 16)
        climb = np.exp(np.maximum(0.0, (np.arange(400) - 240) / 20))
        train = (0.2 + 1.8 * np.exp(-steps / 40)) * climb * np.exp(0.05 * rng.normal(size=400))
        held_out = (0.2 + 1.8 * np.exp(-evals / 40)) * climb[evals] ** 1.5 * np.exp(0.05 * rng.normal(size=len(evals)))
        found = kinds(from_series({"loss": (steps, train), "eval_loss": (evals, held_out)}))
        assert found.get("train-eval-gap") in (None, "info")


def test_memorising_that_goes_on_to_two_small_losses_is_information():
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        steps, evals = np.arange(400), np.arange(0, 400, 16)
        train = (0.02 + 1.08 * np.exp(-steps / 90)) * np.exp(0.02 * rng.normal(size=400))
        held_out = (0.18 + 0.92 * np.exp(-evals / 60)) * np.exp(0.02 * rng.normal(size=len(evals)))
        run = from_series({"loss": (steps, train), "eval_loss": (evals, held_out)})
        said = {f.kind: f for f in train_eval_gap(run).findings}
        assert said["train-eval-gap"].severity == "info" and not said["train-eval-gap"].evidence["settled"]


@pytest.mark.parametrize("parts", [["kd_loss", "hard_loss"], []])
def test_eval_by_one_part_of_a_loss_that_train_adds_up_is_no_mismatch(parts: list[str]):
    for seed in range(SEEDS):
        steps = np.arange(200)
        rng = np.random.default_rng(seed)
        train = (np.exp(-steps / 60) + 0.4) * np.exp(0.05 * rng.normal(size=200))
        evaluated = (train + 0.6)[9::10]
        series = {"loss": (steps, train), "eval_loss": (steps[9::10], evaluated)}
        said = kinds(from_series(series | dict.fromkeys(parts, (steps, train / 2))))
        assert said.pop("train-eval-scale-mismatch", None) == (None if parts else "warning")
        assert said == {"train-eval-gap": "info"}, "the gap itself is told beside it"


def test_twice_a_loss_of_parts_is_chance_and_twice_a_plain_one_is_a_factor():
    steps = np.arange(400)
    train = np.exp(-steps / 100) + 0.3
    series = {"loss": (steps, train), "eval_loss": (steps[9::10], 2 * train[9::10])}
    parts = {"kd_loss": (steps, train / 2), "hard_loss": (steps, train / 2)}
    assert kinds(from_series(series))["train-eval-scale-mismatch"] == "warning"
    assert "train-eval-scale-mismatch" not in kinds(from_series(series | parts))
    series["eval_loss"] = (steps[9::10], 8 * train[9::10])
    assert kinds(from_series(series | parts))["train-eval-scale-mismatch"] == "warning"


def test_overfitting_begins_where_the_smoothed_eval_is_lowest_and_is_sure_later():
    away = []
    for seed in range(SEEDS):
        (finding,) = (
            f for f in train_eval_gap(gap_run(seed, overfit(1.0), noise=0.01)).findings if f.kind == "overfitting"
        )
        assert (finding.first_step or 0) <= finding.evidence["clearly_worse_from"]
        away.append(abs((finding.first_step or 0) - 4000))
    assert np.median(away) <= 250, "one eval of 10,000 steps"


# ---- healthy runs -------------------------------------------------------------------------------------------------

BUMP = (lambda t: falling(t) * (1 + 0.8 * np.exp(-(((t - 0.4) / 0.08) ** 2))), falling)
RESTART: Shape = lambda t: falling(t) * (1 + 0.3 * np.exp(-((t % 0.25) / 0.03)))  # noqa: E731
WARMUP: Shape = lambda t: falling(np.maximum(t - 0.1, 0))  # noqa: E731
HEALTHY: dict[str, tuple[Shape, Shape]] = {
    "the same curve": (falling, falling),
    "eval better through dropout": (lambda t: 0.75 * falling(t), falling),
    "eval at its floor": (lambda t: np.maximum(falling(t), 0.6), falling),
    "a bump as of double descent": BUMP,
    "restarts of the learning rate": (RESTART, RESTART),
    "warm-up": (WARMUP, WARMUP),
    "both rise": (lambda t: falling(t) + np.maximum(t - 0.5, 0), lambda t: falling(t) + np.maximum(t - 0.5, 0)),
    "a classifier that fits its train set": (
        lambda t: 0.2 + 2 * np.exp(-9 * t),
        lambda t: 2.3 * np.exp(-6 * t) + 0.005,
    ),
    "a curriculum lowers train": (falling, lambda t: falling(t) * np.where(t > 0.5, 0.3, 1.0)),
    "a curriculum raises train": (falling, lambda t: falling(t) * np.where(t > 0.5, 2.0, 1.0)),
    "a negative loss": (lambda t: falling(t) - 3, lambda t: falling(t) - 3),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_runs_stay_silent(case: str):
    evaluated, train = HEALTHY[case]
    alarms = []
    for evals, noise in itertools.product((5, 12, 40, 300), (0.01, 0.1, 0.3)):
        for seed in range(5):
            run = gap_run(seed, evaluated, train=train, evals=evals, noise=noise, train_points=400)
            alarms += [f for f in train_eval_gap(run).findings if f.severity != "info"]
    assert not alarms, f"{len(alarms)} alarms in 60 runs: {alarms[:3]}"


@pytest.mark.parametrize("evals", [5, 8, 20, 50, 500])
def test_noise_alone_is_called_overfitting_at_most_once_in_a_hundred(evals: int):
    x = np.linspace(0, 1, evals)
    rng = np.random.default_rng(evals)
    flat = (find_turn(x, 0.8 * np.exp(s * rng.normal(size=evals)), falling(x)) for s in (0.02, 0.3) for _ in range(150))
    assert sum(t.overfits for t in flat) <= 3


def test_slowly_wandering_evals_are_rarely_called_overfitting():
    x, alarms = np.linspace(0, 1, 100), 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=100)
        for i in range(1, 100):
            noise[i] = 0.7 * noise[i - 1] + 0.71 * noise[i]
        alarms += find_turn(x, 0.8 * np.exp(0.1 * noise), falling(x)).overfits
    assert alarms <= 8


def test_a_jump_of_eval_at_a_phase_change_is_by_plan():
    x = np.arange(40.0)
    rng = np.random.default_rng(0)
    evaluated = (np.exp(-x / 8) + 0.5) * np.where(x >= 20, 1.5, 1.0) * np.exp(0.01 * rng.normal(size=40))
    train = np.exp(-x / 10)
    assert find_turn(x, evaluated, train).rise > 0.1
    assert not find_turn(x, evaluated, train, changes=np.array([20.0])).overfits


def test_the_phase_changes_of_a_recorded_curriculum_are_used():
    run = gap_run(0, falling)
    phases = [json.dumps({"phase": "a" if i < 5 else "b"}) for i in range(10)]
    events = pl.DataFrame({"kind": ["curriculum"] * 10, "step": [i * 1000 for i in range(10)], "payload": phases})
    run = finish("r", "r", "jsonl", run.scalars.select("tag", "step", "value"), events=events)
    from analysis.train_eval_gap import phase_changes

    assert phase_changes(run).tolist() == [5000.0]
    assert train_eval_gap(run).status == "healthy"


# ---- how series meet ----------------------------------------------------------------------------------------------


def test_lightning_names_meet_and_the_frame_has_the_aligned_values():
    steps = np.arange(0, 100, 10)
    run = from_series({"train/loss_epoch": (steps, 2.0 - steps / 100), "val/loss": (steps, 2.2 - steps / 100)})
    frame = train_eval_gap(run).frame
    assert frame.columns == ["metric", "split", "step", "epoch", "train", "eval", "gap", "ratio"]
    assert frame["step"].to_list() == steps.tolist() and np.allclose(frame["gap"], 0.2)
    assert np.allclose(frame["ratio"], frame["eval"] / frame["train"])


def test_epochs_serve_where_steps_are_missing_or_counted_in_another_unit():
    train = pl.DataFrame({"tag": "loss", "step": range(1000), "epoch": np.arange(1000) / 100, "value": 1.0})
    evaluated = pl.DataFrame({"tag": "eval_loss", "step": range(1, 11), "epoch": np.arange(1.0, 11), "value": 1.0})
    pairs, _ = find_pairs(finish("r", "r", "jsonl", pl.concat([train, evaluated], how="vertical_relaxed")))
    assert pairs[0].axis == "epoch"
    both = pl.concat([train.drop("epoch"), evaluated.drop("epoch")], how="vertical_relaxed")
    pairs, problems = find_pairs(finish("r", "r", "jsonl", both))
    assert pairs == [] and "counted in different units" in problems[0]


@pytest.mark.parametrize("evals", [1, 2, 3, 4])
def test_few_evals_are_shown_but_not_judged(evals: int):
    gap = train_eval_gap(gap_run(0, overfit(5.0), evals=evals))
    assert gap.frame.height == evals and not gap.findings
    assert len(gap.not_applicable) == 4 and f"{evals} eval points; 5 are needed" in gap.not_applicable[0].reason


def test_adversarial_losses_make_no_pair():
    steps = np.arange(100)
    assert find_pairs(from_series({"train/g_loss": (steps, steps / 100), "val/g_loss": (steps, steps / 50)})) == (
        [],
        [],
    )


def test_values_that_are_not_finite_and_repeated_steps_do_no_harm():
    steps = np.repeat(np.arange(200), 2)
    values = falling(steps / 200)
    values[::7] = np.nan
    values[3] = np.inf
    run = from_series({"loss": (steps, values), "eval_loss": (steps[::10], values[::10])})
    assert train_eval_gap(run).frame["gap"].is_finite().all()


@pytest.mark.parametrize("seed", range(60))
def test_values_at_the_ends_of_the_number_range_raise_no_warning(seed: int):
    rng = np.random.default_rng(seed)
    wild = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, 1.0, -1.0, 1e90, 1e-90])
    tags = ("loss", "eval_loss", "train/acc", "val/acc")
    counts = rng.integers(1, 60, len(tags))
    run = from_series(
        {t: (rng.integers(-(2**62), 2**62, n), rng.choice(wild, n)) for t, n in zip(tags, counts, strict=True)}
    )
    assert train_eval_gap(run).frame["gap"].is_finite().all()


def test_options_out_of_range_and_unknown_metrics_are_refused():
    run = gap_run(0, falling)
    with pytest.raises(ValueError, match=r"warn_rise is 0.5 and critical_rise 0.25"):
        train_eval_gap(run, warn_rise=0.5)
    with pytest.raises(ValueError, match="must stand in this order"):
        train_eval_gap(run, gap_ratio=0.5)
    with pytest.raises(ValueError, match="did you mean 'loss'"):
        train_eval_gap(run, metric="los")
    with pytest.raises(ValueError, match="unknown metric 'foo'"):
        train_eval_gap(run).plot(metric="foo")


def test_the_plot_draws_the_frame_and_says_the_finding():
    gap = train_eval_gap(gap_run(1, overfit(1.0)))
    ax = gap.plot()
    evals = next(line for line in ax.get_lines() if line.get_label() == "eval")
    assert np.allclose(evals.get_ydata(), gap.frame["eval"]) and ax.get_xlabel() == "step"
    assert "overfitting from step" in ax.get_title(loc="left") + ax.get_title()


# ---- the parts against references ---------------------------------------------------------------------------------


def test_sens_slope_and_its_interval_agree_with_scipy():
    rng = np.random.default_rng(0)
    for n in (5, 17, 60, 200):
        x = np.sort(rng.choice(500, n, replace=n > 100).astype(float))
        y = np.round(0.3 * x + rng.standard_t(2, n) * 10, 1)
        ours, reference = theil_sen(x, y), scipy.stats.theilslopes(y, x, 0.95)
        assert ours.value == pytest.approx(reference.slope, rel=1e-12)
        assert (ours.low, ours.high) == pytest.approx((reference.low_slope, reference.high_slope), rel=1e-12)


def test_the_table_of_students_t_is_scipys():
    freedom = (np.arange(5, 25) - 2) / 2
    assert scipy.stats.t.ppf(0.999, freedom) == pytest.approx(STUDENT, abs=0.006)


def test_the_interval_of_the_slope_covers_the_truth_at_its_rate():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        x = np.arange(1000.0)
        slope = theil_sen(x, 0.01 * x + rng.normal(0, 3, 1000))
        covered += slope.low <= 0.01 <= slope.high
    assert covered >= 0.9 * 300


def test_smoothing_agrees_with_a_plain_weighted_regression():
    rng = np.random.default_rng(2)
    x = np.sort(rng.choice(1000, 120, replace=False)).astype(float)
    y = np.sin(x / 150) + rng.uniform(-0.1, 0.1, 120)
    for place in (x[0], 333.3, x[-1]):
        start = int(np.clip(np.searchsorted(x, place) - 10, 0, 120 - 21))
        near, values = x[start : start + 21], y[start : start + 21]
        weight = (1 - (np.abs(near - place) / (np.abs(near - place).max() * (1 + 1 / 21))) ** 3) ** 3
        reference = np.polyval(np.polyfit(near, values, 1, w=np.sqrt(weight)), place)
        assert smooth_at(x, y, np.array([place]), window=21)[0] == pytest.approx(reference, abs=1e-9)


def test_a_smooth_value_at_very_many_places_is_that_of_fits_at_each_to_a_fraction_of_the_noise_left():
    rng = np.random.default_rng(0)
    x = np.arange(30_000.0)
    curve = 0.5 + 2 * np.exp(-8 * x / len(x))
    y = curve * np.exp(0.1 * rng.normal(size=len(x)))
    parts = [smooth_at(x, y, x[i : i + 10_000]) for i in range(0, len(x), 10_000)]
    apart = smooth_at(x, y, x) - np.concatenate(parts)
    assert 0 < np.std(apart) < 0.03 * np.std(np.concatenate(parts) - curve)


def test_a_spike_does_not_lift_the_smoothed_curve():
    x, y = np.arange(300.0), np.full(300, 2.0)
    y[150] = 1e6
    assert smooth_at(x, y, x) == pytest.approx(2.0)


def test_a_mismatch_needs_points_and_a_train_that_moves():
    x = np.arange(10.0)
    assert find_mismatch(x[:4], np.full(4, 8.0), np.exp(-x[:4])) is None
    assert find_mismatch(x, np.full(10, 8.0), np.ones(10)) is None
