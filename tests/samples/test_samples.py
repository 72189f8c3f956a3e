"""The committed runs: whole, small, described, and with their planted truth in the raw numbers.

The numbers are read here from the files themselves, by the format's description and nothing else.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from data.training import charlm, distillation, gan, make
from parsers.loading import load

NAMES = [sample.name for sample in make.SAMPLES]
SEALED = [name for name in NAMES if name != "charlm-killed"]
DISTILLATIONS = [name for name in NAMES if name.startswith("distillation")]


def rows(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


def series(folder: Path, tag: str, split: str = "train") -> tuple[Any, Any]:
    """Steps and values of one scalar."""
    found = rows(folder).filter((pl.col("tag") == tag) & (pl.col("split") == split)).sort("seq")
    assert found.height, f"no {tag} in {split}"
    return found["step"].to_numpy(), found["value"].to_numpy()


def events(folder: Path, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Step and payload of each event of a kind."""
    found = rows(folder).filter((pl.col("kind") == kind) & pl.col("payload").is_not_null()).sort("seq")
    return [(step, json.loads(payload)) for step, payload in zip(found["step"], found["payload"], strict=True)]


def test_the_folder_holds_exactly_the_samples_that_the_scripts_make(samples: Path) -> None:
    assert sorted(path.name for path in samples.iterdir() if path.is_dir()) == sorted(NAMES)


def test_all_samples_together_stay_under_six_megabytes(samples: Path) -> None:
    assert sum(path.stat().st_size for path in samples.rglob("*") if path.is_file()) < 6_000_000


