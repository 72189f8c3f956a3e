"""The saves below a path, in the order of training: which file or folder is one checkpoint, and of which step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.copies import same_content, same_file
from parsers.checkpoints.links import no_file
from parsers.checkpoints.opening import nothing_there
from parsers.checkpoints.save_files import checkpoint_paths
from parsers.checkpoints.save_names import Told, folder_told, told_by

__all__ = ["Save", "find_saves"]

#: From this on, a counter of which nothing says what it counts is one of steps: few trainings have so many epochs.
_SURELY_STEPS = 1_000
#: Names of folders in which each folder is a save, whatever its number counts.
_OF_SAVES = re.compile(r"check|ckpt|weight|model|snapshot|save|epoch|step|iter", re.IGNORECASE)
#: Where saves stand that no counter places: before all others, or after them.
_PLACES = {"init": -1, "": 1, "ema": 1, "best": 2, "last": 3, "final": 4}
_Counter = Callable[["Save"], float | None]


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint of a series, unopened.

    `name` is its path below the folder asked for; `step` and `epoch` are what names and small files beside it tell
    (None where only the checkpoint itself can); `rank` is that of the process whose copy it is, None where there are
    no copies; `label` is `best`, `last`, `ema`, ... where the name says so. `series` tells saves apart that stand
    beside one another and are not of one model (`G_1000.pth` and `D_1000.pth`, folders of two runs): only saves of one
    series follow upon one another. `number` is a counter in the name of which nothing says what it counts. `same_as`
    is the name of the save that this one is a link to or a copy of (`last.ckpt`), and whose step it then has. `within`
    is the folder it was found in, which `open_checkpoint` takes, so that no link leads out of it.
    """

    path: Path
    name: str
    step: int | None = None
    epoch: float | None = None
    rank: int | None = None
    label: str = ""
    series: str = ""
    number: int | None = None
    same_as: str = ""
    within: Path | None = None


