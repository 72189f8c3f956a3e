"""Every format holds the numbers that the training logged, at its steps and times."""

import json
import math

import numpy as np
import polars as pl
import pytest

import aftertrain as at
from benchmarks.faults.dress import dress
from benchmarks.faults.loop import train
from benchmarks.faults.plants.hidden import resume
from benchmarks.faults.plants.stream import cut, keep_before
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.writers import FORMATS

RECIPE = Recipe("classifier", "adam", "linear", 40, 16, seed=11, every=2)


@pytest.fixture(scope="module")
def trace():
    made = train(RECIPE)
    dress(made, RECIPE, np.random.default_rng(3), memory=True, speed=False)
    return made


def loss_of(run, split):
    """The loss of a split by step; text logs and some others name the split `train` by leaving it out."""
    mine = run.scalars.filter(pl.col("metric") == "loss")
    kept = mine.filter(pl.col("split") == split)
    return (kept if len(kept) else mine.filter(pl.col("split") == "")).unique(["step"], keep="first").sort("step")


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_logged_is_read_again(trace, name, tmp_path):
    path = FORMATS[name].write(trace, tmp_path, np.random.default_rng(0))
    run = at.load(path)
    steps, values = trace.series("loss")
    read = loss_of(run, "train")
    late = 1 if "csv" in name else 0
    assert read["step"].to_list() == [int(step) - late for step in steps]
    assert np.allclose(read["value"], values, rtol=2e-6, atol=6e-5)
    evals = loss_of(run, "eval")
    assert np.allclose(evals["value"], trace.series("loss", "eval")[1], rtol=2e-6, atol=6e-5)
    assert len(run.rejects) == 0


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.times])
def test_times_are_those_of_the_drawn_clock(trace, name, tmp_path):
    run = at.load(FORMATS[name].write(trace, tmp_path, np.random.default_rng(0)))
    read = loss_of(run, "train")["time"].dt.epoch("us").to_numpy() / 1e6
    assert np.allclose(read, [row.time for row in trace.where("train")], atol=2e-3)


def test_a_resume_is_a_second_attempt_in_the_stream_and_in_tensorboard(trace, tmp_path):
    twice = trace.copy()
    resume(twice, 40)
    dress(twice, RECIPE, np.random.default_rng(4))  # a resume takes its time
    for name in ("event-stream", "tensorboard"):
        run = at.load(FORMATS[name].write(twice, tmp_path / name, np.random.default_rng(0)))
        attempts = run.scalars.group_by("attempt").agg(pl.col("step").min()).sort("attempt")
        assert attempts["attempt"].to_list() == [0, 1], name
        assert attempts["step"].to_list() == [2, 40], name


def test_a_killed_run_has_no_end_in_its_stream(trace, tmp_path):
    killed = trace.copy()
    killed.status = None
    for name, made in (("whole", trace), ("killed", killed)):
        run = at.load(FORMATS["event-stream"].write(made, tmp_path / name, np.random.default_rng(1)))
        assert ("end" in run.events["kind"].to_list()) == (name == "whole")


@pytest.mark.parametrize("name", ["event-stream", "jsonl", "lightning-csv", "tensorboard", "trainer-state"])
def test_a_cut_file_ends_inside_a_record(trace, name, tmp_path):
    killed = trace.copy()
    killed.status = None
    path = FORMATS[name].write(killed, tmp_path, np.random.default_rng(0))
    whole = loss_of(at.load(path), "train")["step"].max()
    cut(path, 0.6)
    run = at.load(path)
    assert loss_of(run, "train")["step"].max() < whole
    if name != "lightning-csv":  # a cell that is left out is a whole row to a CSV
        assert len(run.rejects) >= 1


def test_what_a_killed_trainer_leaves_is_the_state_of_its_last_checkpoint(trace, tmp_path):
    def state(made, name):
        folder = FORMATS["trainer-state"].write(made, tmp_path / name, np.random.default_rng(0))
        return json.loads((folder / "trainer_state.json").read_text())

    whole = state(trace, "whole")
    assert whole["global_step"] == whole["max_steps"] == trace.last_step
    assert whole["num_train_epochs"] == math.ceil(trace.rows[-1].epoch)
    killed = trace.copy()
    keep_before(killed, 58)
    left = state(killed, "killed")
    assert left["global_step"] % left["save_steps"] == 0 and 50 < left["global_step"] <= 58
    assert max(entry["step"] for entry in left["log_history"]) <= left["global_step"]
    assert left["num_train_epochs"] == whole["num_train_epochs"]
