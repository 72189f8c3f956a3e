"""SIGKILL at a random moment of a real process: every record that `log` returned for is read back."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import aftertrain as at
from aftertrain import Recorder
from tests.eventstream.zygote import Zygote

#: What each child does, by the moment at which it may be killed: inside one segment, between two, with numbers pending
#: on a device, and while another process seals the segments before. Together a hundred.
TRIES = {"plain": 40, "rotating": 30, "pending": 22, "sealing": 8}

RECORD = """
from eventstream.recorder import Recorder

class Far:
    # A number of a device that arrives only when the sixty-fifth waits.
    def __init__(self, number):
        self.number = number
    def ready(self):
        return False
    def numbers(self):
        return [self.number]

OPTIONS = {
    "plain": {"seal": False},
    "rotating": {"seal": False, "segment_bytes": 1500},
    "pending": {"seal": False},
    "sealing": {"segment_bytes": 20_000},
}

def record(say, folder, mode):
    rec = Recorder(folder, **OPTIONS[mode])
    step = 0
    while True:
        if mode == "pending":
            far = Far(step)
            rec.log_later(step, [far], lambda far=far: {"late": far.numbers()[0]})
        bad = step % 7 == 3
        rec.log(step, {"loss": float("nan") if bad else step * 0.5, "name with spaces é": 1}, split="train")
        say(step)
        step += 1
"""


@pytest.fixture(scope="module")
def zygote():
    with Zygote(RECORD) as server:
        yield server


def held(folder: Path, metric: str) -> list[tuple[int, float]]:
    return at.load(folder).series(metric, split=None).select("step", "value").rows()


@pytest.mark.parametrize("mode", TRIES)
def test_every_record_that_log_returned_for_is_read_back(tmp_path, zygote, mode):
    rng = random.Random(f"killed {mode}")
    for number in range(TRIES[mode]):
        folder = tmp_path / str(number)
        # A segment is sealed half a second after it is full: those children live for tens of thousands of records.
        most = 20_000 if mode == "sealing" else 200
        said = zygote.killed_after(rng.randint(1, most), tmp_path / f"{number}.fifo", folder, mode)
        assert said == list(range(len(said)))
        rows = held(folder, "loss")
        assert [step for step, _ in rows] == list(range(len(rows)))
        assert len(rows) - len(said) in (0, 1), "one may be written and not yet said"
        assert all(math.isnan(value) if step % 7 == 3 else value == step * 0.5 for step, value in rows)
        if mode == "pending":
            late = [step for step, _ in held(folder, "late")] if len(said) > 64 else []
            assert late == list(range(len(late)))
            assert len(late) >= len(said) - 64
        if mode == "rotating" and len(said) > 50:
            assert len(list(folder.glob("*.jsonl"))) > 2
        shutil.rmtree(folder)


def test_a_start_after_a_kill_while_segments_were_sealed_continues_the_run_whole(tmp_path, zygote):
    folder = tmp_path / "run"
    said = zygote.killed_after(9_000, tmp_path / "fifo", folder, "sealing")
    with Recorder(folder) as rec:
        assert rec.attempt == 1
        rec.log(-1, {"loss": 0.25}, split="train")
    assert len(list(folder.glob("*attempt0001*"))) == 1
    run = at.load(folder)
    before = run.scalars.filter((run.scalars["attempt"] == 0) & (run.scalars["metric"] == "loss"))["step"]
    assert before.to_list()[: len(said)] == said
    assert run.rejects.height <= 1  # the manifest of a start that was killed, or nothing


VECTORS = """
import pyarrow.parquet
import numpy
from eventstream.recorder import Recorder

def record(say, folder):
    rec = Recorder(folder, seal=False)
    step = 0
    while True:
        vectors = numpy.full((3, 4), step, numpy.float32)
        vectors[:, 0] = 1, 2, 3
        rec.embeddings(step, vectors, ["a", "b", "a"])
        say(step)
        step += 1
"""


def test_every_embedding_of_a_killed_process_is_read_whether_its_file_was_gathered_or_not(tmp_path):
    from analysis.embeddings.source import EmbeddingSet, from_run

    rng = random.Random(5)
    with Zygote(VECTORS) as server:
        for number, least in enumerate((rng.randint(1, 63), 64, rng.randint(65, 90), rng.randint(128, 150))):
            folder = tmp_path / str(number)
            said = server.killed_after(least, tmp_path / f"{number}.fifo", folder)
            found = list(from_run(at.load(folder)))
            assert all(isinstance(one, EmbeddingSet) for one in found), found
            steps = [one.step for one in found]
            assert steps == list(range(len(steps)))
            assert len(steps) - len(said) in (0, 1)
            for one in found:
                ratios = one.vectors.unit[:, 1] / one.vectors.unit[:, 0]
                assert np.allclose(np.sort(ratios), np.array([1 / 3, 1 / 2, 1]) * one.step)
