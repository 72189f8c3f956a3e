"""Runs of MLflow as its own client writes them: the file store and the SQLite store, whole and damaged."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers import mlflow as files
from parsers import mlflow_db as database
from parsers.loading import load, load_all
from parsers.run import Run
from tests.parsers.mlflow_stores import STEPS, mlflow_stores
from tests.parsers.wild import disagreement, told, wild


@pytest.fixture(scope="session")
def written() -> Path:
    """A folder with `mlruns/` and `mlflow.db` that hold the same runs."""
    return mlflow_stores("two_experiments")


def run_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / "mlruns").glob("*/*") if files.sniff(path, b""))


def from_files(root: Path, name: str) -> Run:
    return next(run for run in map(files.read, run_folders(root)) if run.name == name)


def from_database(root: Path, name: str) -> Run:
    return database.read(root / "mlflow.db", name)


@pytest.fixture(params=[from_files, from_database], ids=["files", "database"])
def store(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_both_stores_tell_the_numbers_that_were_logged(written: Path, store: Any) -> None:
    for e in range(2):
        for r in range(2):
            run = store(written, f"run-{e}{r}")
            rows = run.series("loss", split="train")
            assert rows["value"].to_list() == [(1 + e + r) / (i + 1) for i in range(STEPS)]
            assert rows["step"].to_list() == list(range(STEPS))
            assert rows["time"].dt.epoch("ms").to_list() == [1_700_000_000_000 + i * 250 for i in range(STEPS)]
            assert run.rejects.is_empty() and run.scalars["attempt"].unique().to_list() == [0]


def test_numbers_that_are_not_finite_survive_both_stores(written: Path, store: Any) -> None:
    values = store(written, "run-01").series("odd values")["value"].to_list()
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, 5e-324, 1e308]


def test_parameters_tags_experiment_and_end_are_kept(written: Path, store: Any) -> None:
    run = store(written, "run-11")
    assert run.config == {"lr": 0.1, "epochs": 12, "opt/name": "adam", "amp": True}
    about = json.loads(run.events_of("run")["payload"][0])
    assert about["experiment"] == "exp-b" and about["tags"]["who"] == "line one\nline two <script>"
    assert json.loads(run.events_of("end")["payload"][0]) == {"status": "failed"}
    assert json.loads(store(written, "run-10").events_of("end")["payload"][0]) == {"status": "finished"}


def test_a_store_lists_its_runs_and_asks_which_one(written: Path) -> None:
    assert len(run_folders(written)) == 4
    path = written / "mlflow.db"
    names = [database.read(path, key).name for key in database.runs(path)]
    assert names == ["run-00", "run-01", "run-10", "run-11"]
    with pytest.raises(InputError, match=r"4 runs here \(run-00, run-01, run-10, run-11\); name one of them"):
        database.read(path)
    with pytest.raises(InputError, match=r"unknown run 'run-0'; did you mean 'run-"):
        database.read(path, "run-0")


def test_every_run_of_both_stores_is_found_once_below_their_folder(written: Path) -> None:
    found = load_all([written, written / "mlflow.db"])
    assert len(found) == 8 and len({run.name for run in found}) == 8
    assert sorted(run.name.split("/")[-1].split("#")[0] for run in found) == sorted(
        2 * ["run-00", "run-01", "run-10", "run-11"]
    )
    keys = database.runs(written / "mlflow.db")
    with pytest.raises(InputError, match=f"4 runs here .{', '.join(keys)}"):  # their path would be the same
        load(written / "mlflow.db")


def test_runs_of_one_name_in_one_database_are_told_apart_by_their_identifiers(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(written / "mlflow.db", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update runs set name = 'same'")
        connection.execute("update tags set value = 'same' where key = 'mlflow.runName'")
    keys = database.runs(path)
    with pytest.raises(InputError, match=rf"4 runs fit 'same' \({keys[0]} of exp.*; name one by its identifier"):
        load(path, run="same")
    assert load(path, run=keys[2]).scalars.equals(database.read(path, keys[2]).scalars)


def test_reading_changes_nothing_and_leaves_nothing_beside_the_database(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(written / "mlflow.db", path)
    path.chmod(0o444)
    before = path.read_bytes()
    database.read(path, "run-00")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_log_that_was_never_merged_into_the_database_is_said(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "mlflow.db", tmp_path / "mlflow.db")
    (tmp_path / "mlflow.db-wal").write_bytes(b"pages")
    assert "never merged" in database.read(tmp_path / "mlflow.db", "run-00").rejects["reason"][0]


def test_a_database_of_another_program_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE runs (run_uuid TEXT)")
        base.commit()
    assert not database.sniff(path, path.read_bytes())
    with pytest.raises(InputError, match="without the tables of MLflow"):
        database.read(path)


def test_an_old_store_without_steps_and_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT, status TEXT, start_time, end_time, lifecycle_stage TEXT, experiment_id);"
            "CREATE TABLE metrics (key TEXT, value, timestamp, run_uuid TEXT);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT); CREATE TABLE tags (key, value, run_uuid);"
            "INSERT INTO runs VALUES ('ab', 'RUNNING', 1, NULL, 'active', 3);"
            "INSERT INTO metrics VALUES ('loss', 0.5, 1700000000000, 'ab'), ('loss', 'high', 1, 'ab');"
        )
    run = database.read(path)
    assert run.name == "ab" and run.scalars.select("step", "tag", "value").rows() == [(None, "loss", 0.5)]
    assert run.rejects["reason"].to_list() == ["'loss' holds 'high', which is no number"]


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans(), noise=st.binary(min_size=1, max_size=64))
def test_a_damaged_database_is_read_or_refused_with_a_sentence(
    written: Path, tmp_path_factory: pytest.TempPathFactory, place: float, cut: bool, noise: bytes
) -> None:
    whole = (written / "mlflow.db").read_bytes()
    at = int(place * len(whole))
    path = tmp_path_factory.mktemp("damage") / "mlflow.db"
    path.write_bytes(whole[:at] if cut else whole[:at] + noise + whole[at + len(noise) :])
    database.sniff(path, path.read_bytes()[: 1 << 16])
    try:
        found = [database.read(path, key) for key in database.runs(path)]
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(run.format == "mlflow" for run in found)


def test_rows_of_a_damaged_page_are_lost_and_those_around_it_read(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(written / "mlflow.db", path)
    with closing(sqlite3.connect(path)) as base:
        key = base.execute("SELECT run_uuid FROM runs WHERE name = 'run-00'").fetchone()[0]
        base.executemany(
            "INSERT INTO metrics VALUES ('big', ?, 1700000000000, ?, ?, 0)", [(i / 7, key, i) for i in range(20_000)]
        )
        base.commit()
        size = base.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT pageno FROM dbstat WHERE name = 'metrics' AND pagetype = 'leaf' ORDER BY path"
        try:
            pages = [row[0] for row in base.execute(query)]
        except sqlite3.OperationalError:  # this build of SQLite does not tell its pages: one in the middle of the rows
            data = path.read_bytes()
            pages = [
                p + 1
                for p in range(len(data) // size)
                if data[p * size] == 13 and data.count(b"big", p * size, p * size + size) > 20
            ]
    data = bytearray(path.read_bytes())
    middle = pages[len(pages) // 2]
    data[(middle - 1) * size : middle * size] = b"\xff" * size
    path.write_bytes(data)
    run = database.read(path, key)
    steps = run.scalars.filter(run.scalars["tag"] == "big")["step"].to_list()
    assert 19_000 < len(steps) < 20_000 and steps[0] == 0 and steps[-1] == 19_999
    assert "damaged" in run.rejects["reason"][0]


def copied(written: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run_folders(written)[0], folder / "run"))


def test_lines_that_are_no_numbers_are_rejects_with_their_place(written: Path, tmp_path: Path) -> None:
    root = copied(written, tmp_path)
    path = root / "metrics" / "train" / "loss"
    lines = path.read_bytes().splitlines()
    lines[50:53] = [b"1700000000000 0,5 50", b"", b"1700000000000"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    run = files.read(root)
    assert run.series("loss").height == STEPS - 3
    assert run.rejects["line"].to_list() == [51, 53]
    assert run.rejects["text"][0] == "1700000000000 0,5 50"


@pytest.mark.parametrize("count", [3, STEPS])
def test_a_last_line_without_its_end_may_have_lost_digits_and_is_a_reject(
    count: int, written: Path, tmp_path: Path
) -> None:
    root = copied(written, tmp_path)
    path = root / "metrics" / "train" / "loss"
    lines = path.read_bytes().splitlines(keepends=True)[:count]
    path.write_bytes(b"".join(lines)[:-2])
    run = files.read(root)
    assert run.series("loss").height == count - 1
    assert run.rejects.select("line", "reason").rows() == [(count, "the last line is cut: it has no line end")]


def test_the_table_and_the_line_by_line_reading_are_one(written: Path, tmp_path: Path) -> None:
    root = copied(written, tmp_path)
    path = root / "metrics" / "train" / "loss"
    fast = files.read(root).series("loss")
    path.write_bytes(path.read_bytes() + b"x\n")  # one bad line sends the whole block line by line
    assert files.read(root).series("loss").equals(fast)


def test_old_lines_without_a_step_and_new_ones_with_a_data_set_are_read(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "meta.yaml").write_text("experiment_id: 0\nrun_uuid: ab\nstatus: 5\n")
    (tmp_path / "metrics" / "acc").write_text("1700000000000 0.5\n1700000000001 0.75 3 mnist 0a1b\n")
    run = files.read(tmp_path)
    assert run.name == "ab" and run.scalars.select("step", "value").rows() == [(None, 0.5), (3, 0.75)]
    assert json.loads(run.events_of("end")["payload"][0]) == {"status": "interrupted"}


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["meta.yaml", "metrics/train/loss", "params/lr"]), place=st.floats(0, 1), bit=st.integers(0, 8)
)
def test_a_damaged_file_of_a_run_never_raises_and_the_other_files_are_read(
    written: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: float, bit: int
) -> None:
    root = copied(written, tmp_path_factory.mktemp("damage"))
    whole = (root / name).read_bytes()
    at = min(int(place * len(whole)), len(whole) - 1)
    changed = whole[:at] if bit == 8 else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    (root / name).write_bytes(changed)
    run = files.read(root)
    assert told(run, "odd values").height == 5
    assert told(run, "train/loss").height >= (0 if "loss" in name and bit == 8 else STEPS - 2)


def test_a_link_in_the_store_is_not_followed(written: Path, tmp_path: Path) -> None:
    root = copied(written, tmp_path)
    (root / "metrics" / "loop").symlink_to(root, target_is_directory=True)
    run = files.read(root)
    assert run.rejects.height == 1 and "not followed" in run.rejects["reason"][0]


def test_an_experiment_is_no_run(written: Path) -> None:
    assert not files.sniff(run_folders(written)[0].parent, b"")
    with pytest.raises(InputError, match=r"no meta\.yaml here"):
        files.read(written)


@pytest.mark.parametrize(("path", "facts"), wild("mlflow") or [(None, {})])
def test_metrics_of_other_people_tell_the_numbers_that_were_counted(path: Path | None, facts: dict[str, Any]) -> None:
    if path is None:
        return  # no folder of other people's runs here; the runs above are written by the library itself
    root = next(folder for folder in path.parents if (folder / "meta.yaml").is_file())
    run = files.read(root)
    for tag, fact in facts.items():
        assert disagreement(run, tag, fact) == ""
        steps = told(run, tag)["step"]
        assert (steps[0], steps[-1]) == (fact["first"][0], fact["last"][0])
    assert run.rejects.is_empty() and run.name == "20240212_144531"
