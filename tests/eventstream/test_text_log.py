"""The structured text log: its form to the letter, what is read back from it, and what users throw at it."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import logging
import math
import os
import re
import sys
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aftertrain as at
from eventstream import memory, text_log
from eventstream.memory import Memory, gpu_gb
from eventstream.mirrors import full_tag
from eventstream.recorder import Recorder
from eventstream.text_blocks import Course, eta_text, header, one_line
from eventstream.text_log import TextLog

HEADER = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[[A-Z]+\] \[[^\]]+\] .*")
FIELD = re.compile(
    r"  - (?:Epoch: \d+/(?:\d+|\?), Batch: \d+/(?:\d+|\?)|Files processed: \d+(?: \(\d+ augmented\))?"
    r"|Losses: \{\S+: \S+(?:, \S+: \S+)*\}|Memory: (?:GPU \d+\.\d+GB/\d+\.\d+GB, )?RAM: \d+\.\d+GB"
    r"|ETA: (?:\d+d )?(?:\d+h )?(?:\d+min ?)?(?:\d+s)?|Samples saved: .+|(?:[A-Za-z][\w ./-]*|\".*\"): \S+)"
)
TIME = 1752071425.123456


@pytest.fixture
def fixed_memory(monkeypatch):
    monkeypatch.setattr(Memory, "now", classmethod(lambda cls: Memory(3.2, 4.0, 8.5)))


def record(kind, step, *, time=TIME, **rest):
    return {"kind": kind, "step": step, "time": time, **rest}


def metrics(step, values, **rest):
    return record("metrics", step, values=values, **rest)


def text_of(log, *records):
    for each in records:
        log.write(each)
    log.close()
    return log.path.read_text()


def values_of(run, tag):
    return run.scalars.filter(pl.col("tag") == tag)["value"].to_list()


def test_a_step_is_written_in_the_form_to_the_letter(tmp_path, fixed_memory):
    log = TextLog(tmp_path / "train.log", epochs=100, batches=50, module="enhanced_logger")
    for step in range(1, 225):
        log._clock(metrics(step, {}, time=TIME - (225 - step) * 8100 / 4775))
    written = text_of(
        log,
        metrics(225, {"losses/recon": 0.45, "losses/kl": 0.12, "losses/adv": 0.08}, split="train"),
        record("data", 225, payload={"files": 800, "augmented": 300}),
        record("losses", 225, payload={"components": {"recon": {"raw": 0.45}, "kl": {"raw": 0.12}}}),
        record("samples", 225, payload={"kind": "midi", "files": ["path/to/sample.mid"], "metadata": {}}),
    )
    assert written.splitlines() == [
        "[2025-07-09 14:30:25.123] [INFO] [enhanced_logger] Training progress",
        "  - Epoch: 5/100, Batch: 25/50",
        "  - Files processed: 800 (300 augmented)",
        "  - Losses: {recon: 0.45, kl: 0.12}",
        "  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB",
        "  - ETA: 2h 15min",
        "  - train/losses/recon: 0.45",
        "  - train/losses/kl: 0.12",
        "  - train/losses/adv: 0.08",
        "  - Samples saved: path/to/sample.mid",
    ]


def test_losses_logged_without_a_split_stand_between_the_braces(tmp_path, fixed_memory):
    log = TextLog(tmp_path / "a.log", total_steps=9, digits=2)
    written = text_of(log, metrics(3, {"losses/recon": 0.4567, "loss": 0.98765, "losses/a b": 1.0}))
    assert written.splitlines()[1:] == [
        "  - Epoch: 1/1, Batch: 3/9",
        "  - Losses: {recon: 0.46}",
        "  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB",
        "  - loss: 0.99",
        "  - losses/a b: 1",
    ]


def test_parts_of_a_component_are_told_apart(tmp_path):
    parts = {"kd": {"raw": 2.0, "weight": 0.5}, "ce": {"raw": 1.5}}
    written = text_of(
        TextLog(tmp_path / "a.log"), record("losses", 3, payload={"components": parts, "total": 2.5, "displayed": 2.0})
    )
    assert "  - Losses: {kd/raw: 2.0, kd/weight: 0.5, ce: 1.5, total: 2.5, displayed: 2.0}" in written.splitlines()


def test_what_was_recorded_is_what_load_finds_and_every_line_has_the_form(tmp_path):
    log = TextLog(tmp_path / "train.log", epochs=3, batches=40)
    with Recorder(tmp_path / "run", config={"lr": 0.1}, plan={"max_steps": 120}, mirrors=[log]) as rec:
        for step in range(1, 121):
            rec.log(step, {"loss": 3 / step, "grad_norm": math.nan if step == 7 else 1e-7 * step}, split="train")
            rec.losses(step, {"kd": (1 / step, 0.5), "ce": 2 / step}, total=2.5 / step)
            rec.data(step, files=32 * step, augmented=12 * step, cache_hits=step)
            rec.resources(step, gpu_memory_gb=3.25, gpu_memory_total_gb=4.0, ram_gb=8.5, power_w=200.5)
            if step % 40 == 0:
                rec.log(step, {"loss": math.inf, "accuracy": 0.5}, split="eval")
                rec.sample(step, "audio", ["out/a.wav", "out/b.wav"])
                rec.note("slow loader\n[forged]", step=step, level="warning")
    lines = log.path.read_text().splitlines()
    assert all(HEADER.fullmatch(line) or FIELD.fullmatch(line) for line in lines)
    stream, text = at.load(tmp_path / "run"), at.load(log.path)
    assert text.format == "structured-text" and text.rejects.is_empty()
    key = ["step", "split", "metric"]
    wanted = stream.scalars.with_columns(pl.col("metric").replace("losses/ce/raw", "losses/ce"))
    found = text.scalars.filter(~pl.col("tag").is_in(["resources/eta_s"]))
    assert found.select(*key, "value").sort(key).equals(wanted.select(*key, "value").sort(key))
    assert found["epoch"].to_list() == ((found["step"] - 1) // 40 + 1).to_list()
    seconds = dict(stream.series("loss", split="train").select("step", "time").rows())
    for step, time in text.series("loss", split="train").select("step", "time").rows():
        assert abs(time - seconds[step]) < dt.timedelta(milliseconds=1)
    samples = text.events.filter(pl.col("kind") == "samples")
    assert samples["step"].to_list() == [40, 80, 120]
    assert json.loads(samples["payload"][0])["files"] == ["out/a.wav", "out/b.wav"]
    notes = [json.loads(text) for text in text.events.filter(pl.col("kind") == "note")["payload"]]
    assert [note["text"] for note in notes if note["level"] == "warning"] == ["slow loader\\n[forged]"] * 3
    etas = values_of(text, "resources/eta_s")
    assert len(etas) > 110 and etas[-1] == 0.0


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["Epoch", "Losses", "Memory", "ETA", "Files processed", "Samples saved", "losses/", "losses/x/raw", "a: 1, b", '"']
)
NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(NAMES, NUMBERS, max_size=4), min_size=1, max_size=4), st.sampled_from(["", "eval"]))
def test_any_names_and_numbers_come_back_under_their_steps(tmp_path_factory, rows, split):
    folder = tmp_path_factory.mktemp("any")
    log = TextLog(folder / "a.log")
    with Recorder(folder / "run", seal=False, mirrors=[log]) as rec:
        rec.log(0, {"first": 1.0})
        for step, row in enumerate(rows, 1):
            rec.log(step, row, split=split)
    run = at.load(log.path)
    assert run.rejects.is_empty()
    found = {
        (step, tag): value
        for step, tag, value in run.scalars.select("step", "tag", "value").rows()
        if tag not in ("first", "resources/ram_gb")
    }
    wanted = {
        (step, tag_in_log(full_tag(name, split))): float(value)
        for step, row in enumerate(rows, 1)
        for name, value in row.items()
    }
    assert found.keys() == wanted.keys()
    for place, value in wanted.items():
        assert found[place] == value or (math.isnan(value) and math.isnan(found[place]))


def tag_in_log(tag):
    """Control characters, quotes and blank ends as escapes; a component with its raw value alone goes by its name."""
    if tag == "losses/x/raw":
        return "losses/x"
    text = one_line(tag).replace('"', "\\x22")
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :] if text.strip() else ""
    named = [
        "".join(f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in end) for end in (before, after)
    ]
    return named[0] + text.strip() + named[1]


@pytest.mark.parametrize(
    ("course", "step", "epoch", "written"),
    [
        (Course(100, 50), 1, None, "Epoch: 1/100, Batch: 1/50"),
        (Course(100, 50), 50, 7.0, "Epoch: 1/100, Batch: 50/50"),
        (Course(100, 50), 51, None, "Epoch: 2/100, Batch: 1/50"),
        (Course(100, 50), 0, None, "Epoch: 1/100, Batch: 0/50"),
        (Course(None, 50, 120), 101, None, "Epoch: 3/3, Batch: 1/50"),
        (Course(None, 50), 101, None, "Epoch: 3/?, Batch: 1/50"),
        (Course(3, None, 900), 12, 0.4, "Epoch: 1/3, Batch: 12/?"),
        (Course(3, None, 900), 612, 3.0, "Epoch: 3/3, Batch: 612/?"),
        (Course(None, None, 900), 12, None, "Epoch: 1/1, Batch: 12/900"),
        (Course(), 12, None, "Epoch: 1/1, Batch: 12/?"),
    ],
)
def test_the_place_is_read_back_as_the_step(tmp_path, course, step, epoch, written):
    assert course.place(step, epoch) == written
    path = tmp_path / "a.log"
    path.write_text(f"[2025-07-09 14:30:25.123] [INFO] [a] b\n  - {written}\n  - loss: 1.0\n")
    assert at.load(path).series("loss")["step"].to_list() == [step]


def test_the_plan_tells_how_long_the_training_is(tmp_path):
    log = TextLog(tmp_path / "a.log")
    with Recorder(tmp_path / "run", plan={"max_steps": 40}, seal=False, mirrors=[log]) as rec:
        rec.log(3, {"loss": 1.0})
    assert "  - Epoch: 1/1, Batch: 3/40" in log.path.read_text().splitlines()


def test_an_evaluation_and_a_number_without_a_step_have_neither_memory_nor_eta(tmp_path, fixed_memory):
    log = TextLog(tmp_path / "a.log")
    written = text_of(log, metrics(5, {"loss": 1.0}, split="eval"), record("resources", None, payload={"power_w": 9}))
    assert written.splitlines()[1:3] == ["  - Epoch: 1/1, Batch: 5/?", "  - eval/loss: 1.0"]
    assert written.splitlines()[4:] == ["  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB", "  - resources/power_w: 9.0"]


def test_a_number_said_twice_of_one_step_is_written_twice(tmp_path):
    log = TextLog(tmp_path / "a.log")
    text_of(log, metrics(5, {"loss": 1.0}), metrics(5, {"loss": 2.0}), metrics(6, {"loss": 3.0}))
    assert at.load(log.path).series("loss").select("step", "value").rows() == [(5, 1.0), (5, 2.0), (6, 3.0)]


def test_events_without_numbers_are_lines_of_their_own_in_their_order(tmp_path):
    log = TextLog(tmp_path / "a.log")
    written = text_of(
        log,
        record("config", None, payload={"lr": 0.1, "name": "läuft\u2028x"}),
        metrics(1, {"loss": 1.0}),
        record("curriculum", 1, payload={"phase": "warm", "progress": 0.25}),
        record("checkpoint", 1, payload={"path": "ckpt.pt", "bytes": 1234567, "sha256": "00"}),
        record("note", 1, payload={"text": "odd", "level": "critical"}),
        record("odd kind", 1, payload={"a": ["x" * 9000]}),
        record("end", None, payload={"status": "failed", "error": "ValueError: a\nb"}),
    )
    heads = [line[26:] for line in written.splitlines() if line.startswith("[")]
    assert heads[0] == '[INFO] [training] Configuration: {"lr": 0.1, "name": "läuft\\u2028x"}'
    assert heads[1:6] == [
        "[INFO] [training] Training progress",
        "[INFO] [training] Curriculum phase: warm",
        "[INFO] [training] Training progress",
        "[INFO] [training] Checkpoint saved: ckpt.pt (1,234,567 bytes)",
        "[CRITICAL] [training] odd",
    ]
    assert heads[6].startswith('[INFO] [training] odd kind: {"a": ["xxx') and len(heads[6]) < 4100
    assert heads[7] == "[ERROR] [training] Training failed: ValueError: a\\nb"


def logger_with(log):
    logger = logging.Logger("user.module")
    logger.addHandler(log)
    return logger


def test_lines_of_logging_stand_in_the_same_file_in_the_same_form_and_in_order(tmp_path):
    log = TextLog(tmp_path / "a.log")
    logger = logger_with(log)
    with Recorder(tmp_path / "run", seal=False, mirrors=[log]) as rec:
        logger.info("loaded %d files", 3)
        rec.log(1, {"loss": 1.0})
        logger.warning("slow\n[2025-07-09 14:30:25.123] [INFO] [x] forged\n  - Epoch: 9/9, Batch: 9/9\x1b[2J")
    logger.error("after the end")
    log.close()
    lines = log.path.read_text().splitlines()
    assert [line[26:] for line in lines if line.startswith("[")] == [
        "[INFO] [user.module] loaded 3 files",
        "[INFO] [training] Training progress",
        r"[WARNING] [user.module] slow\n[2025-07-09 14:30:25.123] [INFO] [x] forged\n  - Epoch: 9/9, Batch: 9/9\x1b[2J",
        "[INFO] [training] Training finished",
        "[ERROR] [user.module] after the end",
    ]
    assert at.load(log.path).last_step == 1


def test_a_traceback_stands_under_its_line_and_forges_nothing(tmp_path):
    log = TextLog(tmp_path / "a.log")
    try:
        raise ValueError("bad\n[2025-07-09 14:30:25.123] [INFO] [x] forged")
    except ValueError:
        logger_with(log).exception("step failed")
    log.close()
    first, *rest = log.path.read_text().splitlines()
    assert first.endswith("[ERROR] [user.module] step failed")
    assert len(rest) > 3 and all(line.startswith("    | ") for line in rest)
    assert rest[-1] == "    | [2025-07-09 14:30:25.123] [INFO] [x] forged"


def test_levels_and_formatters_are_those_of_any_handler(tmp_path):
    log = TextLog(tmp_path / "a.log", level="ERROR")
    logger = logger_with(log)
    logger.warning("not this")
    logger.error("this")
    log.setFormatter(logging.Formatter("%(message)s!"))
    logger.error("that")
    log.close()
    assert log.path.read_text().splitlines()[0].endswith("this")
    assert log.path.read_text().splitlines()[1] == "that!"


def test_arguments_that_do_not_fit_go_the_way_of_all_handlers(tmp_path, capsys):
    log = TextLog(tmp_path / "a.log")
    logger_with(log).error("%d files", "no number")
    log.close()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_forked_child_writes_its_own_lines_and_not_its_parents_block(tmp_path):
    log = TextLog(tmp_path / "a.log")
    log.write(metrics(1, {"loss": 1.0}))
    child = os.fork()
    if child == 0:
        try:
            logger_with(log).info("worker")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    log.close()
    assert log.path.read_text().count("loss: 1.0") == 1
    assert log.path.read_text().count("worker") == 1


def test_a_set_that_was_rotated_and_compressed_is_read_as_one_run(tmp_path):
    log = TextLog(tmp_path / "train.log", max_bytes=20_000, total_steps=600)
    with Recorder(tmp_path / "run", seal=False, mirrors=[log]) as rec:
        for step in range(600):
            rec.log(step, {"loss": 1 / (step + 1), "lr": 1e-3}, split="train")
            if log._file._packing is not None:
                log._file._packing.join()
    packed = sorted(path.name for path in tmp_path.glob("train.log.*"))
    assert packed == [f"train.log.{number}.gz" for number in range(1, len(packed) + 1)] and 3 <= len(packed) <= 5
    assert all(len(gzip.decompress((tmp_path / name).read_bytes())) <= 20_000 for name in packed)
    run = at.load(tmp_path / "train.log")
    steps = run.series("loss", split="train")
    assert steps["step"].to_list() == list(range(600 - steps.height, 600))
    assert steps["value"].to_list() == [1 / (step + 1) for step in range(600 - steps.height, 600)]
    assert run.rejects.is_empty() and run.scalars["attempt"].max() == 0


def test_a_disk_that_is_full_ends_the_text_log_and_not_the_stream(tmp_path, caught, lines_of):
    log = TextLog("/dev/full")
    with caught() as texts, Recorder(tmp_path / "run", seal=False, mirrors=[log]) as rec:
        for step in range(5):
            rec.log(step, {"loss": 1.0})
        assert rec.lost == 0
    assert len(texts) == 1 and "TextLog failed" in texts[0] and "No space left" in texts[0]
    assert len(lines_of(tmp_path / "run")) == 6


def test_memory_is_asked_for_once_a_second_at_most(tmp_path, monkeypatch):
    asked, clock = [], [100.0]
    monkeypatch.setattr(Memory, "now", classmethod(lambda cls: asked.append(1) or Memory(None, None, 1.0)))
    monkeypatch.setattr(text_log, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    log = TextLog(tmp_path / "a.log")
    for step in range(100):
        clock[0] += 0.1
        log.write(metrics(step, {"loss": 1.0}))
    log.close()
    assert 9 <= len(asked) <= 11


def test_memory_of_a_gpu_is_the_allocators_and_only_where_cuda_is_in_use(monkeypatch):
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 1,
        memory_reserved=lambda device: 3_200_000_000 * device,
        get_device_properties=lambda device: SimpleNamespace(total_memory=4_000_000_000),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_gb() == (3.2, 4.0)
    cuda.is_initialized = lambda: False
    assert gpu_gb() == (None, None)
    monkeypatch.delitem(sys.modules, "torch")
    assert gpu_gb() == (None, None)


def test_memory_of_the_process_is_the_same_by_every_way(monkeypatch):
    import psutil

    exact = psutil.Process().memory_info().rss / 1e9
    assert memory.ram_gb() == pytest.approx(exact, rel=0.2)
    assert memory._by_psutil() == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize("name", ["epochs", "batches", "total_steps", "digits", "max_bytes", "backups"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_sizes_and_counts_that_are_none_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 1, got {value!r}"):
        TextLog(tmp_path / "a.log", **{name: value})


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 951782400.9996, 1e9 + 0.0015, 4102444799.5])
def test_times_of_headers_are_those_of_the_calendar_to_the_millisecond(seconds):
    exact = dt.datetime.fromtimestamp(round(seconds * 1e6) // 1000 / 1000, tz=dt.UTC)
    assert header(seconds, "info", "a]b", "c").startswith(f"[{exact:%Y-%m-%d %H:%M:%S}.")
    assert dt.datetime.fromisoformat(header(seconds, "x y", "", "")[1:24]) == exact.replace(tzinfo=None)
    assert "[INFO] [training] " in header(seconds, "x y", "", "")


@given(st.integers(0, 10**8))
def test_a_duration_is_read_back_to_its_last_unit(seconds):
    found = re.fullmatch(r"(?:(\d+)d )?(?:(\d+)h )?(?:(\d+)min)? ?(?:(\d+)s)?", eta_text(seconds))
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    assert abs(days * 86400 + hours * 3600 + minutes * 60 + rest - seconds) <= (30 if seconds >= 3600 else 0)
    assert hours < 24 and minutes < 60 and rest < 60


def test_a_folder_is_no_log_and_a_file_that_cannot_be_made_is_said_at_the_start(tmp_path, caught, lines_of):
    with pytest.raises(at.InputError, match=r"is a folder; name the file"):
        TextLog(tmp_path)
    (tmp_path / "a").write_text("a file")
    with caught() as texts:
        rec = Recorder(tmp_path / "run", seal=False, mirrors=[TextLog(tmp_path / "a" / "train.log")])
    assert len(texts) == 1 and "TextLog failed" in texts[0]
    rec.close()
    assert len(lines_of(tmp_path / "run")) == 1


@pytest.mark.parametrize("kind", ["curriculum", "losses", "data", "resources", "samples", "note", "checkpoint", "end"])
@pytest.mark.parametrize("payload", [None, [1], "text", {"phase": [1], "files": 3, "components": 1, "bytes": "x"}])
def test_payloads_of_any_form_end_no_log(tmp_path, kind, payload):
    log = TextLog(tmp_path / "a.log")
    text_of(log, record(kind, 1, payload=payload), record(kind, 1, payload=payload), metrics(2, {"loss": 1.0}))
    assert at.load(log.path).series("loss")["step"].to_list() == [2]
