"""TensorBoard and W&B as mirrors, written by the real libraries: the same numbers at the same steps everywhere."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

import aftertrain as at
from eventstream.mirrors import About
from eventstream.recorder import Recorder
from eventstream.tensorboard_mirror import TensorBoardMirror
from eventstream.text_log import TextLog
from eventstream.wandb_mirror import HELD, WandbMirror

KEY = ["step", "split", "metric"]
#: Names that formats keep for themselves, or that paths, patterns and pages would stumble over.
HOSTILE = [
    "",
    "_step",
    "_timestamp",
    "a.b",
    "system.x",
    "../up",
    'we"ird <script>: näme',
    "x\ny",
    "nested/a/b",
    "🙂",
    "%s",
]
PLAIN = [
    *("loss", "grad_norm", "big", "small", "accuracy", "losses/total"),
    *("losses/kd/raw", "losses/kd/weight", "losses/ce/raw", "losses/ce/weighted"),
]
STEPS = 60


@pytest.fixture(scope="module")
def quiet_wandb(tmp_path_factory):
    """wandb keeps its own files under a folder of the tests, and its settings are nobody's."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            patch.setenv(name, str(home))
        yield


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory, quiet_wandb):
    """One run recorded with every mirror at once: the stream, and what each mirror wrote."""
    folder = tmp_path_factory.mktemp("mirrored")
    mirrors = [TextLog(folder / "train.log"), TensorBoardMirror(folder / "board"), WandbMirror(folder, project="p")]
    settings = {"lr": 0.1, "optimizer": {"name": "adam", "betas": [0.9, 0.95]}}
    with Recorder(folder / "run", run="kind sun", config=settings, mirrors=mirrors) as rec:
        for step in range(STEPS):
            values = {"loss": 1 / (step + 1), "grad_norm": math.nan if step == 3 else 2.0**-step}
            rec.log(step, values | {"big": math.inf, "small": -math.inf}, split="train", epoch=step / 10)
            rec.log(step, {name: step + place / 16 for place, name in enumerate(HOSTILE)})
            rec.losses(step, {"kd": (0.25 * step, 0.5), "ce": {"raw": 1.0, "weighted": 0.5}}, total=2.5)
            if step % 20 == 19:
                rec.log(step, {"loss": 2 / (step + 1), "eval_accuracy": 0.5}, split="eval")
                rec.note(f"evaluated\nat {step}", step)
    run = {"stream": at.load(folder / "run"), "text": at.load(folder / "train.log"), "board": at.load(folder / "board")}
    return run | {"wandb": at.load(next((folder / "wandb").glob("offline-run-*")))}


def numbers(run, *, narrow=False):
    """Step, split, metric and value of every number with a plain name."""
    frame = run.scalars.filter(pl.col("metric").is_in(PLAIN)).select(*KEY, "value").sort(KEY)
    return frame.with_columns(pl.col("value").cast(pl.Float32).cast(pl.Float64)) if narrow else frame


def hostile(run):
    """Step and value of all other numbers, whatever a format calls them."""
    found = run.scalars.filter(~pl.col("metric").is_in([*PLAIN, "resources/ram_gb"]))
    return sorted(found.select("step", "value").rows())


@pytest.mark.parametrize("mirror", ["text", "board", "wandb"])
def test_the_same_numbers_stand_at_the_same_steps_in_every_mirror(mirrored, mirror):
    narrow = mirror == "board"
    wanted, found = numbers(mirrored["stream"], narrow=narrow), numbers(mirrored[mirror], narrow=narrow)
    assert wanted.height == STEPS * 9 + 3 * 2
    assert found.equals(wanted)
    assert mirrored[mirror].rejects.is_empty()


@pytest.mark.parametrize("mirror", ["text", "board", "wandb"])
def test_numbers_of_hostile_names_are_all_there(mirrored, mirror):
    wanted = sorted((step, step + place / 16) for step in range(STEPS) for place in range(len(HOSTILE)))
    assert hostile(mirrored["stream"]) == wanted
    assert hostile(mirrored[mirror]) == wanted


@pytest.mark.parametrize("mirror", ["board", "wandb"])
def test_configuration_and_notes_come_along(mirrored, mirror):
    run = mirrored[mirror]
    assert run.config == mirrored["stream"].config
    assert any("evaluated\\nat 19" in payload for payload in run.events["payload"])