def find_saves(path: str | Path) -> tuple[Save, ...]:
    """The checkpoints at or below `path`, series by series, each in the order of training.

    A path that is one checkpoint is the only save, unless it is a folder that holds others (an output folder with the
    final model and `checkpoint-500/` beside it). Below a folder, files and folders that a format knows are saves;
    optimizers and other parts that stand in files of their own, caches and hidden folders are not. Links to folders are
    not followed; a link to a file is a save of its own, and `same_as` says of which it is one.

    The order is that of the counter that most saves of a series have: step, else epoch, else a plain number, else
    names. Saves without it come behind (`best`, then `last`, then `final`). Steps come from names, then from
    `trainer_state.json`; a checkpoint may know better (`Checkpoint.step`). Folders are followed to six levels, and
    10,000 saves at most are listed. A path that holds no checkpoint gives no save; `InputError` where there is no such
    path.

    >>> import tempfile
    >>> header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, value in (("step_900", b"a"), ("step_1000", b"b"), ("last", b"b")):
    ...         content = len(header).to_bytes(8, "little") + header + value
    ...         _ = Path(folder, f"{name}.safetensors").write_bytes(content)
    ...     [(save.name, save.step, save.same_as) for save in find_saves(folder)]  # doctest: +NORMALIZE_WHITESPACE
    [('step_900.safetensors', 900, ''), ('step_1000.safetensors', 1000, ''),
     ('last.safetensors', 1000, 'step_1000.safetensors')]
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"no checkpoint at {root}: {nothing_there(root)}")
    if not root.is_dir() and (reason := no_file(root)):
        raise InputError(f"no checkpoint at {root}: it {reason}")
    saves = [_save(place, root) for place in checkpoint_paths(root)]
    if len(saves) > 1 and saves[0].path == root:  # what training left at its end, beside the saves on the way
        saves[0] = replace(saves[0], label=saves[0].label or "final")
    saves = _with_copies(saves)
    saves.sort(key=lambda save: save.series)
    ordered: list[Save] = []
    for _, group in groupby(saves, key=lambda save: save.series):
        ordered += _in_order(_counted(list(group)))
    return tuple(ordered)


def _save(place: Path, root: Path) -> Save:
    """A save with what its name and the names of the folders above it tell."""
    is_folder = place.is_dir()
    if place == root:
        name = place.absolute().name
        told, series = folder_told(name) or told_by("") if is_folder else replace(told_by(name), words=()), ""
    else:
        below = place.relative_to(root)
        name = below.as_posix()
        told = (folder_told(place.name) if is_folder else None) or told_by(place.name)
        told, series = _with_folders(told, below.parent.parts)
    step = _step_of_state(place) if told.step is None and is_folder else told.step
    within = None if place == root else root
    return Save(place, name, step, told.epoch, told.rank, told.label, series, told.number, within=within)


def _with_folders(own: Told, folders: tuple[str, ...]) -> tuple[Told, str]:
    """What a name and the folders above it tell, and the series: what of all these names counts nothing."""
    told, kept = own, list[str]()
    for place in reversed(range(len(folders))):
        found = folder_told(folders[place])
        if found is None or _is_name(found, folders, place) or (told.step is not None and found.step is not None):
            kept.append(folders[place])
        else:
            told = _joined(told, found)
    return told, "/".join([*reversed(kept), *(["_".join(own.words)] if own.words else [])])


def _is_name(found: Told, folders: tuple[str, ...], place: int) -> bool:
    """Whether a folder that is named by a number alone is one of several runs, and not of several saves of one."""
    if found.number is None or found.number >= _SURELY_STEPS or not folders[place].isdecimal():
        return False
    return place == 0 or _OF_SAVES.search(folders[place - 1]) is None


def _joined(own: Told, folder: Told) -> Told:
    """What a file and a folder above it tell together: the nearest to the file has the word."""
    return replace(
        own,
        step=folder.step if own.step is None else own.step,
        epoch=folder.epoch if own.epoch is None else own.epoch,
        number=folder.number if own.number is None else own.number,
        rank=folder.rank if own.rank is None else own.rank,
    )


def _step_of_state(folder: Path) -> int | None:
    from parsers.checkpoints.huggingface_folder import step_of_state

    try:
        return step_of_state(folder)
    except OSError:  # the folder may not be read: whoever opens it says so
        return None


def _with_copies(saves: list[Save]) -> list[Save]:
    """Links and copies get the name, the counters and the series of the save that they are one of."""
    files = {save.path: save for save in saves if not save.path.is_dir()}
    origins = same_file(list(files), lambda file: _is_placed(files[file]))
    loose = [save for path, save in files.items() if path not in origins and not _is_placed(save) and save.label]
    for save in loose:
        beside = (other for path, other in files.items() if path.parent == save.path.parent and path not in origins)
        candidates = (other.path for other in beside if _is_placed(other) and other.rank == save.rank)
        copy_of = next((path for path in candidates if same_content(save.path, path)), None)
        if copy_of is not None:
            origins[save.path] = copy_of
    return [_as_copy(save, files.get(origins.get(save.path, save.path), save)) for save in saves]


def _is_placed(save: Save) -> bool:
    return save.step is not None or save.epoch is not None or save.number is not None


def _as_copy(save: Save, origin: Save) -> Save:
    if origin is save:
        return save
    told = origin if not _is_placed(save) else save
    return replace(
        save, step=told.step, epoch=told.epoch, number=told.number, series=origin.series, same_as=origin.name
    )


def _counted(group: list[Save]) -> list[Save]:
    """A series whose plain numbers are too large for epochs: they are steps."""
    plain = [save.number for save in group if save.number is not None and save.step is None and save.epoch is None]
    if max(plain, default=0) < _SURELY_STEPS:
        return group
    return [replace(save, step=save.number) if save.step is None and save.epoch is None else save for save in group]


def _in_order(group: list[Save]) -> list[Save]:
    counters: tuple[_Counter, ...] = (lambda s: s.step, lambda s: s.epoch, lambda s: s.number)
    counter = max(counters, key=lambda count: sum(count(save) is not None for save in group))

    def place(save: Save) -> tuple[object, ...]:
        count = counter(save)
        where = 0 if count is not None else _PLACES.get(save.label, 1)
        others = tuple(-1.0 if other is None else float(other) for other in (save.step, save.epoch, save.number))
        return (where, -1.0 if count is None else float(count), others, bool(save.same_as), _natural(save.name))

    return sorted(group, key=place)


def _natural(name: str) -> list[tuple[str, int]]:
    """A key by which `model_9` stands before `model_10`."""
    parts: Iterable[tuple[str, str]] = re.findall(r"(\D*)(\d*)", name)
    return [(text, int(digits[:15] or -1)) for text, digits in parts]
