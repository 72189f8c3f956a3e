"""Checkpoints in several files with an index: `weight_map` says which tensor lies in which shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage, UnsafeCall
from parsers.checkpoints.links import unfollowed
from parsers.checkpoints.side_values import Value, bounded, flat
from parsers.checkpoints.tensors import Tensor
from parsers.content.json_damage import read_document

__all__ = ["is_index", "read_index", "read_part"]

Reader = Callable[[Path], Checkpoint]
#: Names of missing tensors that a message shows.
_SHOWN = 3


def is_index(path: PurePath) -> bool:
    """Whether the name is that of an index: `model.safetensors.index.json`, `pytorch_model.bin.index.json`."""
    return path.name.endswith(".index.json")


@dataclass(slots=True)
class _Joined:
    """The shards read so far, as one checkpoint."""

    index: Path
    tensors: dict[str, tuple[Tensor, str]] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    unsafe: list[UnsafeCall] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)


def read_index(index: Path, read: Reader, name: str, *, within: Path | None = None) -> Checkpoint:
    """The tensors of all shards that an index names, each shard read by `read`; `name` is that of the format.

    Tensors stand in the order of the shards. Where two shards hold the same tensor, that of the shard in the index is
    given. A shard that is missing or not to be followed is one damage, which counts its tensors; a tensor that its
    shard does not have is one by itself. Shards must stand in the folder of the index: names with folders above it, and
    absolute ones, are refused.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "model.safetensors.index.json")
    ...     _ = file.write_text('{"weight_map": {"w": "model-00001-of-00001.safetensors"}}')
    ...     print(read_index(file, lambda path: Checkpoint(path, "none", ()), "safetensors").damage[0].reason)
    is missing; 1 tensor of the index lies in it: 'w'
    """
    document = read_document(index)
    joined = _Joined(index, files=[index])
    joined.damage += [Damage(index, f"line {reject.line or 1}", reject.reason) for reject in document.rejects]
    told = document.value if isinstance(document.value, Mapping) else {}
    joined.values = bounded(flat(told.get("metadata", {}), "metadata"))
    wanted = _weight_map(told.get("weight_map"), joined)
    for shard in dict.fromkeys(wanted.values()):
        problem = _refused(index, shard, within or index.parent)
        if problem is not None:
            _lose(joined, problem, [tensor for tensor, file in wanted.items() if file == shard])
        else:
            _add(joined, shard, read_part(index.parent / shard, read), wanted)
    told_of = {one.where.partition(", byte ")[0] for one in joined.damage}
    for tensor, shard in wanted.items():
        where = f"tensor {tensor!r}"
        if tensor not in joined.tensors and tensor not in joined.lost and where not in told_of:
            joined.damage.append(Damage(index.parent / shard, where, "the index names it, no shard has it"))
    return Checkpoint(
        index,
        name,
        tuple(tensor for tensor, _ in joined.tensors.values()),
        joined.values,
        tuple(joined.unsafe),
        tuple(joined.damage),
        tuple(joined.files),
    )


def read_part(file: Path, read: Reader) -> Checkpoint:
    """One file of several, unmapped again: what it holds is mapped anew when it is asked for.

    A file that cannot be opened is damage and no error: the others are read.
    """
    try:
        with read(file) as part:
            return part
    except InputError as error:
        return Checkpoint(file, "", (), damage=(Damage(file, "file", str(error)),), files=(file,))


def _weight_map(told: Any, joined: _Joined) -> dict[str, str]:
    if isinstance(told, Mapping) and all(isinstance(file, str) for file in told.values()):
        return {str(tensor): file for tensor, file in told.items()}
    if not joined.damage:
        reason = "no object that gives the file of each tensor"
        joined.damage.append(Damage(joined.index, "key 'weight_map'", reason))
    return {str(t): file for t, file in told.items() if isinstance(file, str)} if isinstance(told, Mapping) else {}


def _refused(index: Path, shard: str, within: Path) -> Damage | None:
    """Why a shard is not opened, or nothing."""
    where = f"shard {shard!r}"
    windows = PureWindowsPath(shard)  # knows both kinds of slashes, and drives
    above = ".." in windows.parts or windows.anchor or "\0" in shard
    if not shard or above or is_index(windows):
        return Damage(index, where, "is no name of a file in the folder of the index, and was not opened")
    return unfollowed(index.parent / shard, within, where)


def _lose(joined: _Joined, problem: Damage, names: list[str]) -> None:
    joined.lost.update(names)
    lie = "tensor of the index lies" if len(names) == 1 else "tensors of the index lie"
    joined.damage.append(replace(problem, reason=f"{problem.reason}; {len(names):,} {lie} in it: {_listed(names)}"))


def _add(joined: _Joined, shard: str, part: Checkpoint, wanted: Mapping[str, str]) -> None:
    joined.files += part.files
    joined.damage += part.damage
    joined.unsafe += part.unsafe
    joined.values.update({key: value for key, value in part.values.items() if key not in joined.values})
    for tensor in part.tensors:
        before = joined.tensors.get(tensor.name)
        if before is not None:
            rightful = wanted.get(tensor.name, before[1])
            reason = f"lies in {before[1]!r} and in {shard!r}; that of {rightful!r} is read, which the index names"
            joined.damage.append(Damage(joined.index.parent / shard, f"tensor {tensor.name!r}", reason))
            if shard != rightful:
                continue
        joined.tensors[tensor.name] = (tensor, shard)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
