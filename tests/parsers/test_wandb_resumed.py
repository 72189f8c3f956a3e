"""Runs of W&B that were resumed, as its own library leaves them offline: a folder a start, one run of all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eventstream.errors import InputError
from parsers import wandb
from parsers.loading import load, load_all
from parsers.registry import FORMATS
from parsers.run import Run
from parsers.wandb_files.resumed import resumed_in

#: Two runs in a folder each, by explicit steps and by W&B's own count, which begins again offline: started, resumed
#: from an older checkpoint, rewound to a step; and a fork, which has an identifier of its own.
WRITE = """
import os, sys, time
home, folders = sys.argv[1], sys.argv[2:]
os.environ.update(WANDB_SILENT="true", WANDB_MODE="offline", HOME=home)
import wandb
def start(folder, first, last, attempt, given, **how):
    settings = wandb.Settings(mode="offline", console="off", x_disable_stats=True)
    run = wandb.init(project="p", name="kind-sun", dir=folder, settings=settings, config={"attempt": attempt}, **how)
    for step in range(first, last):
        row = {"train/loss": attempt + step / 100, "trainer/global_step": step}
        run.log(row, **({"step": step} if given else {}))
    run.finish()
for attempt, (first, last, how) in enumerate([
    (0, 10, {"id": "abc"}),
    (6, 16, {"id": "abc", "resume": "must"}),
    (9, 20, {"resume_from": "abc?_step=8"}),
    (9, 12, {"fork_from": "abc?_step=8"}),
]):
    while attempt and int(time.time()) == begun:  # the folder's name tells the second of the start
        time.sleep(0.01)
    for folder, given in zip(folders, (True, False)):
        start(folder, first, last, attempt, given, **how)
    begun = int(time.time())
"""
LIVE = [(s, 0) for s in range(6)] + [(s, 1) for s in range(6, 9)] + [(s, 2) for s in range(9, 20)]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `given/wandb` and `own/wandb`."""
    folder, home = tmp_path_factory.mktemp("resumed"), tmp_path_factory.mktemp("home")
    for name in ("given", "own"):
        (folder / name).mkdir()
    places = [str(folder / name) for name in ("given", "own")]
    subprocess.run([sys.executable, "-c", WRITE, str(home), *places], check=True, capture_output=True, timeout=180)
    return folder


def moved(run: Run) -> list[int]:
    return [json.loads(text)["moved"] for text in run.events_of("note")["payload"] if "moved" in text]


@pytest.mark.parametrize("counted", ["given", "own"])
def test_the_starts_of_a_resumed_run_are_attempts_of_one_run(written: Path, counted: str) -> None:
    runs = load_all(written / counted / "wandb", cache=False)
    assert len(runs) == 2 and len(resumed_in(written / counted / "wandb")["abc"]) == 3
    run = next(run for run in runs if run.path.endswith("wandb"))
    assert run.name.endswith("kind-sun") and run.format == "wandb" and run.rejects.is_empty()
    live = run.series("loss")
    assert live.select("step", "attempt").rows() == LIVE
    assert live["value"].to_list() == pytest.approx([attempt + step / 100 for step, attempt in LIVE])
    assert run.series("loss", live=False).height == 31
    assert run.config["attempt"] == 2
    assert moved(run) == ([] if counted == "given" else [6])
    assert run.events["attempt"].unique().sort().to_list() == [0, 1, 2]


def test_a_fork_is_a_run_of_its_own_that_says_from_where_it_branched_off(written: Path) -> None:
    fork = next(run for run in load_all(written / "own" / "wandb", cache=False) if not run.path.endswith("wandb"))
    about = json.loads(fork.events_of("run")["payload"][0])
    assert about["branched_from"] == {"run": "abc", "at": 8.0, "axis": "_step"}
    assert fork.series("loss").select("step", "attempt").rows() == [(9, 0), (10, 0), (11, 0)]


def test_one_start_given_by_name_is_that_start_alone(written: Path) -> None:
    second = resumed_in(written / "own" / "wandb")["abc"][1]
    run = load(second)
    assert run.series("loss").select("step", "attempt").rows() == [(step, 0) for step in range(10)]


def test_a_damaged_start_is_a_reject_and_the_others_are_read(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wandb"
    for start in resumed_in(written / "given" / "wandb")["abc"]:
        shutil.copytree(start, folder / start.name)
    log = next(resumed_in(folder)["abc"][1].glob("*.wandb"))
    log.write_bytes(log.read_bytes()[:20])
    run = load(folder)
    assert run.rejects.height >= 1 and str(log) in run.rejects["file"].to_list()
    assert set(run.series("loss", live=False)["attempt"].unique()) == {0, 2}


def test_several_resumed_runs_in_one_folder_are_told_apart_by_their_identifiers(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wandb"
    for start in resumed_in(written / "given" / "wandb")["abc"][:2]:
        shutil.copytree(start, folder / start.name)
        shutil.copytree(start, folder / start.name.replace("abc", "xyz"))
    format = next(format for format in FORMATS if format.name == "wandb")
    entries = format.each(folder)
    assert [entry.run for entry in entries] == ["abc", "xyz"]
    for entry in entries:
        run = entry.read(folder)
        assert run.series("loss").select("step", "attempt").rows() == LIVE[:6] + [(s, 1) for s in range(6, 16)]
    assert [run.last_attempt for run in load_all(tmp_path, cache=False)] == [1, 1]
    with pytest.raises(InputError, match="unknown run 'abd'; did you mean 'abc'"):
        wandb.read(folder, name="abd")


def test_starts_without_a_resume_are_runs_of_their_own(written: Path, tmp_path: Path) -> None:
    first, second, _ = resumed_in(written / "given" / "wandb")["abc"]
    folder = tmp_path / "wandb"
    shutil.copytree(first, folder / first.name)
    shutil.copytree(second, folder / second.name.replace("abc", "xyz"))
    assert resumed_in(folder) == {} and len(load_all(folder, cache=False)) == 2
    with pytest.raises(InputError, match="2 runs here"):
        load(folder)
