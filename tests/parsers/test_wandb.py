"""Runs of W&B as its own library writes them: whole, cut, flipped, and without their log."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.loading import load, load_all
from parsers.run import Run
from parsers.tfevents.records import Damage
from parsers.wandb_files.log import BLOCK, HEADER, Batch, read_records
from tests.parsers.wild import disagreement, told, wild

STEPS = 60
NAME = 'a"b/c\n<script>'
#: One real run: numbers, text, a table of parameters, a path of keys, NaN, infinity, a name that is none of these.
WRITE = f"""
import os, sys
os.environ.update(WANDB_SILENT="true", WANDB_MODE="offline", WANDB_DIR=sys.argv[1], HOME=sys.argv[2])
import wandb
config = {{"lr": 0.1, "opt": {{"name": "adam"}}}}
run = wandb.init(project="p", name="kind-sun", group="g", tags=["a", "b"], config=config,
                 settings=wandb.Settings(mode="offline", console="off", x_disable_stats=True))
for i in range({STEPS}):
    row = {{"train/loss": 1 / (i + 1), "epoch": i / 10, "nested": {{"a": i}}, {NAME!r}: -i}}
    row.update(big=2**70, tiny=5e-324)
    row["odd"] = float("nan") if i % 2 else float("inf")
    run.log({{**row, "text": "x", "flag": True, "nothing": None, "digits": "12.5"}})
    if i % 5 == 4:
        run.log({{"eval/loss": 2 / (i + 1), "dump": "y" * 9000}})
run.summary["best"] = 0.5
run.config.update({{"late": 1}})
run.finish()
"""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder that the library left."""
    folder = tmp_path_factory.mktemp("wandb")
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-c", WRITE, str(folder), str(home)], check=True, capture_output=True, timeout=120)
    return next(path for path in (folder / "wandb").iterdir() if path.name.startswith("offline-run-"))


def log_of(folder: Path) -> Path:
    return next(folder.glob("run-*.wandb"))


def chunk(kind: int, data: bytes) -> bytes:
    body = bytes([kind]) + data
    return struct.pack("<IH", zlib.crc32(body), len(data)) + body


def log_bytes(records: Iterable[bytes]) -> bytes:
    """A log by the obvious reading of the format: one record after another, cut at the ends of blocks."""
    out = bytearray(HEADER)
    for record in records:
        first = True
        while True:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                room = BLOCK
            part, record = record[: room - 7], record[room - 7 :]
            out += chunk({(1, 1): 1, (1, 0): 2, (0, 0): 3, (0, 1): 4}[first, not record], part)
            first = False
            if not record:
                break
    return bytes(out)


