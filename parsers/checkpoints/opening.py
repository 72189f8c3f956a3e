"""Any checkpoint, opened: the format is told by content, and each format has a file of its own beside this one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.links import NO_FILE, leads_out, no_file

__all__ = ["FORMATS", "CheckpointFormat", "nothing_there", "open_checkpoint", "sniff", "unwritten"]

#: How many first bytes show that a file was never filled: every format begins with something else.
_FIRST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """A format: `module` has `sniff(path) -> bool` (cheap, by content) and `read(path) -> Checkpoint`.

    `names_files` says that its content names other files, and that `read` therefore takes `within`, the folder that
    none of them may leave.
    """

    name: str
    module: str
    description: str
    names_files: bool = False


#: In the order in which they are asked: folders before the files that they hold.
FORMATS: tuple[CheckpointFormat, ...] = (
    CheckpointFormat(
        "dcp", "parsers.checkpoints.dcp", "torch distributed checkpoint: a folder with .metadata", names_files=True
    ),
    CheckpointFormat(
        "huggingface",
        "parsers.checkpoints.huggingface_folder",
        "Hugging Face: a folder of model, optimizer, scheduler",
        names_files=True,
    ),
    CheckpointFormat(
        "safetensors",
        "parsers.checkpoints.safetensors_file",
        "safetensors, single or by its index",
        names_files=True,
    ),
    CheckpointFormat("torch", "parsers.checkpoints.torch_zip", "torch.save since 1.6: a zip (Lightning's .ckpt too)"),
    CheckpointFormat("torch-legacy", "parsers.checkpoints.torch_legacy", "torch.save before 1.6: pickles, then bytes"),
    CheckpointFormat("npz", "parsers.checkpoints.npz", "NumPy .npz"),
)


def sniff(path: str | Path) -> str | None:
    """Name of the format of one checkpoint at `path`, or None; a folder of several saves is none itself.

    Raises `OSError` where the file may not be read.
    """
    place = Path(path)
    for entry in FORMATS:
        if importlib.import_module(entry.module).sniff(place):
            return entry.name
    return None


def nothing_there(path: Path) -> str:
    """Why there is nothing at `path`.

    >>> nothing_there(Path("no/such/file"))
    'there is no such file or folder'
    """
    return "it is a link that leads nowhere" if path.is_symlink() else "there is no such file or folder"


def unwritten(path: Path) -> str:
    """Why nothing of a file was ever written, as an interrupted save or a full disk leaves it; empty where some was.

    Raises `OSError` where the file may not be read.
    """
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        begin = file.read(_FIRST_BYTES)
    if not begin:
        return "the file is empty: nothing of it was written"
    return "" if begin.strip(b"\0") else f"its first {len(begin):,} bytes are 0: it was made and not filled"


def open_checkpoint(path: str | Path, *, within: str | Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: its tensors mapped, roles given, nothing executed.

    Damage inside (a truncated file, a missing shard, a header that lies, a file that is empty or begins with zeros) is
    in `Checkpoint.damage`; the rest is read.
    `within` is the folder that the user named and `path` was found in: symbolic links that lead out of it are told
    and not followed (by default out of the checkpoint's own folder; `path` itself may then be a link to anywhere).
    Raises `InputError` where there is nothing, nothing that any format knows, or what may not be read; the last is
    damage where `within` says that the user named a folder, so that one file does not end the story of all.
    """
    from parsers.checkpoints.roles import with_roles

    place, tree = Path(path), None if within is None else Path(within)
    if not place.exists():
        raise InputError(f"no checkpoint at {place}: {nothing_there(place)}")
    if tree is not None and (reason := leads_out(place, tree)):
        return Checkpoint(place, "link", (), damage=(Damage(place, "link", reason, unsupported=True),), files=(place,))
    if not place.is_dir() and (reason := no_file(place)):
        if tree is None:
            raise InputError(f"no checkpoint at {place}: it {reason}")
        return Checkpoint(place, "unread", (), damage=(Damage(place, "file", reason),))
    try:
        found = _read(place, tree)
        never = unwritten(place) if found is None else ""
    except (OSError, InputError) as error:
        reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        if tree is None or not os.path.lexists(place):  # what was deleted meanwhile is not damaged
            raise InputError(f"{place}: {reason}" if isinstance(error, OSError) else reason) from error
        return Checkpoint(place, "unread", (), damage=(Damage(place, "file", reason),), files=(place,))
    if found is not None:
        found.mapped.expect(_states(found.files))
        if not os.path.lexists(place):
            raise InputError(f"no checkpoint at {place}: it was deleted while it was opened")
        return with_roles(found)
    if never:
        return Checkpoint(place, "unread", (), damage=(Damage(place, "file", never),), files=(place,))
    known = "; ".join(entry.description for entry in FORMATS)
    what = f"{place} {reason}, and" if (reason := no_file(place).removesuffix(f" {NO_FILE}")) else place
    raise InputError(f"{what} is no checkpoint that is known here. Known: {known}")


def _states(files: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Of each file what it is now, so that a later writing is seen; of one that is gone nothing."""
    found = {}
    for file in files:
        with suppress(OSError):
            found[file] = file.stat()
    return found


def _read(place: Path, tree: Path | None) -> Checkpoint | None:
    for entry in FORMATS:
        module = importlib.import_module(entry.module)
        if module.sniff(place):
            found: Checkpoint = module.read(place, within=tree) if entry.names_files else module.read(place)
            return found
    return None