def test_times_are_those_of_the_records(mirrored):
    wanted = mirrored["stream"].series("loss", split="eval").select("step", "time")
    for mirror in ("board", "wandb"):
        found = mirrored[mirror].series("loss", split="eval")
        assert found["step"].to_list() == wanted["step"].to_list()
        seconds = (found["time"] - wanted["time"]).dt.total_microseconds().abs()
        assert seconds.max() < 1_000_000  # W&B has one time a step, that of its last record


def test_the_library_reads_what_the_tensorboard_mirror_wrote(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Recorder(tmp_path / "run", seal=False, mirrors=[TensorBoardMirror(tmp_path / "board")]) as rec:
        rec.log(7, {"loss": 0.1, "accuracy": 1e300}, split="eval")
        rec.log(None, {"loose": 1.0})
        rec.log(None, {"loose": 2.0})
    read = EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("eval/loss")] == [(7, np.float32(0.1))]
    assert [(e.step, e.value) for e in read.Scalars("eval/accuracy")] == [(7, math.inf)]
    assert [(e.step, e.value) for e in read.Scalars("loose")] == [(0, 1.0), (1, 2.0)]


def test_a_second_start_is_the_next_attempt_in_tensorboard(tmp_path):
    for start in range(2):
        with Recorder(tmp_path / "run", seal=False, mirrors=[TensorBoardMirror(tmp_path / "board")]) as rec:
            for step in range(10 * start, 10 * start + 20):
                rec.log(step, {"loss": float(step)})
    scalars = at.load(tmp_path / "board").scalars
    assert scalars.group_by("attempt").len().sort("attempt").rows() == [(0, 20), (1, 20)]


def test_ten_thousand_tags_reach_every_mirror(tmp_path, quiet_wandb):
    values = {f"layer{number}/grad_norm": number / 7 for number in range(10_000)}
    mirrors = [TextLog(tmp_path / "a.log"), TensorBoardMirror(tmp_path / "board"), WandbMirror(tmp_path)]
    with Recorder(tmp_path / "run", seal=False, mirrors=mirrors) as rec:
        rec.log(5, values)
    places = [tmp_path / "a.log", tmp_path / "board", next((tmp_path / "wandb").glob("offline-run-*"))]
    for place in places:
        scalars = at.load(place).scalars.filter(pl.col("tag") != "resources/ram_gb")
        assert scalars.height == scalars["tag"].n_unique() == 10_000
        assert scalars["step"].unique().to_list() == [5]


def test_a_board_whose_folder_cannot_be_made_is_dropped_with_one_warning(tmp_path, caught, lines_of):
    (tmp_path / "board").write_text("a file")
    mirrors = [TensorBoardMirror(tmp_path / "board")]
    with caught() as texts, Recorder(tmp_path / "run", seal=False, mirrors=mirrors) as rec:
        rec.log(1, {"loss": 1.0})
        rec.log(2, {"loss": 1.0})
    assert len(texts) == 1 and "TensorBoardMirror failed" in texts[0]
    assert len(lines_of(tmp_path / "run")) == 3


class Library:
    """As much of wandb as a mirror calls, keeping what it is given."""

    def __init__(self):
        self.logged, self.config, self.run, self.ended = [], {}, None, []
        self.most_recent_active_run = None

    def setup(self):
        return self

    def Settings(self, **settings):  # noqa: N802 - as the library calls it
        return settings

    def init(self, **_):
        return self

    def log(self, values, step):
        assert not self.logged or step > self.logged[-1][0], "W&B would drop this"
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.ended.append(exit_code)

    def teardown(self):
        self.ended.append("teardown")


@pytest.fixture
def library(monkeypatch, tmp_path):
    made = Library()
    mirror = WandbMirror(tmp_path / "w")
    mirror._wandb = made
    mirror.begin(About("kind sun", tmp_path))
    return mirror, made


def metrics(step, **values):
    return {"kind": "metrics", "step": step, "time": 1.7e9, "values": values}


def test_records_that_arrive_out_of_order_are_handed_to_wandb_in_order(library):
    mirror, made = library
    steps = [step + late for step in range(0, 300, 3) for late in (2, 0, 1)]
    for step in steps:
        mirror.write(metrics(step, loss=float(step)))
        mirror.write(metrics(step, lr=0.5))
        assert len(mirror._held) <= HELD
    mirror.close()
    assert [step for step, _ in made.logged] == sorted(steps)
    assert all(values == {"loss": float(step), "lr": 0.5, "_timestamp": 1.7e9} for step, values in made.logged)


