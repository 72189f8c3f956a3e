"""Whether a file of a checkpoint stands where the user allowed us to read: symbolic links must not lead out of it."""

from __future__ import annotations

from pathlib import Path

from parsers.checkpoints.checkpoint import Damage

__all__ = ["leads_out", "unfollowed"]


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
        return Damage(file, where, "is no file" if file.exists() else missing)
    reason = leads_out(file, within)
    return Damage(file, where, reason, unsupported=True) if reason else None


def _blobs(file: Path) -> list[Path]:
    """The folder of contents of the Hub's cache that `file` stands in, if it stands in one."""
    folders = file.absolute().parents
    return [above.parent.resolve() / "blobs" for above in folders if above.name == "snapshots"]
