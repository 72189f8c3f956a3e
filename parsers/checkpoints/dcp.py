"""Reader of torch's distributed checkpoints: a folder of `.metadata` and the files that the processes wrote.

Each item of a `.distcp` file is a small file of torch; tensors that were sharded over processes come in blocks, which
become `pieces` of one tensor. Nothing is run, neither of the metadata nor of the items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from parsers.checkpoints.checkpoint import Checkpoint, Damage, UnsafeCall
from parsers.checkpoints.dcp_metadata import Block, Item, Metadata, read_metadata
from parsers.checkpoints.file_bytes import content
from parsers.checkpoints.inert_objects import Buffer
from parsers.checkpoints.legacy_stream import Stream, read_stream
from parsers.checkpoints.links import unfollowed
from parsers.checkpoints.located import MOST_EXPANDED, located
from parsers.checkpoints.pickled_tree import Tree, flattened
from parsers.checkpoints.progress import epoch_of, step_of
from parsers.checkpoints.side_values import Value, bounded
from parsers.checkpoints.tensors import DTYPES, Piece, Tensor
from parsers.checkpoints.torch_zip import read_archive

__all__ = ["read", "sniff"]

METADATA = ".metadata"
LOCAL = b"PK\x03\x04"
#: Bytes of a file's name in a folder: what file systems take.
LONGEST_NAME = 255


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with the metadata of a distributed checkpoint (a pickle of protocol 2 or later)."""
    metadata = path / METADATA
    if not path.is_dir() or not metadata.is_file():
        return False
    with metadata.open("rb") as opened:
        return opened.read(1) == b"\x80"


def read(path: Path, *, within: Path | None = None) -> Checkpoint:
    """The tensors and values of a distributed checkpoint under the names that its metadata give.

    A file that is missing, or that leads out of the folder (out of `within`, where that is given), is damage; so is a
    tensor of which a block is not there or does not fit, and all others are read. Of items that an extension changed
    (compression) only the names are told.
    """
    metadata = read_metadata(path / METADATA)
    found = _Found(path, metadata, within or path)
    found.read_items()
    tensors = tuple(found.tensors())
    values = bounded(found.values)
    return Checkpoint(
        path,
        "dcp",
        tensors,
        values,
        (*metadata.calls, *found.calls),
        (*metadata.damage, *found.damage),
        (path / METADATA, *found.files),
        step_of(values),
        epoch_of(values),
    )


