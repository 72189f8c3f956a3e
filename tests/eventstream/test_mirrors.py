"""Mirrors of a recorder: every record reaches them as the stream has it, and no trouble of theirs reaches anybody."""

from __future__ import annotations

import errno
import logging
import math
import os
import threading

import pytest

from eventstream.errors import InputError
from eventstream.mirrors import Mirrors, full_tag, numbers
from eventstream.recorder import Recorder


class Kept:
    """Keeps what it is given."""

    def __init__(self):
        self.records, self.about, self.closed = [], [], 0

    def begin(self, about):
        self.about.append(about)

    def write(self, record):
        self.records.append(record)

    def close(self):
        self.closed += 1


class Broken(Kept):
    """Fails from its second record on."""

    def write(self, record):
        super().write(record)
        if len(self.records) > 1:
            raise RuntimeError("no connection")


def test_a_mirror_is_given_every_record_as_the_stream_has_it(tmp_path, lines_of):
    kept = Kept()
    with Recorder(tmp_path, config={"lr": 0.1}, plan={"max_steps": 9}, seal=False, mirrors=[kept]) as rec:
        rec.log(1, {"loss": 2.5, "grad_norm": math.inf, "none": None}, split="train", epoch=0.5)
        rec.losses(1, {"kd": (2.0, 0.5)}, total=1.0)
        rec.data(2, files=3)
        rec.note("läuft\n")
    assert kept.records == lines_of(tmp_path)
    assert [record["kind"] for record in kept.records] == ["config", "metrics", "losses", "data", "note", "end"]
    assert kept.closed == 1
    assert [(about.run, about.attempt, about.plan) for about in kept.about] == [(tmp_path.name, 0, {"max_steps": 9})]


def test_numbers_that_arrive_late_reach_the_mirrors_too(tmp_path, lines_of):
    kept = Kept()
    with Recorder(tmp_path, seal=False, mirrors=[kept]) as rec:
        rec.log_later(3, [], lambda: {"loss": 1.0}, split="train")
    assert kept.records == lines_of(tmp_path)
    assert kept.records[0]["values"] == {"loss": 1.0}


def test_a_mirror_that_fails_is_warned_of_once_closed_and_dropped_and_all_else_goes_on(tmp_path, lines_of, caught):
    broken, kept = Broken(), Kept()
    with caught() as texts, Recorder(tmp_path, seal=False, mirrors=[broken, kept]) as rec:
        for step in range(5):
            rec.log(step, {"loss": 1.0})
        assert rec.lost == 0
    assert len(texts) == 1
    assert "Broken failed (RuntimeError: no connection) and is given nothing more" in texts[0]
    assert (len(broken.records), broken.closed) == (2, 1)
    assert (len(kept.records), kept.closed) == (6, 1)
    assert kept.records == lines_of(tmp_path)


@pytest.mark.parametrize("method", ["begin", "close"])
def test_a_mirror_that_fails_at_its_beginning_or_end_harms_nobody(tmp_path, caught, method, lines_of):
    broken, kept = Kept(), Kept()

    def fail(*_):
        raise OSError(errno.EACCES, "not allowed")

    setattr(broken, method, fail)
    with caught() as texts, Recorder(tmp_path, seal=False, mirrors=(broken, kept)) as rec:
        rec.log(1, {"loss": 1.0})
    assert len(texts) == 1 and "not allowed" in texts[0]
    assert len(kept.records) == len(lines_of(tmp_path)) == 2
    assert len(broken.records) == (0 if method == "begin" else 2)


def test_a_mirror_without_begin_is_one(tmp_path):
    class Small:
        lines = 0

        def write(self, record):
            self.lines += 1

        def close(self):
            self.lines += 100

    small = Small()
    Recorder(tmp_path, seal=False, mirrors=[small]).close()
    assert small.lines == 101


def test_a_line_that_a_full_disk_refused_is_mirrored_all_the_same(tmp_path, caught):
    kept = Kept()
    with caught() as texts, Recorder(tmp_path, seal=False, mirrors=[kept]) as rec:
        rec._segments._fd, fd = os.open("/dev/full", os.O_WRONLY), rec._segments._fd
        rec.log(1, {"loss": 1.0})
        os.close(rec._segments._fd)
        rec._segments._fd = fd
        assert rec.lost == 1
    assert [record["kind"] for record in kept.records] == ["metrics", "end"]
    assert len(texts) == 1


