"""What a checkpoint says of a tensor: its name, its element type, its shape, and where in which file its bytes lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["DTYPES", "DType", "Layout", "Piece", "Role", "Storage", "Tensor"]

#: What a tensor is for: parameters and buffers of the model, its averaged copy, the optimizer's state, all else.
Role = Literal["weights", "ema", "optimizer", "other"]
#: How the stored values stand for the tensor; those of the sparse ones are the values that are stored, and a meta
#: tensor has a shape and no values (`stored` is 0).
Layout = Literal["strided", "sparse", "meta"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: the NumPy type by which its bytes are viewed, and what the numbers are.

    `raw` holds patterns and not numbers for the types that NumPy lacks (`bfloat16` as `u2`, `float8_*` as `u1`).
    `kind` is float, integer, boolean or complex; `bits` are those of one element.
    """

    name: str
    raw: str
    kind: Literal["float", "integer", "boolean", "complex"]
    bits: int


#: By the name that torch gives without its `torch.`, which is how all formats are translated.
DTYPES: dict[str, DType] = {
    entry.name: entry
    for entry in (
        DType("float64", "<f8", "float", 64),
        DType("float32", "<f4", "float", 32),
        DType("float16", "<f2", "float", 16),
        DType("bfloat16", "<u2", "float", 16),
        DType("float8_e4m3fn", "|u1", "float", 8),
        DType("float8_e5m2", "|u1", "float", 8),
        DType("float8_e4m3fnuz", "|u1", "float", 8),
        DType("float8_e5m2fnuz", "|u1", "float", 8),
        DType("float8_e8m0fnu", "|u1", "float", 8),
        DType("int64", "<i8", "integer", 64),
        DType("int32", "<i4", "integer", 32),
        DType("int16", "<i2", "integer", 16),
        DType("int8", "|i1", "integer", 8),
        DType("uint64", "<u8", "integer", 64),
        DType("uint32", "<u4", "integer", 32),
        DType("uint16", "<u2", "integer", 16),
        DType("uint8", "|u1", "integer", 8),
        DType("bool", "|u1", "boolean", 8),
        DType("complex32", "<f2", "complex", 32),
        DType("complex64", "<c8", "complex", 64),
        DType("complex128", "<c16", "complex", 128),
        DType("qint8", "|i1", "integer", 8),
        DType("quint8", "|u1", "integer", 8),
        DType("qint32", "<i4", "integer", 32),
    )
}


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of a file that hold one or more tensors.

    `packed` is the length on disk of a storage that is deflated inside a zip; None where the bytes lie there as they
    are and can be mapped. `held` are the bytes themselves where the file has them in another writing (NumPy arrays in
    old pickles are spelled as text), with `start` where that begins.
    """

    file: Path
    start: int
    nbytes: int
    packed: int | None = None
    held: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of a tensor that is stored apart from the others (torch's distributed checkpoints)."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]
    storage: Storage
    offset: int = 0
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a checkpoint: what is known without reading its values.

    `name` is the path within the checkpoint, joined by dots (`state_dict.encoder.weight`); `parameter` is the name
    that the model's own code has for it, by which saves are compared (the parameter that a moment of the optimizer
    belongs to, the weight that an average copies; empty where nothing tells). `state` names what of a parameter the
    optimizer keeps (`exp_avg`). `offset` and `strides` count elements in `storage`; strides are None for row-major
    order. `pieces` take the place of `storage` where a tensor lies in several. For a sparse tensor `shape` is that of
    the whole and `stored` the number of values that are stored. A quantised value is `scale * (q - zero_point)`.

    >>> from pathlib import Path
    >>> Tensor("w", "bfloat16", (4, 8), Storage(Path("a.safetensors"), 128, 64)).nbytes
    64
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: Storage | None
    offset: int = 0
    strides: tuple[int, ...] | None = None
    role: Role = "weights"
    parameter: str = ""
    state: str = ""
    pieces: tuple[Piece, ...] = ()
    layout: Layout = "strided"
    stored: int | None = None
    scale: float | None = None
    zero_point: int = 0

    @property
    def elements(self) -> int:
        """Elements of the whole tensor (1 for a scalar, 0 for a tensor of no size)."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """Values that are stored: `elements`, but for a sparse tensor."""
        return self.elements if self.stored is None else self.stored

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values."""
        return self.count * DTYPES[self.dtype].bits // 8
