"""Which saves are to be looked at: those of a path, or those that a run left in its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.npz_weights import passed_over
from parsers.checkpoints.series import Save, find_saves
from parsers.run import Run

__all__ = ["KINDS_OF_SAVES", "OF_FILES", "NoSavesError", "beside", "bytes_of", "saves_of"]

#: What is wrong with files themselves; then what the weights in them tell, some of which logs tell too.
OF_FILES = ("checkpoint-corrupt", "checkpoint-unsafe", "checkpoint-non-finite")
KINDS_OF_SAVES = (
    *OF_FILES,
    "weight-drift",
    "checkpoint-mismatch",
    "dead-units",
    "frozen-layer",
    "rank-divergence",
)
#: A diagnosis reads the weights of a run where that takes seconds: 4 GB, at the speed of a disk.
MOST_BYTES = 4 << 30
#: Folders beside a log in which trainers keep what they save.
_SAVE = re.compile(r"(?:checkpoint|ckpt|step|iter|epoch|global_step)[-_=]?\d+", re.IGNORECASE)
#: Files among which a log is looked for; a folder with more is no run's own.
_MOST_FILES = 200
_BESIDE = ("checkpoints", "checkpoint", "ckpt", "ckpts", "weights", "models", "model")


class NoSavesError(Exception):
    """A run has no weights to look at, or more than a diagnosis should read; the message says which."""


def saves_of(path: Path | str | Run) -> list[tuple[Save, ...]]:
    """The series of saves, each in the order of training: models beside one another, averages and ranks apart.

    Raises `InputError` where a path holds no checkpoint, and `NoSavesError` for a run without saves, or with more than
    4 GB of them: these are left to a call of their own.
    """
    if not isinstance(path, Run):
        found = find_saves(path)
        if not found:
            arrays = passed_over(Path(path))
            raise InputError(
                f"{path}: no checkpoint is here. Expected: a checkpoint (.safetensors, .pt, .pth, .ckpt, .bin, .npz, a "
                f"folder of Hugging Face or torch.distributed) or a folder with such saves"
                f"{f'; {arrays}' if arrays else ''}"
            )
        return _parted(found)
    found = _of_run(path)
    if not found:
        raise NoSavesError("no checkpoints lie in the folder of this run")
    size = bytes_of(found)
    if size > MOST_BYTES:
        raise NoSavesError(
            f"{len(found)} checkpoints of {size / 1e9:.1f} GB are more than a diagnosis reads: "
            f"aftertrain checkpoints PATH --run RUN"
        )
    return _parted(found)


def _parted(saves: Iterable[Save]) -> list[tuple[Save, ...]]:
    parts: dict[tuple[str, bool, int | None], list[Save]] = {}
    for save in _without_copies(list(saves)):
        parts.setdefault((save.series, save.label == "ema", save.rank), []).append(save)
    return [tuple(part) for part in parts.values()]


def _without_copies(saves: list[Save]) -> list[Save]:
    """The saves that are no link to or copy of another; what was copied has the copies' labels (`best, last`)."""
    labels: dict[str, list[str]] = {}
    for save in saves:
        if save.same_as and save.label:
            labels.setdefault(save.same_as, []).append(save.label)
    return [
        replace(
            save, label=", ".join(dict.fromkeys([*([save.label] if save.label else []), *labels.get(save.name, ())]))
        )
        for save in saves
        if not save.same_as
    ]


def beside(path: Path) -> Run | None:
    """The log of the run that left the saves at `path`: what lies in that folder, or above folders named for saves.

    None where there is no run, more than one, or none that can be read. Other folders are not searched.
    """
    from parsers.loading import load
    from parsers.registry import detect, detect_folder
    from parsers.tree import may_be_log

    folder = path.absolute() if path.is_dir() else path.absolute().parent
    while folder.name.lower() in _BESIDE or _SAVE.fullmatch(folder.name):
        folder = folder.parent
    try:
        logs = [folder]
        if not detect_folder(folder):
            files = [file for file in islice(folder.iterdir(), _MOST_FILES) if may_be_log(file.name)]
            logs = [file for file in files if file.is_file() and detect(file) is not None]
        return load(logs[0]) if len(logs) == 1 else None
    except (InputError, OSError):
        # No log, or one that may not be read, is nothing wrong with weights: `saves` then says nothing of loss.
        return None


def _of_run(run: Run) -> tuple[Save, ...]:
    """Saves below the run's folder; for a log that is a file of its own, in the folders for saves beside it."""
    place = Path(run.path)
    if not run.path or not place.exists():  # a table in memory, a URL, an archive's member
        return ()
    if place.is_dir():
        return find_saves(place)
    beside = [place.parent / name for name in _BESIDE]
    return tuple(save for folder in beside if folder.is_dir() for save in find_saves(folder))


def bytes_of(saves: Iterable[Save]) -> int:
    """Bytes of all files of some saves, each file once; a running training may delete some of them meanwhile."""
    files: set[Path] = set()
    for save in saves:
        with suppress(FileNotFoundError):
            files |= {save.path} if save.path.is_file() else {file for file in save.path.rglob("*") if file.is_file()}
    size = 0
    for file in files:
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size