@pytest.mark.parametrize("sample", make.SAMPLES, ids=NAMES)
def test_each_sample_says_how_it_was_made_and_what_to_find(sample: make.Sample, samples: Path) -> None:
    text = (samples / sample.name / "README.md").read_text(encoding="utf-8")
    for piece in (f"python -m data.training {sample.name}", "| seed |", "torch ", "| duration |", "## What to find"):
        assert piece in text
    assert sample.what in text and sample.find in text
    for kind in sample.kinds:
        assert f"`{kind}`" in text
    assert ("this run is healthy" in text) == (not sample.kinds)


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_loads_with_its_plan_and_configuration(name: str, samples: Path) -> None:
    run = load(samples / name)
    assert (run.name, run.format) == (name, "aftertrain")
    assert run.plan["max_steps"] > 0
    assert {"task", "dataset", "seed", "batch_size"} <= set(run.config)
    assert run.scalars.height > 500
    assert run.rejects.height == (1 if name == "charlm-killed" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_knows_the_machine_that_made_it(name: str, samples: Path) -> None:
    for path in (samples / name).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md"):
            assert "/home/" not in path.read_text() and str(samples.parents[1]) not in path.read_text()
    if name in SEALED:
        payloads = rows(samples / name)["payload"].drop_nulls()
        assert not payloads.str.contains(str(samples.parents[1]), literal=True).any()
        for _, payload in events(samples / name, "checkpoint"):
            assert not Path(payload["path"]).is_absolute()


@pytest.mark.parametrize("name", SEALED)
def test_a_finished_sample_is_sealed_and_ends(name: str, samples: Path) -> None:
    assert list((samples / name).glob("*.jsonl")) == []
    ((_, end),) = events(samples / name, "end")
    assert end == {"status": "finished"}
    steps, losses = series(samples / name, "d_loss" if name.startswith("gan") else "loss")
    assert np.all(np.diff(steps) > 0)
    assert np.isfinite(losses).all()
    times = rows(samples / name).sort("seq")["time"]
    assert times.is_sorted()


def residual(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Total, total minus the float32 sum of the weighted parts, and the raw parts, per record."""
    _, total = series(folder, "losses/total", "")
    parts = [series(folder, f"losses/{name}/weighted", "")[1] for name in distillation.COMPONENTS]
    raw = {name: series(folder, f"losses/{name}/raw", "")[1] for name in distillation.COMPONENTS}
    summed = np.zeros(len(total), dtype=np.float32)
    for part in parts:
        summed = summed + part.astype(np.float32)
    return total, total - summed, raw


@pytest.mark.parametrize("name", [name for name in DISTILLATIONS if "healthy" in name])
def test_healthy_totals_are_the_sum_in_float32_to_the_last_bit(name: str, samples: Path) -> None:
    _, gap, _ = residual(samples / name)
    assert np.abs(gap).max() == 0.0


def test_the_bypass_shows_as_two_constants_times_raw_losses(samples: Path) -> None:
    total, gap, raw = residual(samples / "distillation-bypass")
    design = np.column_stack([raw[name] for name in distillation.BYPASS])
    fitted, *_ = np.linalg.lstsq(design, gap, rcond=None)
    assert fitted == pytest.approx(list(distillation.BYPASS.values()), rel=1e-3)
    assert (gap / total).min() > 0.015 and 0.03 < np.median(gap / total) < 0.06 and (gap / total).max() < 0.1
    for name in distillation.BYPASS:
        steps, weights = series(samples / "distillation-bypass", f"losses/{name}/weight", "")
        assert (weights[steps < 900] == 0.0).all() and (weights[steps > 900] > 0.0).all()


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_the_progress_bar_shows_the_total_to_four_decimals(name: str, samples: Path) -> None:
    total, displayed = (series(samples / name, f"losses/{part}", "")[1] for part in ("total", "displayed"))
    assert np.abs(total - displayed).max() <= 0.5e-4 + 1e-9
    assert (displayed == np.round(displayed, 4)).all()


def planned_weight(step: int, component: str, phases: list[dict[str, Any]]) -> float:
    """Weight of a component at a step by the plan's words: the phase in force, and how far its ramp has come."""
    former = phase = phases[0]
    for following in phases[1:]:
        if step >= following["start"]:
            former, phase = phase, following
    weight: float = phase["weights"][component]
    if phase.get("ramp") != "linear" or step >= phase["start"] + phase["ramp_length"]:
        return weight
    share = (step - phase["start"]) / phase["ramp_length"]
    return float((1 - share) * former["weights"][component] + share * weight)


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_observed_curriculum_weights_follow_the_declared_plan(name: str, samples: Path) -> None:
    phases = json.loads((samples / name / "manifest.json").read_text())["plan"]["curriculum"]["phases"]
    for component in distillation.COMPONENTS:
        steps, weights = series(samples / name, f"curriculum/weight/{component}", "")
        planned = [planned_weight(int(step), component, phases) for step in steps]
        assert weights == pytest.approx(planned, abs=1e-9)


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_the_student_really_learned(name: str, samples: Path) -> None:
    _, accuracy = series(samples / name, "accuracy", "eval")
    assert accuracy[-1] > 0.9 > 0.5 > accuracy[0]


def test_diversity_collapses_where_the_generator_begins_to_rush_and_only_there(samples: Path) -> None:
    steps, healthy = series(samples / "gan-healthy", "diversity")
    _, collapsed = series(samples / "gan-collapse", "diversity")
    rush = make._COLLAPSE.rush_from
    assert rush is not None
    assert (healthy[steps < rush] == collapsed[steps < rush]).all()
    assert healthy[steps >= 1000].min() > 0.75
    assert np.median(collapsed[steps >= rush + 500]) < 0.15
    _, classes = series(samples / "gan-collapse", "classes")
    assert classes[steps >= rush + 500].max() <= 3
    late = [series(samples / "gan-collapse", tag)[1][steps >= rush + 500] for tag in ("d_loss", "g_loss")]
    assert [np.median(values) for values in late] == pytest.approx([2 * math.log(2), math.log(2)], abs=0.03)


@pytest.mark.parametrize("name", ["gan-healthy", "gan-collapse"])
def test_sample_grids_stand_where_the_stream_says(name: str, samples: Path) -> None:
    listed = [payload["files"] for _, payload in events(samples / name, "samples")]
    assert len(listed) == gan.Options().steps // gan.GRID_EVERY + 1
    for (file,) in listed:
        assert (samples / name / file).read_bytes().startswith(b"\x89PNG")


def test_the_poisoned_batch_is_a_spike_that_comes_back(samples: Path) -> None:
    steps, healthy = series(samples / "charlm-healthy", "loss")
    _, spiked = series(samples / "charlm-spike", "loss")
    poison = make._SPIKE.poison_step
    assert poison is not None
    assert (healthy[steps < poison] == spiked[steps < poison]).all()
    before = np.median(spiked[(steps < poison) & (steps >= poison - 50)])
    assert spiked[steps == poison][0] > 10 * before
    assert np.median(spiked[(steps > poison + 100) & (steps <= poison + 150)]) < 1.1 * before
    _, lr = series(samples / "charlm-spike", "lr")
    assert lr[steps == poison][0] == pytest.approx(20 * np.median(lr))


def test_eval_loss_turns_up_in_the_overfitted_run_and_in_no_other(samples: Path) -> None:
    for name in ("charlm-overfit", "charlm-healthy"):
        _, held_out = series(samples / name, "loss", "eval")
        _, train = series(samples / name, "loss")
        assert train[-50:].mean() < train[200:250].mean()
        climbed = held_out[-1] / held_out.min()
        assert climbed > 1.2 if name == "charlm-overfit" else climbed < 1.02
    steps, held_out = series(samples / "charlm-overfit", "loss", "eval")
    assert 120 <= steps[held_out.argmin()] <= 280


def test_the_killed_run_stops_inside_a_line_and_has_no_end(samples: Path) -> None:
    (segment,) = (samples / "charlm-killed").glob("*.jsonl")
    *whole, last = segment.read_bytes().split(b"\n")
    records = [json.loads(line) for line in whole]
    assert last and "end" not in {record["kind"] for record in records}
    with pytest.raises(json.JSONDecodeError):
        json.loads(last)
    assert make._KILLED.kill_step == 1 + max(r["step"] for r in records if r["step"] is not None)
    assert make._KILLED.kill_step < charlm.Options().steps


def cosines(path: Path) -> tuple[Any, Any, int]:
    """Same- and different-speaker cosines of one embeddings file, and how many vectors it has."""
    table = pl.read_parquet(path)
    vectors = np.stack(table["vector"].to_list())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = table["label"].to_numpy()
    i, j = np.triu_indices(len(labels), 1)
    values, same = (unit @ unit.T)[i, j], labels[i] == labels[j]
    return values[same], values[~same], len(labels)


def test_speakers_come_apart_between_the_first_and_the_last_embeddings(samples: Path) -> None:
    kept = events(samples / "speaker-encoder", "embeddings")
    assert [step for step, _ in kept] == [0, 100, 300, 600]
    by_step = {step: cosines(samples / "speaker-encoder" / payload["file"]) for step, payload in kept}
    assert {count for _, _, count in by_step.values()} == {96}
    same, different, _ = by_step[0]
    assert different.mean() > 0.95
    same, different, _ = by_step[600]
    assert same.mean() > 0.7 and different.mean() < 0.3


def test_checkpoints_are_whole_and_move_with_training(samples: Path) -> None:
    kept = events(samples / "speaker-encoder", "checkpoint")
    assert [step for step, _ in kept] == [0, 100, 300, 600]
    weights = []
    for _, payload in kept:
        path = samples / "speaker-encoder" / payload["path"]
        content = path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (payload["bytes"], payload["sha256"])
        weights.append(load_file(path)["embed.weight"])
    moved = [float(np.linalg.norm(after - weights[0])) for after in weights]
    assert moved == sorted(moved)
    assert moved[-1] > 0.5
