"""safetensors: one file, or the shards that an index names. Only the header is read; the values are mapped."""

from __future__ import annotations

from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.safetensors_header import LONGEST, Header, header_of
from parsers.checkpoints.shards import is_index, read_index
from parsers.checkpoints.side_values import bounded

__all__ = ["read", "sniff"]

NAME = "safetensors"
_SUFFIX = ".safetensors"
#: The first line of the small text that stands for a file of Git's large file storage until it is fetched.
_POINTER = b"version https://git-lfs"


def sniff(path: Path) -> bool:
    """Whether `path` is a file of the format, damaged or whole, or an index of such files.

    A file named `.safetensors` is one however it begins; any other where a header of a length that the format allows
    begins at byte 8.
    """
    if not path.is_file():
        return False
    if path.name.endswith(_SUFFIX) or path.name.endswith(f"{_SUFFIX}.index.json"):
        return True
    head = _head(path, 9)
    return len(head) == 9 and head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST


def read(path: Path | str, *, within: Path | None = None) -> Checkpoint:
    """The tensors of a safetensors file, or of all shards of an index.

    What `__metadata__` says stands in `values` under `metadata.`. A tensor whose entry in the header fits neither the
    file nor its own shape, a missing shard, and a tensor that the index names and no shard has are `damage`; the others
    are given. Shards are looked for in the folder of the index alone, and `within` is the folder out of which no
    symbolic link may lead (by default that one). Raises `InputError` where the file cannot be opened.

    Format: https://github.com/huggingface/safetensors#format

    >>> import tempfile
    >>> header = b'{"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.safetensors")
    ...     _ = file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    ...     with read(file) as found:
    ...         [(t.name, t.dtype, found.array(t).tolist()) for t in found.tensors]
    [('w', 'bfloat16', [0, 0, 0, 0])]
    """
    path = Path(path)
    if is_index(path):
        return read_index(path, read, NAME, within=within)
    header = _header(path)
    values = bounded({f"metadata.{key}": text for key, text in header.metadata.items()})
    return Checkpoint(path, NAME, tuple(header.tensors), values, damage=tuple(header.damage), files=(path,))


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(8)
            length = int.from_bytes(head, "little")
            problem = _problem(head, length, size)
            if problem:
                return Header(damage=[Damage(path, "byte 0", problem)])
            return header_of(file.read(length), path, size - 8 - length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _problem(head: bytes, length: int, size: int) -> str:
    """Why the first eight bytes of a file of `size` bytes cannot be the length of its header, or nothing."""
    if len(head) < 8:
        return f"the file has {size} bytes; the length of the header alone takes 8"
    if head == _POINTER[:8]:
        return "this is a pointer of Git LFS and not the file: fetch it with `git lfs pull`"
    if length > LONGEST:
        return f"a header of {length:,} bytes is announced; the format allows {LONGEST:,}"
    if length > size - 8:
        return f"a header of {length:,} bytes is announced in a file of {size:,}: it is cut off, or another format"
    return ""


def _head(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:  # whoever reads it will say so
        return b""
