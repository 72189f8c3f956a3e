"""The training scripts, twenty steps each: same seed, same run; the planted faults are in the numbers at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.training import charlm, distillation, gan, speaker_encoder
from data.training.distillation_losses import COMPONENTS, ROUTING
from data.training.recording import Listener
from data.training.speech import RATE, SENTENCES, Voice

STEPS = 20
VOICES = (Voice("low", 20, 150), Voice("middle", 50, 150), Voice("high", 80, 150))


def hum(voice: Voice, sentence: str) -> np.ndarray[Any, Any]:
    """A second of harmonics on the voice's pitch: a speaker for where no espeak-ng is."""
    time = np.arange(RATE) / RATE
    pitch = 80.0 + 2.0 * voice.pitch + len(sentence) % 5
    tones = [np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)]
    return (0.1 * np.sum(tones, axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def taught() -> Any:
    return distillation.prepare(seed=0, steps=5)


@pytest.fixture(scope="module")
def gan_data() -> Any:
    return gan.prepare(steps=100)


@pytest.fixture(scope="module")
def speech() -> Any:
    return speaker_encoder.prepare(hum, voices=VOICES, sentences=SENTENCES[:5], held_out=2)


def numbers(listener: Listener) -> list[Any]:
    """Every recorded call but those that hold the clock, tensors or files."""
    return [call for call in listener.calls if call[0] in ("log", "losses", "curriculum", "data")]


def distil(taught: Any, seed: int = 0, bypass: bool = False) -> Listener:
    listener = Listener()
    distillation.train(listener, seed=seed, prepared=taught, bypass=bypass, steps=STEPS)
    return listener


@pytest.fixture(scope="module")
def healthy(taught: Any) -> Listener:
    return distil(taught)


def residuals(listener: Listener) -> list[tuple[float, float]]:
    """(total minus the sum of the weighted parts, what the planted constants explain of it) for each record."""
    found = []
    for _, (_, components), named in (call for call in listener.calls if call[0] == "losses"):
        weighted = sum(np.float32(part["weighted"]) for part in components.values())
        planted = sum(constant * components[name]["raw"] for name, constant in distillation.BYPASS.items())
        found.append((named["total"] - float(weighted), planted))
    return found


def test_a_distillation_with_the_same_seed_records_the_same_numbers(taught: Any, healthy: Listener) -> None:
    assert numbers(distil(taught)) == numbers(healthy)
    assert numbers(distil(taught, seed=1)) != numbers(healthy)


def test_a_healthy_total_is_the_sum_of_the_weighted_components(healthy: Listener) -> None:
    gaps = residuals(healthy)
    assert len(gaps) == 1 + STEPS // distillation.DETAIL_EVERY
    assert max(abs(gap) for gap, _ in gaps) < 1e-6


def test_the_bypass_adds_its_constants_times_the_raw_losses_and_nothing_else(taught: Any) -> None:
    gaps = residuals(distil(taught, bypass=True))
    assert min(planted for _, planted in gaps) > 0.01
    assert [gap for gap, _ in gaps] == pytest.approx([planted for _, planted in gaps], abs=1e-6)


def test_the_recorded_weighted_part_is_raw_times_the_weight_of_the_plan(healthy: Listener) -> None:
    for _, (_, components), _ in (call for call in healthy.calls if call[0] == "losses"):
        assert set(components) == set(COMPONENTS)
        for part in components.values():
            assert part["weighted"] == pytest.approx(part["raw"] * part["weight"], rel=1e-6)


def test_routing_stays_at_weight_zero_until_the_last_phase_of_the_plan() -> None:
    phases = distillation.plan(1200)["curriculum"]["phases"]
    assert [phase["start"] for phase in phases] == [0, 300, 600, 900]
    for phase in phases[:3]:
        assert all(phase["weights"][name] == 0.0 for name in ROUTING)
    assert all(phases[3]["weights"][name] > 0.0 for name in ROUTING)


def test_inputs_are_recorded_at_the_first_step_and_hold_what_the_plan_requires(healthy: Listener) -> None:
    stages = {args[1]: set(args[2]) for method, args, _ in healthy.calls if method == "inputs"}
    for stage, contract in distillation.plan()["inputs"].items():
        assert set(contract["require"]) <= stages[stage]
        assert not set(contract.get("forbid", ())) & stages[stage]


def test_a_language_model_with_the_same_seed_records_the_same_numbers() -> None:
    first, again = Listener(), Listener()
    for listener in (first, again):
        charlm.train(listener, charlm.Options(steps=STEPS, text_characters=2_000))
    assert numbers(first) == numbers(again)
    assert len(first.series("loss")) == STEPS


def test_a_poisoned_step_changes_nothing_before_itself_and_everything_after() -> None:
    clean, poisoned = Listener(), Listener()
    charlm.train(clean, charlm.Options(steps=STEPS, text_characters=2_000))
    charlm.train(poisoned, charlm.Options(steps=STEPS, text_characters=2_000, poison_step=15))
    before, after = clean.series("loss"), poisoned.series("loss")
    assert [step for step in before if before[step] != after[step]] == list(range(15, STEPS + 1))
    assert poisoned.series("lr")[15] == pytest.approx(20.0 * clean.series("lr")[15])
    assert after[15] > before[15] + 0.2  # random targets cost more than learned ones


@pytest.mark.parametrize("rush_from", [None, 5])
def test_a_gan_with_the_same_seed_records_the_same_numbers(
    rush_from: int | None, gan_data: Any, tmp_path: Path
) -> None:
    first, again = Listener(), Listener()
    for listener in (first, again):
        gan.train(listener, gan.Options(steps=STEPS, rush_from=rush_from), gan_data, tmp_path)
    assert numbers(first) == numbers(again)


def test_a_rushing_generator_departs_from_its_twin_where_the_rush_begins(gan_data: Any, tmp_path: Path) -> None:
    calm, rushing = Listener(), Listener()
    gan.train(calm, gan.Options(steps=STEPS), gan_data, tmp_path / "calm")
    gan.train(rushing, gan.Options(steps=STEPS, rush_from=15), gan_data, tmp_path / "rushing")
    assert calm.series("d_loss")[10] == rushing.series("d_loss")[10]
    assert calm.series("g_loss")[20] != rushing.series("g_loss")[20]


def test_a_gan_leaves_pictures_that_open_with_the_size_of_its_grid(gan_data: Any, tmp_path: Path) -> None:
    from PIL import Image

    listener = Listener()
    gan.train(listener, gan.Options(steps=STEPS), gan_data, tmp_path)
    ((path,),) = [args[2] for method, args, _ in listener.calls if method == "sample"]
    with Image.open(path) as picture:
        assert (picture.size, picture.mode) == ((192, 192), "L")


def test_a_speaker_encoder_trains_on_waveforms_of_any_speaker_and_repeats_itself(speech: Any, tmp_path: Path) -> None:
    saved: list[str] = []
    runs = [Listener(), Listener()]
    for listener in runs:
        speaker_encoder.train(
            listener, speech, tmp_path, seed=0, steps=STEPS, save=lambda _, path: saved.append(path.name)
        )
    assert numbers(runs[0]) == numbers(runs[1])
    assert saved[:4] == [f"step{step:06d}.safetensors" for step in (0, 3, 10, 20)]
    kept = [args for method, args, _ in runs[0].calls if method == "embeddings"]
    for _, vectors, labels, paths in kept:
        assert vectors.shape == (6, speaker_encoder.DIM)
        assert len(labels) == len(set(paths)) == 6
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
