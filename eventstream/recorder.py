"""`Recorder`, what a training imports: every record is with the operating system when the call returns."""

from __future__ import annotations

import functools
import operator
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from eventstream import manifest, payloads
from eventstream.background import Sealer, leftovers
from eventstream.errors import InputError, PlanError
from eventstream.lines import LINE, fast_dumps, strict_line
from eventstream.records import encode_numbers, non_finite_name
from eventstream.segments import SegmentWriter
from eventstream.troubles import Troubles
from eventstream.values import plain_text, to_int, to_number
from eventstream.vectors import write_vectors

__all__ = ["Recorder"]

SEGMENT_BYTES = 64 * 2**20
_NUMBERS = {int, float}

_P = ParamSpec("_P")


def _never_raises(
    method: Callable[Concatenate[Recorder, _P], None],
) -> Callable[Concatenate[Recorder, _P], None]:
    """The method, with whatever goes wrong in it warned of once and the record counted as lost."""

    @functools.wraps(method)
    def guarded(self: Recorder, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - foreign tensors raise anything, and training must go on
            self._troubles.lose(error)

    return guarded


class Recorder:
    """Writes the event stream of one training process into a run folder (`docs/event-stream.md`).

    `path` is the run's folder, made where it is missing; a folder that holds the run already is continued as the next
    attempt. `config` (mapping, dataclass or namespace) and `plan` go into the manifest; `run` is the name, the folder's
    unless given. `rank` is the process among many, from the environment's `RANK` unless given, else 0: each rank has
    its own files and only rank 0 the manifest. A segment of `segment_bytes` (64 MiB: two to three million numbers,
    sealed in seconds) is followed by the next; with `seal` full segments become Parquet in the background and the last
    one in `close`, where pyarrow is installed.

    Construction raises InputError or PlanError where it is given what cannot be right (a path that is a file, a plan
    that is no mapping, a folder that cannot be written, a run of a newer version). After that no call raises: what
    cannot be recorded is warned of once for each kind of trouble (`RecordingWarning`), the rest of the record and of
    the run is kept, and `lost` counts what was left out. (A program whose filters turn warnings into errors gets this
    one as an error too.) Steps are whole numbers or None; numbers may be NumPy
    scalars, one-element tensors (reading one from a GPU waits for it), booleans (0 and 1), NaN and infinities; None is
    a missing value.

    Threads may share a recorder. A forked child inherits one that refuses to record, and so does a copy that was
    pickled to another process: records come from the process that made it.

    >>> import tempfile
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
    ) -> None:
        if plan is not None and not isinstance(plan, Mapping):
            raise PlanError(f"plan must be a mapping, got {type(plan).__name__}; see docs/event-stream.md")
        if type(segment_bytes) is not int or segment_bytes < 1:
            raise InputError(f"segment_bytes must be a positive number of bytes, got {segment_bytes!r}")
        #: The run's folder.
        self.path = _folder(path)
        #: Which process of the training this is.
        self.rank = _rank(rank)
        self._troubles = Troubles(str(self.path))
        self._dumps = fast_dumps()
        self._process = os.getpid()
        self._closing, self._closed = threading.Lock(), False
        settings = None if config is None else self._settings(config)
        name = None if run is None else plain_text(run)
        try:
            self._start(name, settings, None if plan is None else self._plain(plan), segment_bytes, seal)
        except OSError as error:
            raise InputError(f"{self.path}: no run can be recorded here ({error.strerror})") from error
        if settings is not None:
            self.event("config", settings)

    def _start(self, run: str | None, config: Any, plan: Any, segment_bytes: int, seal: bool) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        manifest.refuse_newer(self.path)
        self._sealer = Sealer(wanted=seal, trouble=self._troubles.keep)
        self._segments = SegmentWriter(
            self.path, self.rank, segment_bytes, full=self._sealer.add, trouble=self._troubles.keep
        )
        self._append = self._segments.write
        #: How often this rank was started in this folder before.
        self.attempt = self._segments.attempt
        if self.rank == 0:
            manifest.add_attempt(self.path, self.attempt, run=run, config=config, plan=plan, trouble=self._troubles.say)
        self._sealer.add_leftovers(leftovers(self.path, self.rank, self.attempt))

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
            self._append(line or self._careful_line(step, values, split, epoch))
        except Exception as error:  # noqa: BLE001 - foreign values raise anything, and training must go on
            self._troubles.lose(error)

    def _careful_line(self, step: object, values: Mapping[Any, Any], split: object, epoch: object) -> bytes:
        """The line of any values: what is no number is left out and said, the rest is kept."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping of names to numbers, got {type(values).__name__}")
        finite: dict[str, int | float | None] = {}
        others: dict[str, str] = {}
        for given, value in list(values.items()):
            name = plain_text(given)
            if name in finite:
                self._troubles.say("name", f"two metrics of one record are called {name!r}; the later one is kept")
                others.pop(name, None)
            number = self._tried(to_number, value, f"metric {name!r}")
            if number is None or number - number == 0:
                finite[name] = number
            else:
                finite[name], others[name] = None, non_finite_name(number)
        record = {**self._head("metrics", step, split, epoch), "values": finite}
        return strict_line({**record, "nonfinite": others} if others else record, self._dumps)

    @_never_raises
    def event(self, kind: str, payload: object, *, step: Any = None, split: str = "", epoch: Any = None) -> None:
        """Record a structured event of any kind; readers keep kinds that they do not know."""
        if kind == "metrics":
            raise ValueError("metrics are recorded by log")
        record = {**self._head(plain_text(kind), step, split, epoch), "payload": self._plain(payload)}
        self._append(strict_line(record, self._dumps))

    @_never_raises
    def losses(
        self,
        step: Any,
        components: Mapping[str, Any],
        *,
        total: Any = None,
        displayed: Any = None,
        split: str = "",
        epoch: Any = None,
    ) -> None:
        """Record the parts of a loss: {name: (raw, weight)} or {name: {raw, weight, weighted, contribution}}.

        `total` is what was optimised, `displayed` what the progress bar shows. Only what is given is written: pass
        `weighted` where the code computes it, so that the product can be checked. A number alone is `raw`.
        """
        self.event("losses", payloads.losses(components, total, displayed), step=step, split=split, epoch=epoch)

    @_never_raises
    def curriculum(
        self,
        step: Any,
        *,
        phase: str | None = None,
        weights: Mapping[str, Any] | None = None,
        progress: Any = None,
        epoch: Any = None,
    ) -> None:
        """Record where the curriculum stands: the phase, its progress and the weights of the components now."""
        given = {"phase": phase, "progress": progress, "weights": weights}
        self.event("curriculum", {key: v for key, v in given.items() if v is not None}, step=step, epoch=epoch)

    @_never_raises
    def inputs(self, step: Any, stage: str, tensors: Any, status: Mapping[str, str] | None = None) -> None:
        """Record which tensors a stage was given: names, shapes, dtypes and devices, nothing of their content."""
        self.event("inputs", payloads.tensors(stage, tensors, status), step=step)

    @_never_raises
    def outputs(self, step: Any, stage: str, tensors: Any, status: Mapping[str, str] | None = None) -> None:
        """Record which tensors a stage gave back, as `inputs` does."""
        self.event("outputs", payloads.tensors(stage, tensors, status), step=step)

    @_never_raises
    def data(self, /, step: Any, **counts: Any) -> None:
        """Record the use of data: `files`, `augmented`, `cache_hits` and other counts."""
        self.event("data", counts, step=step)

    @_never_raises
    def resources(self, /, step: Any, **numbers: Any) -> None:
        """Record the use of resources, with the unit in the name: `gpu_memory_mb`, `throughput_samples_s`."""
        self.event("resources", numbers, step=step)

    @_never_raises
    def embeddings(
        self, step: Any, vectors: Any, labels: Sequence[Any] | None = None, paths: Sequence[Any] | None = None
    ) -> None:
        """Write embeddings of shape (n, d) as float32 beside the stream, with their labels and paths. Needs pyarrow."""
        self._segments.check()
        at = self._tried(to_int, step, "step")
        when = "stepnone" if at is None else f"step{at:09d}"
        stem = f"rank{self.rank:05d}-attempt{self.attempt:04d}-{when}"
        file, count, dim = write_vectors(self.path, stem, vectors, labels, paths)
        self.event("embeddings", {"file": file, "count": count, "dim": dim}, step=at)

    @_never_raises
    def sample(
        self,
        step: Any,
        kind: str,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that samples (`audio`, `image`, `text`, ...) of this step stand in `files`."""
        self.event("samples", payloads.sample(self.path, kind, files, metadata), step=step)

    @_never_raises
    def checkpoint(self, step: Any, path: str | os.PathLike[str]) -> None:
        """Record a checkpoint that was written: path, size and SHA-256. Reads the file once, about a second a GB."""
        self._segments.check()
        self.event("checkpoint", payloads.checkpoint(self.path, path), step=step)

    @_never_raises
    def note(self, text: str, step: Any = None, level: str = "info") -> None:
        """Record a sentence for whoever reads the run."""
        self.event("note", {"text": plain_text(text), "level": plain_text(level)}, step=step)

    @_never_raises
    def config(self, values: object) -> None:
        """Record hyper-parameters that became known after the start, and add them to the manifest's (rank 0)."""
        self._segments.check()
        settings = self._settings(values)
        self.event("config", settings)
        if self.rank == 0:
            manifest.merge_config(self.path, settings, trouble=self._troubles.say)

    def close(self, status: str = "finished", error: str | None = None) -> None:
        """Record the end, close the files and seal what is not sealed. A second call does nothing.

        `status` is `finished`, `failed` or `interrupted`; leaving the `with` block sets it from the exception.
        """
        with self._closing:
            if self._closed or os.getpid() != self._process:
                return
            self._closed = True
        payload = {"status": status, "error": error, "lost": self.lost or None}
        self.event("end", {key: value for key, value in payload.items() if value is not None})
        self._finish()

    @_never_raises
    def _finish(self) -> None:
        self._segments.close()
        self._sealer.finish(self._segments.current)
        self._troubles.flush()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = _status(error)
        self.close(ended, None if ended == "finished" else self._tried(_error_text, error, "the error's text"))

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in another process or in this one, knows the run and records nothing.
        return {"path": self.path, "rank": self.rank, "attempt": self.attempt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._troubles, self._dumps = Troubles(str(self.path)), fast_dumps()
        self._closing, self._closed, self._process = threading.Lock(), True, os.getpid()
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


def _folder(given: object) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"path must be the folder of the run, got {type(given).__name__}")
    path = Path(os.fsdecode(given)).absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; a run is recorded into a folder of its own")
    return path


def _rank(given: object) -> int:
    text = os.environ.get("RANK", "0") if given is None else given
    try:
        rank = int(text) if isinstance(text, str) else operator.index(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rank = -1
    if not 0 <= rank < 10**9:
        where = "the environment's RANK" if given is None else "rank"
        raise InputError(f"{where} must be a whole number from 0, got {text!r}")
    return rank


def _status(error: BaseException | None) -> str:
    """What ended the `with` block; `sys.exit()` and `sys.exit(0)` are no failures."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else "failed"


def _error_text(error: object) -> str:
    return plain_text(f"{type(error).__name__}: {error}".removesuffix(": "))[:4000]
