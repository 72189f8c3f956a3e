"""TensorBoard event files: scalars, text, hparams and histograms, without TensorFlow, TensorBoard or protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from eventstream.errors import InputError
from parsers.finish import Reject, finish
from parsers.naming.names import resolve
from parsers.places.beside import folder_name, load_beside, run_name
from parsers.run import Run
from parsers.tables.events import event_frame, payload_text
from parsers.tables.rows import row_frame
from parsers.tables.slices import KEYS, Source, lazy_slices, short_slices
from parsers.tfevents.attempts import Follower, boundaries
from parsers.tfevents.events import Columns, EventFile, PlainWalker, Tags, join
from parsers.tfevents.folder import HEAD, MARK, Part, event_files, is_event_file, layout
from parsers.tfevents.records import Damage, Walker, walk_file

__all__ = ["owned", "read", "sniff"]

HPARAMS = "hparams.yaml"
#: Wall times that a date can say: after 1970 and before the year 3000. Writers that know none leave 0.
_LATEST = 32_503_680_000.0
_NO_TIME = -(2**62)
#: Numbers of one file from which on grouping by tag is worth compiled code (which the compiled walk has loaded then).
COMPILED = 1_000_000


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins an event file, or the folder holds event files of one run."""
    if head or not path.is_dir():
        return is_event_file(path.name, head)
    try:
        files = [file for part in layout(path) for file in part.files]
    except OSError:
        return False  # a folder that cannot be listed holds nothing that can be read
    return any(is_event_file(file.name, _head(file)) for file in files)


def owned(folder: Path) -> set[str]:
    """Names of the event files of a folder, and of the sub-folders that are read with them."""
    return {part.name.split("/")[0] if part.name else file.name for part in layout(folder) for file in part.files}


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def read(path: Path | str, *, histograms: bool = False) -> Run:
    """The run in an event file, or in a folder of event files with the sub-folders that its writer opened.

    Scalars are `simple_value` and tensors of one number; the tag is kept, the step as logged (0 where none is), the
    time is the event's. Of `add_scalars("loss", {"a": ...})` the tag is `loss/a`; sub-folders `train`, `validation` and
    the like give the split. `histograms=True` adds for each histogram the scalars `<tag>/min`, `/max`, `/p5`, `/p25`,
    `/p50`, `/p75`, `/p95` (a straight line inside each bucket); without it histograms are counted in one event a tag,
    as images, audio and graphs always are. Texts are events of kind `text`. The hparams plugin, and texts called
    `args`, `config` or `model_config` that hold JSON, become the configuration, with `hparams.yaml` beside.

    Files are taken in the order in which they were begun. Another attempt begins at a file that goes on with the tags
    of one that had ended, at a SessionLog START, and where the steps of a tag go back and go on from there; files that
    wrote one tag at the same time are merged by their wall times.

    Both checksums of every record are checked. A damaged record is a reject with its offset in bytes; reading goes on
    at the next record with a whole header. A file cut inside a record gives all records before the cut and a reject.
    Large files (beyond 2 MiB) are walked by compiled code, smaller ones in plain Python: the numbers are the same.
    Raises `InputError` where the path cannot be read, or a folder holds no run or several.

    >>> import tempfile
    >>> from parsers.tfevents.write import record, scalar_event
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "exp-1.tfevents")
    ...     events = [scalar_event("train/loss", 0.5, step, 1.7e9 + step) for step in (1, 2)]
    ...     _ = path.write_bytes(b"".join(map(record, events))[:-3])
    ...     run = read(path)
    >>> print(run, run.rejects["reason"][0])
    <Run exp-1: 1 scalars in 1 series, steps 1 to 1, 0 events, 1 rejects (tensorboard)> the file ends inside ...
    """
    return _Run(Path(path) if isinstance(path, str) else path, histograms).read()


