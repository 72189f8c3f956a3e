"""Any checkpoint, opened: the format is told by content, and each format has a file of its own beside this one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint

__all__ = ["FORMATS", "CheckpointFormat", "open_checkpoint", "sniff"]


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """A format: `module` has `sniff(path) -> bool` (cheap, by content) and `read(path) -> Checkpoint`."""

    name: str
    module: str
    description: str


#: In the order in which they are asked: folders before the files that they hold.
FORMATS: tuple[CheckpointFormat, ...] = (
    CheckpointFormat("dcp", "parsers.checkpoints.dcp", "torch distributed checkpoint: a folder with .metadata"),
    CheckpointFormat(
        "huggingface", "parsers.checkpoints.huggingface_folder", "Hugging Face: a folder of model, optimizer, scheduler"
    ),
    CheckpointFormat("safetensors", "parsers.checkpoints.safetensors_file", "safetensors, single or by its index"),
    CheckpointFormat("torch", "parsers.checkpoints.torch_zip", "torch.save since 1.6: a zip (Lightning's .ckpt too)"),
    CheckpointFormat("torch-legacy", "parsers.checkpoints.torch_legacy", "torch.save before 1.6: pickles, then bytes"),
    CheckpointFormat("npz", "parsers.checkpoints.npz", "NumPy .npz"),
)


def sniff(path: str | Path) -> str | None:
    """Name of the format of one checkpoint at `path`, or None; a folder of several saves is none itself."""
    place = Path(path)
    for entry in FORMATS:
        if importlib.import_module(entry.module).sniff(place):
            return entry.name
    return None


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`: its tensors mapped, roles given, nothing executed.

    Damage inside (a truncated file, a missing shard, a header that lies) is in `Checkpoint.damage`; the rest is read.
    Raises `InputError` where there is nothing, or nothing that any format knows.
    """
    from parsers.checkpoints.roles import with_roles

    place = Path(path)
    if not place.exists():
        raise InputError(f"no checkpoint at {place}: there is no such file or folder")
    for entry in FORMATS:
        module = importlib.import_module(entry.module)
        if module.sniff(place):
            found: Checkpoint = module.read(place)
            return with_roles(found)
    known = "; ".join(entry.description for entry in FORMATS)
    raise InputError(f"{place} is no checkpoint that is known here. Known: {known}")
