"""The bytes of tensors, mapped from their files: views where they lie as they are, copies where they do not."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eventstream.errors import InputError
from parsers.checkpoints.file_bytes import FileBytes
from parsers.checkpoints.tensors import DTYPES, Storage, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MappedFiles"]

#: Half-precision complex numbers have no type in NumPy: each is two numbers.
_PARTS = {"complex32": 2}


class MappedFiles:
    """Mapped files by their path, opened when first asked for, closed together.

    Each must stay as it was when it was first seen (`FileBytes`); `several` are others whose files these are too.
    """

    def __init__(self, several: Iterable[MappedFiles] = ()) -> None:
        self._files = FileBytes()
        self._files.joined(one._files for one in several)

    def expect(self, states: dict[Path, os.stat_result]) -> None:
        """Refuse files that are not any more what they were when these states were taken."""
        self._files.expect(states)

    def changed(self) -> bool:
        """Whether any of these files was written to or deleted since."""
        return self._files.changed()

    def array(self, tensor: Tensor) -> NDArray[np.generic]:
        """The stored values of `tensor`; see `Checkpoint.array`."""
        import numpy as np

        raw = np.dtype(DTYPES[tensor.dtype].raw)
        shape = tensor.shape if tensor.stored is None else (tensor.stored,)
        parts = _PARTS.get(tensor.dtype, 1)
        with _located(tensor):
            if not tensor.pieces:
                if tensor.storage is None or math.prod(shape) == 0:
                    return np.empty(_raw_shape(shape, parts), raw)
                return self._block(tensor.storage, raw, shape, tensor.offset, tensor.strides, parts)
            whole = np.zeros(_raw_shape(shape, parts), raw)
            for piece in tensor.pieces:
                place = tuple(slice(at, at + n) for at, n in zip(piece.origin, piece.shape, strict=True))
                whole[place] = self._block(piece.storage, raw, piece.shape, piece.offset, piece.strides, parts)
            return whole

    def release(self, tensor: Tensor) -> None:
        """Drop the pages that hold `tensor` from this process's memory."""
        storages = [tensor.storage, *(piece.storage for piece in tensor.pieces)]
        for storage in storages:
            if storage is not None and storage.held is None:
                self._files.release(storage.file, storage.start, _length(storage))

    def close(self) -> None:
        """Unmap all files, but for those of which a view is still held: these go with the view."""
        self._files.close()

    def _block(
        self,
        storage: Storage,
        raw: np.dtype[np.generic],
        shape: tuple[int, ...],
        offset: int,
        strides: tuple[int, ...] | None,
        parts: int,
    ) -> NDArray[np.generic]:
        """A view of `shape` into a storage, its strides checked against the storage's end."""
        import numpy as np

        if parts > 1:
            shape, offset = _raw_shape(shape, parts), offset * parts
            strides = None if strides is None else (*(stride * parts for stride in strides), 1)
        held = storage.nbytes // raw.itemsize
        last = offset + (
            math.prod(shape) - 1
            if strides is None
            else sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        )
        if math.prod(shape) and (offset < 0 or last >= held or any(s < 0 for s in strides or ())):
            raise ValueError(f"the tensor reaches to element {last:,} of a storage of {held:,}")
        flat = np.frombuffer(self._bytes(storage), raw, held)
        if strides is None:
            return flat[offset : offset + math.prod(shape)].reshape(shape)
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * raw.itemsize for s in strides])
        view.flags.writeable = False
        return view

    def _bytes(self, storage: Storage) -> memoryview:
        if storage.held is not None:
            return memoryview(storage.held)
        found = self._files.span(storage.file, storage.start, _length(storage))
        if storage.packed is None:
            return found
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(found, storage.nbytes)
        if len(unpacked) != storage.nbytes:
            raise ValueError(f"{len(unpacked):,} bytes come out of a storage of {storage.nbytes:,}")
        return memoryview(unpacked)


def _length(storage: Storage) -> int:
    """Bytes on disk."""
    return storage.nbytes if storage.packed is None else storage.packed


def _raw_shape(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Shape of the raw view: the parts of an element that has no type in NumPy stand side by side."""
    return shape if parts == 1 else (*shape, parts)


@contextmanager
def _located(tensor: Tensor) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, zlib.error) as error:
        where = [str(s.file) for s in (tensor.storage, *(p.storage for p in tensor.pieces)) if s is not None]
        raise InputError(f"tensor {tensor.name!r} of {where[0] if where else 'no file'}: {error}") from error
