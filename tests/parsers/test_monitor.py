"""Episodes of Stable-Baselines' Monitor: one environment, several, their configuration, and damage."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.loading import load, load_all
from parsers.run import Run
from tests.parsers.wild import disagreement, wild

START = 1_600_000_000.0


def monitor(count: int, *, extra: bool = False) -> str:
    """A file to the format of Monitor: an object in a comment, the header, one line an episode."""
    lines = ["#" + json.dumps({"t_start": START, "env_id": "Cart-v1"}), "r,l,t" + (",is_success" if extra else "")]
    lines += [f"{-10.5 + i},{10 + i},{1.5 * (i + 1)}" + (f",{i % 2}" if extra else "") for i in range(count)]
    return "".join(line + "\r\n" for line in lines)


def save(folder: Path, text: str | bytes, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def values(run: Run, tag: str, rank: int = 0) -> list[float]:
    return run.series(tag, rank=rank)["value"].to_list()


def test_steps_are_the_timesteps_up_to_the_end_of_each_episode(tmp_path: Path) -> None:
    run = load(save(tmp_path / "cart", monitor(5, extra=True), "monitor.csv"))
    assert (run.name, run.format) == ("cart", "stable-baselines") and run.rejects.is_empty()
    rows = run.series("r")
    assert rows["step"].to_list() == [10, 21, 33, 46, 60]
    assert rows["value"].to_list() == [-10.5, -9.5, -8.5, -7.5, -6.5]
    assert rows["time"][0] == dt.datetime.fromtimestamp(START + 1.5, dt.UTC)
    assert values(run, "is_success") == [0.0, 1.0, 0.0, 1.0, 0.0] and run.config["env_id"] == "Cart-v1"


def test_the_environments_of_a_folder_are_ranks_of_one_run(tmp_path: Path) -> None:
    for rank, count in ((0, 5), (1, 3), (10, 4)):
        save(tmp_path / "ppo", monitor(count), f"{rank}.monitor.csv")
    save(
        tmp_path / "ppo" / "Cart-v1", "!!python/object/apply:collections.OrderedDict\n- - - seed\n    - 7\n", "args.yml"
    )
    progress = "time/total_timesteps,train/loss\n" + "".join(f"{i * 64},{1 / i}\n" for i in range(1, 4))
    save(tmp_path / "ppo", progress, "progress.csv")
    runs = load_all(tmp_path)
    assert [r.name for r in runs] == ["ppo"]
    run = runs[0]
    assert [len(values(run, "r", rank)) for rank in (0, 1, 10)] == [5, 3, 4]
    assert run.config["seed"] == 7 and run.rejects.is_empty()
    assert run.series("loss", split="train")["step"].to_list() == [64, 128, 192]
    assert set(run.scalars["attempt"]) == {0}


def test_an_environment_named_like_a_path_leads_nowhere(tmp_path: Path) -> None:
    save(tmp_path, "seed: 7\n", "args.yml")
    text = monitor(2).replace("Cart-v1", "../" + tmp_path.name)
    run = load(save(tmp_path / "a", text, "monitor.csv"))
    assert "seed" not in run.config and len(values(run, "r")) == 2


def test_the_clock_is_unknown_from_where_it_was_started_anew(tmp_path: Path) -> None:
    text = monitor(3) + monitor(2).split("\r\n", 2)[2]
    run = load(save(tmp_path, text, "monitor.csv"))
    rows = run.series("r")
    assert rows["time"].is_null().to_list() == [False, False, False, True, True]
    assert rows["step"].to_list() == [10, 21, 33, 43, 54]


def test_damaged_lines_are_rejects_and_the_others_are_read(tmp_path: Path) -> None:
    lines = monitor(6).splitlines(keepends=True)
    lines[3], lines[5] = "1.0,2\r\n", "x,13,6.0\r\n"
    run = load(save(tmp_path, "".join(lines), "monitor.csv"))
    assert run.rejects["line"].to_list() == [4, 6]
    assert run.rejects["reason"].to_list() == ["2 cells where the header has 3", "not a number: r is 'x'"]
    assert values(run, "r") == [-10.5, -8.5, -6.5, -5.5] and len(values(run, "l")) == 5


def test_a_damaged_first_object_costs_the_time_only(tmp_path: Path) -> None:
    run = load(save(tmp_path, monitor(3).replace("#{", "#[", 1), "monitor.csv"))
    assert len(values(run, "r")) == 3 and run.series("r")["time"].null_count() == 3


def test_a_file_with_a_header_and_no_episode_is_a_run_without_rows(tmp_path: Path) -> None:
    assert load(save(tmp_path, monitor(0), "monitor.csv")).scalars.is_empty()


@pytest.mark.parametrize("size", range(60, len(monitor(3))))
def test_a_file_cut_anywhere_gives_the_whole_episodes_before(tmp_path: Path, size: int) -> None:
    text = monitor(3)[:size]
    run = load(save(tmp_path, text, "monitor.csv"))
    whole = text.count("\n") - 2
    assert values(run, "r") == [-10.5, -9.5, -8.5][:whole] if whole else run.scalars.is_empty()
    assert run.rejects.height == (0 if text.endswith("\n") else 1)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_flipped_byte_costs_at_most_two_episodes(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    raw = bytearray(monitor(20).encode())
    place = data.draw(st.integers(raw.index(b"t\r\n") + 3, len(raw) - 3))
    raw[place] ^= data.draw(st.integers(1, 255))
    run = load(save(tmp_path_factory.mktemp("flip"), bytes(raw), "monitor.csv"))
    lost = {-10.5 + i for i in range(20)} - set(values(run, "r"))
    assert len(lost) <= 2


@pytest.mark.parametrize(("path", "facts"), wild("sb3", "monitor.csv"))
def test_episodes_of_other_people_hold_what_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.rejects.is_empty() and run.config["env_id"]
    assert [d for tag, f in facts.items() if (d := disagreement(run, tag, f))] == []
    lengths = run.series("l")
    assert lengths["step"].to_list() == lengths["value"].cum_sum().cast(pl.Int64).to_list()
