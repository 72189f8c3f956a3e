"""Checksums of a checkpoint against its bytes: whether a bit has flipped since it was written."""

from __future__ import annotations

import itertools
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.dcp_metadata import read_metadata
from parsers.checkpoints.zip_directory import Entry, directory

__all__ = ["has_checksums", "verify"]

#: Bytes read at a time.
CHUNK = 1 << 22
LOCAL = b"PK\x03\x04"


def verify(checkpoint: Checkpoint) -> tuple[Damage, ...]:
    """Damage for each entry of the checkpoint's zip archives whose bytes do not have the checksum that stands beside.

    Opening a checkpoint does not do this, as it reads every byte: about one second for each gigabyte, with a few
    megabytes of memory. Only archives of torch (also the items of a distributed checkpoint) and `.npz` carry checksums;
    safetensors and torch's files before 1.6 have none, and nothing comes back for them, nor for entries that torch
    wrote with `set_crc32_options(False)`. Each says which tensors lie in the entry. Raises `InputError` where a file is
    gone.

    >>> verify(Checkpoint(Path("weights.safetensors"), "safetensors", ()))
    ()
    """
    found: list[Damage] = []
    storages = _storages(checkpoint)
    for file, ranges in _archives(checkpoint):
        try:
            with file.open("rb") as opened:
                for start, end in ranges:
                    found.extend(_of_archive(file, opened, start, end, storages))
        except OSError as error:
            raise InputError(f"{file} cannot be read any more: {error.strerror}") from error
    return tuple(found)


def has_checksums(checkpoint: Checkpoint) -> bool:
    """Whether any file of the checkpoint is an archive, whose entries have checksums to be verified by.

    >>> has_checksums(Checkpoint(Path("weights.safetensors"), "safetensors", ()))
    False
    """
    for file, ranges in _archives(checkpoint):
        with file.open("rb") as opened:
            for start, _ in ranges:
                opened.seek(start)
                if opened.read(4) == LOCAL:
                    return True
    return False


def _archives(checkpoint: Checkpoint) -> Iterator[tuple[Path, list[tuple[int, int | None]]]]:
    """The files that are archives, or hold some, with the bytes of each."""
    if checkpoint.format != "dcp":
        for file in checkpoint.files:
            yield file, [(0, None)]
        return
    metadata = read_metadata(checkpoint.path / ".metadata")
    items = [block.item for _, _, blocks in metadata.tensors.values() for block in blocks if block.item is not None]
    for file in checkpoint.files:
        name = file.relative_to(checkpoint.path).as_posix()
        here = [item for item in (*items, *metadata.objects.values()) if item.file == name and not item.transformed]
        yield file, [(item.offset, item.offset + item.length) for item in sorted(here, key=lambda item: item.offset)]


def _storages(checkpoint: Checkpoint) -> dict[tuple[Path, int], list[str]]:
    """The tensors of each storage, by its file and its first byte there."""
    found: dict[tuple[Path, int], list[str]] = {}
    for tensor in checkpoint.tensors:
        places = (tensor.storage, *(piece.storage for piece in tensor.pieces))
        for storage in places:
            if storage is not None:
                found.setdefault((storage.file, storage.start), []).append(tensor.name)
    return found


def _of_archive(
    file: Path, opened: BinaryIO, start: int, end: int | None, storages: dict[tuple[Path, int], list[str]]
) -> Iterator[Damage]:
    opened.seek(start)
    if opened.read(4) != LOCAL:
        return
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        entries = directory(data, start, end).entries
    for entry in entries:
        if entry.crc and not entry.trouble and (got := _checksum(opened, entry)) != entry.crc:
            why = f"its bytes have the checksum {got:08x}, written was {entry.crc:08x}: changed since"
            ends = entry.start + entry.size
            inside = (names for (of, at), names in storages.items() if of == file and entry.start <= at < ends)
            held = list(itertools.chain.from_iterable(inside))
            more = f" and {len(held) - 3:,} more" if len(held) > 3 else ""
            tensors = f" ({', '.join(held[:3])}{more})"[:300] if held else ""
            yield Damage(file, f"entry {entry.name[:200]!r}{tensors}, byte {entry.start:,}", why)


def _checksum(opened: BinaryIO, entry: Entry) -> int:
    opened.seek(entry.start)
    left, crc = entry.size, 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS) if entry.packed else None
    while left > 0 and (chunk := opened.read(min(CHUNK, left))):
        left -= len(chunk)
        for part in _plain(unpacker, chunk):
            crc = zlib.crc32(part, crc)
    return crc


def _plain(unpacker: zlib._Decompress | None, chunk: bytes) -> Iterator[bytes]:
    """What a chunk unpacks to, a chunk at a time: packed zeros grow a thousandfold."""
    if unpacker is None:
        yield chunk
        return
    try:
        while chunk:
            yield unpacker.decompress(chunk, CHUNK)
            chunk = unpacker.unconsumed_tail
    except zlib.error:
        yield b"damaged: no bytes of deflate"
