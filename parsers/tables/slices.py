"""A lazy table of scalars over files that hold one series after the other: a filter on names reads only its slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from parsers.schema import SCALARS
from parsers.tables.attempts import attempt_of, restarts
from parsers.tables.constants import Constants, constant

__all__ = ["KEYS", "Source", "lazy_slices", "short_slices", "whole_slices"]

#: One row a slice: whose it is, in which source, and which rows of it.
KEYS = pl.Schema(
    [(name, SCALARS[name]) for name in ("run", "rank", "attempt", "split", "metric", "tag")]
    + [("source", pl.Int64()), ("offset", pl.Int64()), ("length", pl.Int64())]
)
_NAMES = ["run", "rank", "attempt", "split", "metric", "tag"]
_ROWS = ["step", "epoch", "time", "value"]
#: Beyond this many slices the names are gathered row by row instead of one small table a slice.
MANY = 1000
#: Up to this many rows, all of them are put together at once: planning a query takes longer.
FEW = 20_000
#: From this many rows on, names are made in a second thread while the numbers are read.
MUCH = 500_000


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that slices point into: `read(columns, offset, length)` gives those of the columns that there are, of some
    of step, epoch, time and value; at least one.
    """

    rows: int
    read: Callable[[list[str], int, int], pl.DataFrame]


def lazy_slices(keys: pl.DataFrame, sources: Sequence[Source]) -> pl.LazyFrame:
    """The scalars of all slices in the order of `keys` (columns `KEYS`), read when collected.

    A filter on run, rank, attempt, split, metric and tag reads the slices that it leaves; any other filter reads all.
    Where the attempt of a key is null, attempts are numbered by where the steps of its slice go back and go on.

    >>> rows = pl.DataFrame({"step": [1, 2], "epoch": [None, None], "time": [None, None], "value": [0.5, 0.25]})
    >>> source = Source(2, lambda columns, offset, length: rows.select(columns).slice(offset, length))
    >>> keys = pl.DataFrame([("r", 0, 0, "", m, m, 0, i, 1) for i, m in enumerate("ab")], schema=KEYS, orient="row")
    >>> lazy_slices(keys, [source]).filter(pl.col("metric") == "b").select("step", "value").collect().row(0)
    (2, 0.25)
    """
    from polars.io.plugins import register_io_source

    names = set(_NAMES) - ({"attempt"} if keys["attempt"].null_count() else set())

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = with_columns or SCALARS.names()
        used = set(wanted) | set(() if predicate is None else predicate.meta.root_names())
        chosen = keys
        if predicate is not None and set(predicate.meta.root_names()) <= names:
            chosen, predicate = keys.filter(predicate), None
        if predicate is None and set(wanted) <= names:  # the keys tell it, and no file is opened
            places = np.repeat(np.arange(chosen.height), chosen["length"].to_numpy())
            yield chosen.select(wanted)[places if n_rows is None else places[:n_rows]]
            return
        needed = {"step", "epoch"} if "attempt" in used - names else set()
        left = n_rows
        for frame in _frames(chosen, sources, [c for c in _ROWS if c in used | needed]):
            found = frame if predicate is None else frame.filter(predicate)
            found = found if left is None else found.head(left)
            left = None if left is None else left - found.height
            yield found.select(wanted)
            if left == 0:
                return

    return register_io_source(read, schema=SCALARS)


def whole_slices(keys: pl.DataFrame, sources: Sequence[Source]) -> pl.DataFrame:
    """The same rows as `lazy_slices` gives when all of it is collected, without copying them once more.

    >>> whole_slices(KEYS.to_frame(), []).height
    0
    """
    frames = list(_frames(keys, sources, _ROWS))
    return pl.concat(frames, rechunk=False) if frames else SCALARS.to_frame()


def short_slices(keys: pl.DataFrame, sources: Sequence[Source]) -> pl.DataFrame | None:
    """The same rows, where the sources hold few (`FEW`) and the attempts are known; else None.

    >>> rows = pl.DataFrame({"step": [1], "epoch": [None], "time": [None], "value": [0.5]})
    >>> keys = pl.DataFrame([("r", 0, 0, "", "loss", "loss", 0, 0, 1)], schema=KEYS, orient="row")
    >>> short_slices(keys, [Source(1, lambda columns, offset, length: rows.slice(offset, length))])["value"].to_list()
    [0.5]
    """
    lengths = keys["length"].to_numpy()
    total = int(lengths.sum())
    if not 0 < sum(source.rows for source in sources) <= FEW or keys["attempt"].null_count():
        return None
    begins = np.cumsum([0, *(source.rows for source in sources)])[keys["source"].to_numpy()] + keys["offset"].to_numpy()
    key = np.repeat(np.arange(keys.height), lengths)
    place = np.arange(total) - (np.cumsum(lengths) - lengths)[key] + begins[key]
    read = [source.read(_ROWS, 0, source.rows) for source in sources if source.rows]
    rows = read[0] if len(read) == 1 else pl.concat(read)
    columns = []
    for name, dtype in SCALARS.items():
        if name in _ROWS and name not in rows.columns:
            columns.append(constant(name, dtype, None, total))
        else:
            columns.append((rows[name][place] if name in _ROWS else keys[name][key]).cast(dtype))
    return pl.DataFrame(columns)


