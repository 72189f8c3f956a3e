"""What the `.metadata` of a torch distributed checkpoint says: tensors with their blocks, and where each item lies.

Source: torch/distributed/checkpoint/metadata.py and filesystem.py (`Metadata`, `_StorageInfo`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parsers.checkpoints.checkpoint import Damage, UnsafeCall
from parsers.checkpoints.file_bytes import content
from parsers.checkpoints.inert_builders import records
from parsers.checkpoints.inert_objects import MisuseError, Record
from parsers.checkpoints.inert_pickle import unpickle
from parsers.checkpoints.pickle_machine import Builders
from parsers.checkpoints.shapes import number_of, size_of
from parsers.checkpoints.torch_objects import TORCH, dtype_of

__all__ = ["DCP", "Block", "Item", "Metadata", "read_metadata"]

_METADATA = "torch.distributed.checkpoint.metadata"
_NAMES = (
    "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata TensorProperties MetadataIndex "
    "StorageMeta _MEM_FORMAT_ENCODING"
)
#: torch's callables and the classes of a distributed checkpoint's metadata.
DCP: Builders = {
    **TORCH,
    **records(" ".join(f"{_METADATA}.{name}" for name in _NAMES.split())),
    **records(
        "torch.distributed.checkpoint.filesystem._StorageInfo torch.distributed.checkpoint.api.CheckpointException"
    ),
    **records("torch.distributed.checkpoint.filesystem._StoragePrefix"),
    **records("torch.distributed._shard.sharded_tensor.metadata.TensorProperties"),
    **records("torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """Where the bytes of a block, or of an object, lie: a file of the folder, and the place in it."""

    file: str
    offset: int
    length: int
    transformed: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a tensor: where it begins in the whole, its size, and its item (None where the metadata has none)."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]
    item: Item | None


@dataclass
class Metadata:
    """Tensors by name (element type, size, blocks), other objects by name, and what the file itself is suspect of."""

    tensors: dict[str, tuple[str, tuple[int, ...], list[Block]]] = field(default_factory=dict)
    objects: dict[str, Item] = field(default_factory=dict)
    calls: tuple[UnsafeCall, ...] = ()
    damage: list[Damage] = field(default_factory=list)


def read_metadata(path: Path) -> Metadata:
    """The metadata of the checkpoint; entries that say what no tensor can be are damage, the others are read."""
    with content(path) as data:
        got = unpickle(data, file=path, builders=DCP, member=path.name)
    found = Metadata(calls=got.calls, damage=list(got.damage))
    said = got.value.attributes() if isinstance(got.value, Record) else {}
    listed, stored = said.get("state_dict_metadata"), said.get("storage_data")
    if not isinstance(listed, dict) or not isinstance(stored, dict):
        found.damage.append(Damage(path, "pickle", "no table of tensors and of where they are stored"))
        return found
    items = _items(found, path, stored)
    for name, entry in listed.items():
        if isinstance(name, str) and isinstance(entry, Record):
            _add(found, path, items, name, entry)
    return found


def _items(found: Metadata, path: Path, stored: dict[Any, Any]) -> dict[tuple[str, tuple[int, ...] | None], Item]:
    items = {}
    for index, info in stored.items():
        try:
            items[_index(index)] = _item(info)
        except MisuseError as misuse:
            found.damage.append(Damage(path, "storage_data", f"an entry is {misuse}"))
    return items


def _index(index: Any) -> tuple[str, tuple[int, ...] | None]:
    said = index.attributes() if isinstance(index, Record) else {}
    name, offset = said.get("fqn"), said.get("offset")
    if not isinstance(name, str):
        raise MisuseError("an index without a name")
    return name, None if offset is None else size_of(offset)


def _item(info: Any) -> Item:
    said = info.attributes() if isinstance(info, Record) else {}
    file = said.get("relative_path")
    if not isinstance(file, str):
        raise MisuseError("a place without a file")
    return Item(
        file, number_of(said.get("offset")), number_of(said.get("length")), bool(said.get("transform_descriptors"))
    )


def _add(
    found: Metadata, path: Path, items: dict[tuple[str, tuple[int, ...] | None], Item], name: str, entry: Record
) -> None:
    if entry.name.endswith("BytesStorageMetadata"):
        if (name, None) in items:
            found.objects[name] = items[name, None]
        else:
            found.damage.append(Damage(path, f"object {name[:120]}", "the metadata do not say where it is stored"))
        return
    try:
        found.tensors[name] = _tensor(items, name, entry)
    except MisuseError as misuse:
        found.damage.append(Damage(path, f"tensor {name[:120]}", f"its metadata have {misuse}"))


def _tensor(
    items: dict[tuple[str, tuple[int, ...] | None], Item], name: str, entry: Record
) -> tuple[str, tuple[int, ...], list[Block]]:
    said = entry.attributes()
    shape, chunks = size_of(said.get("size")), said.get("chunks")
    if not isinstance(chunks, list):
        raise MisuseError("no list of blocks")
    blocks = []
    for chunk in chunks:
        part = chunk.attributes() if isinstance(chunk, Record) else {}
        origin, size = size_of(part.get("offsets")), size_of(part.get("sizes"))
        if len(origin) != len(shape) or len(size) != len(shape):
            raise MisuseError("a block of another number of dimensions")
        if any(at + length > whole for at, length, whole in zip(origin, size, shape, strict=True)):
            raise MisuseError("a block beyond the tensor's size")
        blocks.append(Block(origin, size, items.get((name, origin))))
    return _dtype(said.get("properties")), shape, blocks


def _dtype(properties: Any) -> str:
    state = properties.state if isinstance(properties, Record) else None
    if isinstance(state, tuple) and state:
        return dtype_of(state[0])
    return dtype_of(state.get("dtype") if isinstance(state, dict) else None)
