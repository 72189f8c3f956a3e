"""Statistics of every tensor of a checkpoint in one pass over its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.weights.in_order import Job, batches, in_order, most_held
from analysis.weights.moments import BINS, LOWEST_EXPONENT, ZERO_BIN, Moments
from analysis.weights.rows import frame_of_rows
from analysis.weights.segments import moments_of_each
from analysis.weights.values import dead_of, numbers, smallest_normal
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import DTYPES, Role, Storage, Tensor

if TYPE_CHECKING:
    from analysis.weights.sweeps import Live

__all__ = ["LARGE", "STATISTICS", "flat_parts", "histogram_edges", "judged_roles", "statistics"]

#: Numbers in a checkpoint from which compiled sweeps pay for loading numba (about 0.6 s; 10 s more where nothing was
#: compiled before); below, NumPy does the work, 17 ns a number.
LARGE = 16_000_000
#: Tensors with fewer numbers are taken together, as many as fit the second-level cache in double precision.
_BATCH = 1 << 16
#: From so many numbers on a compiled sweep of one tensor (some 30 microseconds at least) costs less than NumPy's share.
_TINY = 1 << 10

#: Columns of `statistics`; its docstring says what they hold.
STATISTICS = pl.Schema(
    {
        "name": pl.String(),
        "parameter": pl.String(),
        "role": pl.String(),
        "state": pl.String(),
        "dtype": pl.String(),
        "shape": pl.List(pl.Int64()),
        "elements": pl.Int64(),
        "bytes": pl.Int64(),
        "mean": pl.Float64(),
        "std": pl.Float64(),
        "norm": pl.Float64(),
        "minimum": pl.Float64(),
        "maximum": pl.Float64(),
        "zeros": pl.Float64(),
        "nan": pl.Int64(),
        "inf": pl.Int64(),
        "subnormals": pl.Int64(),
        "dead_rows": pl.Int64(),
        "dead_columns": pl.Int64(),
        "kurtosis": pl.Float64(),
        "histogram": pl.List(pl.Int64()),
        "error": pl.String(),
    }
)


@dataclass
class _Taken:
    """What is known of a tensor so far."""

    tensor: Tensor
    moments: Moments = field(default_factory=Moments)
    dead: tuple[int, int] | None = None
    live: Live | None = None
    error: str | None = None

    @cached_property
    def nbytes(self) -> int:
        return self.tensor.nbytes


_Found = Sequence[tuple[_Taken, Moments]]
_Job = Job[Sequence[_Taken], _Found]


def statistics(
    checkpoint: Checkpoint,
    *,
    roles: Iterable[Role] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pl.DataFrame:
    """One row a tensor, in the checkpoint's order, from one pass over its bytes with all cores.

    name, parameter, role, state, dtype, shape, elements and bytes (of the stored values) are known without reading.

    - mean, std (divisor n), norm (L2), minimum, maximum and kurtosis (excess, biased, as `scipy.stats.kurtosis`; null
      without spread) are those of the finite numbers, and null where there are none. They are right in double
      precision, but for float32 and bfloat16 in large checkpoints on processors with AVX-512: there std and norm are
      right to about 1e-8 (1e-6 at the very worst: few distinct values, numbers in order), the mean to as much of std,
      and kurtosis + 3 to four times that;
    - nan, inf and subnormals are counts, zeros the share of all numbers that are exactly zero (of either sign);
    - dead_rows and dead_columns count the slices of the first and of the second dimension that are all zero (outputs
      and inputs of a linear layer or a convolution); null below two dimensions;
    - histogram counts the finite numbers by sign and power of two, in bins that are the same for all tensors
      (`histogram_edges`), so that they can be compared over time;
    - error says why the bytes of a tensor could not be read; all that is read from them is null then.

    `roles` are those wanted (default: all). `progress` is called with (bytes done, bytes in all, name of the tensor).
    A complex number counts as two, its real and imaginary part, so that the norm is that of the complex vector; a
    sparse tensor's missing values are zeros like others (its dead rows are not known: null); quantised values are
    scaled. A tensor without values (of no elements, or of torch's meta device) has counts of 0 and is null elsewhere.
    Tensors are read one after another and their pages given back: memory stays within about twice the largest tensor.
    Raises ValueError for an unknown role.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "w.bin"
    ...     _ = file.write_bytes(np.array([[3, 4], [0, 0]], "<f4").tobytes())
    ...     weight = Tensor("layer.weight", "float32", (2, 2), Storage(file, 0, 16))
    ...     with Checkpoint(file, "example", (weight,)) as checkpoint:
    ...         table = statistics(checkpoint)
    >>> table.select("name", "mean", "norm", "zeros", "dead_rows", "dead_columns").row(0)
    ('layer.weight', 1.75, 5.0, 0.5, 1, 0)
    """
    wanted = judged_roles(roles)
    taken = [_Taken(tensor) for tensor in checkpoint.tensors if tensor.role in wanted]
    compiled = sum(one.tensor.count for one in taken) >= LARGE
    total, done = sum(one.nbytes for one in taken), 0
    jobs = _jobs(checkpoint, taken, compiled=compiled)
    for owners, found in in_order(jobs, most_held(one.nbytes for one in taken)):
        for one, moments in (pair for several in found for pair in several):
            one.moments += moments
        for one in owners:
            if one.live is not None:
                one.dead = one.live.dead()
                one.live = None
            done += one.nbytes
        for tensor in _spans([one.tensor for one in owners]):
            checkpoint.release(tensor)
        if progress is not None:
            progress(done, total, owners[-1].tensor.name)
    return _frame(taken)


def histogram_edges() -> NDArray[np.float64]:
    """Edges of the histogram's 129 bins, rising, all finite but the outermost.

    Bin 64 holds exact zeros; bin 64 + j holds 2**(j - 49) <= x < 2**(j - 48) and bin 64 - j the same of -x, but that
    bin 65 (63) begins at zero and the last (first) has no end.

    >>> edges = histogram_edges()
    >>> len(edges), edges[[64, 65, 114]].tolist()
    (130, [0.0, 0.0, 2.0])
    """
    powers = np.ldexp(1.0, np.arange(LOWEST_EXPONENT + 1, LOWEST_EXPONENT + ZERO_BIN))
    upper = np.concatenate([[0.0], powers, [np.inf]])
    edges = np.concatenate([-upper[::-1], upper])
    assert len(edges) == BINS + 1
    return edges + 0.0  # no negative zero


def judged_roles(roles: Iterable[Role] | None) -> tuple[Role, ...]:
    """The roles asked for, checked; all where none are."""
    known: tuple[Role, ...] = get_args(Role)
    if roles is None:
        return known
    chosen: tuple[str, ...] = (roles,) if isinstance(roles, str) else tuple(roles)
    if unknown := [role for role in chosen if role not in known]:
        raise ValueError(f"unknown role {unknown[0]!r}; known: {', '.join(known)}")
    return tuple(role for role in known if role in chosen)


def flat_parts(raw: NDArray[np.generic]) -> NDArray[np.generic]:
    """Stored values in one dimension, in row-major order; complex ones as their parts. A view where it can be one."""
    flat = np.ascontiguousarray(raw).reshape(-1)
    return flat.view(f"f{raw.dtype.itemsize // 2}") if raw.dtype.kind == "c" else flat


def _jobs(checkpoint: Checkpoint, taken: Sequence[_Taken], *, compiled: bool) -> Iterator[_Job]:
    """Each large tensor by itself, small ones in batches, also those with large ones between them."""

    def large(one: _Taken) -> bool:
        return one.tensor.count >= _BATCH

    for several in batches(taken, lambda one: one.tensor.count, alone=large, most=_BATCH):
        if large(several[0]):
            opened = partial(_open_sweeps if compiled else _open_parts, checkpoint, several[0])
        else:
            opened = partial(_open_batch, checkpoint, several, compiled)
        yield Job(several, sum(one.nbytes for one in several), opened)


def _open_batch(checkpoint: Checkpoint, several: Sequence[_Taken], compiled: bool) -> list[Callable[[], _Found]]:
    arrays = [(one, raw) for one in several if (raw := _read(checkpoint, one)) is not None]

    def take() -> _Found:
        for one, raw in arrays:
            one.dead = dead_of(raw, one.tensor)
        return _sweep(arrays) if compiled else _take(arrays)

    return [take]


def _sweep(arrays: Sequence[tuple[_Taken, NDArray[np.generic]]]) -> _Found:
    """Tensors of some thousand numbers by compiled sweeps, smaller ones together by NumPy."""
    from analysis.weights.sweeps import moments_of_part

    swept = [(one, moments_of_part(flat_parts(raw), one.tensor)) for one, raw in arrays if raw.size >= _TINY]
    return [*swept, *_take([(one, raw) for one, raw in arrays if raw.size < _TINY])]


def _open_parts(checkpoint: Checkpoint, one: _Taken) -> list[Callable[[], _Found]]:
    """A large tensor of a small checkpoint, by NumPy."""
    raw = _read(checkpoint, one)
    if raw is None:
        return []
    one.dead = dead_of(raw, one.tensor)
    flat = np.ascontiguousarray(raw).reshape(-1)
    return [partial(_take, [(one, flat[start : start + _BATCH])]) for start in range(0, len(flat), _BATCH)]


def _take(arrays: Sequence[tuple[_Taken, NDArray[np.generic]]]) -> _Found:
    values = [numbers(raw, one.tensor) for one, raw in arrays]
    moments = moments_of_each(values, [smallest_normal(one.tensor.dtype) for one, _ in arrays])
    return [(one, found) for (one, _), found in zip(arrays, moments, strict=True)]


def _open_sweeps(checkpoint: Checkpoint, one: _Taken) -> list[Callable[[], _Found]]:
    """A large tensor of a large checkpoint, by compiled sweeps over its parts."""
    from analysis.weights.sweeps import Live, moments_of_part, part_length

    raw = _read(checkpoint, one)
    if raw is None:
        return []
    tensor, flat = one.tensor, flat_parts(raw)
    if len(tensor.shape) >= 2 and tensor.layout == "strided":
        one.live = Live(tensor.shape, len(flat) // tensor.elements)

    def take(start: int, stop: int) -> _Found:
        part = flat[start:stop]
        moments = moments_of_part(part, tensor)
        if one.live is not None:
            one.live.mark(part, start, tensor, int(moments.histogram[ZERO_BIN]))
        return [(one, moments)]

    length = part_length(flat)
    return [partial(take, start, min(start + length, len(flat))) for start in range(0, len(flat), length)]


def _read(checkpoint: Checkpoint, one: _Taken) -> NDArray[np.generic] | None:
    try:
        return checkpoint.array(one.tensor)
    except InputError as error:
        one.error = str(error)
        return None


def _spans(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Tensors whose pages are those of all these: of many one for each file, as each costs a system call."""
    if len(tensors) == 1:
        return tensors
    found: dict[Path, tuple[int, int]] = {}
    for storage in (one for tensor in tensors for one in (tensor.storage, *(p.storage for p in tensor.pieces)) if one):
        first, last = found.get(storage.file, (storage.start, storage.start))
        end = storage.start + (storage.nbytes if storage.packed is None else storage.packed)
        found[storage.file] = min(first, storage.start), max(last, end)
    return [
        Tensor("", "uint8", (last - first,), Storage(file, first, last - first))
        for file, (first, last) in found.items()
    ]


def _frame(taken: Sequence[_Taken]) -> pl.DataFrame:
    """The histograms go in as one array: Polars takes long to look through rows that hold long lists."""
    schema = pl.Schema({name: kind for name, kind in STATISTICS.items() if name != "histogram"})
    frame = frame_of_rows((_row(one) for one in taken), schema)
    tallies = np.array([one.moments.histogram for one in taken], np.int64).reshape(-1, BINS)
    histogram = pl.Series("histogram", tallies).cast(STATISTICS["histogram"])
    unknown = pl.col("error").is_not_null()
    with_histogram = frame.with_columns(histogram).with_columns(
        histogram=pl.when(unknown).then(None).otherwise(pl.col("histogram"))
    )
    return with_histogram.select(list(STATISTICS))


def _row(one: _Taken) -> tuple[object, ...]:
    """All columns but the histogram."""
    tensor, moments = one.tensor, one.moments
    named = (tensor.name, tensor.parameter, tensor.role, tensor.state, tensor.dtype)
    known = (*named, list(tensor.shape), tensor.elements, tensor.nbytes)
    if one.error is not None:
        return (*known, *[None] * (len(STATISTICS) - len(known) - 2), one.error)
    complex_parts = 2 if DTYPES[tensor.dtype].kind == "complex" else 1
    if tensor.layout == "sparse":  # values may be stored twice
        moments = one.moments = moments + Moments.zeros(max(0, tensor.elements - tensor.count) * complex_parts)
    seen = moments.finite + moments.nan + moments.inf
    return (
        *known,
        moments.average,
        moments.deviation,
        moments.norm,
        moments.minimum if moments.finite else None,
        moments.maximum if moments.finite else None,
        int(moments.histogram[ZERO_BIN]) / seen if seen else None,
        moments.nan,
        moments.inf,
        moments.subnormal,
        *(one.dead or (None, None)),
        moments.kurtosis,
        None,
    )
