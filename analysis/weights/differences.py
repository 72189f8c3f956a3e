"""What changed from one checkpoint to another, tensor by tensor, in one pass over both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.weights.in_order import Job, in_order, most_held
from analysis.weights.pair_sums import PairSums, compiled_sums, plain_sums
from analysis.weights.rows import frame_of_rows
from analysis.weights.statistics import LARGE, flat_parts, judged_roles
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Role, Tensor

__all__ = ["DIFFERENCES", "differences", "matched"]

#: Columns of `differences`; its docstring says what they hold.
DIFFERENCES = pl.Schema(
    {
        "name": pl.String(),
        "parameter": pl.String(),
        "role": pl.String(),
        "state": pl.String(),
        "status": pl.String(),
        "dtype_a": pl.String(),
        "dtype_b": pl.String(),
        "shape_a": pl.List(pl.Int64()),
        "shape_b": pl.List(pl.Int64()),
        "norm_a": pl.Float64(),
        "norm_b": pl.Float64(),
        "update_norm": pl.Float64(),
        "update_ratio": pl.Float64(),
        "cosine": pl.Float64(),
        "rotation": pl.Float64(),
        "max_change": pl.Float64(),
        "share_changed": pl.Float64(),
        "nan_a": pl.Int64(),
        "nan_b": pl.Int64(),
        "inf_a": pl.Int64(),
        "inf_b": pl.Int64(),
        "error": pl.String(),
    }
)
#: Numbers compared at a time: of compiled sweeps, of those that convert before, and by NumPy.
_SWEPT, _CONVERTED, _PLAIN = 1 << 21, 1 << 17, 1 << 16
#: Types that are swept as they are stored.
_AS_STORED = ("bfloat16", "float32", "float64", "complex64", "complex128")


@dataclass
class _Pair:
    """A tensor of `a`, the one of `b` that it became, and what is known of both."""

    a: Tensor | None
    b: Tensor | None
    sums: PairSums = field(default_factory=PairSums)
    error: str | None = None

    @property
    def compared(self) -> bool:
        return (
            self.a is not None
            and self.b is not None
            and (self.a.shape, self.a.layout, self.a.stored) == (self.b.shape, self.b.layout, self.b.stored)
            and (self.a.dtype.startswith("complex") == self.b.dtype.startswith("complex"))
        )

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in (self.a, self.b) if one is not None) if self.compared else 0


def differences(
    a: Checkpoint,
    b: Checkpoint,
    *,
    roles: Iterable[Role] = ("weights", "ema"),
    progress: Callable[[int, int, str], None] | None = None,
) -> pl.DataFrame:
    """One row a tensor of `a` or `b`, that which changed most first, from one pass over the bytes of both.

    Tensors belong together by name, else by role, `parameter` and state (so a state dict is compared with one that is
    wrapped). name is that in `a` where it is there. status is

    - same (equal values), changed, dtype (another element type; values compared all the same);
    - shape (another shape, or one complex and one not), added, removed: nothing else is known then.

    With d = b - a over the pairs of which both numbers are finite: norm_a, norm_b, update_norm (||d||, all L2),
    update_ratio (||d|| / ||a||; infinite where a is all zero), cosine and rotation (angle between a and b in degrees;
    null where one is all zero), max_change (largest |d|). share_changed is the share of all elements whose value is
    another one (NaN equals NaN); nan_a, nan_b, inf_a and inf_b are counts. All are null for a tensor of no elements.
    Of sparse tensors the stored values are compared, of quantised ones what they stand for, of complex ones real and
    imaginary parts. error says why bytes could not be read (status is
    null then). Rows are sorted by update_ratio, then as in `a`.

    `roles` are those compared: by default the model and its averages, since moments of an optimizer always change.
    `progress` is called with (bytes done, bytes in all, name). Raises ValueError for an unknown role.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "w.bin"
    ...     _ = file.write_bytes(np.array([3, 4, 3, 5], "<f4").tobytes())
    ...     saves = [Tensor("w", "float32", (2,), Storage(file, start, 8)) for start in (0, 8)]
    ...     before, after = (Checkpoint(file, "example", (tensor,)) for tensor in saves)
    ...     table = differences(before, after)
    ...     before.close(), after.close()
    (None, None)
    >>> table.select("name", "status", "norm_a", "update_norm", "update_ratio", "share_changed").row(0)
    ('w', 'changed', 5.0, 1.0, 0.2, 0.5)
    """
    pairs = [_Pair(*tensors) for tensors in matched(a, b, judged_roles(roles))]
    compiled = sum(pair.a.count for pair in pairs if pair.a is not None and pair.compared) >= LARGE
    total, done = sum(pair.nbytes for pair in pairs), 0
    jobs = (_job(pair, a, b, compiled=compiled) for pair in pairs if pair.compared)
    for pair, found in in_order(jobs, most_held(pair.nbytes for pair in pairs)):
        assert pair.a is not None and pair.b is not None
        for sums in found:
            pair.sums += sums
        a.release(pair.a)
        b.release(pair.b)
        done += pair.nbytes
        if progress is not None:
            progress(done, total, pair.a.name)
    table = frame_of_rows((_row(pair) for pair in pairs), DIFFERENCES)
    return table.sort("update_ratio", descending=True, nulls_last=True, maintain_order=True)


def matched(a: Checkpoint, b: Checkpoint, roles: Iterable[Role]) -> list[tuple[Tensor | None, Tensor | None]]:
    """Tensors of both that belong together, as in `a`, then those that only `b` has.

    By role and name; the rest by role, parameter and state, where these name one tensor of each.
    """
    wanted = tuple(roles)
    left, right = a.of_role(*wanted), b.of_role(*wanted)
    named = {(tensor.role, tensor.name): tensor for tensor in right}
    found = {id(tensor): named[tensor.role, tensor.name] for tensor in left if (tensor.role, tensor.name) in named}
    taken = {id(tensor) for tensor in found.values()}
    rest_left = _by_parameter(tensor for tensor in left if id(tensor) not in found)
    rest_right = _by_parameter(tensor for tensor in right if id(tensor) not in taken)
    for key, tensor in rest_left.items():
        if key in rest_right:
            found[id(tensor)] = rest_right[key]
            taken.add(id(rest_right[key]))
    added = [(None, tensor) for tensor in right if id(tensor) not in taken]
    return [*((tensor, found.get(id(tensor))) for tensor in left), *added]


def _by_parameter(tensors: Iterable[Tensor]) -> dict[tuple[str, str, str], Tensor]:
    keyed = [((tensor.role, tensor.parameter or tensor.name, tensor.state), tensor) for tensor in tensors]
    times = Counter(key for key, _ in keyed)
    return {key: tensor for key, tensor in keyed if times[key] == 1}


def _job(pair: _Pair, a: Checkpoint, b: Checkpoint, *, compiled: bool) -> Job[_Pair, PairSums]:
    return Job(pair, pair.nbytes, partial(_open, pair, a, b, compiled))


def _open(pair: _Pair, a: Checkpoint, b: Checkpoint, compiled: bool) -> Sequence[Callable[[], PairSums]]:
    assert pair.a is not None and pair.b is not None
    try:
        x, y = a.array(pair.a), b.array(pair.b)
    except InputError as error:
        pair.error = str(error)
        return []
    x, y = _in_one_dimension(x, y)
    if compiled:
        stored = pair.a.dtype == pair.b.dtype and pair.a.dtype in _AS_STORED
        take, length = compiled_sums, _SWEPT if stored else _CONVERTED
    else:
        take, length = plain_sums, _PLAIN
    return [partial(take, p, q, pair.a, pair.b) for p, q in _parts(x, y, length)]


def _in_one_dimension(x: NDArray[np.generic], y: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
    """Both in one order: that in memory where it is the same dense one, so that no copy is needed, else row-major."""
    if x.ndim > 1 and x.strides != () and x.flags.f_contiguous and y.flags.f_contiguous and x.dtype == y.dtype:
        x, y = x.T, y.T
    return flat_parts(x), flat_parts(y)


def _parts(
    x: NDArray[np.generic], y: NDArray[np.generic], length: int
) -> Iterator[tuple[NDArray[np.generic], NDArray[np.generic]]]:
    for start in range(0, len(x), length):
        yield x[start : start + length], y[start : start + length]


def _row(pair: _Pair) -> tuple[object, ...]:
    a, b, sums = pair.a, pair.b, pair.sums
    one = a if a is not None else b
    assert one is not None
    types = (None if each is None else each.dtype for each in (a, b))
    shapes = (None if each is None else list(each.shape) for each in (a, b))
    known = (one.name, one.parameter, one.role, one.state, _status(pair), *types, *shapes)
    if not pair.compared or pair.error is not None or not one.count:
        return (*known, *[None] * (len(DIFFERENCES) - len(known) - 1), pair.error)
    parts = 2 if one.dtype.startswith("complex") else 1
    share = sums.changed / (one.count * parts)
    counts = (int(count) for count in (sums.nan_a, sums.nan_b, sums.inf_a, sums.inf_b))
    if not sums.pairs:
        return (*known, *[None] * 7, share, *counts, None)
    norms = (sums.norm(of) for of in "abd")
    angle = (sums.update_ratio, sums.cosine, sums.rotation)
    return (*known, *norms, *angle, sums.most_changed, share, *counts, None)


def _status(pair: _Pair) -> str | None:
    if pair.a is None:
        return "added"
    if pair.b is None:
        return "removed"
    if not pair.compared:
        return "shape"
    if pair.error is not None:
        return None
    if pair.a.dtype != pair.b.dtype:
        return "dtype"
    return "changed" if pair.sums.changed else "same"
