"""Event streams that the real recorder wrote: lines, sealed, both, several ranks and attempts, and damaged ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from eventstream.errors import InputError
from eventstream.recorder import Recorder
from eventstream.seal import seal
from parsers.loading import load
from parsers.schema import EVENTS, SCALARS
from parsers.segments import sealed


def record(folder: Path, *, attempts: int = 2) -> Path:
    for attempt in range(attempts):
        with Recorder(folder, config={"lr": 0.1, "seed": 1}, plan={"max_steps": 900}, seal=False) as recorder:
            for step in range(attempt * 500, attempt * 500 + 700):
                recorder.log(step, {"loss": 1 / (step + 1), "eval_x": math.nan if step % 50 == 0 else 2.0}, epoch=0.5)
                if step % 100 == 0:
                    recorder.log(step, {"loss": -math.inf}, split="val")
                    recorder.losses(step, {"kd": {"raw": 2.0, "weight": 0.5}}, total=1.0)
                    recorder.event("home-made", {"best": math.inf, "names": ["a"]}, step=step)
            recorder.config({"seed": attempt + 2})
    return folder


def test_a_run_reads_the_same_before_and_after_it_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = record(tmp_path / "exp")
    before = load(folder)
    for path in sorted(folder.glob("*.jsonl")):
        seal(path)
        after = load(folder)  # first mixed, then sealed throughout
        assert_frame_equal(before.scalars, after.scalars)
        assert_frame_equal(before.events, after.events)
        monkeypatch.setattr(sealed, "EAGER", 0)
        lazy = load(folder)
        assert_frame_equal(before.scalars, lazy.scalars)
        assert_frame_equal(before.events, lazy.events)
        monkeypatch.undo()
    assert not list(folder.glob("*.jsonl")) and before.scalars.height > 2800
    assert before.scalars.schema == SCALARS and before.events.schema == EVENTS


def test_names_values_and_events_come_back_as_recorded(tmp_path: Path) -> None:
    run = load(record(tmp_path / "exp", attempts=1))
    assert run.name == "exp" and run.format == "aftertrain" and run.plan == {"max_steps": 900}
    assert run.config == {"lr": 0.1, "seed": 2}  # the later config event counts
    assert run.rejects.is_empty()
    assert run.catalogue.select("split", "metric", "count").rows() == [
        ("", "loss", 700),
        ("", "losses/kd/raw", 7),
        ("", "losses/kd/weight", 7),
        ("", "losses/total", 7),
        ("eval", "loss", 7),
        ("eval", "x", 700),
    ]
    assert run.series("x")["value"].is_nan().sum() == 14
    assert run.series("loss", split="eval")["value"].to_list() == [-math.inf] * 7
    assert run.series("loss", split="")["value"].to_list() == [1 / (s + 1) for s in range(700)]
    odd = run.events_of("home-made")
    assert odd["step"].to_list() == list(range(0, 700, 100))
    assert json.loads(odd["payload"][0]) == {"best": "Infinity", "names": ["a"]}


def test_series_leave_out_what_a_later_attempt_trained_again(tmp_path: Path) -> None:
    run = load(record(tmp_path / "exp"))
    assert run.scalars["attempt"].unique().sort().to_list() == [0, 1]
    live = run.series("loss", split="")
    assert live["step"].to_list() == list(range(1200))
    assert live.filter(pl.col("step") == 500)["attempt"].to_list() == [1]
    assert run.series("loss", split="", live=False).height == 1400


def test_one_metric_is_read_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = record(tmp_path / "exp", attempts=1)
    seal(next(folder.glob("*.jsonl")))
    monkeypatch.setattr(sealed, "EAGER", 0)
    run = load(folder)
    read: list[int] = []
    plain = sealed.Sealed._rows
    monkeypatch.setattr(
        sealed.Sealed, "_rows",
        lambda self, offset, length, columns=None: read.append(length) or plain(self, offset, length, columns),
    )  # fmt: skip
    assert run.series("losses/total").height == 7
    assert read == [7]
    with pytest.raises(InputError, match="did you mean 'losses/total'"):
        run.series("losses/totl")


def test_ten_thousand_tags_read_the_same_before_and_after_they_are_sealed_at_once_and_lazily(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder(tmp_path / "exp", seal=False) as recorder:
        for step in range(3):
            recorder.log(step, {f"layer{n}/norm": n + step / 4 for n in range(10_000)}, split="train")
            recorder.log(step, {"layer7/norm": -float(step), "loss": float("nan")}, split="eval")
    before = load(tmp_path / "exp").scalars
    (segment,) = (tmp_path / "exp").glob("*.jsonl")
    seal(segment)
    groups = pq.ParquetFile(segment.with_suffix(".parquet")).metadata.num_row_groups
    assert groups < 80
    assert_frame_equal(load(tmp_path / "exp").scalars, before)
    monkeypatch.setattr(sealed, "EAGER", 0)
    run = load(tmp_path / "exp")
    assert_frame_equal(run.series("layer7/norm"), before.filter(pl.col("metric") == "layer7/norm"))
    assert_frame_equal(run.scalars, before)


def test_ranks_write_their_own_files_and_are_read_as_such(tmp_path: Path) -> None:
    for rank in (0, 1):
        with Recorder(tmp_path / "exp", rank=rank, seal=False) as recorder:
            for step in range(300):
                recorder.log(step, {"loss": float(rank)})
    run = load(tmp_path / "exp")
    assert run.catalogue.select("rank", "count").rows() == [(0, 300), (1, 300)]
    assert run.series("loss", rank=1)["value"].unique().to_list() == [1.0]


def line(number: int, **other: object) -> str:
    record = {"kind": "metrics", "step": number, "time": 1.7e9, "values": {"loss": number / 2}, **other}
    return json.dumps(record, separators=(",", ":"))


def stream(folder: Path, *lines: str, name: str = "rank00000-attempt0000-000000.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines))
    return folder


def test_a_folder_without_a_manifest_is_read_and_says_so(tmp_path: Path) -> None:
    run = load(stream(tmp_path / "exp", line(1), line(2)))
    assert run.series("loss")["step"].to_list() == [1, 2]
    assert "the manifest is missing" in run.rejects["reason"][0]


@pytest.mark.parametrize("text", ["{", "", "[]", '{"format": "other"}', "\x00" * 10])
def test_a_broken_manifest_is_a_reject_and_the_run_is_read(tmp_path: Path, text: str) -> None:
    folder = stream(tmp_path / "exp", line(1), line(2))
    (folder / "manifest.json").write_text(text)
    run = load(folder)
    assert run.scalars.height == 2 and run.rejects["file"].to_list() == [str(folder / "manifest.json")]


def test_a_larger_version_is_refused_in_plain_words(tmp_path: Path) -> None:
    folder = stream(tmp_path / "exp", line(1))
    (folder / "manifest.json").write_text('{"format": "aftertrain-events", "version": 2, "run": "x"}')
    with pytest.raises(InputError, match="version 2 of the event stream; this aftertrain reads up to 1"):
        load(folder)


def test_damaged_records_are_rejects_with_their_lines(tmp_path: Path) -> None:
    good = [line(s) for s in range(600)]
    good[10] = '{"kind":"metrics","step":10,"time":1.0,"values":[1]}'
    good[20] = '{"step":20}'
    good[30] = line(30, step="x")
    good[40] = line(40, values={"loss": 20.0, "acc": "high"})
    good[50] = good[50][:-5]
    good[60] = '{"kind":"note","step":60,"time":1.0,"payload":{"text":"hi"}}'
    good[599] = good[599][:30]
    folder = stream(tmp_path / "exp", *good)
    (folder / "manifest.json").write_text('{"format": "aftertrain-events", "version": 1, "run": "x"}')
    run = load(folder)
    assert run.rejects["line"].to_list() == [11, 21, 31, 41, 51, 600]
    assert run.rejects["reason"][5].startswith("the last line is cut")
    lost = {10, 20, 30, 50, 60, 599}
    assert run.series("loss")["step"].to_list() == [s for s in range(600) if s not in lost]
    assert run.events["kind"].to_list() == ["note"]


def test_lines_that_could_not_be_sealed_are_rejects_afterwards(tmp_path: Path) -> None:
    folder = stream(tmp_path / "exp", line(1), "garbage", line(3), "")
    before = load(folder)
    seal(next(folder.glob("*.jsonl")))
    after = load(folder)
    assert_frame_equal(before.scalars, after.scalars)
    assert after.rejects["line"].to_list()[1:] == [2] == before.rejects["line"].to_list()[1:]
    assert after.rejects["text"][1] == "garbage"


def test_a_sealed_file_without_a_footer_gives_way_to_the_lines(tmp_path: Path) -> None:
    folder = stream(tmp_path / "exp", line(1), line(2), "")
    (folder / "rank00000-attempt0000-000000.parquet").write_bytes(b"PAR1" + b"x" * 100)
    run = load(folder)
    assert run.scalars.height == 2 and "no whole Parquet file" in " ".join(run.rejects["reason"])


def test_one_segment_alone_can_be_given(tmp_path: Path) -> None:
    folder = record(tmp_path / "exp", attempts=1)
    path = next(folder.glob("*.jsonl"))
    alone = load(path)
    assert alone.series("loss", split="").height == 700
    seal(path)
    assert_frame_equal(load(path.with_suffix(".parquet")).scalars, alone.scalars)


def test_missing_values_make_no_row_and_non_finite_ones_do(tmp_path: Path) -> None:
    rows = [line(s, values={"loss": None, "acc": None, "b": 1.0}, nonfinite={"acc": "NaN"}) for s in range(600)]
    run = load(stream(tmp_path / "exp", *rows))
    assert run.metrics == ["acc", "b"] and run.series("acc")["value"].is_nan().all()
