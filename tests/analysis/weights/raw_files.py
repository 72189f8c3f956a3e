"""Checkpoints made by hand: tensors of any element type over a file of raw bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import DTYPES, Storage, Tensor

#: A lead of this many bytes before each tensor tells readers that rely on aligned numbers.
_LEAD = 3


def checkpoint_of(
    folder: Path, arrays: Mapping[str, tuple[str, NDArray[Any]]], *, name: str = "raw.bin", **fields: Any
) -> Checkpoint:
    """A checkpoint of stored values by name, with their element type; `fields` go to all tensors."""
    file, at = folder / name, 0
    tensors = []
    with file.open("wb") as written:
        for key, (dtype, array) in arrays.items():
            raw = np.ascontiguousarray(array.astype(DTYPES[dtype].raw, copy=False))
            written.write(bytes(_LEAD) + raw.tobytes())
            given = {"parameter": key, **fields}
            shape = array.shape[:-1] if dtype == "complex32" else array.shape
            tensors.append(Tensor(key, dtype, shape, Storage(file, at + _LEAD, raw.nbytes), **given))
            at += _LEAD + raw.nbytes
    return Checkpoint(file, "raw", tuple(tensors))