def _frames(keys: pl.DataFrame, sources: Sequence[Source], columns: list[str]) -> Iterator[pl.DataFrame]:
    columns = columns or ["value"]
    reader, constants = _Reader(keys, sources, columns), Constants()
    if keys.height > MANY and not keys["attempt"].null_count():
        yield _gathered(keys, reader, columns)
        return
    if int(keys["length"].sum()) < MUCH:
        _prepare(constants, keys)
    else:
        with ThreadPoolExecutor(1) as beside:  # while the first source is read: both wait for memory
            making = beside.submit(_prepare, constants, keys)
            reader.read_ahead()
            making.result()
    for key in keys.iter_rows(named=True):
        rows = reader.rows(key["source"], key["offset"], key["length"])
        made = {name: constants.column(name, KEYS[name], key[name], rows.height) for name in _NAMES}
        for name in columns:
            there = name in rows.columns
            made[name] = rows[name] if there else constants.column(name, SCALARS[name], None, rows.height)
        if key["attempt"] is None and "step" in made:
            if made["step"].is_sorted():  # the common case, told without a table of records
                made["attempt"] = constants.column("attempt", KEYS["attempt"], 0, rows.height)
            else:
                made["attempt"] = _attempts(rows)
        # in their order at once: select would first make one piece of each column
        yield pl.DataFrame([made[name] for name in SCALARS if name in made])


def _attempts(rows: pl.DataFrame) -> pl.Series:
    frame = rows if "epoch" in rows.columns else rows.with_columns(epoch=pl.lit(None, dtype=pl.Float64))
    order = pl.Series("order", np.arange(frame.height))
    one = frame.select("step", "epoch").with_columns(order, rank=pl.lit(0), series=pl.lit(""))
    opened = restarts(one)
    return pl.Series("attempt", attempt_of(np.zeros(frame.height, np.int32), order.to_numpy(), opened))


def _prepare(constants: Constants, keys: pl.DataFrame) -> None:
    """Make the names of all slices, each as long as the longest slice that has it."""
    for name in _NAMES:
        longest: dict[str | int | None, int] = {}
        for value, length in zip(keys[name].to_list(), keys["length"].to_list(), strict=True):
            longest[value] = max(length, longest.get(value, 0))
        for value, length in longest.items():
            constants.column(name, KEYS[name], value, length)


class _Reader:
    """Rows of sources: a source of which most is wanted is read once and whole."""

    def __init__(self, keys: pl.DataFrame, sources: Sequence[Source], columns: list[str]) -> None:
        self._sources, self._columns = sources, columns
        wanted, counts = Counter[int](), Counter[int]()
        for source, length in zip(keys["source"].to_list(), keys["length"].to_list(), strict=True):
            wanted[source] += length
            counts[source] += 1
        self._whole = {s for s, n in wanted.items() if n * 2 > sources[s].rows or counts[s] > MANY}
        self._kept: dict[int, pl.DataFrame] = {}

    def read_ahead(self) -> None:
        """Read the first source that is read whole."""
        for source in sorted(self._whole)[:1]:
            self.rows(source, 0, 0)

    def rows(self, source: int, offset: int, length: int) -> pl.DataFrame:
        if source not in self._whole:
            return self._sources[source].read(self._columns, offset, length)
        if source not in self._kept:
            self._kept[source] = self._sources[source].read(self._columns, 0, self._sources[source].rows)
        return self._kept[source].slice(offset, length)


def _gathered(keys: pl.DataFrame, reader: _Reader, columns: Sequence[str]) -> pl.DataFrame:
    rows = [reader.rows(*place) for place in keys.select("source", "offset", "length").iter_rows()]
    names = keys.select(_NAMES)[np.repeat(np.arange(keys.height), keys["length"].to_numpy())]
    whole = pl.concat(rows).hstack(names.get_columns())
    absent = [pl.lit(None, dtype=SCALARS[name]).alias(name) for name in columns if name not in whole.columns]
    return whole.with_columns(absent).select(name for name in SCALARS if name in {*_NAMES, *columns})