@dataclass
class _Found:
    """What the items of a checkpoint hold, gathered file by file."""

    path: Path
    metadata: Metadata
    within: Path
    blocks: dict[Item, Tensor] = field(default_factory=dict)
    inner: list[Tensor] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    calls: list[UnsafeCall] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unopened: set[str] = field(default_factory=set)

    def read_items(self) -> None:
        """Read every item, one file after the other, so that few are open at a time."""
        wanted: dict[str, list[tuple[Item, Callable[[Tree, Path], None], str]]] = {}
        asked: set[Item] = set()
        for name, (_, _, blocks) in self.metadata.tensors.items():
            for block in blocks:
                if block.item is not None and block.item not in asked:
                    asked.add(block.item)
                    wanted.setdefault(block.item.file, []).append((block.item, self._keep_block(block.item), name))
        for name, item in self.metadata.objects.items():
            wanted.setdefault(item.file, []).append((item, self._keep_object, name))
        for file, items in wanted.items():
            place = self._inside(file)
            if place is None:
                continue
            self.files.append(place)
            with content(place) as data:
                for item, keep, name in items:
                    keep(self._item(place, data, item, name), place)

    def tensors(self) -> Iterator[Tensor]:
        """The tensors of the metadata whose blocks are all there, then those of other objects."""
        missing: dict[tuple[str, bool], list[str]] = {}
        for name, (dtype, shape, blocks) in self.metadata.tensors.items():
            if trouble := self._trouble(dtype, shape, blocks):
                unopened = any(block.item is not None and block.item.file in self.unopened for block in blocks)
                missing.setdefault((trouble, unopened), []).append(name)
            else:
                yield self._whole(name, dtype, shape, blocks)
        yield from self.inner
        for (trouble, unopened), names in missing.items():
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            where = ", ".join(name[:120] for name in names[:3]) + more
            self.damage.append(Damage(self.path, f"tensors {where}", trouble, unsupported=unopened))

    def _inside(self, file: str) -> Path | None:
        """The file's path, if there is such a file and it lies in the folder: names and links may lead anywhere."""
        where, place = f"file {file[:200]!r}", self.path / file
        outside = PurePath(file).is_absolute() or ".." in PurePath(file).parts
        if outside or "\0" in file or len(file.encode("utf-8", "replace")) > LONGEST_NAME:
            told: Damage | None = Damage(self.path / METADATA, where, "is no name of a file in the folder: not opened")
        else:
            told = unfollowed(place, self.within, where)
        if told is None and place.stat().st_size == 0:
            told = Damage(place, where, "is empty")
        if told is None:
            return place
        self.damage.append(told)
        if told.unsupported:
            self.unopened.add(file)
        return None

    def _item(self, file: Path, data: Buffer, item: Item, name: str) -> Tree:
        """What the bytes of one item hold, named from `name` on."""
        if item.transformed or item.offset + item.length > len(data):
            end = f"it should end at byte {item.offset + item.length:,} of a file of {len(data):,}: cut off"
            why = "it was changed by an extension (compression, say), which is not read" if item.transformed else end
            self.damage.append(Damage(file, f"{name[:120]}, byte {item.offset:,}", why, unsupported=item.transformed))
            return Tree()
        stop = item.offset + item.length
        if data[item.offset : item.offset + 4] == LOCAL:
            archive = read_archive(file, data, item.offset, stop, name)
            self.calls.extend(archive.calls)
            self.damage.extend(archive.damage)
            return archive.tree
        stream = read_stream(Stream(file, data, item.offset, stop))
        self.calls.extend(stream.calls)
        self.damage.extend(stream.damage)
        return flattened(stream.values[0], name) if stream.values else Tree()

    def _keep_block(self, item: Item) -> Callable[[Tree, Path], None]:
        def keep(tree: Tree, file: Path) -> None:
            tensors, missing = located(file, dict(list(tree.tensors.items())[:1]))
            self.damage.extend(missing)
            if tensors:
                self.blocks[item] = tensors[0]

        return keep

    def _keep_object(self, tree: Tree, file: Path) -> None:
        tensors, missing = located(file, tree.tensors)
        self.damage.extend(missing)
        self.inner.extend(tensors)
        self.values.update(tree.values)

    def _trouble(self, dtype: str, shape: tuple[int, ...], blocks: list[Block]) -> str:
        if sum(math.prod(block.shape) for block in blocks) != math.prod(shape):
            return "its blocks do not make up the whole"
        for block in blocks:
            held = None if block.item is None else self.blocks.get(block.item)
            if held is None:
                return "a block of it is not there"
            if held.dtype != dtype or held.shape != block.shape or held.layout != "strided":
                return f"a block is {held.dtype} {held.shape} where the metadata say {dtype} {block.shape}"
        places = {self.blocks[block.item].storage for block in blocks if block.item is not None}
        stored = sum(place.nbytes for place in places if place is not None)
        if math.prod(shape) * DTYPES[dtype].bits // 8 > stored + MOST_EXPANDED:
            return f"{math.prod(shape):,} elements are claimed over {stored:,} bytes that are stored"
        return ""

    def _whole(self, name: str, dtype: str, shape: tuple[int, ...], blocks: list[Block]) -> Tensor:
        held = [(block, self.blocks[block.item]) for block in blocks if block.item is not None]
        if len(held) == 1:
            tensor = held[0][1]
            return Tensor(name, dtype, shape, tensor.storage, tensor.offset, tensor.strides)
        pieces = tuple(
            Piece(block.origin, block.shape, tensor.storage, tensor.offset, tensor.strides)
            for block, tensor in held
            if tensor.storage is not None and 0 not in block.shape
        )
        return Tensor(name, dtype, shape, None, pieces=pieces)
