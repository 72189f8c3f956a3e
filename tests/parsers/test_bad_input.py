"""Damage of every kind: a clear message or a reject with its line, the rest read, nothing lost, no traceback."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from eventstream.recorder import Recorder
from parsers.content.lines import LINE_LIMIT
from parsers.loading import load, load_all
from parsers.run import Run
from tests.parsers.writers import files, write

COUNT = 600


def lines(count: int = COUNT) -> list[bytes]:
    return [b'{"step": %d, "loss": %d.5}' % (s, s) for s in range(count)]


def save(folder: Path, content: bytes, name: str = "run.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def steps(run: Run) -> list[int]:
    return run.series("loss")["step"].to_list()


def reject(run: Run) -> tuple[int, str]:
    assert run.rejects.height == 1, run.rejects
    return run.rejects["line"][0], run.rejects["reason"][0]


def grown_mb(path: Path) -> float:
    """By how much the peak memory of a fresh process grows when it loads the file."""
    script = (
        "import resource, sys\n"
        "from parsers.loading import load\n"
        "import parsers.jsonl, parsers.event_stream\n"
        "import pathlib\n"
        "status = pathlib.Path('/proc/self/status')\n"  # getrusage counts the parent's peak before exec on Linux
        "def peak():\n"
        "    if not status.exists():\n"
        "        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    return int(status.read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "load(sys.argv[1]).scalars\n"
        "print((peak() - before) / (1024 if sys.platform != 'darwin' else 1 << 20))\n"
    )
    return float(
        subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True, text=True).stdout
    )


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        load(save(tmp_path, b""))


def test_a_cut_last_line_is_one_reject(tmp_path: Path) -> None:
    run = load(save(tmp_path, b"\n".join(lines())[:-4]))
    line, reason = reject(run)
    assert line == COUNT and reason.startswith("the last line is cut: not JSON")
    assert steps(run) == list(range(COUNT - 1)) and run.rejects["text"][0].startswith('{"step": 599')


def test_a_last_line_without_its_end_that_is_whole_counts(tmp_path: Path) -> None:
    run = load(save(tmp_path, b"\n".join(lines())))
    assert steps(run) == list(range(COUNT)) and run.rejects.is_empty()


def test_nul_bytes_after_a_crash_cost_no_record(tmp_path: Path) -> None:
    rows = lines()
    rows[300] = b"\x00" * 512 + rows[300]
    run = load(save(tmp_path, b"\n".join(rows) + b"\n" + b"\x00" * 4096))
    assert steps(run) == list(range(COUNT))
    assert run.rejects.select("line", "reason").rows() == [
        (301, "512 NUL bytes around the record"),
        (601, "the last line is cut: nothing but NUL bytes (4,096)"),
    ]


def test_interleaved_ranks_are_kept_apart_and_are_no_resume(tmp_path: Path) -> None:
    rows = [b'{"rank": %d, "step": %d, "loss": 1.0}' % (r, s) for s in range(300) for r in (0, 1)]
    run = load(save(tmp_path, b"\n".join(rows) + b"\n"))
    assert run.catalogue.select("rank", "count").rows() == [(0, 300), (1, 300)]
    assert run.scalars["attempt"].max() == 0


def test_ranks_without_a_key_that_interleave_are_no_resume(tmp_path: Path) -> None:
    order = [s for k in range(0, 300, 3) for _ in range(2) for s in range(k, k + 3)]
    run = load(save(tmp_path, b"\n".join(b'{"step": %d, "loss": 1}' % s for s in order)))
    assert run.scalars["attempt"].max() == 0 and run.scalars.height == 600


def test_repeated_steps_after_a_resume_are_another_attempt(tmp_path: Path) -> None:
    rows = lines(500) + [b'{"step": %d, "loss": -1.0}' % s for s in range(400, 700)]
    run = load(save(tmp_path, b"\n".join(rows)))
    assert run.series("loss", live=False).height == 800
    live = run.series("loss")
    assert live["step"].to_list() == list(range(700)) and live["value"][400] == -1.0


def test_a_lone_late_line_is_no_resume(tmp_path: Path) -> None:
    rows = lines()
    rows.insert(300, rows.pop(100))
    run = load(save(tmp_path, b"\n".join(rows)))
    assert run.scalars["attempt"].max() == 0 and sorted(steps(run)) == list(range(COUNT))


def test_text_among_numbers_is_a_reject_with_its_line_and_stays_as_an_event(tmp_path: Path) -> None:
    rows = lines()
    rows[41] = b'{"step": 41, "loss": "diverged", "acc": 0.5}'
    run = load(save(tmp_path, b"\n".join(rows)))
    assert reject(run) == (42, "'loss' holds 'diverged' here and numbers elsewhere; kept as an event")
    assert run.events.select("step", "payload").rows() == [(41, '{"loss":"diverged"}')]
    assert run.series("acc")["value"].to_list() == [0.5] and len(steps(run)) == COUNT - 1


@pytest.mark.parametrize(
    "odd", [b'["x"]', b"3", b'"text"', b"null", b"true", b"{} {}", b'{"a": 1}}', b"}{", b"\xff\xfe"]
)
def test_a_line_that_is_no_object_is_a_reject(tmp_path: Path, odd: bytes) -> None:
    rows = lines()
    rows[500] = odd
    run = load(save(tmp_path, b"\n".join(rows)))
    assert reject(run)[0] == 501 and len(steps(run)) == COUNT - 1


def test_latin_1_bytes_cost_no_number(tmp_path: Path) -> None:
    rows = lines()
    rows[7] = '{"step": 7, "loss": 7.5, "name": "Zoë"}'.encode("latin-1")
    run = load(save(tmp_path, b"\n".join(rows)))
    assert reject(run)[0] == 8 and "not UTF-8; the line was read as Latin-1" in reject(run)[1]
    assert len(steps(run)) == COUNT and "Zoë" in run.events["payload"][0]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_files_with_a_byte_order_mark_are_read_whole(tmp_path: Path, mark: bytes, encoding: str) -> None:
    run = load(save(tmp_path, mark + b"\n".join(lines()).decode().encode(encoding)))
    assert steps(run) == list(range(COUNT)) and run.rejects.is_empty()


def test_windows_line_ends_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    run = load(save(tmp_path, b"\r\n\r\n".join(lines()) + b"\r\n"))
    assert steps(run) == list(range(COUNT)) and run.rejects.is_empty()


def test_a_line_of_100_mb_is_one_reject_in_bounded_memory(tmp_path: Path) -> None:
    rows = lines()
    path = tmp_path / "run.jsonl"
    with path.open("wb") as file:
        file.write(b"\n".join(rows[:300]) + b'\n{"step": 300, "dump": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.seek(300 << 20, 1)  # a hole that reads as NUL bytes: the line is far larger than what reading it may take
        file.write(b'"}\n' + b"\n".join(rows[300:]) + b"\n")
    run = load(path)
    line, reason = reject(run)
    assert line == 301 and f"lines beyond {LINE_LIMIT:,} bytes are not read" in reason and "419,430,4" in reason
    assert steps(run) == list(range(COUNT))
    assert grown_mb(path) < 200


def test_deep_nesting_is_a_reject_and_no_crash(tmp_path: Path) -> None:
    rows = lines()
    rows[10] = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    run = load(save(tmp_path, b"\n".join(rows)))
    assert reject(run) == (11, "nested too deeply to be read") and len(steps(run)) == COUNT - 1


def test_ten_thousand_keys_are_ten_thousand_series(tmp_path: Path) -> None:
    wide = b"\n".join(json.dumps({"step": s, **{f"k{i}": i + s for i in range(10_000)}}).encode() for s in range(3))
    run = load(save(tmp_path, wide))
    assert run.catalogue.height == 10_000 and run.series("k777")["value"].to_list() == [777.0, 778.0, 779.0]


def test_a_new_key_on_every_line_costs_no_square_of_memory(tmp_path: Path) -> None:
    rows = b"\n".join(b'{"step": %d, "k%d": 1.0}' % (s, s) for s in range(5000))
    path = save(tmp_path, rows)
    run = load(path)
    assert run.scalars.height == 5000 and run.scalars["tag"].n_unique() == 5000
    assert grown_mb(path) < 200


def test_steps_as_floats_and_text_are_steps_and_others_are_said(tmp_path: Path) -> None:
    rows = [b'{"step": 1.0, "loss": 1}', b'{"step": "2", "loss": 2}', b'{"step": 2.5, "loss": 3}']
    run = load(save(tmp_path, b"\n".join([*rows, b'{"step": 12345678901234567890, "loss": 4}'])))
    assert run.series("loss").select("step", "value").rows() == [(1, 1.0), (2, 2.0), (None, 3.0), (None, 4.0)]
    assert run.rejects["line"].to_list() == [3, 4]
    assert "step is '2.5', not a whole number of 64 bits" in run.rejects["reason"][0]


def test_integers_beyond_64_bits_are_values(tmp_path: Path) -> None:
    rows = lines()
    rows[5] = b'{"step": 5, "loss": 123456789012345678901234567890}'
    run = load(save(tmp_path, b"\n".join(rows)))
    assert run.series("loss")["value"][5] == 123456789012345678901234567890.0


def test_a_json_array_of_objects_is_read(tmp_path: Path) -> None:
    text = b"[" + b",\n".join(lines()) + b"]"
    assert steps(load(save(tmp_path, text, "run.json"))) == list(range(COUNT))
    cut = load(save(tmp_path, text[:-30], "cut.json"))
    assert steps(cut) == list(range(COUNT - 2)) or steps(cut) == list(range(COUNT - 1))
    assert "the whole is damaged" in cut.rejects["reason"][0]


def test_parquet_without_a_footer_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    pl.DataFrame({"step": [1, 2], "loss": [1.0, 2.0]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"run\.parquet: damaged Parquet file"):
        load(path)


def test_a_folder_without_runs_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no run below this folder"):
        load(tmp_path)


def test_a_link_that_leads_back_up_ends(tmp_path: Path) -> None:
    save(tmp_path, b"\n".join(lines(3)))
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.jsonl").symlink_to(tmp_path / "self.jsonl")
    assert [run.name for run in load_all(tmp_path)] == ["run"]
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "self.jsonl")


def test_foreign_files_of_a_tree_are_no_error_and_unread_ones_are_listed(tmp_path: Path) -> None:
    save(tmp_path, b"\n".join(lines(3)))
    save(tmp_path, b'{"name": "pkg", "version": 1}', "package.json")
    save(tmp_path, b'{\n "lr": 0.1,\n "step": 1\n}', "config.json")
    save(tmp_path, b"PAR1 and then nothing", "broken.parquet")
    save(tmp_path, os.urandom(3000), "weights.log")
    runs = load_all(tmp_path)
    assert [run.name for run in runs] == ["run"]
    assert [Path(path).name for path, _ in runs.unread] == ["broken.parquet"]
    assert "damaged Parquet file" in runs.unread[0][1]


def recorded(folder: Path, sealed: bool) -> Path:
    with Recorder(folder / "exp", config={"lr": 0.1}, seal=sealed) as recorder:
        for step in range(400):
            recorder.log(step, {"loss": step / 2, "acc": float("nan") if step == 7 else 0.5})
    return next((folder / "exp").glob("rank*.parquet" if sealed else "rank*.jsonl"))


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3)


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), flips=DAMAGE, kind=st.sampled_from(["generic", "stream"]))
def test_lines_before_damage_at_random_are_all_there(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[float, int]], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = save(folder, b"\n".join(lines()) + b"\n") if kind == "generic" else recorded(folder, sealed=False)
    content = bytearray(path.read_bytes())[: int(cut * path.stat().st_size)]
    whole = bytes(content)
    places = sorted(int(where * (len(content) - 1)) for where, _ in flips) if content else []
    for place, (_, byte) in zip(places, flips, strict=False):
        content[place] = byte
    path.write_bytes(content)
    first = places[0] if places else len(content)
    expected = [json.loads(line) for line in whole[:first].split(b"\n")[:-1]]
    losses = [r.get("loss", r.get("values", {}).get("loss")) for r in expected]
    losses = [value for value in losses if value is not None]
    try:
        run = load(path if kind == "generic" else path.parent)
    except InputError:
        assert kind == "generic" and len(losses) < 60  # the damage hid what the file is
        return
    found = run.scalars.filter(pl.col("tag") == "loss")["value"].to_list()
    assert found[: len(losses)] == losses or set(losses) <= set(found)


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0.5, 1), flips=DAMAGE, table=st.booleans())
def test_damaged_parquet_is_an_input_error_or_a_reject(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[float, int]], table: bool
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    if table:
        path = folder / "run.parquet"
        pl.DataFrame({"step": range(400), "loss": range(400)}).write_parquet(path)
    else:
        path = recorded(folder, sealed=True)
    size = path.stat().st_size
    content = bytearray(path.read_bytes())[: size if cut > 0.75 else int(cut * size)]
    for where, byte in flips:
        content[int(where * (len(content) - 1))] = byte
    path.write_bytes(content)
    try:
        run = load(path if table else path.parent)
        assert run.scalars.width == 10
    except InputError as error:
        assert str(path.name) in str(error)


@pytest.mark.parametrize("write", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"\x00" * 70_000)])
def test_things_with_the_name_of_a_log_are_passed_over(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "x.jsonl")
    save(tmp_path, b"\n".join(lines(3)))
    assert len(load_all(tmp_path)) == 1


JSON_FORMATS = [
    "huggingface", "huggingface-checkpoints", "mlperf", "sacred", "allennlp", "dllogger", "mmlab", "json-document",
    "jsonl",
]  # fmt: skip


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_half_a_surrogate_pair_in_a_name_is_written_as_its_escape(name: str, tmp_path: Path) -> None:
    folder = write(name, tmp_path / "tree")
    whole = load(folder)
    # a history of Keras is known by its losses: there it is the other name that is broken
    broken = b"val_loss" if name == "json-document" else b"loss"
    for file, data in files(folder).items():
        (folder / file).write_bytes(data.replace(broken + b'"', broken + b'\\ud800"'))
    run = load(folder)
    assert run.scalars.height == whole.scalars.height
    assert [metric for metric in run.metrics if metric.endswith("loss\\ud800")]


def test_a_file_name_that_is_not_utf_8_is_written_as_escapes_and_said(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/ru\xffn.jsonl"))).write_bytes(b"\n".join(lines(5)))
    run = load(tmp_path)
    assert run.name == "ru\\udcffn" and run.path.endswith("ru\\udcffn.jsonl") and run.scalars.height == 5
    assert [run.renamed("b").name, run.catalogue.height] == ["b", 1]
    assert run.rejects["reason"].to_list() == ["the path holds bytes that are not UTF-8; they are shown as escapes"]