@cache
def by_their_library(path: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of each number of the history, parsed by W&B's own messages."""
    from wandb.proto import wandb_internal_pb2 as messages

    found = []
    for _, data in read_records(path, Damage(str(path))):
        record = messages.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for name, value in row.items():
            if name in ("_step", "_timestamp", "_runtime", "epoch") or isinstance(value, bool):
                continue
            if isinstance(value, int | float) or name == "digits":
                found.append((row["_step"], name, float(value)))
    return found


@cache
def starts_of(path: Path) -> frozenset[int]:
    """Where each record of an undamaged log begins."""
    return frozenset(offset for offset, _ in read_records(path, Damage("")))


def numbers(run: Run) -> list[tuple[int, str, float]]:
    rows = run.scalars.filter(~run.scalars["tag"].str.starts_with("system."))
    return list(rows.select("step", "tag", "value").iter_rows())


def sortable(rows: Iterable[tuple[int, str, float]]) -> list[tuple[int, str, str]]:
    return sorted((step, tag, repr(value)) for step, tag, value in rows)


def test_the_numbers_are_those_that_their_own_library_reads(written: Path) -> None:
    run = load(written)
    assert run.rejects.is_empty()
    assert sortable(numbers(run)) == sortable(by_their_library(log_of(written)))
    assert run.series("loss", split="train")["value"].to_list() == [1 / (i + 1) for i in range(STEPS)]


def test_steps_epochs_times_and_splits_are_told(written: Path) -> None:
    rows = load(written).series("loss", split="train")
    assert rows["epoch"].to_list() == [i / 10 for i in range(STEPS)]
    assert rows["step"].to_list() == [i + i // 5 for i in range(STEPS)]
    assert rows["time"].null_count() == 0 and rows["time"].is_sorted() and rows["time"][0].year >= 2024
    assert load(written).series("loss", split="eval").height == STEPS // 5


def test_names_and_values_at_the_edge_survive(written: Path) -> None:
    run = load(written)
    assert run.series(NAME)["value"].to_list() == [-float(i) for i in range(STEPS)]
    assert run.series("nested.a")["value"][-1] == STEPS - 1
    assert run.series("big")["value"][0] == 2.0**70 and run.series("tiny")["value"][0] == 5e-324
    odd = run.series("odd")["value"].to_list()
    assert all(math.isinf(v) for v in odd[::2]) and all(math.isnan(v) for v in odd[1::2])


def test_configuration_identity_summary_and_end_are_kept(written: Path) -> None:
    run = load(written)
    assert run.name == "kind-sun" and run.format == "wandb"
    assert run.config == {"lr": 0.1, "opt": {"name": "adam"}, "late": 1}
    about = json.loads(run.events_of("run")["payload"][0])
    assert (about["project"], about["group"], about["tags"]) == ("p", "g", ["a", "b"])
    assert json.loads(run.events_of("results")["payload"][0])["best"] == 0.5
    assert json.loads(run.events_of("end")["payload"][0]) == {"status": "finished"}


def test_what_is_no_number_is_an_event_once_and_again_when_it_changes(written: Path) -> None:
    records = [json.loads(p) for p in load(written).events_of("record")["payload"]]
    assert {"text": "x", "flag": True} in records and len(records) <= 2 * (STEPS // 5) + 1
    assert sum("dump" in record for record in records) == STEPS // 5


def test_the_file_and_the_tree_lead_to_the_same_run(written: Path) -> None:
    alone, tree = load(log_of(written)), load_all(written.parents[1])
    assert [run.name for run in tree] == ["kind-sun"]
    assert sortable(numbers(alone)) == sortable(numbers(tree[0]))


def test_without_a_log_the_summary_and_the_configuration_are_read(tmp_path: Path) -> None:
    files = tmp_path / "run-20250102_030405-abc" / "files"
    files.mkdir(parents=True)
    summary = {"_step": 7, "_timestamp": 1.7e9, "loss": {"min": 0.5}, "t": "x", "_wandb": {"runtime": 3}}
    (files / "wandb-summary.json").write_text(json.dumps(summary))
    held = {"lr": {"value": 0.5, "desc": None}, "wandb_version": 1, "_wandb": {"value": {"e": 1}}}
    (files / "config.yaml").write_text(yaml.safe_dump(held))
    (files / "output.log").write_text("Epoch 1\n")
    run = load(files.parent)
    assert run.scalars.select("step", "tag", "value").rows() == [(7, "loss.min", 0.5)]
    assert run.config == {"lr": 0.5}
    assert json.loads(run.events_of("console")["payload"][0]) == {"bytes": 8, "text": "Epoch 1\n"}


def test_an_empty_log_beside_a_summary_is_a_reject_and_the_summary_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run-20250102_030405-abc"
    (folder / "files").mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(b"")
    (folder / "files" / "wandb-summary.json").write_text('{"_step": 7, "loss": 0.5}')
    run = load(folder)
    assert numbers(run) == [(7, "loss", 0.5)]
    assert run.rejects["reason"].to_list() == ["the file is empty"]


def test_records_of_any_length_are_put_together_across_blocks(tmp_path: Path) -> None:
    draw = random.Random(0)
    records = [draw.randbytes(draw.choice([0, 1, 9, 700, BLOCK - 7, BLOCK, 3 * BLOCK + 5])) for _ in range(200)]
    path = tmp_path / "run-a.wandb"
    path.write_bytes(log_bytes(records))
    damage = Damage(str(path))
    assert [data for _, data in read_records(path, damage)] == records
    assert not damage.all()


def test_one_flipped_byte_costs_one_record_and_the_rest_is_read(tmp_path: Path) -> None:
    records = [bytes([i]) * 500 for i in range(200)]
    whole = bytearray(log_bytes(records))
    whole[40_000] ^= 8
    path = tmp_path / "run-a.wandb"
    path.write_bytes(whole)
    damage = Damage(str(path))
    read = [data for _, data in read_records(path, damage)]
    assert len(read) == len(records) - 1 and set(read) < set(records)
    assert "checksum" in damage.all()[0].reason


def small(written: Path, folder: Path, change: Any) -> tuple[Run, list[tuple[int, str, float]]]:
    path = folder / log_of(written).name
    data = log_of(written).read_bytes()
    path.write_bytes(change(data))
    return load(path), by_their_library(log_of(written))


@settings(max_examples=40, deadline=None)
@given(part=st.floats(0, 1))
def test_cut_anywhere_every_row_before_the_cut_is_read(
    written: Path, tmp_path_factory: pytest.TempPathFactory, part: float
) -> None:
    whole = log_of(written).read_bytes()
    at = max(4, int(part * len(whole)))
    run, expected = small(written, tmp_path_factory.mktemp("cut"), lambda data: data[:at])
    got = numbers(run)
    assert set(sortable(got)) <= set(sortable(expected))
    assert len(got) >= len([row for row in expected if row[0] < (run.last_step or 0)])
    starts = starts_of(log_of(written)) | {len(whole), len(HEADER)}
    between = at in starts or at % BLOCK == 0 or at % BLOCK > BLOCK - 7  # or in the filler at the end of a block
    assert run.rejects.height <= 2  # a cut chunk, and the record that it belongs to
    assert between or run.rejects.height >= 1
    assert at not in starts or run.rejects.is_empty()


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_a_reject_and_most_rows_survive(
    written: Path, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    def flip(data: bytes) -> bytes:
        at = 7 + int(place * (len(data) - 7))
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    run, expected = small(written, tmp_path_factory.mktemp("flip"), flip)
    assert set(sortable(numbers(run))) <= set(sortable(expected))
    # at worst a damaged length loses the rest of its block
    lost = len(expected) - len(numbers(run))
    assert lost <= len(expected) * 0.75
    assert lost == 0 or run.rejects.height >= 1


@settings(max_examples=60, deadline=None)
@given(junk=st.lists(st.binary(max_size=80), max_size=8))
def test_records_that_are_no_messages_are_rejects_and_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, junk: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("junk") / "run-a.wandb"
    path.write_bytes(log_bytes(junk))
    assert load(path).format == "wandb"


def test_only_a_header_is_a_run_without_numbers_and_another_start_is_no_run_of_wandb(tmp_path: Path) -> None:
    bare = tmp_path / "run-a.wandb"
    bare.write_bytes(HEADER)
    assert load(bare).scalars.is_empty() and load(bare).rejects.is_empty()
    other = tmp_path / "b.wandb"
    other.write_bytes(b'{"step": 1, "loss": 2}\n')
    assert load(other).format != "wandb"


def test_a_log_under_another_name_is_known_by_its_content(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.txt"
    shutil.copy(log_of(written), path)
    assert load(path).format == "wandb"


@pytest.mark.parametrize(("path", "facts"), wild("wandb", ".wandb") or [(None, {})])
def test_logs_of_other_people_tell_the_numbers_that_were_counted(path: Path | None, facts: dict[str, Any]) -> None:
    if path is None:
        return  # no folder of other people's runs here; the runs above are real ones too
    run = load(path.parent)
    for tag, fact in facts.items():
        if tag != "epoch":
            assert disagreement(run, tag, fact) == ""
            steps = told(run, tag)["step"]
            assert (steps[0], steps[-1]) == (fact["first"][0], fact["last"][0])
    assert run.rejects.is_empty()


@pytest.mark.parametrize(("path", "facts"), wild("wandb", "wandb-summary.json") or [(None, {})])
def test_summaries_of_other_people_tell_the_numbers_that_were_counted(path: Path | None, facts: dict[str, Any]) -> None:
    if path is None:
        return
    run = load(path.parents[1])
    if list(path.parents[1].glob("*.wandb")):
        assert run.events_of("results").height == 1
        return
    for tag, fact in facts.items():
        if tag == "epoch":
            assert run.scalars["epoch"].unique().to_list() == [fact["first"][1]]
        else:
            assert disagreement(run, tag, fact) == ""


def item(path: str | list[str], value: str) -> bytes:
    from wandb.proto import wandb_internal_pb2 as messages

    keys = [path] if isinstance(path, str) else path
    return bytes(messages.HistoryItem(nested_key=keys, value_json=value).SerializeToString())


def step_record(draw: random.Random, step: int) -> bytes:
    """A record of history or of the summary, sometimes with what the compiled walk leaves to Python."""
    from wandb.proto import wandb_internal_pb2 as messages

    record = messages.Record(num=step)
    odd = draw.choice(['"text"', "true", "null", "[1, 2]", '{"_type": "histogram"}', '"0.5"'])
    values = [(n, repr(draw.gauss(0, 10**9))) for n in ("loss", "acc", "rare") if n != "rare" or not step % 9]
    values += [(["a", "b"], draw.choice(["NaN", "Infinity", "-Infinity", "5e-324", "1e308", "-0.0", str(2**63)]))]
    values += [("_timestamp", repr(1.7e9 + step)), ("_runtime", "1"), ("epoch", str(step / 10))]
    values += [("odd", odd)] if draw.random() < 0.05 else []
    broken = [("broken", draw.choice(["1.", "01", "1e", "-", "1_0", "Inf"]))] if draw.random() < 0.003 else []
    if draw.random() < 0.3:
        parts = [messages.SummaryItem.FromString(item(n, v)) for n, v in values]
        record.summary.update.extend(parts)
    else:
        parts = [messages.HistoryItem.FromString(item(n, v)) for n, v in [*values, *broken, ("_step", str(step))]]
        record.history.item.extend(parts)
        record.history.step.num = step
    return bytes(record.SerializeToString())


def read_both(records: list[bytes], size: int) -> list[Run]:
    """The run of records that are read one by one, and in batches of some."""
    from parsers.tables.generic import Records
    from parsers.wandb_files.fast import add_batch
    from parsers.wandb_files.records import Reader

    found = []
    for fast in (False, True):
        made = Records("x.wandb")
        reader = Reader(made, Damage("x.wandb"))
        placed = list(enumerate(records))
        for start in range(0, len(records), size):
            if fast:
                add_batch(reader, Batch.of(placed[start : start + size]))
                continue
            for offset, data in placed[start : start + size]:
                reader.add(offset, data)
        reader.end()
        made.rejects += reader.damage.all()
        found.append(made.run("x", "wandb"))
    return found


def told_events(run: Run) -> list[tuple[str, int | None, Any]]:
    return [(kind, step, json.loads(p)) for kind, step, p in run.events.select("kind", "step", "payload").iter_rows()]


@pytest.mark.parametrize("seed", range(6))
def test_batches_by_compiled_code_are_read_as_record_by_record(seed: int) -> None:
    draw = random.Random(seed)
    records = [step_record(draw, step) for step in range(300)]
    for _ in range(seed):  # damage that the checksum would not tell: other bytes, a cut, nothing at all
        place = draw.randrange(len(records))
        data = bytearray(records[place])
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        records[place] = draw.choice([bytes(data), records[place][:20], b""])
    plain, fast = read_both(records, 70)
    columns = ["step", "epoch", "time", "tag", "value"]
    assert plain.scalars.height > 500
    by = ["tag", "step", "time"]
    assert fast.scalars.select(columns).sort(by).equals(plain.scalars.select(columns).sort(by))
    assert told_events(fast) == told_events(plain)
    assert fast.rejects.equals(plain.rejects)


def test_a_large_log_is_read_by_compiled_code_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parsers import wandb

    draw = random.Random(3)
    path = tmp_path / "run-a.wandb"
    path.write_bytes(log_bytes(step_record(draw, step) for step in range(1500)))
    plain = wandb.read(path)
    monkeypatch.setattr(wandb, "SMALL", 1)
    monkeypatch.setattr(wandb, "MANY", 2)
    assert sortable(numbers(wandb.read(path))) == sortable(numbers(plain))


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_large_log_tells_the_same_damage_by_compiled_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    from parsers import wandb

    draw = random.Random(seed)
    records = [step_record(draw, step) for step in range(1500)]
    records.insert(700, records[0] * 400)  # longer than a block, and no record that means anything
    path = tmp_path / "run-a.wandb"
    data = bytearray(log_bytes(records))
    for _ in range(seed):
        data[draw.randrange(len(HEADER), len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data[: draw.randrange(len(data) // 2, len(data))] if seed else data)
    monkeypatch.setattr(wandb, "SMALL", 0)
    plain = wandb.read(path)
    monkeypatch.setattr(wandb, "SMALL", 1)
    monkeypatch.setattr(wandb, "MANY", 3)
    fast = wandb.read(path)
    assert len(data) > 9 * BLOCK
    assert sortable(numbers(fast)) == sortable(numbers(plain))
    by = ["offset", "line", "reason"]
    assert fast.rejects.sort(by).rows() == plain.rejects.sort(by).rows()
    assert any("chunk" in reason for reason in plain.rejects["reason"]) == bool(seed)