def test_a_step_that_comes_far_too_late_is_left_out_and_said_once(library, caught):
    mirror, made = library
    for step in range(HELD + 10):
        mirror.write(metrics(step, loss=1.0))
    with caught() as texts:
        for step in (3, 4, -1):
            mirror.write(metrics(step, loss=2.0))
    mirror.close()
    assert len(texts) == 1 and "given step 3, after step 9 was written" in texts[0]
    assert [step for step, _ in made.logged] == list(range(HELD + 10))


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("failed", 1), ("interrupted", 1)])
def test_the_run_ends_as_the_training_ended(library, status, code):
    mirror, made = library
    mirror.write({"kind": "end", "step": None, "time": 1.7e9, "payload": {"status": status}})
    mirror.close()
    assert made.ended[0] == code


ALONE = """
import sys, psutil
import aftertrain as at
folder, whose = sys.argv[1:]
def init(**given):
    import wandb
    return wandb.init(mode="offline", dir=folder, settings=wandb.Settings(console="off", silent=True), **given)
theirs = init() if whose == "before" else None
mirror = at.WandbMirror(folder)
theirs = init(reinit="create_new") if whose == "after" else theirs
with at.Recorder(folder + "/run", mirrors=[mirror]) as rec:
    rec.log(1, {"loss": 1.0})
children = [child.name() for child in psutil.Process().children(recursive=True)]
assert bool(children) == (whose != "nobody"), children
if theirs is not None:
    theirs.log({"theirs": 2.0})
    theirs.finish()
"""


@pytest.mark.parametrize("whose", ["nobody", "before", "after"])
def test_the_librarys_process_ends_with_the_mirror_unless_the_training_has_a_run_of_its_own(
    tmp_path, quiet_wandb, whose
):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    # without the service that another test of this process may have started: the child would join it
    alone = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_SERVICE")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path), whose], capture_output=True, text=True, check=False, env=alone
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    runs = [at.load(path) for path in (tmp_path / "wandb").glob("offline-run-*")]
    tags = {tag for run in runs for tag in run.scalars["tag"]}
    assert "loss" in tags and ("theirs" in tags) == (whose != "nobody")


def test_nothing_of_a_mirror_is_imported_with_the_recorder():
    code = "import sys, eventstream.recorder, eventstream.text_log; print({'wandb', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan])
def test_a_pace_of_flushing_that_is_none_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="flush_s must be a positive number of seconds"):
        TensorBoardMirror(Path(tmp_path), flush_s=seconds)


def test_the_guide_shows_what_runs(tmp_path, quiet_wandb, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "recording.md").read_text()
    code = next(block for block in guide.split("```python\n")[1:] if "TensorBoardMirror" in block).partition("```")[0]
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers = root.handlers.copy()
    try:
        exec(
            code.replace("    ...\n", "    rec.log(1, {'loss': 0.5})\n"), {"at": at, "logging": logging, "loader": [0]}
        )
    finally:
        root.handlers = handlers
    places = [tmp_path / "train.log", tmp_path / "board", next((tmp_path / "tracked" / "wandb").glob("offline-run-*"))]
    for place in [tmp_path / "runs" / "exp-1", *places]:
        assert at.load(place).series("loss").select("step", "value").rows() == [(1, 0.5)]


def test_a_text_log_that_a_second_start_continues_is_one_log(tmp_path):
    for start in range(2):
        log = TextLog(tmp_path / "train.log", total_steps=40)
        with Recorder(tmp_path / "run", seal=False, mirrors=[log]) as rec:
            for step in range(15 * start, 15 * start + 20):
                rec.log(step, {"loss": float(step)})
    loss = at.load(tmp_path / "train.log").scalars.filter(pl.col("tag") == "loss")
    wanted = [(0, step, float(step)) for step in range(20)] + [(1, step, float(step)) for step in range(15, 35)]
    assert sorted(loss.select("attempt", "step", "value").rows()) == wanted


def test_a_mirror_may_serve_one_recorder_after_the_other(library, tmp_path):
    mirror, made = library
    mirror.write(metrics(500, loss=1.0))
    mirror.close()
    mirror.begin(About("another", tmp_path))
    mirror.write(metrics(3, loss=2.0))
    made.logged.clear()
    mirror.close()
    assert [(step, values["loss"]) for step, values in made.logged] == [(3, 2.0)]
