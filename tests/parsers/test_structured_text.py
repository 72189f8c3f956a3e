"""Structured logs: fields, steps over epochs, samples, warnings, damage, and sets that were rotated and compressed."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
import logging
import logging.handlers
import lzma
from pathlib import Path

import polars as pl
import pytest
import zstandard

from parsers.loading import load, load_all
from parsers.places.rotation import parts_of
from parsers.run import Run

SEED = Path(__file__).parents[3] / "shared" / "seeds" / "002_b037342430f90359.txt"


def block(epoch: int, batch: int, *, second: int = 0, batches: int = 50) -> str:
    at = dt.datetime(2025, 7, 9, 14, 0, 0, 123_000) + dt.timedelta(seconds=second)
    return (
        f"[{at:%Y-%m-%d %H:%M:%S}.123] [INFO] [trainer] Training progress\n"
        f"  - Epoch: {epoch}/100, Batch: {batch}/{batches}\n"
        f"  - Files processed: {batch * 32:,} ({batch * 12} augmented)\n"
        f"  - Losses: {{recon: {1 / (batch + 50 * epoch):.4f}, kl: 0.12, adv: 8e-02}}\n"
        "  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB\n"
        "  - ETA: 1d 2h 15min\n"
    )


def value(run: Run, tag: str) -> list[float]:
    return run.scalars.filter(pl.col("tag") == tag)["value"].to_list()


def test_every_field_is_read_under_the_step_over_all_epochs(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    path.write_text(block(1, 25) + block(5, 25, second=9))
    run = load(path)
    assert run.format == "structured-text"
    rows = run.series("losses/recon")
    assert rows["step"].to_list() == [25, 225]
    assert rows["epoch"].to_list() == [1.0, 5.0]
    assert rows["time"][1] == dt.datetime(2025, 7, 9, 14, 0, 9, 123_000, dt.UTC)
    assert value(run, "data/files") == [800.0, 800.0]
    assert value(run, "data/augmented") == [300.0, 300.0]
    assert value(run, "resources/gpu_memory_gb") == [3.2, 3.2]
    assert value(run, "resources/gpu_memory_total_gb") == [4.0, 4.0]
    assert value(run, "resources/ram_gb") == [8.5, 8.5]
    assert value(run, "resources/eta_s") == [86_400 + 2 * 3600 + 15 * 60] * 2
    assert value(run, "losses/adv") == [0.08, 0.08]
    assert run.rejects.is_empty()


def test_epochs_that_begin_with_zero_begin_with_step_zero(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    path.write_text(block(0, 10) + block(1, 10))
    assert load(path).series("losses/kl")["step"].to_list() == [10, 60]


def test_samples_and_warnings_are_events_at_their_step(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    path.write_text(
        block(2, 50)
        + "  - Samples saved: out/a.mid, out/b <script>.mid\n"
        + "[2025-07-09 14:31:00.000] [CRITICAL] [anomaly] gradient norm 1e9\n"
    )
    events = load(path).events
    samples = events.filter(pl.col("kind") == "samples")
    assert samples["step"].to_list() == [100]
    assert json.loads(samples["payload"][0])["files"] == ["out/a.mid", "out/b <script>.mid"]
    notes = [json.loads(p) for p in events.filter(pl.col("kind") == "note")["payload"]]
    assert [(n["level"], n["text"]) for n in notes if n["level"] != "info"] == [("critical", "gradient norm 1e9")]


def test_a_field_that_is_cut_or_wrong_is_a_reject_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    bad = block(1, 2).replace("GPU 3.20GB/4.00GB", "GPU 3.2").replace("kl: 0.12", "kl: 0.1.2")
    path.write_text(block(1, 1) + bad + block(1, 3))
    run = load(path)
    assert value(run, "resources/gpu_memory_gb") == [3.2, 3.2]
    assert len(value(run, "losses/recon")) == 3
    assert value(run, "losses/kl") == [0.12, 0.12]
    assert run.rejects["line"].to_list() == [10, 11]


def test_a_rotated_set_is_one_run_from_its_oldest_part_on(tmp_path: Path) -> None:
    pieces = ["".join(block(e, b, second=60 * e + b) for b in (10, 20)) for e in range(1, 7)]
    packed = {5: gzip.compress, 4: bz2.compress, 3: lzma.compress, 2: zstandard.ZstdCompressor().compress}
    ending = {5: ".gz", 4: ".bz2", 3: ".xz", 2: ".zst"}
    for number, compress in packed.items():
        (tmp_path / f"train.log.{number}{ending[number]}").write_bytes(compress(pieces[5 - number].encode()))
    (tmp_path / "train.log.1").write_text(pieces[4])
    (tmp_path / "train.log").write_text(pieces[5])
    runs = load_all(tmp_path)
    assert len(runs) == 1
    run = runs[0]
    assert run.name == tmp_path.name
    assert run.series("losses/recon")["epoch"].to_list() == [float(e) for e in range(1, 7) for _ in range(2)]
    assert run.scalars["attempt"].max() == 0
    assert load(tmp_path / "train.log.1").series("losses/recon").height == 2


def test_what_the_rotating_handler_of_logging_writes_is_read_as_one_run(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=2000, backupCount=5)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("rotating")
    logger.addHandler(handler)
    for step in range(60):
        logger.info(block(1 + step // 50, 1 + step % 50, second=step).rstrip("\n"))
    handler.close()
    assert len(parts_of(path)) == 6
    steps = load(path).series("losses/recon")["step"].to_list()
    assert steps == list(range(61 - len(steps), 61))
    assert len(steps) > 40


def test_a_damaged_part_is_a_reject_and_the_other_parts_are_read(tmp_path: Path) -> None:
    whole = gzip.compress("".join(block(1, b) for b in range(1, 400)).encode())
    (tmp_path / "train.log.2.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train.log.1.gz").write_bytes(b"no gzip at all")
    (tmp_path / "train.log").write_text(block(2, 5))
    run = load(tmp_path / "train.log")
    assert run.series("losses/recon")["epoch"][-1] == 2.0
    assert sorted(Path(f).name for f in run.rejects["file"].unique()) == ["train.log.1.gz", "train.log.2.gz"]


def test_a_newest_part_that_is_still_prose_does_not_hide_the_older_ones(tmp_path: Path) -> None:
    (tmp_path / "job.log.1").write_text("".join(f"step={k} loss={k / 7:.3f}\n" for k in range(1, 9)))
    (tmp_path / "job.log").write_text("rotated\n")
    assert load(tmp_path).series("loss").height == 8


@pytest.mark.parametrize("path", [SEED] if SEED.is_file() else [])
def test_the_founding_document_itself_is_read(path: Path) -> None:
    run = load(path)
    assert run.series("losses/recon").select("step", "epoch", "value").rows() == [(225, 5.0, 0.45)]
    assert value(run, "resources/eta_s") == [8100.0]
    assert run.rejects.is_empty()


@pytest.mark.parametrize("newest", ["", "[", "[2025-07-09 14:00:59.123] [INFO] [trainer] Training progress\n"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_log_that_was_rotated_a_moment_ago_is_still_the_whole_set(newest: str, packed: str, tmp_path: Path) -> None:
    older = "".join(block(1, batch, second=batch) for batch in (5, 10, 15)).encode()
    (tmp_path / f"train.log.1{packed}").write_bytes(gzip.compress(older) if packed else older)
    (tmp_path / "train.log").write_text(newest)
    runs = load_all(tmp_path, cache=False)
    assert [(run.format, run.last_step) for run in runs] == [("structured-text", 15)]


def test_an_empty_log_of_another_dialect_after_its_rotation_is_the_whole_set(tmp_path: Path) -> None:
    lines = "".join(f"iter {k}: loss {9 / (k + 1):.4f}, time 31.52ms\n" for k in range(5))
    (tmp_path / "train.log.1").write_text(lines)
    (tmp_path / "train.log").write_bytes(b"")
    assert load(tmp_path).last_step == 4


def test_names_in_quotes_memory_without_a_gpu_and_unknown_lengths_are_read(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    head = "[2025-07-09 14:31:00.000] [INFO] [training] Training progress\n"
    fields = '  - Memory: RAM: 8.50GB\n  - "a: läuft (%)": -2e-05\n  - "": nan\n'
    path.write_text(f"{head}  - Epoch: 3/?, Batch: 225/?\n{fields}{head}  - Epoch: 4/9, Batch: 300/?\n{fields}")
    run = load(path)
    assert run.rejects.is_empty()
    assert run.scalars.filter(pl.col("tag") == "a: läuft (%)").select("step", "epoch", "value").rows() == [
        (225, 3.0, -2e-05),
        (300, 4.0, -2e-05),
    ]
    assert value(run, "resources/ram_gb") == [8.5, 8.5]
    assert len(value(run, "")) == 2


def test_a_number_under_a_name_in_quotes_that_is_cut_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "music.log"
    path.write_text(block(1, 1) + '  - "a:b": 1.2.3\n  - "a:b": 1.2\n')
    run = load(path)
    assert value(run, "a:b") == [1.2]
    assert run.rejects["line"].to_list() == [7]
