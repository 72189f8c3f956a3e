"""The files of embeddings: a thousand calls leave few of them, each row group is a call, and readers find every one."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import aftertrain as at
from analysis.embeddings.source import Unread, from_file, from_run
from eventstream import vectors
from eventstream.vectors import VectorStore, gather, part_name


def payloads(run):
    return [json.loads(text) for text in run.events_of("embeddings")["payload"]]


def test_a_thousand_calls_leave_sixteen_files_in_which_each_call_is_a_row_group(tmp_path):
    with at.Recorder(tmp_path, seal=False) as rec:
        for step in range(1000):
            rec.embeddings(step, [[1.0, float(step)], [2.0, float(step)]], [f"a{step}", None])
    files = sorted((tmp_path / "embeddings").iterdir())
    assert [pq.ParquetFile(file).num_row_groups for file in files] == [64] * 15 + [40]
    run = at.load(tmp_path)
    assert [(p["file"][-14:-8], p["part"]) for p in payloads(run)] == [
        (f"{step // 64:06d}", step % 64) for step in range(1000)
    ]
    found = list(from_run(run))
    assert [one.step for one in found] == list(range(1000))
    assert found[777].vectors.names == ("a777",)
    slope = found[777].vectors.unit[:, 1] / found[777].vectors.unit[:, 0]
    assert np.allclose(np.sort(slope), [777 / 2, 777])


def test_while_the_run_is_written_its_parts_are_read(tmp_path):
    rec = at.Recorder(tmp_path, seal=False)
    rec.embeddings(1, [[1.0, 2.0]], ["a"])
    rec.embeddings(2, [[1.0, 2.0]], ["b"])
    assert sorted(path.name[-17:] for path in (tmp_path / "embeddings").iterdir()) == [
        "0.part000.parquet",
        "0.part001.parquet",
    ]
    assert [one.vectors.names for one in from_run(at.load(tmp_path))] == [("a",), ("b",)]
    rec.close()
    assert [one.vectors.names for one in from_run(at.load(tmp_path))] == [("a",), ("b",)]


def test_large_vectors_are_a_file_by_themselves_and_others_gathered_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "PARTS_BYTES", 1000)
    with at.Recorder(tmp_path, seal=False) as rec:
        rec.embeddings(1, np.ones((100, 4)))
        for step in range(2, 7):
            rec.embeddings(step, np.full((25, 4), step))  # 400 bytes
        rec.embeddings(7, np.ones((100, 4)))
    run = at.load(tmp_path)
    assert [(p["file"][-9:-8], p.get("part")) for p in payloads(run)] == [
        ("0", None), ("1", 0), ("1", 1), ("2", 0), ("2", 1), ("3", 0), ("4", None),
    ]  # fmt: skip
    assert [one.vectors.given for one in from_run(run)] == [100, 25, 25, 25, 25, 25, 100]


def test_a_call_without_vectors_is_an_empty_row_group(tmp_path):
    with at.Recorder(tmp_path, seal=False) as rec:
        rec.embeddings(1, np.ones((0, 4)))
        rec.embeddings(2, np.ones((3, 4)), ["a"] * 3)
    (file,) = (tmp_path / "embeddings").iterdir()
    assert [pq.ParquetFile(file).metadata.row_group(n).num_rows for n in range(2)] == [0, 3]
    assert [one.vectors.given for one in from_run(at.load(tmp_path))] == [0, 3]


def test_a_file_of_several_steps_is_a_set_for_each(tmp_path):
    with at.Recorder(tmp_path, seal=False) as rec:
        for step in (30, 10):
            rec.embeddings(step, np.eye(4), list("abcd"))
    (file,) = (tmp_path / "embeddings").iterdir()
    assert [one.step for one in from_file(file, None)] == [10, 30]
    assert [(one.step, one.vectors.given) for one in from_file(file, ["x"] * 8)] == [(None, 8)]
    assert at.speaker_embeddings(file).frame["step"].to_list() == [10, 30]


@pytest.mark.parametrize("failing", ["write", "remove"])
def test_a_gathering_that_fails_halfway_leaves_every_vector_readable_once(tmp_path, monkeypatch, failing):
    said: list[str] = []
    later = []
    store = VectorStore(tmp_path, "r", later=lambda job: later.append(job) is None, trouble=lambda k, m: said.append(m))
    events = [store.write(step, [[1.0, float(step)]]) for step in range(3)]
    store.close()

    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(vectors.os, "fsync", refuse)
        else:
            patch.setattr(type(tmp_path), "unlink", refuse)
        later[0]()
    files = sorted(path.name for path in (tmp_path / "embeddings").iterdir())
    parts = [part_name("r-000000.parquet", n) for n in range(3)]
    assert files == sorted(parts + ([] if failing == "write" else ["r-000000.parquet"]))
    assert len(said) == (failing == "write")
    if said:
        assert "embeddings/r-000000.parquet could not be made of its parts (No space left on device)" in said[0]
    rows = {"kind": ["embeddings"] * 3, "step": [0, 1, 2], "payload": [json.dumps(event) for event in events]}
    from parsers.finish import finish

    found = list(from_run(finish("r", str(tmp_path), "aftertrain", events=pl.DataFrame(rows))))
    assert [one.vectors.given for one in found] == [1, 1, 1]


def test_gathering_leaves_no_part(tmp_path):
    store = VectorStore(tmp_path, "r", later=lambda job: False, trouble=pytest.fail)
    store.write(1, [[1.0]])
    parts = list((tmp_path / "embeddings").iterdir())
    gather(parts, tmp_path / "embeddings" / "r.parquet")
    assert [path.name for path in (tmp_path / "embeddings").iterdir()] == ["r.parquet"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (7, "has 1 row groups; the event names number 7"),
        (-1, "the event's part is -1; expected the number of a row group"),
        ("x", "the event's part is 'x'; expected the number of a row group"),
    ],
)
def test_an_event_that_names_no_row_group_of_its_file_is_told(tmp_path, part, reason):
    with at.Recorder(tmp_path, seal=False) as rec:
        rec.embeddings(1, [[1.0, 2.0]])
        rec.event("embeddings", {"file": "embeddings/rank00000-attempt0000-000000.parquet", "part": part}, step=2)
        rec.event("embeddings", {"file": "embeddings/none.parquet", "part": 0}, step=3)
    found = list(from_run(at.load(tmp_path)))
    unread = [one for one in found if isinstance(one, Unread)]
    assert len(found) == 3 and len(unread) == 2
    assert reason in unread[0].reason
    assert "No such file" in unread[1].reason or "does not exist" in unread[1].reason
