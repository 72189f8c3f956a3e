"""What stands in for NumPy's objects in a pickle: arrays become tensors, scalars plain numbers."""

from __future__ import annotations

from typing import Any

from parsers.checkpoints.inert_builders import records
from parsers.checkpoints.inert_objects import Buildable, MisuseError, Named, PickledStorage, PickledTensor, Record, Span
from parsers.checkpoints.pickle_machine import Builders
from parsers.checkpoints.shapes import size_of
from parsers.checkpoints.tensors import DTYPES, Storage

__all__ = ["NUMPY", "NumpyArray", "NumpyDType"]

#: Letter and bytes of NumPy's type texts (`f4`) by the name that torch gives.
_TEXTS = {
    entry.raw[1:]: name for name, entry in DTYPES.items() if name not in ("complex32",) and entry.kind != "boolean"
}
_TEXTS.update({"b1": "bool", "u2": "uint16", "u1": "uint8", "f2": "float16", "i1": "int8", "i4": "int32"})
#: Arrays whose bytes stand the other way round are turned in memory up to this size.
MOST_TURNED = 1 << 28


class NumpyDType(Buildable):
    """`numpy.dtype`: its text (`f4`), and whether the most significant byte stands first."""

    __slots__ = ("big", "plain", "text")

    def __init__(self, text: str) -> None:
        self.text = text.lstrip("<=|>")
        self.big, self.plain = text.startswith(">"), True

    def build(self, state: Any) -> None:
        """The state is (version, byte order, subtype, names, fields, size, alignment, flags)."""
        if not isinstance(state, tuple) or len(state) < 5:
            raise MisuseError("no state of a numpy.dtype")
        self.big = state[1] in (">", b">")
        self.plain = state[2] is None and state[3] is None and state[4] is None


class NumpyArray(Buildable):
    """`numpy.ndarray`: empty until its state comes."""

    __slots__ = ("dtype", "fortran", "objects", "raw", "shape")

    def __init__(self) -> None:
        self.dtype: NumpyDType | None = None
        self.shape: tuple[int, ...] = ()
        self.raw: bytes | Span = b""
        self.objects: list[Any] | None = None
        self.fortran = False

    def build(self, state: Any) -> None:
        """The state is (version, shape, dtype, column-major, bytes or list of objects)."""
        if not isinstance(state, tuple) or len(state) < 4 or not isinstance(state[-3], NumpyDType):
            raise MisuseError("no state of a numpy.ndarray")
        shape, self.dtype, fortran, raw = state[-4:]
        self.shape, self.fortran = size_of(shape), fortran is True
        if isinstance(raw, list):
            self.objects = raw
        elif isinstance(raw, str):
            self.raw = raw.encode("latin-1", "replace")
        elif isinstance(raw, bytes | Span):
            self.raw = raw
        else:
            raise MisuseError("no bytes of a numpy.ndarray")

    def tensor(self) -> PickledTensor | None:
        """The array as a tensor; None where its elements are no plain numbers."""
        name = None if self.dtype is None or not self.dtype.plain else _TEXTS.get(self.dtype.text)
        if name is None or self.dtype is None:
            return None
        place = _place(self.raw, self.dtype)
        storage = PickledStorage("", name, place.nbytes, place)
        return PickledTensor(name, self.shape, storage, strides=_column_major(self.shape) if self.fortran else None)


def _place(raw: bytes | Span, dtype: NumpyDType) -> Storage:
    from pathlib import Path

    width = int(dtype.text[1:])
    if dtype.big and width > 1 and len(raw) <= MOST_TURNED:
        import numpy as np

        held = raw.bytes() if isinstance(raw, Span) else bytes(raw)
        whole = held[: len(held) - len(held) % width]
        turned = np.frombuffer(whole, f">{dtype.text}").astype(f"<{dtype.text}").tobytes()
        return Storage(raw.file if isinstance(raw, Span) else Path(), 0, len(turned), held=turned)
    if isinstance(raw, Span):
        return raw.place()
    return Storage(Path(), 0, len(raw), held=bytes(raw))


def _column_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for length in shape:
        strides.append(step)
        step *= length
    return tuple(strides)


def _dtype(args: tuple[Any, ...]) -> NumpyDType:
    if not args or not isinstance(args[0], str | Named):
        raise MisuseError("no text of a type")
    return NumpyDType(args[0] if isinstance(args[0], str) else args[0].name)


def _array(args: tuple[Any, ...]) -> NumpyArray:
    return NumpyArray()


def _from_buffer(args: tuple[Any, ...]) -> Any:
    """Protocol 5: the bytes, the type, the shape and the order in one call."""
    if len(args) < 4 or not isinstance(args[1], NumpyDType):
        raise MisuseError("no buffer, type, shape and order")
    if isinstance(args[0], Record):
        return args[0]
    array = NumpyArray()
    array.build((1, args[2], args[1], args[3] == "F", args[0]))
    return array


def _scalar(args: tuple[Any, ...]) -> Any:
    """A NumPy number as Python's own; of other types a record."""
    import numpy as np

    if len(args) != 2 or not isinstance(args[0], NumpyDType):
        raise MisuseError("no type and bytes of a number")
    dtype, raw = args
    raw = raw.encode("latin-1", "replace") if isinstance(raw, str) else raw
    if dtype.text not in _TEXTS or not isinstance(raw, bytes) or len(raw) != int(dtype.text[1:]):
        return Record("numpy.generic", args)
    return np.frombuffer(raw, (">" if dtype.big else "<") + dtype.text)[0].item()


_RANDOM = """
    numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__generator_ctor
    numpy.random._pickle.__bit_generator_ctor
    numpy.random.mtrand.RandomState numpy.random._mt19937.MT19937 numpy.random._pcg64.PCG64
    numpy.random._pcg64.PCG64DXSM
    numpy.random._philox.Philox numpy.random._sfc64.SFC64 numpy.random.bit_generator.SeedSequence
    numpy.random.bit_generator.__pyx_unpickle_SeedSequence numpy.random._generator.Generator
"""
_CLASSES = (
    "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 str_"
)

#: NumPy's callables by their dotted names: before version 2 they stood in `numpy.core`, today in `numpy._core`.
NUMPY: Builders = {
    **records(_RANDOM),
    **records(" ".join(f"numpy.{name}" for name in _CLASSES.split())),
    "numpy.dtype": _dtype,
    "numpy.ndarray": _array,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
