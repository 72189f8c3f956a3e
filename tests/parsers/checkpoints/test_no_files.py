"""Pipes, sockets, devices and folders under the names of files: told for what they are, and never opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aftertrain.cli import main
from analysis.checkpoints import checkpoints
from eventstream.errors import InputError
from parsers.checkpoints.opening import open_checkpoint


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(place))  # names of sockets are short


OTHERS: list[tuple[Callable[[Path], None], str]] = [
    (os.mkfifo, "is a named pipe (FIFO) and no file"),
    (_socket, "is a socket and no file"),
    (lambda place: place.symlink_to("/dev/zero"), "is a device and no file"),
]


@pytest.mark.parametrize(("make", "said"), OTHERS)
@pytest.mark.parametrize("name", ["model.safetensors", "a.pt", "a.npz", "model.safetensors.index.json"])
def test_what_is_no_file_is_refused_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], said: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    for read in (open_checkpoint, checkpoints):
        with pytest.raises(InputError) as refused:
            read(tmp_path / name)
        assert str(refused.value) == f"no checkpoint at {tmp_path / name}: it {said}"


def test_a_folder_that_is_named_like_a_file_is_called_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "model.safetensors"
    place.mkdir()
    with pytest.raises(InputError, match=r"model\.safetensors is a folder, and is no checkpoint that is known here"):
        open_checkpoint(place)


def test_a_link_that_leads_nowhere_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to(tmp_path / "a.pt")
    for read in (open_checkpoint, checkpoints):
        with pytest.raises(InputError, match=r"no checkpoint at .*a\.pt: it is a link that leads nowhere"):
            read(tmp_path / "a.pt")


@pytest.mark.parametrize(("name", "severity"), [("model.safetensors", "critical"), ("rng_state.pth", "warning")])
def test_a_pipe_in_the_folder_of_a_save_is_damage_whose_causes_are_no_full_disks(
    tmp_path: Path, name: str, severity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    save_file({"w": np.ones((4, 4), "f4")}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    (told,) = checkpoints(tmp_path).findings
    assert (told.kind, told.severity) == ("checkpoint-corrupt", severity)
    assert f"{name}, file: is a named pipe (FIFO) and no file" in told.message
    assert len(told.causes) == 1 and told.causes[0].startswith("something else was made under the name")
    assert main(["checkpoints", str(tmp_path)]) == int(severity == "critical")
    assert "disk" not in capsys.readouterr().out


def test_a_pipe_among_saves_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    for step in (1, 3):
        save_file({"w": np.full((4, 4), step, "f4")}, tmp_path / f"step_{step}.safetensors")
    os.mkfifo(tmp_path / "step_2.safetensors")
    found = checkpoints(tmp_path)
    assert found.saves["step"].to_list() == [1, 2, 3]
    (told,) = found.findings
    assert "step_2.safetensors (step 2): file: is a named pipe (FIFO) and no file" in told.message
    assert found.changes["before"].to_list() == ["step_1.safetensors"]
