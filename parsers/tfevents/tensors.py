"""Tensors and histograms of TensorBoard's summaries: the one number, the texts, or the quantiles that they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parsers.content.protobuf import WireError, body, fields, floats, integer, signed, submessages, varints

__all__ = ["QUANTILES", "Tensor", "histogram", "read_tensor", "summarise"]

_Floats = npt.NDArray[np.float64]
#: What `histograms=True` gives beside min and max: tails, quartiles and the median.
QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
#: DataType of types.proto; 14 (bfloat16) is the upper half of a float.
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 14: "<u2", 17: "<u2", 19: "<f2",
    22: "<u4", 23: "<u8",
}  # fmt: skip
BFLOAT16, HALF, STRING = 14, 19, 7


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its shape, and its numbers in a row or its strings."""

    shape: tuple[int, ...]
    numbers: _Floats
    strings: list[bytes] | None

    @property
    def scalar(self) -> float | None:
        """The only number, where there is just one."""
        alone = len(self.numbers) == 1 and all(size == 1 for size in self.shape)
        return float(self.numbers[0]) if alone else None

    def table(self, width: int) -> _Floats | None:
        """The numbers in rows of `width`, where the shape says so."""
        fits = len(self.shape) == 2 and self.shape[1] == width and self.numbers.size == self.shape[0] * width
        return self.numbers.reshape(-1, width) if fits else None


def read_tensor(data: bytes) -> Tensor:
    """A TensorProto; types without numbers (complex, resources) give none.

    >>> read_tensor(bytes([0x08, 1, 0x12, 0, 0x2A, 4, 0, 0, 0x80, 0x3F])).scalar
    1.0
    """
    dtype, shape, content = 0, (), b""  # type: int, tuple[int, ...], bytes
    values: list[float] = []
    strings: list[bytes] = []
    for number, value in fields(data):
        if number == 1:
            dtype = integer(value)
        elif number == 2:
            shape = _shape(body(value))
        elif number == 4:
            content = body(value)
        elif number in (5, 6):
            values += floats(value, "f" if number == 5 else "d")
        elif number in (7, 10, 11, 13, 16, 17):
            values += varints(value)
        elif number == 8:
            strings.append(body(value))
    if dtype == STRING:
        return Tensor(shape, np.empty(0), strings)
    return Tensor(shape, _numbers(dtype, content, values), None)


def _shape(data: bytes) -> tuple[int, ...]:
    return tuple(signed(dict(fields(one)).get(1, 0)) for one in submessages(data, 2))


def _numbers(dtype: int, content: bytes, values: list[float]) -> _Floats:
    if dtype not in _DTYPES:
        return np.empty(0)
    form = np.dtype(_DTYPES[dtype])
    if content:
        if len(content) % form.itemsize:
            raise WireError(f"a tensor of {len(content)} bytes, which is no number of elements")
        found = np.frombuffer(content, form)
    elif dtype in (HALF, BFLOAT16):  # half_val holds the bits as integers
        found = np.array([int(v) & 0xFFFF for v in values], "<u2").view(form)
    elif dtype == 23:
        found = np.array([int(v) % (1 << 64) for v in values], np.uint64)
    else:
        found = np.array(values, np.float64)
    if dtype == BFLOAT16:
        found = (found.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return found.astype(np.float64)


def histogram(data: bytes) -> _Floats:
    """Left edge, right edge and count of each bucket of a HistogramProto, whose buckets are given by right edges.

    The outermost edges are the smallest and the largest value: writers put infinities there.
    """
    low = high = 0.0
    limits: list[float] = []
    counts: list[float] = []
    for number, value in fields(data):
        if number == 1:
            low = floats(value, "d")[0] if len(body(value)) == 8 else low
        elif number == 2:
            high = floats(value, "d")[0] if len(body(value)) == 8 else high
        elif number == 6:
            limits += floats(value, "d")
        elif number == 7:
            counts += floats(value, "d")
    if len(limits) != len(counts):
        raise WireError(f"a histogram of {len(limits)} edges and {len(counts)} counts")
    right = np.clip(np.array(limits), low, high)
    left = np.concatenate([[low], right[:-1]]) if len(right) else right
    return np.column_stack([left, right, np.array(counts)])


def summarise(buckets: _Floats) -> dict[str, float]:
    """Smallest and largest value and `QUANTILES` of a histogram, by a straight line inside each bucket; empty of none.

    >>> summarise(np.array([[0.0, 1.0, 50.0], [1.0, 3.0, 50.0]]))["p75"]
    2.0
    """
    filled = buckets[buckets[:, 2] > 0]
    if not len(filled) or not np.isfinite(filled).all():
        return {}
    ends = np.cumsum(filled[:, 2])
    found = {"min": float(filled[0, 0]), "max": float(filled[-1, 1])}
    for name, share in QUANTILES.items():
        wanted = share * ends[-1]
        at = min(int(np.searchsorted(ends, wanted)), len(filled) - 1)
        left, right, count = filled[at]
        found[name] = float(left + (right - left) * (wanted - (ends[at] - count)) / count)
    return found