@dataclass(slots=True)
class _Run:
    """What is read of one run so far."""

    path: Path
    histograms: bool
    tags: Tags = field(default_factory=Tags)
    sources: list[Source] = field(default_factory=list)
    keys: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def read(self) -> Run:
        folder = self.path.is_dir()
        name = folder_name(self.path) if folder else run_name(self.path)
        self._beside(self.path if folder else self.path.parent)
        for part in self._parts():
            self._part(part)
        self.keys.sort(key=lambda key: (key[1], key[2], key[0], key[3]))
        rows = [(name, 0, attempt, split, metric, tag, *where) for tag, attempt, split, _, metric, *where in self.keys]
        keys = row_frame(rows, KEYS)
        short = short_slices(keys, self.sources)
        scalars = lazy_slices(keys, self.sources) if rows and short is None else short
        return finish(
            name, str(self.path), "tensorboard", scalars, events=event_frame(self.events),
            rejects=self.rejects, config=self.config, ready=short is not None,
        )  # fmt: skip

    def _beside(self, folder: Path) -> None:
        """Lightning's logger writes the configuration beside its event files."""
        found, self.rejects = load_beside(folder, [HPARAMS])
        self.config |= found.get(HPARAMS, {})

    def _parts(self) -> list[Part]:
        if not self.path.is_dir():
            return [Part((self.path,))]
        parts = layout(self.path) or [Part(tuple(event_files(self.path)))]
        if not parts[0].files:
            raise InputError(f"{self.path}: no event files here; name a folder that holds files called *{MARK}*")
        return parts

    def _part(self, part: Part) -> None:
        files = [self._file(path) for path in part.files]
        files.sort(key=lambda file: (file.began is None, file.began or 0.0))
        follower = Follower()
        for together, pieces in _merged(files):
            self._add(part, together, pieces, follower)
        for file in files:
            self.config |= file.config
            self.rejects += file.damage.all()

    def _file(self, path: Path) -> EventFile:
        file = EventFile(self.tags, Damage(str(path)), self.histograms)
        walk_file(path, lambda small: PlainWalker(file) if small else _compiled(file), file.damage)
        return file

    def _add(self, part: Part, files: list[EventFile], pieces: list[Columns], follower: Follower) -> None:
        """One source: a file, or several that were written at the same time."""
        grouped = _Grouped(pieces, len(self.tags.names))
        ended = max(file.ended for file in files)
        first = follower.first_attempt(grouped.tags, files[0].began or 0.0, ended, _steps(pieces))
        opened = boundaries(grouped.backward(), files[0].starts if len(files) == 1 else (), grouped.size)
        follower.last += len(opened)
        order = len(self.sources)
        self.sources.append(grouped.source())
        for number, attempt, offset, length in grouped.slices(opened):
            tag = part.tag(self.tags.names[number])
            own, metric = resolve(tag, part.split)
            self.keys.append((tag, first + attempt, own, order, metric, order, offset, length))
        for file in files:
            for place, step, wall, kind, payload in file.all_events():
                attempt = first + int(np.searchsorted(opened, place, side="right"))
                time = round(wall * 1e6) if 0 < wall < _LATEST else None
                self.events.append((0, 0, attempt, step, None, time, part.split, kind, payload_text(payload)))


def _compiled(file: EventFile) -> Walker:
    from parsers.tfevents.fast import CompiledWalker

    return CompiledWalker(file)


def _steps(pieces: list[Columns]) -> tuple[int, int] | None:
    """The smallest and the largest step; None without any."""
    known = [steps for _, steps, _, _ in pieces if len(steps)]
    return (min(int(s.min()) for s in known), max(int(s.max()) for s in known)) if known else None


def _merged(files: list[EventFile]) -> Iterator[tuple[list[EventFile], list[Columns]]]:
    """Files one by one, those that wrote the same tag at the same time joined by their wall times."""
    waiting: list[tuple[EventFile, list[Columns]]] = []
    ended = Follower()
    for file in files:
        pieces = file.pieces()
        tags = np.flatnonzero(_counts(pieces)).tolist()
        if waiting and not ended.overlaps(tags, file.began or 0.0):
            yield _joined(waiting)
            waiting, ended = [], Follower()
        waiting.append((file, pieces))
        ended.first_attempt(tags, file.began or 0.0, file.ended)
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[EventFile, list[Columns]]]) -> tuple[list[EventFile], list[Columns]]:
    files = [file for file, _ in parts]
    if len(parts) == 1:
        return files, parts[0][1]
    tags, steps, walls, values = join([piece for _, pieces in parts for piece in pieces])
    order = np.argsort(walls, kind="stable")
    return files, [(tags[order], steps[order], walls[order], values[order])]


