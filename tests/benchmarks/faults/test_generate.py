"""Logs with known faults: trained the same each time, planted as large as they say, told apart by truth alone."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

import aftertrain as at
from analysis.kinds import KINDS
from benchmarks.faults.cells import draw_cell, held_out
from benchmarks.faults.effects import log_noise, peak, swing
from benchmarks.faults.generate import Maker, chosen, main, pooled_cell
from benchmarks.faults.health import why_unhealthy
from benchmarks.faults.jobs import Job, all_jobs, practice_jobs
from benchmarks.faults.ladder import LADDERS, ladder_of
from benchmarks.faults.loop import train
from benchmarks.faults.planting import ONE_LOSS, Ask, all_faults
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import Schedule

FAULTS = all_faults()
JOBS = all_jobs()
PLAIN = Recipe("regression", "adam", "warmup-cosine", 40, 16, seed=5)


def job_of(key: str, magnitude: int, split: str = "calibration") -> Job:
    return next(job for job in JOBS if job.plant == key and job.magnitude == magnitude and job.split == split)


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    """Makes runs of every fault that are as short as the fault allows."""
    made = Maker(tmp_path_factory.mktemp("faults"))
    made.faults = {key: dataclasses.replace(fault, points=(min(fault.points),)) for key, fault in FAULTS.items()}
    return made


def truth_of(maker, job):
    why = maker.make(job)
    assert why == ""
    return json.loads((maker.folder / "runs" / job.id / "truth.json").read_text())


def test_every_ladder_goes_from_obvious_to_faint_and_belongs_to_a_kind():
    for name, ladder in LADDERS.items():
        assert name.split(":")[0] in KINDS
        assert set(ladder.accepted) <= set(KINDS)
        assert all(len(reason) > 10 for reason in ladder.accepted.values())
        if ladder.noise is not None:
            assert list(ladder.noise) == sorted(ladder.noise, reverse=True)


def test_every_plant_has_a_ladder_and_every_kind_of_the_issue_a_plant():
    planted = {key.split("/")[0] for key in FAULTS}
    assert planted == {name.split(":")[0] for name in LADDERS}
    assert len(planted) >= 45
    for fault in FAULTS.values():
        assert all(ladder_of(fault.kind, variant).sizes for variant in fault.variants)


def test_runs_have_names_of_their_own_and_healthy_ones_are_no_fewer():
    assert len({job.id for job in JOBS}) == len(JOBS)
    healthy = [job for job in JOBS if job.magnitude == 0]
    assert len(healthy) >= len(JOBS) - len(healthy)
    for split in ("calibration", "scored"):
        assert {j.magnitude for j in JOBS if j.split == split} == {0, 1, 2, 3, 4, 5, 6}


def test_the_same_recipe_trains_to_the_same_numbers_and_another_seed_to_others():
    first, again, other = train(PLAIN), train(PLAIN), train(PLAIN.with_(seed=6))
    assert first.series("loss")[1].tolist() == again.series("loss")[1].tolist()
    assert first.series("loss")[1].tolist() != other.series("loss")[1].tolist()


@pytest.mark.parametrize("family", ONE_LOSS)
def test_every_family_learns(family):
    trace = train(Recipe(family, "adam", "constant", 60, 32, seed=3, every=2))
    values = trace.series("loss")[1]
    assert np.median(values[-10:]) < 0.9 * np.median(values[:5])
    assert why_unhealthy(trace, Recipe(family, "adam", "constant", 60, 32, seed=3, every=2)) == ""


def test_a_training_whose_rate_is_far_too_high_is_not_called_healthy():
    recipe = Recipe("regression", "sgd", "constant", 60, 16, seed=3, options={"lr_factor": 40.0})
    assert why_unhealthy(train(recipe), recipe) != ""


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("step", lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [30, 60], gamma=0.1)),
        ("cosine-restarts", lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 25)),
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=100)),
        ("warmup-cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100)),
    ],
)
def test_schedules_are_those_of_torch(name, theirs):
    ours = Schedule(name, 0.1, 100, milestones=(30, 60), period=25)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = theirs(optimizer)
    for step in range(1, 100):
        optimizer.step()
        scheduler.step()
        assert ours.at(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step


def test_noise_is_measured_without_the_trend():
    rng = np.random.default_rng(0)
    values = 3 * np.exp(-np.arange(2000) / 400) * np.exp(0.05 * rng.standard_normal(2000))
    assert log_noise(values) == pytest.approx(0.05, rel=0.1)
    assert log_noise(values[:4]) == 0.0


def test_a_peak_and_a_swing_are_measured_as_they_are():
    values = np.ones(50)
    values[30] = 4.0
    assert peak(values, 30, 3) == 4.0
    t = np.arange(300)
    noisy = np.exp(0.2 * np.sin(2 * np.pi * t / 20) + 0.1 * np.random.default_rng(1).standard_normal(300))
    amplitude, rest = swing(noisy, 20.0)
    assert (amplitude, rest) == (pytest.approx(0.2, rel=0.1), pytest.approx(0.1, rel=0.15))


def test_some_combinations_stand_in_the_scored_half_only():
    rng = np.random.default_rng(0)
    families, formats = ("classifier", "language", "speaker"), ("jsonl", "text", "tensorboard")

    def drawn(split):
        cells = [draw_cell(split, rng, families=families, formats=formats, points=(30,)) for _ in range(300)]
        return {(cell.recipe.family, cell.recipe.schedule, cell.format) for cell in cells}

    calibration, scored = drawn("calibration"), drawn("scored")
    assert not any(held_out(*one) for one in calibration)
    assert sum(held_out(*one) for one in scored) >= 5


def test_halves_have_seeds_of_their_own():
    rng = np.random.default_rng(0)
    wanted = {"families": ("classifier",), "formats": ("jsonl",), "points": (30,)}
    assert {draw_cell("calibration", rng, **wanted).recipe.seed % 2 for _ in range(20)} == {0}
    assert {draw_cell("scored", rng, **wanted).recipe.seed % 2 for _ in range(20)} == {1}


def test_runs_for_practice_are_none_of_the_halves_and_have_seeds_and_names_of_their_own():
    practice = practice_jobs(3)
    assert {job.split for job in practice} == {"practice"}
    assert not {job.id for job in practice} & {job.id for job in JOBS}
    assert {job.plant for job in practice} == {job.plant for job in JOBS}
    rng = np.random.default_rng(0)
    cells = [draw_cell("practice", rng, families=ONE_LOSS, formats=("jsonl", "text"), points=(30,)) for _ in range(80)]
    assert min(cell.recipe.seed for cell in cells) > 2**33
    assert not any(held_out(cell.recipe.family, cell.recipe.schedule, cell.format) for cell in cells)
    stall = FAULTS["stall/stall"]
    ask = Ask("", 1, np.random.default_rng(1))
    assert pooled_cell("practice", stall, ask).recipe.seed > 2**33


def test_runs_for_practice_are_made_as_many_as_asked_for_and_listed_together(tmp_path):
    arguments = ["--only", "missing-input", "--share", "0.17", "--split", "practice", "--folder", str(tmp_path)]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "index.json").read_text())
    assert [one["split"] for one in first] == ["practice"]
    assert main([*arguments, "--reps", "2"]) == 0
    together = json.loads((tmp_path / "index.json").read_text())
    assert len(together) == 3 and first[0] in together


#: One plant of each module at a size that everyone sees; all of them are planted by the generator itself.
SAMPLE = [
    "curriculum-bypass/bypass", "mode-collapse/mode_collapse", "forbidden-input/forbidden_input",
    "suspiciously-good/suspiciously_good", "dead-units/dead_units", "stale-values/stale",
    "hidden-non-finite/hidden_nan", "source-disagreement/disagreement", "outlier/outlier", "plateau/plateau",
    "rank-missing/rank_missing", "memory-overflow/memory_overflow", "truncated-stream/truncated",
    "step-regression/step_regression", "loss-spike/loss_spike",
]  # fmt: skip


@pytest.mark.parametrize("key", SAMPLE)
def test_a_planted_run_is_a_log_with_its_truth_beside_it(maker, key):
    truth = truth_of(maker, job_of(key, 2))
    assert truth["fault"] == key.split("/")[0]
    assert truth["size"] > 0 and truth["wanted"] == ladder_of(truth["fault"], truth["variant"]).sizes[1]
    assert 0 <= truth["onset_step"] <= truth["last_step"] + truth["every"]
    run = at.load(maker.folder / truth["path"])
    assert len(run.scalars) > 20
    assert not list((maker.folder / truth["path"]).rglob("truth.json"))


@pytest.mark.parametrize("variant", ["requires-grad", "optimizer"])
def test_of_a_layer_without_gradients_the_log_says_that_it_was_to_train(maker, variant):
    key = "frozen-layer/frozen"
    truth = truth_of(maker, next(j for j in JOBS if j.plant == key and j.variant == variant and j.magnitude == 1))
    stated = at.load(maker.folder / truth["path"]).planned.trainable
    assert stated == (("0", "2", "4", "6") if variant == "requires-grad" else ())


def test_a_run_that_is_there_is_not_made_again(tmp_path):
    arguments = ["--only", "missing-input", "--share", "0.17", "--folder", str(tmp_path)]
    assert main(arguments) == 0
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("truth.json")}
    index = json.loads((tmp_path / "index.json").read_text())
    assert len(index) == len(files) == 2
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("truth.json")} == files


def test_a_run_depends_on_its_id_alone(tmp_path):
    job = job_of("healthy/warmup", 0)
    read = []
    for name in ("a", "b"):
        maker = Maker(tmp_path / name)
        assert maker.make(job) == ""
        truth = json.loads((tmp_path / name / "runs" / job.id / "truth.json").read_text())
        read.append((truth, at.load(tmp_path / name / truth["path"]).scalars.drop("run")))
    assert read[0][0] == read[1][0]
    assert read[0][1].equals(read[1][1])


def test_a_share_keeps_both_halves_and_unknown_kinds_are_refused():
    kept = chosen(JOBS, [], 0.1)
    assert {job.split for job in kept} == {"calibration", "scored"}
    assert len(kept) == pytest.approx(len(JOBS) / 10, abs=1)
    with pytest.raises(ValueError, match=r"nothing is planted for lost-sleep; known: .*loss-spike"):
        chosen(JOBS, ["lost-sleep"], 1.0)
    with pytest.raises(ValueError, match="share must lie above 0"):
        chosen(JOBS, [], 0.0)


def test_a_spike_is_as_high_as_its_truth_says(maker):
    job = next(j for j in JOBS if j.plant == "loss-spike/loss_spike" and j.variant == "slow" and j.magnitude == 1)
    truth = truth_of(maker, job)
    run = at.load(maker.folder / truth["path"])
    loss = run.scalars.filter((run.scalars["metric"] == "loss") & (run.scalars["split"] != "eval")).sort("step")
    row = int(np.searchsorted(loss["step"].to_numpy(), truth["onset_step"]))
    assert peak(loss["value"].to_numpy(), row, 4) == pytest.approx(truth["size"], rel=0.02)
    assert truth["size"] >= truth["wanted"] / 1.35
    assert math.isfinite(truth["size"])
