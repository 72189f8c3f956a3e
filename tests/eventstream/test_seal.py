"""A sealed segment is whole or absent, and reads as docs/event-stream.md says."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventstream import seal as sealing
from eventstream.recorder import Recorder
from eventstream.seal import seal

NAME = "rank00000-attempt0000-000000"


def segment(folder: Path, *lines: bytes | str) -> Path:
    path = folder / f"{NAME}.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def metrics(step: object, values: str, rest: str = "") -> str:
    return f'{{"kind":"metrics","step":{json.dumps(step)},"time":5.25{rest},"values":{values}}}'


def test_columns_types_and_metadata_are_as_documented(tmp_path):
    seal(segment(tmp_path, metrics(1, '{"loss":0.5}', ',"epoch":0.5,"split":"train"'), metrics(2, '{"loss":1}')))
    table = pq.read_table(tmp_path / f"{NAME}.parquet")
    assert table.schema.metadata[b"aftertrain.version"] == b"1"
    assert {field.name: str(field.type) for field in table.schema} == {
        "kind": "string",
        "seq": "int64",
        "step": "int64",
        "epoch": "double",
        "time": "timestamp[us, tz=UTC]",
        "split": "string",
        "tag": "string",
        "value": "double",
        "payload": "string",
    }
    parts = pq.ParquetFile(tmp_path / f"{NAME}.parquet").metadata.row_group(0)
    columns = {parts.column(i).path_in_schema: parts.column(i) for i in range(parts.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all("RLE_DICTIONARY" in columns[name].encodings for name in ("kind", "split", "tag"))
    rows = [tuple(row.values()) for row in table.drop(["time"]).to_pylist()]
    assert rows == [
        ("metrics", 0, 1, 0.5, "train", "loss", 0.5, None),
        ("metrics", 1, 2, None, "", "loss", 1.0, None),
    ]
    assert table["time"].cast(pa.int64()).to_pylist() == [5_250_000] * 2


def test_few_tags_have_row_groups_of_their_own_and_events_come_last(tmp_path):
    with Recorder(tmp_path) as rec:
        for step in range(40):
            rec.log(step, {"loss": 1.0, "acc": 0.5}, split="train")
            if step % 4 == 0:
                rec.losses(step, {"kd": (2.0, 0.5)}, total=1.0)
                rec.log(step, {"loss": float("nan"), "bleu": step}, split="eval")
    file = pq.ParquetFile(tmp_path / f"{NAME}.parquet")
    groups = [file.read_row_group(number).to_pylist() for number in range(file.num_row_groups)]
    tags = [{row["tag"] for row in rows} for rows in groups]
    assert [len(found) for found in tags] == [1] * len(groups)
    names = [found.pop() for found in tags]
    assert names == ["loss", "acc", "losses/kd/raw", "losses/kd/weight", "losses/total", "bleu", None]
    for rows in groups[:-1]:
        splits = [row["split"] for row in rows]
        assert splits == sorted(splits, key=splits.index), "rows of one split stand together"
        for split in set(splits):
            sequence = [row["seq"] for row in rows if row["split"] == split]
            assert sequence == sorted(sequence)
    assert [json.loads(row["payload"]) for row in groups[-1]][-1] == {"status": "finished"}


def test_many_small_metrics_share_row_groups_and_stand_whole_in_them(tmp_path):
    with Recorder(tmp_path) as rec:
        for step in range(6):
            for split in ("train", "eval"):
                rec.log(step, {f"layer{n}/norm": n + step for n in range(300)}, split=split)
    file = pq.ParquetFile(tmp_path / f"{NAME}.parquet")
    groups = [file.read_row_group(number).to_pylist() for number in range(file.num_row_groups)]
    tags = [list(dict.fromkeys(row["tag"] for row in rows)) for rows in groups[:-1]]
    assert len(tags) < 100 and max(map(len, tags)) > 1
    assert [tag for group in tags for tag in group] == sorted(f"layer{n}/norm" for n in range(300))
    for rows in groups[:-1]:
        keys = [(row["tag"], row["split"]) for row in rows]
        assert all(keys[i * 6 : i * 6 + 6] == [keys[i * 6]] * 6 for i in range(len(keys) // 6))
        assert [row["step"] for row in rows] == list(range(6)) * (len(rows) // 6)
        assert [row["value"] for row in rows] == [int(row["tag"][5:-5]) + row["step"] for row in rows]
    bounds = [file.metadata.row_group(n).column(6).statistics for n in range(len(tags))]
    assert all(before.max < after.min for before, after in itertools.pairwise(bounds)), "statistics tell tags apart"


def test_a_large_metric_among_many_small_ones_has_its_own_row_group(tmp_path):
    wide = ",".join(f'"m{n:03}":{n}' for n in range(200))
    big = [metrics(step, f'{{"big":{step}}}') for step in range(2000)]
    seal(segment(tmp_path, metrics(0, f"{{{wide}}}"), *big, metrics(1, f"{{{wide}}}")))
    file = pq.ParquetFile(tmp_path / f"{NAME}.parquet")
    tags = [set(file.read_row_group(number)["tag"].to_pylist()) for number in range(file.num_row_groups)]
    assert [group for group in tags if "big" in group] == [{"big"}]
    assert sum(map(len, tags)) == 201 and len(tags) < 40


def test_large_metrics_are_cut_into_groups_of_one_tag(tmp_path, monkeypatch):
    monkeypatch.setattr(sealing, "GROUP_ROWS", 100)
    monkeypatch.setattr(sealing, "EVENT_ROWS", 8)
    with Recorder(tmp_path) as rec:
        for step in range(250):
            rec.log(step, {"a": step, "b": -step})
        for step in range(20):
            rec.note(f"note {step}", step)
    file = pq.ParquetFile(tmp_path / f"{NAME}.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [100, 100, 50] * 2 + [8, 8, 5]
    assert file.read().column("value").to_pylist()[:500] == [*range(250), *(-n for n in range(250))]


def test_lines_that_are_no_records_are_kept_with_their_number(tmp_path, rows_of):
    good = metrics(1, '{"loss":0.5}')
    bad = [
        b"{cut",
        b"\x00\x00\x00",
        b"\xff\xfe\xfa",
        b"[1]",
        b'{"kind":3,"step":1,"time":1}',
        b'{"kind":"metrics","step":1.5,"time":1,"values":{}}',
        b'{"kind":"metrics","step":1,"time":"noon","values":{}}',
        b'{"kind":"metrics","step":1,"time":1,"values":[1]}',
        b'{"kind":"metrics","step":1,"time":1,"values":{"loss":1,"a":"high"}}',
        b'{"kind":"metrics","step":99999999999999999999,"time":1,"values":{}}',
        b"[" * 5000,
    ]
    seal(segment(tmp_path, good, *bad, b"", good))
    rows = rows_of(tmp_path)
    assert [(row["seq"], row["value"]) for row in rows if row["tag"]] == [(0, 0.5), (len(bad) + 2, 0.5)]
    unreadable = [row for row in rows if row["tag"] is None]
    assert {row["kind"] for row in unreadable} == {"unreadable"}
    payloads = [json.loads(row["payload"]) for row in unreadable]
    assert [payload["line"] for payload in payloads] == list(range(2, len(bad) + 2))
    assert payloads[0]["text"] == "{cut"
    assert payloads[1]["text"] == "\0\0\0"
    assert payloads[2]["text"] == "\\xff\\xfe\\xfa"


def test_a_huge_bad_line_is_kept_in_part_and_its_size_is_said(tmp_path, rows_of):
    seal(segment(tmp_path, b"x" * 3_000_000))
    (row,) = rows_of(tmp_path)
    payload = json.loads(row["payload"])
    assert payload["bytes"] == 3_000_001
    assert payload["text"] == "x" * 2**20


def test_records_of_other_writers_are_taken_where_they_mean_something(tmp_path, rows_of):
    seal(
        segment(
            tmp_path,
            '{"step": 3.0, "kind": "metrics", "values": {"loss": NaN, "ok": true, "none": null}}',
            '{"kind": "future", "step": null, "time": 1, "new": [1, -Infinity]}',
            '{"kind": "config", "step": null, "time": 1, "payload": {"seed": 1208925819614629174706176}}',
        )
    )
    rows = rows_of(tmp_path)
    assert [(row["tag"], row["step"], row["time"]) for row in rows[:2]] == [("loss", 3, None), ("ok", 3, None)]
    assert np.isnan(rows[0]["value"])
    assert rows[1]["value"] == 1.0
    assert [(row["kind"], json.loads(row["payload"])) for row in rows[2:]] == [
        ("future", {"new": [1, "-Infinity"]}),
        ("config", {"seed": 2**80}),
    ]


def test_an_empty_segment_seals_to_an_empty_table(tmp_path):
    assert seal(segment(tmp_path)) is True
    assert pq.read_table(tmp_path / f"{NAME}.parquet").num_rows == 0


def test_a_crash_between_rename_and_removal_is_made_up_for(tmp_path, monkeypatch):
    path = segment(tmp_path, metrics(1, '{"loss":0.5}'))

    def crash(self, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            seal(path)
    sealed = (tmp_path / f"{NAME}.parquet").read_bytes()
    assert path.exists()
    Recorder(tmp_path).close()
    assert not path.exists()
    assert (tmp_path / f"{NAME}.parquet").read_bytes() == sealed


def test_a_half_written_temporary_is_never_taken_for_a_segment(tmp_path, rows_of):
    path = segment(tmp_path, metrics(1, '{"loss":0.5}'))
    (tmp_path / f"{NAME}.parquet.tmp").write_bytes(b"PAR1 half of it")
    assert seal(path)
    assert [row["value"] for row in rows_of(tmp_path)] == [0.5]
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{NAME}.parquet"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failure_while_sealing_keeps_the_lines_and_leaves_nothing_else(tmp_path, monkeypatch, where, caught):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    rec = Recorder(tmp_path)
    rec.log(1, {"loss": 1.0})
    with caught() as texts, monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", full) if where == "fsync" else (Path, "replace", full)))
        rec.close()
    assert len(texts) == 1
    assert "could not be sealed (No space left on device)" in texts[0]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["manifest.json", f"{NAME}.jsonl"]


def test_the_process_killed_at_any_moment_of_sealing_leaves_a_whole_copy(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
import eventstream.seal
moment, path = sys.argv[1], Path(sys.argv[2])
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
target = {"write": (eventstream.seal, "write_parquet"), "sync": (os, "fsync"), "rename": (Path, "replace"),
          "folder": (eventstream.seal, "_sync_folder"), "remove": (Path, "unlink")}[moment]
setattr(*target, die)
eventstream.seal.seal(path)
"""
    line = metrics(1, '{"loss":0.5}')
    root = str(Path(sealing.__file__).parents[1])
    for moment in ("write", "sync", "rename", "folder", "remove"):
        folder = tmp_path / moment
        folder.mkdir()
        path = segment(folder, line)
        env = {**os.environ, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", code, moment, str(path)], env=env, capture_output=True, check=False
        )
        assert done.returncode == -9, done.stderr
        assert path.read_bytes() == line.encode() + b"\n"
        sealed = folder / f"{NAME}.parquet"
        assert sealed.exists() == (moment in ("folder", "remove"))
        assert not sealed.exists() or pq.read_table(sealed)["value"].to_pylist() == [0.5]
        assert seal(path, leftover=True)
        assert pq.read_table(sealed)["value"].to_pylist() == [0.5]


