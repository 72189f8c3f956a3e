"""What goes wrong while recording is said once for each kind of trouble, at the caller's own line, and counted."""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from eventstream.errors import RecordingWarning

__all__ = ["NotRecordingError", "Troubles", "never_raises"]

_HERE = str(Path(__file__).parent)


class NotRecordingError(Exception):
    """Nothing can be recorded any more: closed, or a copy in another process. Never leaves the recorder."""


class _Troubled(Protocol):
    _troubles: Troubles


_Self = TypeVar("_Self", bound=_Troubled)
_P = ParamSpec("_P")


def never_raises(method: Callable[Concatenate[_Self, _P], None]) -> Callable[Concatenate[_Self, _P], None]:
    """The method, with whatever goes wrong in it warned of once and the record counted as lost."""

    @functools.wraps(method)
    def guarded(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - foreign tensors raise anything, and training must go on
            self._troubles.lose(error)

    return guarded


class Troubles:
    """Warns once for each kind of trouble and counts the records that were lost.

    What a background thread meets is kept until `flush`, because a warning there reaches nobody.
    """

    def __init__(self, run: str) -> None:
        self.lost = 0
        self._run = run
        self._said: set[str] = set()
        self._kept: dict[str, str] = {}
        self._owner = threading.get_ident()

    def lose(self, error: Exception) -> None:
        """Count one lost record and say why, unless that was said before."""
        self.lost += 1
        self.say(*_explained(error))

    def lose_later(self, error: Exception) -> None:
        """Count one record that a background thread lost, and remember why."""
        self.lost += 1
        self.keep(*_explained(error))

    def say(self, kind: str, message: str) -> None:
        """Warn, unless this kind of trouble was said before."""
        if kind in self._said:
            return
        self._said.add(kind)
        text = f"{self._run}: {message} (further cases like this are not repeated)"
        warnings.warn(text, RecordingWarning, stacklevel=_levels_outside())

    def keep(self, kind: str, message: str) -> None:
        """Remember a trouble of a background thread, the first of its kind: a disk that stays full fills no list."""
        if kind not in self._said:
            self._kept.setdefault(kind, message)

    def flush(self) -> None:
        """Say what background threads met."""
        while self._kept:
            self.say(*self._kept.popitem())


def _explained(error: Exception) -> tuple[str, str]:
    if isinstance(error, NotRecordingError):
        return "stopped", str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return "system", f"a record could not be written ({reason}); recording goes on and tries again at the next"
    return "value", f"a record could not be made ({type(error).__name__}: {error}); it is left out"


def _levels_outside() -> int:
    """The stack level, as `warnings.warn` counts it from its caller, of the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(Path(frame.f_code.co_filename).parent) == _HERE:
        level, frame = level + 1, frame.f_back
    return level