def _counts(pieces: list[Columns], known: int = 0) -> npt.NDArray[np.int64]:
    """How many numbers each tag has."""
    total = np.zeros(max(known, *(int(tags.max(initial=-1)) + 1 for tags, *_ in pieces)), np.int64)
    for tags, *_ in pieces:
        if len(tags) * 8 > len(total):
            total += np.bincount(tags, minlength=len(total))
        else:  # little pieces, as after damage: the sum over all tags would cost more than they hold
            np.add.at(total, tags, 1)
    return total


class _Grouped:
    """The numbers of one source, those of a tag together in their order."""

    def __init__(self, pieces: list[Columns], known: int) -> None:
        self._pieces = pieces
        self._counts = _counts(pieces, known)
        self.size = int(self._counts.sum())
        self._firsts = np.cumsum(self._counts) - self._counts
        self.tags: list[int] = np.flatnonzero(self._counts).tolist()
        self.steps, self._times = np.empty(self.size, np.int64), np.empty(self.size, np.int64)
        self._values = np.empty(self.size)
        if self.size >= COMPILED:
            self._scatter()
        else:
            _, steps, walls, values = join(pieces)
            order = self._order()
            self.steps, self._times, self._values = steps[order], _times(walls[order]), values[order]

    def _scatter(self) -> None:
        from parsers.tfevents.kernel import group

        places, into = self._firsts.copy(), (self.steps, self._times, self._values)
        for tags, steps, walls, values in self._pieces:
            group(tags, places, (steps, _times(walls), values), into)

    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(np.concatenate([tags for tags, *_ in self._pieces]), kind="stable")

    def backward(self) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Places in the file and steps of each tag whose step goes back anywhere."""
        falls = np.flatnonzero(self.steps[1:] < self.steps[:-1]) + 1
        inside = falls[~np.isin(falls, self._firsts)]
        if not len(inside):
            return {}
        order = self._order()
        found = np.unique(np.searchsorted(self._firsts, inside, side="right") - 1).tolist()
        return {tag: (order[self._span(tag)], self.steps[self._span(tag)]) for tag in found}

    def _span(self, tag: int) -> slice:
        first = int(self._firsts[tag])
        return slice(first, first + int(self._counts[tag]))

    def slices(self, opened: list[int]) -> Iterator[tuple[int, int, int, int]]:
        """Tag, attempt, first row and length of each series, `opened` being the places where attempts begin."""
        order = self._order() if opened else None
        for tag in self.tags:
            span = self._span(tag)
            cuts = [] if order is None else np.searchsorted(order[span], opened).tolist()
            edges = [0, *cuts, span.stop - span.start]
            for attempt, (start, stop) in enumerate(pairwise(edges)):
                if stop > start:
                    yield tag, attempt, span.start + start, stop - start

    def source(self) -> Source:
        """The rows as slices read them."""
        time = pl.Series("time", self._times)
        if self.size and int(self._times.min()) == _NO_TIME:
            time = time.to_frame().select(pl.when(pl.col("time") != _NO_TIME).then("time").alias("time")).to_series()
        known = {
            "step": pl.Series("step", self.steps),
            "time": time.cast(pl.Datetime("us", "UTC")),
            "value": pl.Series("value", self._values),
        }

        def read(columns: list[str], offset: int, length: int) -> pl.DataFrame:
            there = [known[c].slice(offset, length) for c in columns if c in known]
            return pl.DataFrame(there or [pl.Series("epoch", [None] * length, dtype=pl.Float64)])

        return Source(self.size, read)


def _times(walls: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Microseconds since 1970; `_NO_TIME` for what is no time at all."""
    valid = (walls > 0) & (walls < _LATEST)
    if valid.all():
        return np.rint(walls * 1e6).astype(np.int64)
    return np.where(valid, np.rint(np.where(valid, walls, 0.0) * 1e6).astype(np.int64), _NO_TIME)