def test_a_segment_that_is_being_written_is_left_alone(tmp_path):
    with Recorder(tmp_path, seal=False) as first:
        first.log(1, {"loss": 1.0})
        assert seal(tmp_path / f"{NAME}.jsonl", leftover=True) is False
        first.log(2, {"loss": 1.0})
    assert [path.name for path in tmp_path.glob("*.jsonl")] == [f"{NAME}.jsonl"]
    assert len((tmp_path / f"{NAME}.jsonl").read_bytes().splitlines()) == 3
    assert seal(tmp_path / f"{NAME}.jsonl", leftover=True) is True


def test_an_empty_segment_of_another_start_is_left_alone(tmp_path):
    assert seal(segment(tmp_path), leftover=True) is False
    assert (tmp_path / f"{NAME}.jsonl").exists()


def test_a_segment_that_is_gone_is_nobodys_loss(tmp_path):
    assert seal(tmp_path / f"{NAME}.jsonl") is False


def test_without_pyarrow_the_lines_stay_and_nothing_is_said(tmp_path, monkeypatch, caught):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else real(name, *a))
    with caught() as texts, Recorder(tmp_path) as rec:
        rec.log(1, {"loss": 1.0})
    assert not texts
    assert (tmp_path / f"{NAME}.jsonl").exists()


def test_memory_stays_within_eight_times_the_segment(tmp_path):
    code = """
import random, resource, sys
from pathlib import Path
import numpy, pyarrow.parquet
from eventstream.recorder import Recorder
from eventstream.seal import seal
with Recorder(sys.argv[1], seal=False) as rec:
    for step in range(12_000):
        rec.log(step, {f"m{k}": random.random() for k in range(12)})
        rec.losses(step, {k: (random.random(), 0.5) for k in ("kd", "feature", "attention")}, total=1.0)
(path,) = Path(sys.argv[1]).glob("*.jsonl")
size, before = path.stat().st_size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seal(path)
print(size / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(sealing.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    size, grown = map(float, done.stdout.split())
    assert size > 5000
    assert grown < 8 * size
