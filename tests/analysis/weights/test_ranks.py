"""Copies of several ranks, some of which a running training deletes or writes anew while they are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from analysis.checkpoints import checkpoints
from analysis.findings import Finding
from analysis.weights.replicas import findings_of_replicas
from analysis.weights.unread import judged_while_there
from eventstream.errors import InputError


def saved(folder: Path, step: int, rank: int, apart: float = 0.0) -> Path:
    drawn = np.random.default_rng(0).normal(size=(16, 8)).astype("f4") * (1 + step / 100)
    file = folder / f"step_{step}_rank{rank}.safetensors"
    save_file({"fc.weight": (drawn + apart * drawn[::-1]).astype("f4"), "ln.weight": np.ones(16, "f4") + step}, file)
    return file


def when_ranks_are_judged(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """`change` happens when all saves are read and their copies are opened."""

    def late(copies: Any, **options: Any) -> list[Finding]:
        change()
        return findings_of_replicas(copies, **options)

    monkeypatch.setattr("analysis.weights.ranks.findings_of_replicas", late)


def when_the_story_is_judged(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """`change` happens when the saves of a rank are read and judged, and its copies are not yet opened again."""

    def then(*given: Any) -> list[Finding]:
        found = judged_while_there(*given)
        change()
        return found

    monkeypatch.setattr("analysis.weights.reading.judged_while_there", then)


def facts(found: list[Finding] | tuple[Finding, ...]) -> list[tuple[str, str, object]]:
    return [(one.kind, one.severity, one.evidence.get("save", one.evidence.get("rank"))) for one in found]


@pytest.mark.parametrize("moment", [when_ranks_are_judged, when_the_story_is_judged])
def test_a_copy_that_is_deleted_is_told_and_the_others_are_held_against_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Callable[..., None]
) -> None:
    files = [saved(tmp_path, 10, rank, apart=0.1 * (rank == 2)) for rank in range(3)]
    moment(monkeypatch, lambda: files[0].unlink(missing_ok=True))
    found = facts(checkpoints(tmp_path).findings)
    assert ("rank-divergence", "critical") in [one[:2] for one in found]
    assert [one for one in found if one[0] == "checkpoint-corrupt"] == [("checkpoint-corrupt", "info", files[0].name)]
    assert len(found) == 2


def test_a_copy_of_a_later_step_under_the_same_name_is_not_held_against_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [saved(tmp_path, 10, rank) for rank in range(2)]
    later = saved(tmp_path, 20, 1)
    bytes_of_later = later.read_bytes()
    later.unlink()
    when_the_story_is_judged(monkeypatch, lambda: files[1].write_bytes(bytes_of_later))
    found = facts(checkpoints(tmp_path).findings)
    assert found == [("checkpoint-corrupt", "info", files[1].name)]


def test_a_copy_that_no_reader_knows_is_told_once_and_ends_no_story(tmp_path: Path) -> None:
    for rank in range(2):
        saved(tmp_path, 10, rank)
    (tmp_path / "step_10_rank2.safetensors").write_bytes(b"\x01" * 64)
    found = checkpoints(tmp_path)
    assert [one.kind for one in found.findings] == ["checkpoint-corrupt"]
    assert found.saves.height == 3


def test_copies_that_cannot_be_read_although_nothing_changed_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(2):
        saved(tmp_path, 10, rank)

    def broken(*_: Any, **options: Any) -> list[Finding]:
        raise InputError("tensor 'w': Input/output error")

    monkeypatch.setattr("analysis.weights.ranks.findings_of_replicas", broken)
    with pytest.raises(InputError, match="Input/output error"):
        checkpoints(tmp_path)
