"""Mirrors: what a recorder hands every record on to, beside its own stream. A failing one is dropped, and said."""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from eventstream.errors import InputError
from eventstream.records import expand, metric_values
from eventstream.troubles import Troubles

__all__ = ["About", "Mirror", "Mirrors", "full_tag", "numbers"]

_WORD_END = re.compile(r"[/._:\- ]")


@runtime_checkable
class Mirror(Protocol):
    """What takes the records of a run as they are written.

    A mirror may also have `begin(about)`, which is called once before the first record with what the recorder knows
    of the run (`About`). Mirrors are called one at a time, in the thread that records, and must not change the record.
    """

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record: `kind`, `step`, `time`, and `values` or `payload`, as docs/event-stream.md has them."""

    def close(self) -> None:
        """The run has ended: nothing comes any more."""


@dataclass(frozen=True, slots=True)
class About:
    """What a recorder knows of its run at the start: its name, folder, attempt, and what is meant to happen."""

    run: str
    path: Path
    attempt: int = 0
    plan: Mapping[str, Any] = field(default_factory=dict)


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The scalars of a record of any kind, (name, value), with NaN and infinities put back.

    >>> list(numbers({"kind": "metrics", "values": {"loss": None}, "nonfinite": {"loss": "-Infinity"}}))
    [('loss', -inf)]
    >>> list(numbers({"kind": "data", "payload": {"files": 800}}))
    [('data/files', 800.0)]
    """
    kind = record["kind"]
    if kind != "metrics":
        return expand(kind, record.get("payload"))
    if "nonfinite" in record:
        return metric_values(record)
    # The common case without a layer between: lines of the stream hold plain numbers and nulls.
    return ((name, value) for name, value in record["values"].items() if value is not None)


@lru_cache(maxsize=20_000)
def full_tag(name: str, split: str | None) -> str:
    """The name of a number where a format has no split beside it: the split stands first, unless the name says it.

    >>> full_tag("loss", "eval"), full_tag("eval_loss", "eval"), full_tag("evaluated", "eval"), full_tag("loss", "")
    ('eval/loss', 'eval_loss', 'eval/evaluated', 'loss')
    """
    if not split or _WORD_END.split(name, maxsplit=1)[0].lower() == split.lower():
        return name
    return f"{split}/{name}"


class Mirrors:
    """Hands lines of the stream on to mirrors, each behind its own guard: no error of theirs reaches the training."""

    def __init__(self, given: Iterable[Mirror], troubles: Troubles) -> None:
        self._live = _checked(given)
        self._troubles = troubles
        self._loads = _fast_loads()
        # Reentrant: a signal handler may record a note while the main thread is inside a mirror.
        self._lock, self._busy = threading.RLock(), False

    def __bool__(self) -> bool:
        return bool(self._live)

    def begin(self, about: About) -> None:
        """Tell the mirrors that want to know which run it is."""
        for mirror in self._live.copy():
            begin = getattr(mirror, "begin", None)
            if begin is not None:
                self._guarded(mirror, begin, about)

    def after(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, and then every mirror. A line that the system refused (disk full) is handed on all the same."""

        def both(line: bytes) -> None:
            try:
                write(line)
            except OSError:
                self._hand_on(line)
                raise
            self._hand_on(line)

        return both

    def _hand_on(self, line: bytes) -> None:
        with self._lock:
            if self._busy:
                return  # a mirror that records itself would never end
            self._busy = True
            try:
                record = self._loads(line)
                for mirror in self._live.copy():
                    self._guarded(mirror, mirror.write, record)
            finally:
                self._busy = False

    def close(self) -> None:
        """Close all mirrors that still stand."""
        with self._lock:
            for mirror in self._live.copy():
                self._guarded(mirror, mirror.close)
            self._live.clear()

    def _guarded(self, mirror: Mirror, call: Callable[..., None], *given: object) -> None:
        try:
            call(*given)
        except Exception as error:  # noqa: BLE001 - foreign libraries raise anything, and training must go on
            self._live.remove(mirror)
            name = type(mirror).__name__
            reason = f"{type(error).__name__}: {error}"
            self._troubles.say(f"mirror {id(mirror)}", f"{name} failed ({reason}) and is given nothing more")
            if call != mirror.close:
                self._close_failed(mirror)

    def _close_failed(self, mirror: Mirror) -> None:
        """Let a mirror that failed give back what it holds; that this fails too, says nothing new."""
        try:
            mirror.close()
        except Exception as error:  # noqa: BLE001 - see above
            self._troubles.say(f"mirror {id(mirror)}", f"{type(mirror).__name__} could not be closed ({error})")


def _checked(given: Iterable[Mirror]) -> list[Mirror]:
    if isinstance(given, Mirror):
        raise InputError(f"mirrors must be several, got one {type(given).__name__}; pass mirrors=[it]")
    try:
        found = list(given)
    except TypeError:
        raise InputError(f"mirrors must be a list or tuple of mirrors, got {type(given).__name__}") from None
    for mirror in found:
        if isinstance(mirror, type) or not isinstance(mirror, Mirror):
            name = mirror.__name__ if isinstance(mirror, type) else type(mirror).__name__
            raise InputError(f"a mirror has the methods write(record) and close(); {name} given here is none")
    return found


def _fast_loads() -> Callable[[bytes], Any]:
    try:
        orjson = importlib.import_module("orjson")
    except ImportError:
        return json.loads
    return orjson.loads  # type: ignore[no-any-return]
