"""What waits for a slow disk is bounded: nothing piles up in memory, and nothing of the run is lost."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import aftertrain as at
from aftertrain import Recorder
from eventstream import background, chores
from eventstream.background import Sealer
from eventstream.chores import Chores
from eventstream.seal import seal
from eventstream.troubles import Troubles
from eventstream.vectors import VectorStore


class Gate:
    """Sealing in this process, each time only when the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.sealed: list[str] = []
        monkeypatch.setattr(Sealer, "_seal", self._seal)

    def _seal(self, mode: str, segments: list[Path]) -> None:
        self.begun.set()
        assert self.open.wait(60)
        for segment in segments:
            self.sealed.append(segment.name)
            seal(segment, leftover=mode == "leftover")


def test_a_sealer_that_is_slower_than_the_training_holds_no_more_than_sixty_four_names(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    rec = Recorder(tmp_path, segment_bytes=1)  # each record is a segment
    for step in range(300):
        rec.log(step, {"loss": float(step)})
    assert gate.begun.wait(60)
    assert rec._sealer._queue.qsize() <= background.MOST_WAITING
    assert len(list(tmp_path.glob("*.jsonl"))) == 301
    gate.open.set()
    rec.close()
    assert not list(tmp_path.glob("*.jsonl")), "what was passed over is sealed after all"
    assert gate.sealed == sorted(set(gate.sealed)) and len(gate.sealed) >= 300
    assert at.load(tmp_path).series("loss")["step"].to_list() == list(range(300))


def test_segments_are_passed_over_again_while_others_are_made_up_for(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 2)
    gate = Gate(monkeypatch)
    rec = Recorder(tmp_path, segment_bytes=1)
    for step in range(20):
        rec.log(step, {"loss": float(step)})
    gate.open.set()
    for step in range(20, 60):
        rec.log(step, {"loss": float(step)})
    rec.close()
    assert not list(tmp_path.glob("*.jsonl"))
    assert at.load(tmp_path).series("loss")["step"].to_list() == list(range(60))


def test_a_sealing_that_fails_again_and_again_is_remembered_once(tmp_path, monkeypatch, caught):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no" / "python"))
    with caught() as texts:
        rec = Recorder(tmp_path / "run", segment_bytes=1)
        for step in range(200):
            rec.log(step, {"loss": 1.0})
        thread = rec._sealer._thread
        assert thread is not None
        rec._sealer._queue.put(None)
        thread.join(60)
        assert len(rec._troubles._kept) == 1
        rec.close()
    assert len(texts) == 1 and "could not be sealed (FileNotFoundError" in texts[0]
    assert at.load(tmp_path / "run").series("loss").height == 200


def test_kept_troubles_are_one_a_kind_and_said_once(caught):
    troubles = Troubles("run")
    for number in range(1000):
        troubles.keep("seal", f"segment {number}")
        troubles.keep("digest", f"checkpoint {number}")
    assert len(troubles._kept) == 2
    with caught() as texts:
        troubles.flush()
        troubles.keep("seal", "again")
        troubles.flush()
    assert sorted(texts) == [
        "run: checkpoint 0 (further cases like this are not repeated)",
        "run: segment 0 (further cases like this are not repeated)",
    ]


def test_chores_are_done_in_order_and_refused_where_too_many_wait():
    gate, begun, done = threading.Event(), threading.Event(), []
    work = Chores(done.append)

    def held() -> None:
        begun.set()
        assert gate.wait(60)

    assert work.add(held)
    assert begun.wait(60)
    taken = [work.add(lambda number=number: done.append(number)) for number in range(chores.MOST_WAITING + 5)]
    assert taken == [True] * chores.MOST_WAITING + [False] * 5
    gate.set()
    assert work.close()
    assert done == list(range(chores.MOST_WAITING))
    assert not work.add(lambda: done.append(-1))
    assert work.close(), "a second close waits for nothing"


def test_a_chore_that_fails_is_told_and_the_next_is_done():
    told: list[object] = []
    work = Chores(told.append)

    def fails() -> None:
        raise OSError("disk")

    work.add(fails)
    work.add(lambda: told.append("next"))
    assert work.close()
    assert [str(one) for one in told] == ["disk", "next"]


def test_chores_that_hang_are_not_waited_for_beyond_patience(monkeypatch):
    monkeypatch.setattr(chores, "PATIENCE_S", 0.01)
    gate = threading.Event()
    work = Chores(lambda error: None)
    work.add(lambda: gate.wait(60) and None)
    assert work.close() is False
    gate.set()


def test_parts_that_nobody_may_gather_stay_and_are_counted_on(tmp_path):
    store = VectorStore(tmp_path, "rank00000-attempt0000", later=lambda job: False, trouble=pytest.fail)
    payloads = [store.write(step, [[1.0, float(step)]]) for step in range(130)]
    store.close()
    assert {payload["file"][-14:] for payload in payloads} == {"000000.parquet", "000001.parquet", "000002.parquet"}
    assert len(list((tmp_path / "embeddings").iterdir())) == 130
