"""Many small saves at once: the same tables as one by one, and a true word where a save changes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from safetensors.numpy import save_file

from analysis.checkpoints import checkpoints
from analysis.weights.differences import differences
from analysis.weights.several import groups, several_differences, several_statistics
from analysis.weights.statistics import LARGE, statistics
from eventstream.errors import InputError
from parsers.checkpoints.npz import read as read_npz
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.verify import verify


def _series(folder: Path, count: int = 6) -> list[Path]:
    drawn = np.random.default_rng(3)
    state: dict[str, Any] = {
        "enc.weight": drawn.normal(size=(40, 30)).astype("f4"),
        "enc.bias": drawn.normal(size=40).astype("f4"),
        "half.weight": drawn.normal(size=(8, 8)).astype("f2"),
        "norm.num_batches_tracked": np.array(3),
        "000001": drawn.normal(size=5),
        "empty": np.zeros((0, 4), "f4"),
    }
    made = []
    for step in range(count):
        moved = {name: np.asarray(value + value.dtype.type(0.01 * (step % 4))) for name, value in state.items()}
        if step == 2:
            moved["enc.bias"][3] = np.nan
            moved["new.weight"] = np.ones((3, 3), "f4")
        if step == 3:
            moved["half.weight"] = np.ones((4, 4), "f2")
        made.append(folder / f"step_{step}.safetensors")
        save_file(moved, made[-1])
    return made


def test_statistics_and_differences_of_several_saves_are_those_of_each(tmp_path: Path) -> None:
    opened = [open_checkpoint(file) for file in _series(tmp_path)]
    pairs = list(pairwise(opened))
    for table, one in zip(several_statistics(opened, ("weights",)), opened, strict=True):
        assert_frame_equal(table, statistics(one, roles=("weights",)), rel_tol=1e-12)
    for table, pair in zip(several_differences(pairs), pairs, strict=True):
        assert_frame_equal(table, differences(*pair), rel_tol=1e-12)
    assert several_differences([]) == []


def test_bytes_that_are_gone_are_told_under_the_tensors_own_name(tmp_path: Path) -> None:
    files = _series(tmp_path)
    opened = [open_checkpoint(file) for file in files]
    os.truncate(files[1], 40)
    told = several_differences([(opened[0], opened[1]), (opened[2], opened[3])])
    assert told[1]["error"].null_count() == told[1].height
    errors = told[0]["error"].drop_nulls().to_list()
    assert errors
    assert all(
        error.startswith(f"tensor '{name}' of ") for name, error in told[0].select("name", "error").iter_rows() if error
    )


@given(st.lists(st.integers(0, 5 * LARGE), max_size=60))
def test_groups_cover_every_save_once_and_leave_none_too_small_beside_others(sizes: list[int]) -> None:
    found = list(groups(sizes))
    assert [place for places in found for place in places] == list(range(len(sizes)))
    for one, two in pairwise(found):
        assert sum(sizes[place] for place in (*one, two.start)) > 2 * LARGE


def _changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """`change` happens when all saves are open and none of their values is read."""

    def late(opened: Sequence[Any], roles: Any) -> list[pl.DataFrame]:
        change()
        return several_statistics(opened, roles)

    monkeypatch.setattr("analysis.weights.reading.several_statistics", late)


def test_a_save_that_is_cut_while_it_is_read_is_told_and_the_story_goes_on_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6, 7):
        save_file({"enc.weight": np.full((40, 30), step, "f4")}, tmp_path / f"step_{step}.safetensors")
    _changing(monkeypatch, lambda: os.truncate(tmp_path / "step_6.safetensors", 40))
    found = checkpoints(tmp_path)
    (told,) = found.findings
    assert (told.kind, told.severity, told.evidence["save"]) == ("checkpoint-corrupt", "warning", "step_6.safetensors")
    assert "changed while it was read: it had 4,880 bytes and has 40" in told.message
    assert found.changes.select("before", "save").rows() == [("step_5.safetensors", "step_7.safetensors")]


def test_a_save_that_is_deleted_while_it_is_read_is_information(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6):
        save_file({"w": np.ones((4, 4), "f4") * step}, tmp_path / f"step_{step}.safetensors")
    _changing(monkeypatch, (tmp_path / "step_5.safetensors").unlink)
    found = checkpoints(tmp_path)
    assert [(one.kind, one.severity) for one in found.findings] == [("checkpoint-corrupt", "info")]
    assert "it was deleted" in found.findings[0].message
    assert found.saves["bytes"].to_list()[0] == 0


def test_a_save_that_is_deleted_while_checksums_are_compared_is_information(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6):
        np.savez(tmp_path / f"step_{step}.npz", w=np.ones((4, 4)) * step)

    def late(checkpoint: Any) -> Any:
        (tmp_path / "step_5.npz").unlink(missing_ok=True)
        return verify(checkpoint)

    monkeypatch.setattr("analysis.weights.reading.broken", late)
    found = checkpoints(tmp_path, verify=True)
    assert [(one.kind, one.severity) for one in found.findings] == [("checkpoint-corrupt", "info")]


def test_checksums_of_what_may_not_be_opened_end_no_story(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    folder.mkdir()
    for step in (5, 6):
        np.savez(folder / f"step_{step}.npz", w=np.ones((4, 4)) * step)
    (folder / "step_7.pt").symlink_to(tmp_path / "elsewhere.pt")
    (tmp_path / "elsewhere.pt").mkdir()
    os.mkfifo(folder / "step_8.pt")
    found = checkpoints(folder, verify=True)
    assert found.saves["step"].to_list() == [5, 6, 8]
    assert [one.evidence["file"] for one in found.findings] == ["step_8.pt"]


def test_a_save_that_is_deleted_in_the_midst_of_opening_is_information(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6):
        np.savez(tmp_path / f"step_{step}.npz", w=np.ones((4, 4)) * step)

    def late(path: Path) -> Any:
        (tmp_path / "step_5.npz").unlink(missing_ok=True)
        return read_npz(path)

    monkeypatch.setattr("parsers.checkpoints.npz.read", late)
    (told,) = checkpoints(tmp_path).findings
    assert (told.severity, told.evidence["what"]) == ("info", "deleted")


def test_a_save_that_is_deleted_while_it_is_judged_is_told_and_the_story_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6, 7):
        save_file({"w": np.eye(4, dtype="f4") * step}, tmp_path / f"step_{step}.safetensors")
    judged: list[list[str]] = []

    def late(saves: Sequence[Any], changes: Sequence[pl.DataFrame], **options: Any) -> list[Any]:
        (tmp_path / "step_6.safetensors").unlink(missing_ok=True)
        judged.append([saved.name for saved in saves])
        for saved in saves:
            saved.checkpoint.array(saved.checkpoint.tensors[0])
        assert len(changes) == len(saves) - 1 and changes[0]["update_ratio"][0] == pytest.approx(2 / 5)
        return []

    monkeypatch.setattr("analysis.weights.reading.findings_between", late)
    (told,) = checkpoints(tmp_path).findings
    assert (told.severity, told.evidence["save"]) == ("info", "step_6.safetensors")
    assert judged == [[f"step_{n}.safetensors" for n in (5, 6, 7)], [f"step_{n}.safetensors" for n in (5, 7)]]


def test_bytes_that_cannot_be_read_although_nothing_changed_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6):
        save_file({"w": np.eye(4, dtype="f4") * step}, tmp_path / f"step_{step}.safetensors")

    def broken(*_: Any, **options: Any) -> list[Any]:
        raise InputError("tensor 'w': Input/output error")

    monkeypatch.setattr("analysis.weights.reading.findings_between", broken)
    with pytest.raises(InputError, match="Input/output error"):
        checkpoints(tmp_path)


def test_a_save_that_is_deleted_before_it_is_opened_is_information(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 6):
        save_file({"w": np.ones((4, 4), "f4") * step}, tmp_path / f"step_{step}.safetensors")

    def late(path: Path, **options: Any) -> Any:
        (tmp_path / "step_5.safetensors").unlink(missing_ok=True)
        return open_checkpoint(path, **options)

    monkeypatch.setattr("analysis.weights.reading.open_checkpoint", late)
    (told,) = checkpoints(tmp_path).findings
    assert (told.severity, told.message) == (
        "info",
        "step_5.safetensors (step 5) was deleted before it could be read",
    )


def test_tensors_that_the_disk_does_not_give_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"w": np.ones((4, 4), "f4"), "v": np.ones(3, "f4")}, tmp_path / "step_5.safetensors")
    save_file({"w": np.ones((4, 4), "f4"), "v": np.ones(3, "f4")}, tmp_path / "step_6.safetensors")
    real = os.open

    def failing(path: Any, *rest: Any, **options: Any) -> int:
        if str(path).endswith("step_6.safetensors"):
            raise OSError(5, "Input/output error")
        return real(path, *rest, **options)

    monkeypatch.setattr("parsers.checkpoints.file_bytes.os.open", failing)
    found = [one for one in checkpoints(tmp_path).findings if one.kind == "checkpoint-corrupt"]
    assert [(one.severity, one.evidence["place"]) for one in found] == [("critical", "2 tensors, first v")]
    assert "Input/output error" in found[0].message
