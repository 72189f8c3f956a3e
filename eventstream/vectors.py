"""Embeddings beside the stream: each call a row group of a Parquet file, and every file whole or absent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eventstream.optional import need
from eventstream.values import plain_text

__all__ = ["FOLDER", "VectorStore", "part_name"]

FOLDER = "embeddings"
#: A file is gathered from this many calls, or from this many bytes of vectors; either keeps a gathering under 0.1 s.
PARTS = 64
PARTS_BYTES = 16 << 20


def part_name(file: str, part: int) -> str:
    """Name of the row group `part` of `file` as long as it is a file of its own.

    >>> part_name("embeddings/rank00000-attempt0000-000002.parquet", 7)
    'embeddings/rank00000-attempt0000-000002.part007.parquet'
    """
    return f"{file.removesuffix('.parquet')}.part{part:03d}.parquet"


class VectorStore:
    """The files of embeddings of one rank and attempt under a run's `folder`.

    A Parquet file cannot grow and stay readable at every moment, so each call writes a small file (a part) under a
    temporary name and renames it; 64 parts, or 16 MiB of vectors, become the row groups of one file, which is
    synchronised and renamed before its parts go. A thousand calls leave sixteen files. A crash at any moment leaves
    each call's vectors whole in a part, in the file, or in both. Failures to gather go to `trouble(kind, message)` and
    leave the parts as they are. `later(job)` has the gathering done besides, and says whether it will be. Threads may
    write at once.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        *,
        later: Callable[[Callable[[], None]], bool],
        trouble: Callable[[str, str], None],
    ) -> None:
        self._folder, self._stem, self._later, self._trouble = folder, stem, later, trouble
        self._lock = threading.Lock()
        self._number = self._part = self._bytes = self._dim = 0

    def write(
        self, step: int | None, vectors: Any, labels: Sequence[Any] | None = None, paths: Sequence[Any] | None = None
    ) -> dict[str, Any]:
        """Write vectors with their labels and paths: the payload of their event (file, part, count, dim).

        `vectors` is anything of shape (n, d) that NumPy or torch can give as float32; labels and paths are n texts or
        None each. Raises ValueError where shapes or lengths do not fit, OSError where the disk refuses.
        """
        table, dim = _table(step, vectors, labels, paths)
        size = table.num_rows * dim * 4
        with self._lock:
            if self._part and (dim != self._dim or self._bytes + size > PARTS_BYTES):
                self._gather()
            (self._folder / FOLDER).mkdir(exist_ok=True)
            payload: dict[str, Any] = {"file": self._file(), "count": table.num_rows, "dim": dim}
            if not self._part and size > PARTS_BYTES:
                _write(self._folder / payload["file"], [table])  # large enough to be a file by itself
                self._number += 1
                return payload
            payload["part"] = self._part
            _write(self._folder / part_name(payload["file"], self._part), [table])
            self._part, self._bytes, self._dim = self._part + 1, self._bytes + size, dim
            if self._part == PARTS:
                self._gather()
            return payload

    def close(self) -> None:
        """Have the parts that are left gathered."""
        with self._lock:
            if self._part:
                self._gather()

    def _file(self) -> str:
        return f"{FOLDER}/{self._stem}-{self._number:06d}.parquet"

    def _gather(self) -> None:
        """Begin the next file and have this one made of its parts; where that is not possible, parts are read too."""
        file, count = self._file(), self._part
        self._number, self._part, self._bytes = self._number + 1, 0, 0
        self._later(lambda: self._gathered(file, count))

    def _gathered(self, file: str, count: int) -> None:
        parts = [self._folder / part_name(file, number) for number in range(count)]
        try:
            gather(parts, self._folder / file)
        except OSError as error:
            reason = error.strerror or str(error)
            self._trouble("embeddings", f"{file} could not be made of its parts ({reason}); they stay and are read")


def gather(parts: list[Path], file: Path) -> None:
    """Make one file of `parts`, a row group each, and remove them. Raises OSError and leaves them where that fails."""
    pq = need("pyarrow.parquet", feature="recording embeddings", extra="all")
    _write(file, [pq.ParquetFile(part).read() for part in parts], synchronised=True)
    for part in parts:
        with suppress(OSError):
            part.unlink()


def _table(step: int | None, vectors: Any, labels: Any, paths: Any) -> tuple[Any, int]:
    pa = need("pyarrow", feature="recording embeddings", extra="all")
    matrix = _matrix(vectors)
    count, dim = matrix.shape
    columns = {
        "step": pa.nulls(count, pa.int64()) if step is None else pa.repeat(pa.scalar(step, pa.int64()), count),
        "label": _texts(pa, labels, count, "labels"),
        "path": _texts(pa, paths, count, "paths"),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), dim),
    }
    return pa.table(columns), dim


def _write(path: Path, groups: list[Any], *, synchronised: bool = False) -> None:
    """Write tables as the row groups of a file that is whole or absent.

    What the system holds survives the process; a file that stands for others, which then go, must be on the disk.
    """
    pq = need("pyarrow.parquet", feature="recording embeddings", extra="all")
    temporary = path.with_name(f"{path.name}.tmp")
    # Vectors are noise to a compressor: trying costs time and gains a tenth.
    compression = {"step": "zstd", "label": "zstd", "path": "zstd", "vector.list.element": "none"}
    try:
        with (
            temporary.open("wb") as file,
            pq.ParquetWriter(
                file, groups[0].schema, compression=compression, use_dictionary=["label"], write_statistics=["step"]
            ) as writer,
        ):
            for table in groups:
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        if synchronised:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _matrix(vectors: Any) -> Any:
    import numpy as np

    if callable(getattr(vectors, "detach", None)):  # torch; `float` because NumPy has no bfloat16
        vectors = vectors.detach().float().cpu().numpy()
    elif isinstance(vectors, (list, tuple)):
        vectors = [v.detach().float().cpu().numpy() if callable(getattr(v, "detach", None)) else v for v in vectors]
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(f"embeddings must be (count, dimension), got shape {matrix.shape}")
    return matrix


def _texts(pa: Any, values: Any, count: int, what: str) -> Any:
    if values is None:
        return pa.nulls(count, pa.string())
    listed = values.tolist() if callable(getattr(values, "tolist", None)) else list(values)
    if len(listed) != count:
        raise ValueError(f"{len(listed)} {what} for {count} embeddings")
    return pa.array([None if value is None else plain_text(value) for value in listed], pa.string())
