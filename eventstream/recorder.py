"""`Recorder`, what a training imports: every record is with the operating system when the call returns."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from eventstream import manifest
from eventstream.abandoned import close_gone
from eventstream.background import Sealer, leftovers
from eventstream.chores import Chores
from eventstream.deferred import HostCopy, Pending, copies_of, on_device
from eventstream.errors import InputError, PlanError
from eventstream.event_methods import EventMethods
from eventstream.late import Late, split_late
from eventstream.lines import LINE, fast_dumps, strict_line
from eventstream.living import enter_folder, remember
from eventstream.mirrors import About, Mirror, Mirrors
from eventstream.records import encode_numbers, non_finite_name
from eventstream.segments import SegmentWriter
from eventstream.starting import end_status, error_text, processes_of_job, rank_of, run_folder
from eventstream.troubles import Troubles, never_raises
from eventstream.values import plain_text, to_int, to_number
from eventstream.vectors import VectorStore

__all__ = ["Recorder", "open_recorder"]

SEGMENT_BYTES = 64 * 2**20
_NUMBERS = {int, float}
_newest: weakref.ref[Recorder] | None = None


class Recorder(EventMethods):
    """Writes the event stream of one training process into a run folder (`docs/event-stream.md`).

    `path` is the run's folder, made where it is missing; a folder that holds the run already is continued as the next
    attempt. `config` (mapping, dataclass or namespace) and `plan` go into the manifest; `run` is the name, the folder's
    unless given. `rank` is the process among many: unless given the environment's `RANK` (torchrun sets it), else that
    of `torch.distributed` where it is set up, else 0. Each rank has its own files and only rank 0 the manifest. A
    segment of `segment_bytes` (64 MiB: two to three million numbers, sealed in seconds) is followed by the next; with
    `seal` full segments become Parquet in the background and the last
    one in `close`, where pyarrow is installed.

    `mirrors` are given every record besides (`TextLog`, `TensorBoardMirror`, `WandbMirror`, or anything with
    `write(record)` and `close()`), by the recorder of rank 0 alone, and closed with it. One that fails is warned of and
    given nothing more; neither the training nor the stream feels it.

    Construction raises InputError or PlanError where it is given what cannot be right (a path that is a file, a plan
    that is no mapping, a folder that cannot be written, a run of a newer version, a folder where a living recorder has
    this rank: what a dead one left is continued). After that no call raises: what
    cannot be recorded is warned of once for each kind of trouble (`RecordingWarning`), the rest of the record and of
    the run is kept, and `lost` counts what was left out. (A program whose filters turn warnings into errors gets this
    one as an error too.) Steps are whole numbers or None; numbers may be NumPy scalars, one-element tensors and arrays,
    booleans (0 and 1), NaN and infinities; None is a missing value. Complex numbers and tensors of several elements
    are no numbers.

    `log` never waits for a device: a record with a tensor of a GPU is written, with the time of its call, once the
    number has arrived, which later calls look for; at most 64 such records wait, and `flush` and `close` wait for
    them. All others are with the operating system when the call returns.

    Threads may share a recorder. A forked child inherits one that refuses to record, and so does a copy that was
    pickled to another process: records come from the process that made it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.mkdtemp()
    >>> with Recorder(folder, config={"lr": 0.1}, seal=False) as rec:
    ...     rec.log(1, {"loss": 2.5, "grad_norm": float("inf")}, split="train")
    >>> lines = (Path(folder) / "rank00000-attempt0000-000000.jsonl").read_text().splitlines()
    >>> lines[1].partition('"split"')[2]
    ':"train","values":{"loss":2.5,"grad_norm":null},"nonfinite":{"grad_norm":"Infinity"}}'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config: object = None,
        plan: Mapping[str, Any] | None = None,
        run: str | None = None,
        rank: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        seal: bool = True,
        mirrors: Iterable[Mirror] = (),
    ) -> None:
        if plan is not None and not isinstance(plan, Mapping):
            raise PlanError(f"plan must be a mapping, got {type(plan).__name__}; see docs/event-stream.md")
        if type(segment_bytes) is not int or segment_bytes < 1:
            raise InputError(f"segment_bytes must be a positive number of bytes, got {segment_bytes!r}")
        #: The run's folder.
        self.path = run_folder(path)
        #: Which process of the training this is.
        self.rank = rank_of(rank)
        self._troubles = Troubles(str(self.path))
        self._dumps = fast_dumps()
        self._mirrors = Mirrors(mirrors, self._troubles)
        self._process = os.getpid()
        self._closing, self._closed = threading.Lock(), False
        self._pending, self._sources = Pending(), list[Callable[[], None]]()
        self._waiting = self._pending.waiting
        #: The optimiser step that the loop is at, for those who record besides it (`watch`); None lets them count.
        self.step: int | None = None
        settings = None if config is None else self._settings(config)
        name = None if run is None else plain_text(run)
        try:
            self._start(name, settings, None if plan is None else self._plain(plan), segment_bytes, seal)
        except OSError as error:
            reason = f"{error.strerror or error}"
            raise InputError(
                f"{self.path}: no run can be recorded here ({reason}); give a folder to write to"
            ) from error
        if settings is not None:
            self.event("config", settings)
        remember(self)
        global _newest
        _newest = weakref.ref(self)

    def _start(self, run: str | None, config: Any, plan: Any, segment_bytes: int, seal: bool) -> None:
        close_gone()  # one of them may have been recording here
        self.path.mkdir(parents=True, exist_ok=True)
        manifest.refuse_newer(self.path)
        keep = self._troubles.keep
        self._sealer = Sealer(wanted=seal, trouble=keep)
        writer = functools.partial(SegmentWriter, full=self._sealer.add, trouble=keep)
        self._segments = enter_folder(self.path, self.rank, lambda: writer(self.path, self.rank, segment_bytes))
        self._append: Callable[[bytes], None] = self._segments.write
        #: How often this rank was started in this folder before.
        self.attempt = self._segments.attempt
        try:
            if self.rank == 0:
                add = functools.partial(manifest.add_attempt, processes=processes_of_job(), trouble=self._troubles.say)
                add(self.path, self.attempt, run=run, config=config, plan=plan)
        except BaseException:
            self._segments.withdraw()
            raise
        self._chores = Chores(self._troubles.lose_later)
        stem = f"rank{self.rank:05d}-attempt{self.attempt:04d}"
        self._vectors = VectorStore(self.path, stem, later=self._chores.add, trouble=keep)
        self._sealer.add_leftovers(leftovers(self.path, self.rank, self.attempt))
        if self._mirrors and self.rank == 0:
            self._mirrors.begin(About(run or self.path.name, self.path, self.attempt, plan or {}))
            self._append = self._mirrors.after(self._append)

    @property
    def closed(self) -> bool:
        """Whether nothing can be recorded any more: after `close`, and in a copy or a forked child."""
        return self._closed or self._process != os.getpid()

    @property
    def lost(self) -> int:
        """How many records and values could not be recorded so far."""
        return self._troubles.lost

    def log(self, step: Any, values: Mapping[str, Any], *, split: str = "", epoch: Any = None) -> None:
        """Record numbers by name at an optimiser step, for a split (`train`, `eval`, ...) and an epoch where known."""
        try:
            line = None
            if (
                type(step) is int
                and step.bit_length() < 64
                and type(split) is str
                and (epoch is None or type(epoch) is float)
                and _NUMBERS.issuperset(map(type, values.values()))
            ):
                # One pass for the finite check: a NaN or an infinity anywhere makes the sum one.
                total = sum(values.values(), epoch or 0.0)
                if total - total == 0.0:
                    record = {"kind": "metrics", "step": step, "time": time.time_ns() // 1000 / 1e6}
                    if epoch is not None:
                        record["epoch"] = epoch
                    if split:
                        record["split"] = split
                    record["values"] = values
                    try:
                        line = self._dumps(record, None, LINE)
                    except (TypeError, ValueError):
                        line = None  # a name or an integer out of the ordinary
            if line is None:
                self._log_any(step, values, split, epoch)
            else:
                self._append(line)
            if self._waiting:
                self._pending.drain()
        except Exception as error:  # noqa: BLE001 - foreign values raise anything, and training must go on
            self._troubles.lose(error)

    def _log_any(self, step: object, values: Mapping[Any, Any], split: object, epoch: object) -> None:
        """Record any values: what is no number is left out and said, what is on a device is awaited by others."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping of names to numbers, got {type(values).__name__}")
        given = self._named(values)
        late = {name: value for name, value in given.items() if on_device(value)}
        head = self._head("metrics", step, split, epoch)
        if not late:
            self._append(self._line(head, given))
            return
        # The host's numbers are taken now: their tensors may change in place before the device's have arrived.
        known = {n: self._tried(to_number, value, f"metric {n!r}") for n, value in given.items() if n not in late}
        copies = copies_of(late)

        def arrived() -> Mapping[str, Any]:
            found = {n: v for names, copy in copies for n, v in zip(names, copy.numbers(), strict=True)}
            return {name: found[name] if name in found else known[name] for name in given}

        self._await(head, [copy for _, copy in copies], arrived)

    def _named(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for given, value in list(values.items()):
            name = plain_text(given)
            if name in named:
                self._troubles.say("name", f"two metrics of one record are called {name!r}; the later one is kept")
            named[name] = value
        return named

    def _line(self, head: dict[str, Any], values: Mapping[str, Any]) -> bytes:
        if _NUMBERS.issuperset(map(type, values.values())) and (total := sum(values.values())) - total == 0.0:
            with suppress(TypeError, ValueError):  # an integer beyond 64 bits
                return self._dumps({**head, "values": values}, None, LINE)
        finite: dict[str, int | float | None] = {}
        others: dict[str, str] = {}
        for name, value in values.items():
            number = self._tried(to_number, value, f"metric {name!r}")
            if number is None or number - number == 0:
                finite[name] = number
            else:
                finite[name], others[name] = None, non_finite_name(number)
        record = {**head, "values": finite}
        return strict_line({**record, "nonfinite": others} if others else record, self._dumps)

    @never_raises
    def log_later(
        self, step: Any, copies: Sequence[HostCopy], values: Callable[[], Mapping[str, Any]], *, split: str = ""
    ) -> None:
        """Record what `values()` gives once all of `copies` have arrived, with the step and time of this call.

        For adapters that compute on a device. `values` is called once, at a later call of the recorder, or now where
        nothing has to be awaited.
        """
        self._await(self._head("metrics", step, split, None), copies, values)

    def _await(self, head: dict[str, Any], copies: Iterable[HostCopy], values: Callable[[], Mapping[str, Any]]) -> None:
        self._segments.check()
        self._pending.add(copies, functools.partial(self._arrived, head, values))

    @never_raises
    def _arrived(self, head: dict[str, Any], values: Callable[[], Mapping[str, Any]]) -> None:
        self._append(self._line(head, values()))

    def trouble(self, kind: str, message: str) -> None:
        """Warn of something that an adapter could not record, once for each kind."""
        self._troubles.say(kind, message)

    def before_flush(self, source: Callable[[], None]) -> None:
        """Call `source` first at every `flush` and at `close`: it hands over what it has gathered."""
        self._sources.append(source)

    @never_raises
    def flush(self) -> None:
        """Wait for numbers that are still on a device and write their records. Nothing to do for all others."""
        if os.getpid() != self._process:
            return  # what waited at the fork is the parent's
        for source in tuple(self._sources):
            source()
        self._pending.drain(wait=True)
        self._troubles.flush()

    @never_raises
    def event(self, kind: str, payload: object, *, step: Any = None, split: str = "", epoch: Any = None) -> None:
        """Record a structured event of any kind; readers keep kinds that they do not know."""
        if kind == "metrics":
            raise ValueError("metrics are recorded by log")
        head = self._head(plain_text(kind), step, split, epoch)
        known, late = split_late(payload)
        plain = self._plain(known)
        if late is None:
            self._append(strict_line({**head, "payload": plain}, self._dumps))
        else:
            self._segments.check()
            self._pending.add(late.copies, functools.partial(self._filled, head, plain, late))

    @never_raises
    def _filled(self, head: dict[str, Any], plain: Any, late: Late) -> None:
        self._append(strict_line({**head, "payload": self._plain(late.fill(plain))}, self._dumps))

    @never_raises
    def config(self, values: object) -> None:
        """Record hyper-parameters that became known after the start, and add them to the manifest's (rank 0)."""
        self._segments.check()
        settings = self._settings(values)
        self.event("config", settings)
        if self.rank == 0:
            manifest.merge_config(self.path, settings, trouble=self._troubles.say)

    def close(self, status: str = "finished", error: str | None = None) -> None:
        """Record the end, close the files and seal what is not sealed; digests are waited for. Once is enough.

        `status` is `finished`, `failed` or `interrupted`; leaving the `with` block sets it from the exception.
        """
        if os.getpid() != self._process:
            return  # before the lock, which a thread of the parent may have held at the fork
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self.flush()
            self._finish_chores()
        finally:
            payload = {"status": status, "error": error, "lost": self.lost or None}
            self.event("end", {key: value for key, value in payload.items() if value is not None})
            self._finish()

    @never_raises
    def _finish_chores(self) -> None:
        self._vectors.close()
        if not self._chores.close():
            self._troubles.say("chores", "digests of checkpoints took longer than ten minutes and are not waited for")

    @never_raises
    def _finish(self) -> None:
        self._segments.close()
        self._mirrors.close()
        self._sealer.finish(self._segments.current)
        self._troubles.flush()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = end_status(error)
        self.close(ended, None if ended == "finished" else self._tried(error_text, error, "the error's text"))

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in another process or in this one, knows the run and records nothing.
        return {"path": self.path, "rank": self.rank, "attempt": self.attempt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._troubles, self._dumps = Troubles(str(self.path)), fast_dumps()
        self._closing, self._closed, self._process = threading.Lock(), True, os.getpid()
        self._pending, self._sources, self.step = Pending(), [], None
        self._waiting = self._pending.waiting
        self._segments = SegmentWriter.stopped()
        self._append = self._segments.write

    def __repr__(self) -> str:
        return f"<Recorder {self.path} rank {self.rank} attempt {self.attempt}>"

    def _head(self, kind: str, step: object, split: object, epoch: object) -> dict[str, Any]:
        record: dict[str, Any] = {"kind": kind, "step": self._tried(to_int, step, "step")}
        record["time"] = time.time_ns() // 1000 / 1e6
        number = self._tried(to_number, epoch, "epoch")
        if number is not None and number - number == 0:
            record["epoch"] = float(number)
        if split is not None and split != "":
            record["split"] = plain_text(split)
        return record

    def _tried(self, convert: Callable[[object], Any], value: object, what: str) -> Any:
        """The converted value, or None where it cannot be: the rest of its record is worth keeping."""
        try:
            return convert(value)
        except Exception as error:  # noqa: BLE001 - a tensor's own code runs here and raises what it likes
            self._troubles.lost += 1
            self._troubles.say("value", f"{what} could not be recorded ({type(error).__name__}: {error})")
            return None

    def _plain(self, value: object) -> Any:
        return encode_numbers(value, unknown=functools.partial(self._troubles.say, "value"))

    def _settings(self, config: object) -> dict[str, Any]:
        plain = self._plain(config)
        if not isinstance(plain, dict):
            raise InputError(f"config must be a mapping, a dataclass or a namespace, got {type(config).__name__}")
        return plain


def open_recorder() -> Recorder | None:
    """The recorder that was made last in this process, or None where there is none or it is closed."""
    found = None if _newest is None else _newest()
    return None if found is None or found.closed else found
