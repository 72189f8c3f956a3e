"""Embeddings beside the stream: one Parquet file a call, whole or absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eventstream.optional import need
from eventstream.values import plain_text

__all__ = ["FOLDER", "write_vectors"]

FOLDER = "embeddings"


def write_vectors(
    folder: Path, stem: str, vectors: Any, labels: Sequence[Any] | None, paths: Sequence[Any] | None
) -> tuple[str, int, int]:
    """Write vectors with their labels and paths under the run's `folder`: (relative name, count, dimension).

    `vectors` is anything of shape (n, d) that NumPy or torch can give as float32; labels and paths are n texts or None
    each. A second file of one stem gets `-2`, a third `-3`. Raises ValueError where shapes or lengths do not fit.
    """
    pa = need("pyarrow", feature="recording embeddings", extra="all")
    pq = need("pyarrow.parquet", feature="recording embeddings", extra="all")
    matrix = _matrix(vectors)
    count, dim = matrix.shape
    table = pa.table(
        {
            "label": _texts(pa, labels, count, "labels"),
            "path": _texts(pa, paths, count, "paths"),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), dim),
        }
    )
    (folder / FOLDER).mkdir(exist_ok=True)
    path = _free_name(folder / FOLDER, stem)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=["label"])
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return f"{FOLDER}/{path.name}", count, dim


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


def _free_name(folder: Path, stem: str) -> Path:
    path, number = folder / f"{stem}.parquet", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.parquet", number + 1
    return path
