"""Whether a file of a checkpoint is one, and stands where the user allowed us to read: links must not lead out."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from parsers.checkpoints.checkpoint import Damage

__all__ = ["NO_FILE", "leads_out", "no_file", "unfollowed"]

#: What stands in each message about something that has the name of a file and is none.
NO_FILE = "and no file"
#: What else a name may stand for. Opening a pipe waits for whoever writes to it, and a device may never end.
_OTHERS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def no_file(path: Path) -> str:
    """What `path` is where it is no file (`is a folder and no file`); empty where it is one, or nothing is there.

    It is looked at and not opened.

    >>> import tempfile
    >>> no_file(Path(tempfile.mkdtemp()))
    'is a folder and no file'
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return next((f"is {what} {NO_FILE}" for is_one, what in _OTHERS if is_one(mode)), "")


def leads_out(file: Path, within: Path) -> str:
    """Why `file` must not be followed out of the folder `within`; empty where it may be.

    A checkpoint comes from strangers: a link in it may point to any file of this machine, whose content would then
    stand in a report. The one layout that links on purpose is the cache of the Hugging Face Hub, where
    `snapshots/<revision>/model.safetensors` leads to `blobs/<digest>` of the same repository; these are followed.

    >>> leads_out(Path("run/model.safetensors"), Path("run"))
    ''
    """
    try:
        target, tree = file.resolve(), within.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        return f"is a link that leads nowhere ({error})"
    if target.is_relative_to(tree) or any(target.is_relative_to(blobs) for blobs in _blobs(file)):
        return ""
    return f"leads out of {within}, to {target}; it was not followed: name that file itself, or copy it into the folder"


def unfollowed(file: Path, within: Path, where: str) -> Damage | None:
    """The damage of a part of a checkpoint that is missing, or a link out of `within`; None where it may be opened.

    A link out of the folder is `unsupported`: the checkpoint is as its owner made it, it is only not read.

    >>> unfollowed(Path("run/model.safetensors"), Path("run"), "file").reason
    'is missing'
    """
    if not file.is_file():  # also where links go in a circle
        missing = "is a link to a file that is not there" if file.is_symlink() else "is missing"
        return Damage(file, where, no_file(file) or missing)
    reason = leads_out(file, within)
    return Damage(file, where, reason, unsupported=True) if reason else None


def _blobs(file: Path) -> list[Path]:
    """The folder of contents of the Hub's cache that `file` stands in, if it stands in one."""
    folders = file.absolute().parents
    return [above.parent.resolve() / "blobs" for above in folders if above.name == "snapshots"]
