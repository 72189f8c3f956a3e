"""Each fault in several sizes is found, and what resembles it is not: norms, clipping, loss scale, layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.gradient.clipped import clipped_at
from analysis.gradients import gradients
from tests.analysis.gradient.build import run_of, told

N = 400
RNG = np.random.default_rng(0)
NOISE = np.exp(0.2 * RNG.normal(size=N))
X = np.arange(N) / N
FALLING = (2 * np.exp(-4 * X) + 0.5) * np.exp(0.03 * RNG.normal(size=N))
FLAT = 2.3 * np.exp(0.02 * RNG.normal(size=N))
AFTER = np.arange(N) >= 300
RISING = FALLING * np.where(AFTER, 4.0, 1.0)


@pytest.mark.parametrize("times", [60, 300, 1e4, 1e8])
def test_a_norm_that_explodes_with_its_loss_is_found_at_its_step(times: float) -> None:
    (finding,) = gradients(run_of({"loss": RISING, "grad_norm": NOISE * np.where(AFTER, times, 1.0)})).findings
    assert (finding.kind, finding.first_step) == ("exploding-gradient", 300) and finding.severity in (
        "warning",
        "critical",
    )
    assert finding.evidence["loss"] == "rose" and finding.evidence["decades"] == pytest.approx(np.log10(times), abs=0.4)


@pytest.mark.parametrize("length", [40, 400, 4000])
def test_an_explosion_to_infinity_is_found_in_a_log_of_any_length(length: int) -> None:
    norm = np.ones(length)
    norm[-5:] = [50.0, 1e4, np.inf, np.nan, np.nan]
    loss = np.full(length, 1.0)
    loss[-5:] = [2.0, 30.0, np.nan, np.nan, np.nan]
    (finding,) = gradients(run_of({"loss": loss, "grad_norm": norm})).findings
    assert (finding.severity, finding.first_step) == ("critical", length - 5) and finding.evidence["then_not_finite"]


def test_the_layer_that_set_out_first_is_named() -> None:
    grown = np.where(np.arange(N) >= 300, 1e4, 1.0)
    early = np.where(np.arange(N) >= 295, 1e4, 1.0)
    columns = {"loss": RISING, "grad_norm": grown, "grad_norm/head": grown, "grad_norm/attn": early * 0.01}
    finding = gradients(run_of(columns)).findings[0]
    assert finding.evidence["first_layer"] == "attn" and finding.evidence["first_layer_step"] == 295
    assert any("attn" in cause for cause in finding.causes)


def test_a_layer_that_explodes_below_the_sum_of_all_is_found() -> None:
    quiet = 1e-4 * NOISE * np.where(AFTER, 1e4, 1.0)
    columns = {"loss": RISING, "grad_norm": 10 * NOISE, "grad_norm/gate": quiet, "grad_norm/body": 10 * NOISE}
    (finding,) = [f for f in gradients(run_of(columns)).findings if f.kind == "exploding-gradient"]
    assert finding.evidence["layer"] == "gate" and finding.metric == "grad_norm/gate"


def test_causes_name_what_the_log_shows() -> None:
    norm = NOISE * np.where(AFTER, 1e3, 1.0)
    with_rate = gradients(run_of({"loss": RISING, "grad_norm": norm, "lr": np.linspace(0, 1e-2, N)})).findings[0]
    assert not any("its highest" in cause for cause in with_rate.causes)
    peak = gradients(run_of({"loss": RISING, "grad_norm": norm, "lr": np.where(AFTER, 1e-2, 1e-3)})).findings[0]
    assert "0.01" in peak.causes[0] and "its highest" in peak.causes[0]
    clipped = gradients(run_of({"loss": RISING, "grad_norm": norm, "clip_rate": AFTER})).findings[0]
    assert any("100% of steps were clipped" in cause for cause in clipped.causes)


@pytest.mark.parametrize(
    ("loss", "norm"),
    [
        (FALLING, NOISE * np.exp(2.0 * X)),  # rises sevenfold while the loss falls
        (FALLING, NOISE * (1 - 0.999 * np.exp(-50 * X))),  # begins at a thousandth
        (FALLING, NOISE * np.where(np.arange(N) % 97 == 50, 1e4, 1.0)),  # lone spikes
        (RISING, NOISE * np.where(AFTER, 8.0, 1.0)),  # the loss leaps, and the norm by less than an order
        (FLAT, NOISE * np.where(AFTER, 30.0, 1.0)),
        (np.exp(-8 * X), NOISE * np.exp(-8 * X)),  # fits its data
    ],
)
def test_what_norms_of_healthy_runs_do_is_silent(loss: np.ndarray, norm: np.ndarray) -> None:
    assert told(gradients(run_of({"loss": loss, "grad_norm": norm}))) == []


def test_growth_while_the_loss_falls_is_information() -> None:
    result = gradients(run_of({"loss": FALLING, "grad_norm": NOISE * 10 ** (4 * X)}))
    assert [(f.kind, f.severity) for f in result.findings] == [("exploding-gradient", "info")]


def test_of_two_models_the_loss_of_the_run_is_no_measure() -> None:
    norm = NOISE * np.where(AFTER, 100.0, 1.0)
    columns = {"loss": RISING, "generator/grad_norm": norm, "critic/grad_norm": NOISE}
    assert told(gradients(run_of(columns))) == []
    columns["generator/grad_norm"] = NOISE * np.where(AFTER, 1e6, 1.0)
    (finding,) = gradients(run_of(columns)).findings
    assert finding.evidence["model"] == "generator" and finding.evidence["loss"] == "unknown"


@pytest.mark.parametrize("decades", [4, 6, 12])
def test_a_norm_that_vanishes_under_a_loss_that_stays_is_found(decades: int) -> None:
    norm = NOISE * 10.0 ** (-decades * np.minimum(X * 3, 1))
    (finding,) = gradients(run_of({"loss": FLAT, "grad_norm": norm})).findings
    assert (finding.kind, finding.severity) == ("vanishing-gradient", "critical")


def test_a_norm_that_collapses_at_once_with_a_worse_loss_is_found_though_the_run_had_learned() -> None:
    norm = NOISE * np.where(AFTER, 1e-5, 1.0)
    (finding,) = gradients(run_of({"loss": RISING, "grad_norm": norm})).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("vanishing-gradient", "warning", 300)


def test_a_norm_of_next_to_nothing_from_the_start_is_found() -> None:
    (finding,) = gradients(run_of({"loss": FLAT, "grad_norm": 1e-9 * NOISE})).findings
    assert (finding.kind, finding.severity) == ("vanishing-gradient", "critical")


def test_a_norm_of_exactly_zero_is_found_where_the_loss_stays_and_nowhere_else() -> None:
    zero = np.where(AFTER, 0.0, NOISE)
    (finding,) = gradients(run_of({"loss": np.where(AFTER, 2.0, FALLING), "grad_norm": zero})).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("vanishing-gradient", "critical", 300)
    fitted = gradients(run_of({"loss": np.where(AFTER, 1e-7, FALLING), "grad_norm": zero}))
    assert fitted.findings == ()
    unmeasured = gradients(run_of({"loss": FALLING, "grad_norm": np.zeros(N)}))
    assert unmeasured.findings == ()
    assert {n.kind: n.reason for n in unmeasured.not_applicable}["vanishing-gradient"].endswith("it was not measured")
    alone = gradients(run_of({"grad_norm": np.zeros(N)}))
    assert "without a loss" in {n.kind: n.reason for n in alone.not_applicable}["vanishing-gradient"]


def test_a_norm_that_is_printed_as_zero_is_not_taken_for_one() -> None:
    norm = np.round(0.004 * np.exp(-6 * X), 3)
    result = gradients(run_of({"loss": np.maximum(FALLING, 1.0), "grad_norm": norm}))
    assert result.findings == ()
    assert "too few digits" in {n.kind: n.reason for n in result.not_applicable}["vanishing-gradient"]


@pytest.mark.parametrize(("ratio", "severity"), [(1e-8, "warning"), (1e-3, "info"), (None, "info")])
def test_early_layers_far_below_late_ones_are_a_warning_where_they_stand_still(
    ratio: float | None, severity: str
) -> None:
    columns = {"loss": FALLING, "grad_norm": NOISE}
    for i in range(6):
        columns |= {f"grad_norm/blocks.{i}.fc": NOISE * 10.0 ** (i - 5)}
        columns |= {} if ratio is None else {f"update_ratio/blocks.{i}.fc": ratio * np.ones(N)}
    found = [f for f in gradients(run_of(columns)).findings if f.kind == "vanishing-gradient"]
    assert [f.severity for f in found] == [severity] and found[0].evidence["early_layer"] == "blocks.0.fc"


def test_early_layers_below_late_ones_for_a_while_are_no_finding() -> None:
    columns = {"loss": FALLING, "grad_norm": NOISE}
    for i in range(6):
        columns[f"grad_norm/blocks.{i}.fc"] = NOISE * np.where(X < 0.3, 10.0 ** (i - 5), 1.0)
    assert gradients(run_of(columns)).findings == ()


OBSERVED = 30
MOVES = {"update_ratio/a": np.full(OBSERVED, 1e-3), "grad_norm/a": np.ones(OBSERVED)}


@pytest.mark.parametrize(
    ("share", "severity"), [(1.0, "critical"), (0.92, "critical"), (0.6, "warning"), (0.4, "warning"), (0.3, "info")]
)
def test_dead_units_count_by_their_share(share: float, severity: str) -> None:
    values = np.where(np.arange(OBSERVED) >= 12, share, 0.0)
    (finding,) = gradients(run_of({"dead_units/fc1": values, "dead_units/fc2": 0 * values}, every=100)).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("dead-units", severity, 1200)


def test_units_that_die_are_placed_where_most_of_them_did_and_a_share_that_wavers_at_the_start() -> None:
    dying = np.clip(0.02 + 0.04 * np.maximum(np.arange(OBSERVED) - 10, 0), 0, 0.5)
    (finding,) = gradients(run_of({"dead_units/fc1": dying, "dead_units/fc2": 0 * dying})).findings
    assert finding.first_step == 16
    wavering = 0.48 - 0.06 * (np.arange(OBSERVED) < 10)
    (finding,) = gradients(run_of({"dead_units/fc1": wavering, "dead_units/fc2": 0 * dying})).findings
    assert finding.first_step == 0


@pytest.mark.parametrize(
    ("decades", "moves", "expected"),
    [(5.0, None, ["warning"]), (3.5, None, ["info"]), (2.0, None, []), (5.0, 1e-3, ["info"])],
)
def test_a_stack_whose_ends_lie_far_apart_under_a_slow_loss_is_a_warning_unless_its_layers_are_seen_to_move(
    decades: float, moves: float | None, expected: list[str]
) -> None:
    columns = {"loss": np.linspace(1.3, 1.0, N) * NOISE**0.1, "grad_norm": NOISE}
    for i in range(6):
        columns[f"grad_norm/blocks.{i}.fc"] = NOISE * 10.0 ** (-decades * (5 - i) / 5)
        if moves is not None:
            columns[f"update_ratio/blocks.{i}.fc"] = moves * NOISE
    found = gradients(run_of(columns)).findings
    assert [f.severity for f in found if f.kind == "vanishing-gradient"] == expected


def test_units_that_came_back_or_of_the_output_alone_are_not_dead() -> None:
    back = np.where(np.arange(OBSERVED) < 15, 1.0, 0.0)
    assert gradients(run_of({"dead_units/fc1": back, "dead_units/fc2": 0 * back})).findings == ()
    layers = {f"dead_units/{i}": np.zeros(OBSERVED) for i in range(3)}
    assert gradients(run_of({**layers, "dead_units/3": np.full(OBSERVED, 0.7)})).findings == ()


@pytest.mark.parametrize(
    ("columns", "severity", "reason"),
    [
        ({"update_ratio/b": np.zeros(OBSERVED), "grad_norm/b": np.zeros(OBSERVED)}, "warning", "zero gradient"),
        ({"update_ratio/b": np.zeros(OBSERVED), "grad_norm/b": np.ones(OBSERVED)}, "warning", "no move"),
        ({"update_ratio/b": np.zeros(OBSERVED)}, "info", "no gradient"),
        ({"update_ratio/b": np.where(np.arange(OBSERVED) < 9, 1e-3, 0.0)}, "warning", "no gradient"),
    ],
)
def test_a_layer_that_stands_still_while_others_move_is_told_with_its_reason(
    columns: dict[str, np.ndarray], severity: str, reason: str
) -> None:
    (finding,) = [f for f in gradients(run_of({**MOVES, **columns})).findings if f.kind == "frozen-layer"]
    assert (finding.severity, finding.evidence["gradient"], finding.evidence["layer"]) == (severity, reason, "b")


def test_a_layer_amid_its_like_that_alone_has_no_gradient_is_a_warning() -> None:
    columns = {f"{q}/blocks.{i}": np.full(OBSERVED, 1e-3) for i in (0, 1, 3) for q in ("update_ratio", "param_norm")}
    columns |= {f"grad_norm/blocks.{i}": np.ones(OBSERVED) for i in (0, 1, 3)}
    columns |= {"update_ratio/blocks.2": np.zeros(OBSERVED), "param_norm/blocks.2": np.ones(OBSERVED)}
    assert told(gradients(run_of(columns))) == [("frozen-layer", "warning")]


def test_steps_at_which_nothing_moves_freeze_no_layer() -> None:
    skipped = np.where(np.arange(OBSERVED) < 20, 1e-3, 0.0)
    columns = {"update_ratio/a": skipped, "update_ratio/b": skipped, "grad_norm/a": np.ones(OBSERVED)}
    assert told(gradients(run_of(columns))) == []


def test_layers_that_rest_at_random_are_not_frozen() -> None:
    for seed in range(20):
        rests = np.random.default_rng(seed).random(200) < 0.5
        columns = {"update_ratio/a": np.full(200, 1e-3), "update_ratio/b": np.where(rests, 0.0, 1e-3)}
        assert told(gradients(run_of(columns))) == [], seed


def test_rows_of_an_embedding_that_the_sample_misses_are_not_frozen() -> None:
    columns = {**MOVES, "update_ratio/emb": np.zeros(OBSERVED), "grad_norm/emb": np.ones(OBSERVED)}
    assert told(gradients(run_of(columns))) == [("frozen-layer", "warning")]
    assert told(gradients(run_of({**columns, "zero_grads/emb": np.full(OBSERVED, 0.99)}))) == []


def test_the_plan_says_which_layers_are_meant_to_stand_still() -> None:
    still = {**MOVES, "update_ratio/b": np.zeros(OBSERVED), "grad_norm/b": np.ones(OBSERVED)}
    assert told(gradients(run_of(still, plan={"freeze": ["b"]}))) == []
    assert told(gradients(run_of(still, plan={"trainable": ["a"]}))) == []
    assert told(gradients(run_of(still, plan={"trainable": ["a", "b"]}))) == [("frozen-layer", "critical")]
    late = run_of(still, plan={"freeze": ["b"], "unfreeze_step": 10})
    (finding,) = [f for f in gradients(late).findings if f.kind == "frozen-layer"]
    assert (finding.severity, finding.first_step) == ("critical", 10) and "unfrozen" in finding.message


def test_clipping_every_step_is_information_and_far_above_the_limit_a_warning() -> None:
    def of(times: float, rate: float) -> list[tuple[str, str]]:
        columns = {"loss": FALLING, "grad_norm": times * NOISE, "grad_norm_after_clip": np.ones(N)}
        columns["clip_rate"] = (np.random.default_rng(1).random(N) < rate).astype(float)
        return told(gradients(run_of(columns)), least="info")

    assert of(1.0, 0.3) == [] and of(5.0, 1.0) == [("clipping", "info")] and of(300.0, 1.0) == [("clipping", "warning")]


def test_a_stated_limit_or_what_it_left_tells_that_every_step_is_clipped_and_from_where_on() -> None:
    def of(columns: dict[str, np.ndarray], **config: Any) -> list[tuple[str, str, int | None]]:
        found = gradients(run_of({"loss": FALLING, **columns}, config=config)).findings
        return [(f.kind, f.severity, f.first_step) for f in found if f.kind == "clipping"]

    assert of({"grad_norm": 30 * NOISE}, max_grad_norm=1.0) == [("clipping", "info", 0)]
    assert of({"grad_norm": 1000 * NOISE}, gradient_clip_val=1.0) == [("clipping", "warning", 0)]
    assert of({"grad_norm": 30 * NOISE, "grad_norm_after_clip": np.ones(N)}) == [("clipping", "info", 0)]
    late = np.where(np.arange(N) >= N // 3, 30 * NOISE, 0.01 * NOISE)
    assert of({"grad_norm": late}, max_grad_norm=1.0) == [("clipping", "info", N // 3)]
    assert of({"grad_norm": NOISE}, max_grad_norm=1.0) == []  # now and then, as a limit is meant
    assert of({"grad_norm": 30 * NOISE}, gradient_clip_val=1.0, gradient_clip_algorithm="value") == []
    assert of({"grad_norm": 30 * NOISE}) == []


def test_a_norm_that_was_logged_after_clipping_is_told_and_not_judged_for_explosion() -> None:
    result = gradients(run_of({"loss": RISING, "grad_norm": np.minimum(3 * NOISE, 1.0)}))
    (finding,) = result.findings
    assert (finding.kind, finding.severity, finding.evidence["limit"]) == ("clipping", "info", 1.0)
    assert "after clipping" in {n.kind: n.reason for n in result.not_applicable}["exploding-gradient"]


@pytest.mark.parametrize("values", [NOISE, np.full(N, 0.7316), np.zeros(N), np.ones(5), np.full(N, np.nan)])
def test_a_norm_that_shows_no_limit_has_none(values: np.ndarray) -> None:
    from analysis.gradient.tracks import models_of

    (model,) = models_of(run_of({"grad_norm": values}))
    track = model.get("grad_norm")
    assert track is not None and clipped_at(track) is None


@pytest.mark.parametrize(
    ("last", "severity"), [(1.0, "warning"), (0.125, "warning"), (1e-6, "critical"), (0.0, "critical")]
)
def test_a_loss_scale_that_halves_down_to_nothing_is_found(last: float, severity: str) -> None:
    scale = np.maximum(65536.0 / 2.0 ** np.maximum(np.arange(100) - 40, 0), last)
    scale[-20:] = last
    (finding,) = gradients(run_of({"loss": FALLING[:100], "amp_scale": scale})).findings
    assert (finding.kind, finding.severity, finding.evidence["last_scale"]) == ("amp-collapse", severity, last)
    assert finding.first_step == 41


def test_a_loss_scale_that_falls_a_thousandfold_out_of_a_rest_is_found_wherever_it_stops() -> None:
    for rest, found in ((40, ["amp-collapse"]), (0, [])):  # from the start on it is the search for a scale
        scale = np.maximum(2.0**24 / 2.0 ** np.maximum(np.arange(100) - rest, 0), 2.0**12)
        assert [f.kind for f in gradients(run_of({"loss": FALLING[:100], "amp_scale": scale})).findings] == found


@pytest.mark.parametrize(
    "scale",
    [
        np.full(100, 1.0),  # bfloat16, logged all the same
        np.full(100, 12.0),  # logged as a power of two
        np.maximum(2.0**32 / 2.0 ** np.arange(100), 2.0**14),  # the search from a high start
        65536.0 * 2.0 ** (np.arange(100) // 40 - (np.arange(100) % 40 == 0)),
        np.concatenate([np.full(50, 65536.0), np.full(10, 0.5), np.full(40, 2048.0)]),  # came back
    ],
)
def test_a_loss_scale_that_finds_its_level_is_silent(scale: np.ndarray) -> None:
    assert gradients(run_of({"loss": FALLING[:100], "loss_scale": scale})).findings == ()


@pytest.mark.parametrize(("share", "found"), [(0.001, False), (0.1, True), (0.6, True)])
def test_steps_that_are_skipped_again_and_again_are_found_however_they_are_counted(share: float, found: bool) -> None:
    skipped = np.random.default_rng(2).random(2000) < share
    running = run_of({"amp_skipped_count": np.cumsum(skipped)})
    by_record = run_of({"number of skipped iterations": skipped.reshape(-1, 10).sum(1)}, every=10)
    for run in (running, by_record):
        result = gradients(run)
        assert [f.kind for f in result.findings] == (["amp-collapse"] if found else [])
        assert all(f.evidence["skipped_share"] == pytest.approx(share, rel=0.2) for f in result.findings)


@pytest.mark.parametrize(("ratio", "found"), [(1e-7, True), (3e-4, False), (1e-2, False), (0.5, True)])
def test_an_update_far_from_a_thousandth_is_information(ratio: float, found: bool) -> None:
    result = gradients(run_of({"update_ratio": ratio * NOISE, "update_ratio/a": ratio * NOISE}))
    assert [(f.kind, f.severity) for f in result.findings] == ([("update-ratio", "info")] if found else [])


def test_a_layer_that_moves_at_another_pace_than_the_others_is_information() -> None:
    columns = {f"update_ratio/{name}": 1e-3 * NOISE for name in "abc"} | {"update_ratio": 1e-3 * NOISE}
    (finding,) = gradients(run_of({**columns, "update_ratio/slow": 1e-6 * NOISE})).findings
    assert (finding.kind, finding.severity, finding.evidence["layer"]) == ("update-ratio", "info", "slow")
