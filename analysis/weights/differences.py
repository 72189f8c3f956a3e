"""What changed from one checkpoint to another, tensor by tensor, in one pass over both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.weights.in_order import Job, batches, in_order, most_held
from analysis.weights.pair_segments import sums_of_each
from analysis.weights.pair_sums import PairSums, compiled_sums, plain_sums
from analysis.weights.rows import frame_of_rows
from analysis.weights.statistics import LARGE, flat_parts, judged_roles
from analysis.weights.values import numbers
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Role, Tensor

__all__ = ["COMPARED", "DIFFERENCES", "differences", "matched", "tables_of"]

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
#: Roles of the tensors that are compared unless others are asked for.
COMPARED: tuple[Role, ...] = ("weights", "ema")
#: Numbers compared at a time: of compiled sweeps, of those that convert before, and by NumPy.
_SWEPT, _CONVERTED, _PLAIN = 1 << 21, 1 << 17, 1 << 16
#: Types that are swept as they are stored.
_AS_STORED = ("bfloat16", "float32", "float64", "complex64", "complex128")


#: Numbers of pairs that are compared together by NumPy, each of fewer than `_TINY`: they lie in the cache.
_BATCH, _TINY = 1 << 13, 1 << 10

_Found = list[tuple["_Pair", PairSums]]
_Matched = Sequence[tuple[Tensor | None, Tensor | None]]


@dataclass(slots=True, eq=False)
class _Pair:
    """A tensor of `a`, the one of `b` that it became, and what is known of both."""

    a: Tensor | None
    b: Tensor | None
    sums: PairSums = field(default_factory=PairSums)
    error: str | None = None
    compared: bool = field(init=False)
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        a, b = self.a, self.b
        self.compared = (
            a is not None
            and b is not None
            and (a.shape, a.layout, a.stored) == (b.shape, b.layout, b.stored)
            and (a.dtype.startswith("complex") == b.dtype.startswith("complex"))
        )
        self.nbytes = sum(one.nbytes for one in (a, b) if one is not None) if self.compared else 0


def differences(
    a: Checkpoint,
    b: Checkpoint,
    *,
    roles: Iterable[Role] = COMPARED,
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
    return tables_of([matched(a, b, judged_roles(roles))], a, b, progress=progress)[0]


def tables_of(
    several: Sequence[_Matched],
    a: Checkpoint,
    b: Checkpoint,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[pl.DataFrame]:
    """`differences` of each of several lists of matched tensors, from one pass over all of them.

    `a` and `b` give the bytes of the first and of the second of each two: of checkpoints that are joined, where the
    lists are those of several pairs.
    """
    lists = [[_Pair(*tensors) for tensors in matches] for matches in several]
    pairs = [pair for of_one in lists for pair in of_one]
    compiled = sum(pair.a.count for pair in pairs if pair.a is not None and pair.compared) >= LARGE
    total, done = sum(pair.nbytes for pair in pairs), 0
    jobs = _jobs((pair for pair in pairs if pair.compared), a, b, compiled=compiled)
    for owners, results in in_order(jobs, most_held(pair.nbytes for pair in pairs)):
        for pair, sums in (one for found in results for one in found):
            pair.sums += sums
        for pair in owners:
            assert pair.a is not None and pair.b is not None
            a.release(pair.a)
            b.release(pair.b)
            done += pair.nbytes
            if progress is not None:
                progress(done, total, pair.a.name)
    return _sorted(frame_of_rows((_row(pair) for pair in pairs), DIFFERENCES), [len(of_one) for of_one in lists])


def _sorted(table: pl.DataFrame, counts: Sequence[int]) -> list[pl.DataFrame]:
    """The rows of each list by themselves, those that changed most first."""
    lists = pl.Series("list", np.repeat(np.arange(len(counts)), counts))
    by = ("list", "update_ratio")
    table = table.with_columns(lists).sort(by, descending=[False, True], nulls_last=True, maintain_order=True)
    table, starts = table.drop("list"), np.cumsum([0, *counts])[:-1].tolist()
    return [table.slice(start, count) for start, count in zip(starts, counts, strict=True)]


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


def _jobs(
    pairs: Iterable[_Pair], a: Checkpoint, b: Checkpoint, *, compiled: bool
) -> Iterator[Job[Sequence[_Pair], _Found]]:
    """Each pair by itself, but where NumPy sums tiny ones together, also those with larger ones between them.

    A compiled sweep over one pair costs no more than its share of what NumPy does to many.
    """

    def count(pair: _Pair) -> int:
        return 0 if pair.a is None else pair.a.count

    def alone(pair: _Pair) -> bool:
        return compiled or count(pair) >= _TINY

    for several in batches(pairs, count, alone=alone, most=_BATCH):
        opened = (
            partial(_open, several[0], a, b, compiled) if alone(several[0]) else partial(_open_batch, several, a, b)
        )
        yield Job(several, sum(pair.nbytes for pair in several), opened)


def _open_batch(several: Sequence[_Pair], a: Checkpoint, b: Checkpoint) -> Sequence[Callable[[], _Found]]:
    arrays = [(pair, found) for pair in several if (found := _read(pair, a, b)) is not None]

    def take() -> _Found:
        values = [(numbers(x, pair.a), numbers(y, pair.b)) for pair, (x, y) in arrays if pair.a and pair.b]
        return list(zip((pair for pair, _ in arrays), sums_of_each(values), strict=True))

    return [take]


def _open(pair: _Pair, a: Checkpoint, b: Checkpoint, compiled: bool) -> Sequence[Callable[[], _Found]]:
    assert pair.a is not None and pair.b is not None
    found = _read(pair, a, b)
    if found is None:
        return []
    x, y = _in_one_dimension(*found)
    if compiled:
        stored = pair.a.dtype == pair.b.dtype and pair.a.dtype in _AS_STORED
        sums_of, length = compiled_sums, _SWEPT if stored else _CONVERTED
    else:
        sums_of, length = plain_sums, _PLAIN
    one, other = pair.a, pair.b

    def take(p: NDArray[np.generic], q: NDArray[np.generic]) -> _Found:
        return [(pair, sums_of(p, q, one, other))]

    return [partial(take, p, q) for p, q in _parts(x, y, length)]


def _read(pair: _Pair, a: Checkpoint, b: Checkpoint) -> tuple[NDArray[np.generic], NDArray[np.generic]] | None:
    assert pair.a is not None and pair.b is not None
    try:
        return a.array(pair.a), b.array(pair.b)
    except InputError as error:
        pair.error = str(error)
        return None


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