def test_what_comes_after_the_end_reaches_no_mirror(tmp_path, caught):
    kept = Kept()
    rec = Recorder(tmp_path, seal=False, mirrors=[kept])
    rec.close()
    with caught() as texts:
        rec.log(1, {"loss": 1.0})
    assert len(texts) == 1
    assert [record["kind"] for record in kept.records] == ["end"]


def test_only_the_recorder_of_rank_0_mirrors(tmp_path, lines_of):
    kept = [Kept(), Kept()]
    for rank, mirror in enumerate(kept):
        with Recorder(tmp_path, rank=rank, seal=False, mirrors=[mirror]) as rec:
            rec.log(1, {"loss": float(rank)})
    assert [len(mirror.records) for mirror in kept] == [2, 0]
    assert kept[1].about == []
    assert len(lines_of(tmp_path)) == 4


def test_a_forked_child_mirrors_nothing(tmp_path):
    kept = Kept()
    rec = Recorder(tmp_path, seal=False, mirrors=[kept])
    child = os.fork()
    if child == 0:
        logging.captureWarnings(True)
        try:
            rec.log(1, {"loss": 1.0})
            rec.close()
        finally:
            os._exit(len(kept.records) + kept.closed)
    assert os.waitpid(child, 0)[1] == 0
    rec.close()
    assert len(kept.records) == 1


def test_a_mirror_that_records_itself_ends(tmp_path, lines_of):
    class Echo(Kept):
        def write(self, record):
            super().write(record)
            if record["kind"] == "metrics":
                rec.note("seen")

    echo = Echo()
    with Recorder(tmp_path, seal=False, mirrors=[echo]) as rec:
        rec.log(1, {"loss": 1.0})
    assert [record["kind"] for record in echo.records] == ["metrics", "end"]
    assert [record["kind"] for record in lines_of(tmp_path)] == ["metrics", "note", "end"]


def test_threads_that_share_a_recorder_reach_a_mirror_one_at_a_time(tmp_path, lines_of):
    class Slow(Kept):
        inside = 0
        most = 0

        def write(self, record):
            self.inside += 1
            self.most = max(self.most, self.inside)
            super().write(record)
            self.inside -= 1

    slow = Slow()
    with Recorder(tmp_path, seal=False, mirrors=[slow]) as rec:
        threads = [
            threading.Thread(target=lambda: [rec.log(step, {"loss": 1.0}) for step in range(200)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert slow.most == 1
    assert len(slow.records) == len(lines_of(tmp_path)) == 801


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Kept(), r"mirrors must be several, got one Kept; pass mirrors=\[it\]"),
        (3, "mirrors must be a list or tuple of mirrors, got int"),
        (["train.log"], r"write\(record\) and close\(\); str given here is none"),
        ([Kept], "Kept given here is none"),
    ],
)
def test_what_is_no_mirror_is_refused_at_the_start(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        Recorder(tmp_path / "run", mirrors=given)
    assert not (tmp_path / "run").exists()


def test_without_mirrors_nothing_stands_between_a_record_and_the_file(tmp_path):
    with Recorder(tmp_path, seal=False) as rec:
        assert rec._append == rec._segments.write
        assert not Mirrors((), rec._troubles)


def test_the_scalars_of_a_record_are_those_that_readers_make_of_it():
    nan = {"kind": "metrics", "values": {"loss": None, "lr": 0.1, "x": None}, "nonfinite": {"loss": "NaN"}}
    assert [name for name, _ in numbers(nan)] == ["loss", "lr"]
    assert math.isnan(next(numbers(nan))[1])
    assert list(numbers({"kind": "note", "payload": {"text": "x"}})) == []


@pytest.mark.parametrize("name", ["eval/loss", "eval_loss", "Eval.loss", "eval"])
def test_a_name_that_says_its_split_keeps_it_once(name):
    assert full_tag(name, "eval") == name
