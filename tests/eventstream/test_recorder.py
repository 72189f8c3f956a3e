"""What each method of the recorder writes, and that nothing raises whatever it is given."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import math
import time
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from eventstream.errors import RecordingWarning
from eventstream.recorder import Recorder
from eventstream.records import expand


@pytest.fixture
def one(tmp_path, lines_of):
    """A function that records with the given call and returns the one record that this made."""

    def record(call):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with Recorder(folder, seal=False) as rec:
            call(rec)
        assert rec.lost == 0
        first, *rest = lines_of(folder)
        assert [r["kind"] for r in rest] == ["end"]
        return first

    return record


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, 1),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), 0.10000000149011612),
        (np.int64(7), 7),
        (np.bool_(False), 0),
        (np.array(2.5), 2.5),
        (np.array([[2.5]]), 2.5),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([3]), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (2**53 + 1, 2**53 + 1),
        (-(2**63), -(2**63)),
        (2**70, 2.0**70),
        (enum.IntEnum("E", "A B").B, 2),
        (None, None),
    ],
)
def test_a_value_of_any_numeric_type_is_a_plain_number(one, value, written):
    record = one(lambda rec: rec.log(1, {"x": value, "y": 1.0}))
    assert record["values"] == {"x": written, "y": 1.0}
    assert type(record["values"]["x"]) is type(written)
    assert "nonfinite" not in record


@pytest.mark.parametrize("nan", [float("nan"), np.float32("nan"), torch.tensor(float("nan")), Decimal("NaN")])
def test_a_nan_of_any_type_is_named_and_null(one, nan):
    record = one(lambda rec: rec.log(1, {"x": nan, "y": np.float64("-inf")}))
    assert record["values"] == {"x": None, "y": None}
    assert record["nonfinite"] == {"x": "NaN", "y": "-Infinity"}


def test_finite_values_whose_sum_overflows_stay_finite(one):
    record = one(lambda rec: rec.log(1, {"x": 1.7e308, "y": 1.7e308}))
    assert record["values"] == {"x": 1.7e308, "y": 1.7e308}


@pytest.mark.parametrize(
    ("step", "written"), [(3, 3), (np.int32(3), 3), (torch.tensor(3), 3), (3.0, 3), (None, None), (-1, -1)]
)
def test_a_step_of_any_whole_type_is_an_integer(one, step, written):
    assert one(lambda rec: rec.log(step, {"x": 1.0}))["step"] == written
    assert one(lambda rec: rec.note("x", step))["step"] == written


def test_epoch_and_split_are_written_where_known(one):
    plain = one(lambda rec: rec.log(1, {"x": 1.0}))
    assert list(plain) == ["kind", "step", "time", "values"]
    before = time.time() - 1e-6  # times are whole microseconds
    record = one(lambda rec: rec.log(1, {"x": 1.0}, split="eval", epoch=0.5))
    assert list(record) == ["kind", "step", "time", "epoch", "split", "values"]
    assert (record["epoch"], record["split"]) == (0.5, "eval")
    assert one(lambda rec: rec.log(1, {"x": 1.0}, epoch=2))["epoch"] == 2.0
    assert "epoch" not in one(lambda rec: rec.log(1, {"x": 1.0}, epoch=math.nan))
    assert before <= record["time"] <= time.time()


def test_names_that_are_no_text_or_no_utf8_are_written_as_text(one):
    record = one(lambda rec: rec.log(1, {3: 1.0, "caf\udce9": 2.0, ("a", 1): 3.0}))
    assert record["values"] == {"3": 1.0, "caf\\udce9": 2.0, "('a', 1)": 3.0}


def test_losses_hold_only_what_was_given(one):
    record = one(
        lambda rec: rec.losses(
            5,
            {"kd": (torch.tensor(2.0), 0.5), "ce": {"raw": 1.0, "weighted": 0.5, "weight": None}, "aux": math.inf},
            total=1.5,
            displayed=np.float32(1.5),
            split="train",
        )
    )
    assert record["payload"] == {
        "components": {
            "kd": {"raw": 2.0, "weight": 0.5},
            "ce": {"raw": 1.0, "weighted": 0.5},
            "aux": {"raw": "Infinity"},
        },
        "total": 1.5,
        "displayed": 1.5,
    }
    assert (record["kind"], record["step"], record["split"]) == ("losses", 5, "train")
    assert dict(expand("losses", record["payload"])) == {
        "losses/kd/raw": 2.0,
        "losses/kd/weight": 0.5,
        "losses/ce/raw": 1.0,
        "losses/ce/weighted": 0.5,
        "losses/aux/raw": math.inf,
        "losses/total": 1.5,
        "losses/displayed": 1.5,
    }


def test_curriculum_data_and_resources_make_scalars(one):
    record = one(lambda rec: rec.curriculum(5, phase="warm", weights={"kd": 0.7}, progress=0.1))
    assert record["payload"] == {"phase": "warm", "progress": 0.1, "weights": {"kd": 0.7}}
    record = one(lambda rec: rec.data(5, files=3, step_ms=1.5, self_made=True))
    assert dict(expand("data", record["payload"])) == {"data/files": 3, "data/step_ms": 1.5, "data/self_made": 1}
    record = one(lambda rec: rec.resources(5, gpu_memory_mb=np.int64(812), host="n1"))
    assert list(expand("resources", record["payload"])) == [("resources/gpu_memory_mb", 812.0)]


def test_inputs_and_outputs_describe_tensors_and_not_their_content(one):
    batch = {
        "input_ids": torch.zeros((2, 7), dtype=torch.long),
        "audio": np.zeros((2, 16000), dtype=np.float32),
        "text": ["a", "b"],
        "labels": None,
        "more": {"mask": torch.ones(2, dtype=torch.bool)},
        "states": (torch.zeros(1), torch.zeros(2)),
        "told": {"shape": [4], "dtype": "int8", "device": "cuda:0"},
    }
    record = one(lambda rec: rec.inputs(1, "forward", batch, status={"input_ids": "ok"}))
    assert (record["kind"], record["payload"]["stage"], record["payload"]["status"]) == (
        "inputs",
        "forward",
        {"input_ids": "ok"},
    )
    found = {name: tuple(entry.values()) for name, entry in record["payload"]["tensors"].items()}
    assert found.pop("audio")[:2] == ([2, 16000], "float32")
    assert found == {
        "input_ids": ([2, 7], "int64", "cpu"),
        "text": ([2], "list", None),
        "labels": (None, "NoneType", None),
        "more/mask": ([2], "bool", "cpu"),
        "states/0": ([1], "float32", "cpu"),
        "states/1": ([2], "float32", "cpu"),
        "told": ([4], "int8", "cuda:0"),
    }
    record = one(lambda rec: rec.outputs(1, "forward", torch.zeros(3)))
    assert record["payload"]["tensors"] == {"0": {"shape": [3], "dtype": "float32", "device": "cpu"}}


def test_checkpoints_have_their_size_and_digest(tmp_path, lines_of):
    run = tmp_path / "run"
    with Recorder(run, seal=False) as rec:
        (run / "model.bin").write_bytes(b"x" * 3_000_000)
        (tmp_path / "hf" / "sub").mkdir(parents=True)
        (tmp_path / "hf" / "a.json").write_text("{}")
        (tmp_path / "hf" / "sub" / "b.bin").write_bytes(b"yy")
        rec.checkpoint(10, run / "model.bin")
        rec.checkpoint(20, tmp_path / "hf")
    first, second = (record["payload"] for record in lines_of(run)[:2])
    assert first == {
        "path": "model.bin",
        "bytes": 3_000_000,
        "sha256": hashlib.sha256(b"x" * 3_000_000).hexdigest(),
    }
    assert second["path"] == str(tmp_path / "hf")
    assert second["bytes"] == 4
    assert second["sha256"] == hashlib.sha256(b"a.json\x002\x00{}sub/b.bin\x002\x00yy").hexdigest()


def test_samples_name_their_files_relative_to_the_run(tmp_path, lines_of):
    with Recorder(tmp_path, seal=False) as rec:
        rec.sample(3, "audio", tmp_path / "samples" / "a.wav", {"speaker": "p1"})
        rec.sample(3, "image", ["x.png", tmp_path / "y.png"])
    first, second = (record["payload"] for record in lines_of(tmp_path)[:2])
    assert first == {"kind": "audio", "files": ["samples/a.wav"], "metadata": {"speaker": "p1"}}
    assert second == {"kind": "image", "files": ["x.png", "y.png"]}


@pytest.mark.parametrize("bf16", [False, True])
def test_embeddings_stand_beside_the_stream_with_labels_and_paths(tmp_path, lines_of, bf16):
    vectors = torch.arange(6.0).reshape(3, 2).requires_grad_()
    with Recorder(tmp_path, seal=False) as rec:
        rec.embeddings(500, vectors.bfloat16() if bf16 else vectors, ["a", None, 3], np.array(["x", "y", "z"]))
        rec.embeddings(None, vectors.detach().numpy().astype(np.float64), split="eval")
        rec.embeddings(500, [[1.0, math.nan]])
        rec.embeddings(600, [[1.0, 2.0, 3.0]])
    records = lines_of(tmp_path)[:4]
    stem = "embeddings/rank00000-attempt0000"
    assert [record["payload"] for record in records] == [
        {"file": f"{stem}-000000.parquet", "count": 3, "dim": 2, "part": 0},
        {"file": f"{stem}-000000.parquet", "count": 3, "dim": 2, "part": 1},
        {"file": f"{stem}-000000.parquet", "count": 1, "dim": 2, "part": 2},
        {"file": f"{stem}-000001.parquet", "count": 1, "dim": 3, "part": 0},
    ]
    assert [(record["step"], record.get("split")) for record in records[:2]] == [(500, None), (None, "eval")]
    assert sorted(f"embeddings/{path.name}" for path in (tmp_path / "embeddings").iterdir()) == [
        f"{stem}-000000.parquet",
        f"{stem}-000001.parquet",
    ]
    file = pq.ParquetFile(tmp_path / f"{stem}-000000.parquet")
    assert {field.name: str(field.type) for field in file.schema_arrow} == {
        "step": "int64",
        "label": "string",
        "path": "string",
        "vector": "fixed_size_list<element: float>[2]",
    }
    assert file.read_row_group(0).to_pydict() == {
        "step": [500] * 3,
        "label": ["a", None, "3"],
        "path": ["x", "y", "z"],
        "vector": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
    }
    second = file.read_row_group(1)
    assert second["label"].to_pylist() == second["step"].to_pylist() == [None] * 3
    assert math.isnan(file.read_row_group(2)["vector"].to_pylist()[0][1])


def test_embeddings_that_do_not_fit_are_lost_and_leave_no_file(tmp_path, caught):
    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.embeddings(1, [[1.0, 2.0]], ["a", "b"])
        rec.embeddings(1, [1.0, 2.0])
        rec.embeddings(1, "text")
    assert len(texts) == 1
    assert "2 labels for 1 embeddings" in texts[0]
    assert rec.lost == 3
    assert not list(tmp_path.rglob("*.parquet*"))


class Hostile:
    """A value whose every use fails in a way that nobody expects."""

    class OddError(Exception):
        pass

    def item(self):
        raise self.OddError("no value here")

    def __str__(self):
        raise self.OddError("no text here")

    __repr__ = __float__ = __iter__ = __len__ = __index__ = __str__


def hostile_calls(bad):
    return {
        "log values": lambda rec: rec.log(1, bad),
        "log value": lambda rec: rec.log(1, {"x": bad}),
        "log step": lambda rec: rec.log(bad, {"x": 1.0}),
        "log split": lambda rec: rec.log(1, {"x": 1.0}, split=bad),
        "log epoch": lambda rec: rec.log(1, {"x": 1.0}, epoch=bad),
        "log name": lambda rec: rec.log(1, {bad: 1.0} if bad.__hash__ else {}),
        "losses": lambda rec: rec.losses(1, {"x": bad}, total=bad),
        "components": lambda rec: rec.losses(1, bad),
        "curriculum": lambda rec: rec.curriculum(1, phase=bad, weights=bad),
        "inputs": lambda rec: rec.inputs(1, bad, {"x": bad}),
        "outputs": lambda rec: rec.outputs(1, "y", {"x": bad}, status=bad),
        "data": lambda rec: rec.data(1, x=bad),
        "resources": lambda rec: rec.resources(bad, x=1),
        "embeddings": lambda rec: rec.embeddings(1, bad),
        "sample": lambda rec: rec.sample(1, "x", bad),
        "checkpoint": lambda rec: rec.checkpoint(1, bad),
        "absent checkpoint": lambda rec: rec.checkpoint(1, "/nowhere/at/all"),
        "note": lambda rec: rec.note(bad, bad, bad),
        "config": lambda rec: rec.config(bad),
        "event": lambda rec: rec.event(bad, {"x": bad}),
        "reserved event": lambda rec: rec.event("metrics", {"x": bad}),
        "too few arguments": lambda rec: rec.note(),
    }


@pytest.mark.parametrize("call", hostile_calls(None))
def test_nothing_raises_whatever_is_recorded(tmp_path, call, lines_of):
    cycle: list[object] = []
    cycle.append(cycle)
    for number, bad in enumerate([Hostile(), object(), "text", cycle, {"x": {1, 2}}, 1j, b"\xff", torch.zeros(3)]):
        folder = tmp_path / str(number)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            with Recorder(folder, seal=False) as rec:
                hostile_calls(bad)[call](rec)
                hostile_calls(bad)[call](rec)
                rec.log(9, {"y": 1.0})
        assert all(w.category is RecordingWarning for w in found)
        assert all(w.filename == __file__ for w in found), "the warning points at the caller"
        texts = [str(w.message) for w in found]
        assert len(texts) == len(set(texts)) <= 2
        assert [r["step"] for r in lines_of(folder) if r["kind"] == "metrics"][-1] == 9


def test_a_bad_value_is_left_out_and_the_rest_of_its_record_kept(tmp_path, lines_of, caught):
    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"good": 1.0, "bad": "high", "worse": torch.zeros(3), "nan": math.nan})
        rec.log(2.5, {"good": 2.0, "bad": "high"})
    assert len(texts) == 1
    assert "metric 'bad' could not be recorded (TypeError: str is not a number)" in texts[0]
    assert rec.lost == 4
    first, second, end = lines_of(tmp_path)
    assert first["values"] == {"good": 1.0, "bad": None, "worse": None, "nan": None}
    assert first["nonfinite"] == {"nan": "NaN"}
    assert (second["step"], second["values"]["good"]) == (None, 2.0)
    assert end["payload"] == {"status": "finished", "lost": 4}


def test_after_close_a_record_warns_once_and_is_dropped(tmp_path, lines_of, caught):
    rec = Recorder(tmp_path, seal=False)
    rec.close()
    with caught() as texts:
        rec.log(1, {"x": 1.0})
        rec.note("late")
        rec.embeddings(1, [[1.0]])
        rec.close()
    assert len(texts) == 1
    assert "the recorder is closed" in texts[0]
    assert [record["kind"] for record in lines_of(tmp_path)] == ["end"]
    assert not (tmp_path / "embeddings").exists()


@pytest.mark.parametrize(
    ("error", "payload"),
    [
        (None, {"status": "finished"}),
        (ValueError("loss is NaN"), {"status": "failed", "error": "ValueError: loss is NaN"}),
        (KeyboardInterrupt(), {"status": "interrupted", "error": "KeyboardInterrupt"}),
        (SystemExit(0), {"status": "finished"}),
        (SystemExit(3), {"status": "failed", "error": "SystemExit: 3"}),
    ],
)
def test_the_end_says_how_the_training_ended_and_lets_its_error_through(tmp_path, lines_of, error, payload):
    ended = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with ended, Recorder(tmp_path, seal=False):
        if error is not None:
            raise error
    assert lines_of(tmp_path)[-1]["payload"] == payload


def test_the_exception_text_that_fails_itself_does_not_hide_the_exception(tmp_path, lines_of, caught):
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    with caught() as texts, pytest.raises(SilentError), Recorder(tmp_path, seal=False):
        raise SilentError
    assert len(texts) == 1
    assert lines_of(tmp_path)[-1]["payload"] == {"status": "failed", "lost": 1}
