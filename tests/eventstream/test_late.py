"""Events with numbers of a device: no call waits for them, and each is what it was when it was given."""

from __future__ import annotations

import math

import pytest
import torch

from eventstream.late import split_late
from eventstream.recorder import Recorder
from tests.eventstream.test_deferred import Elsewhere


@pytest.fixture
def waits():
    Elsewhere.waits.clear()
    return Elsewhere.waits


def far(number):
    return Elsewhere(torch.tensor(number))


CALLS = {
    "losses": (
        lambda rec, x: rec.losses(1, {"kd": (x, 0.5), "ce": {"raw": x, "weighted": 2.0}}, total=x, displayed=2.5),
        {
            "components": {"kd": {"raw": 2.5, "weight": 0.5}, "ce": {"raw": 2.5, "weighted": 2.0}},
            "total": 2.5,
            "displayed": 2.5,
        },
    ),
    "curriculum": (
        lambda rec, x: rec.curriculum(1, "warm", {"kd": x}, x),
        {"phase": "warm", "progress": 2.5, "weights": {"kd": 2.5}},
    ),
    "data": (lambda rec, x: rec.data(1, files=3, hit_rate=x), {"files": 3, "hit_rate": 2.5}),
    "resources": (lambda rec, x: rec.resources(1, memory_mb=x), {"memory_mb": 2.5}),
    "samples": (
        lambda rec, x: rec.sample(1, "audio", "a.wav", {"mos": [x, (x, "good")]}),
        {"kind": "audio", "files": ["a.wav"], "metadata": {"mos": [2.5, [2.5, "good"]]}},
    ),
    "eval": (lambda rec, x: rec.event("eval", x, step=1), 2.5),
}


@pytest.mark.parametrize("kind", CALLS)
def test_no_event_waits_for_a_device_and_its_numbers_are_those_of_the_call(tmp_path, waits, lines_of, kind):
    call, expected = CALLS[kind]
    with Recorder(tmp_path, seal=False) as rec:
        number = far(2.5)
        call(rec, number)
        number.mul_(0.0)
        assert waits == []
        assert lines_of(tmp_path) == []
        rec.flush()
        assert waits
        (record,) = lines_of(tmp_path)
        assert (record["kind"], record["step"], record["payload"]) == (kind, 1, expected)
    assert rec.lost == 0


def test_a_gan_of_a_device_is_not_waited_for(tmp_path, waits, lines_of):
    with Recorder(tmp_path, seal=False) as rec:
        rec.gan(1, d_real={"mpd.0": far(0.5), "msd.0": 0.25}, g_loss=far(1.5), grad_norms={"generator": far(2.0)})
        assert waits == []
    assert lines_of(tmp_path)[0]["values"] == {
        "d_real/mpd.0": 0.5,
        "d_real/msd.0": 0.25,
        "g_loss": 1.5,
        "grad_norm/generator": 2.0,
    }


def test_numbers_of_a_device_that_are_not_finite_are_named(tmp_path, lines_of):
    with Recorder(tmp_path, seal=False) as rec:
        rec.losses(1, {"kd": far(math.nan)}, total=far(-math.inf))
    assert lines_of(tmp_path)[0]["payload"] == {"components": {"kd": {"raw": "NaN"}}, "total": "-Infinity"}


def test_a_device_that_fails_loses_its_event_and_no_other(tmp_path, lines_of, caught, monkeypatch):
    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.losses(1, {"kd": far(1.0)})
        (copies, _), *_ = rec._pending.waiting

        def broken():
            raise RuntimeError("CUDA error")

        monkeypatch.setattr(copies[0], "numbers", broken)
        rec.losses(2, {"kd": 1.0})
    assert [(r["kind"], r["step"]) for r in lines_of(tmp_path)] == [("losses", 2), ("end", None)]
    assert (rec.lost, len(texts)) == (1, 1)
    assert "CUDA error" in texts[0]


def test_a_payload_without_such_numbers_is_taken_as_it_is():
    payload = {"x": [torch.tensor(1.0), {"y": torch.zeros(3)}], "z": torch.empty(1, device="meta")}
    same, late = split_late(payload)
    assert same is payload and late is None


def test_a_payload_that_holds_itself_comes_to_an_end(tmp_path, caught):
    inner: list[object] = [far(1.0)]
    inner.append(inner)
    with caught(), Recorder(tmp_path, seal=False) as rec:
        rec.event("odd", inner)
        rec.log(1, {"loss": 1.0})
    assert b'"loss":1.0' in next(tmp_path.glob("*.jsonl")).read_bytes()
