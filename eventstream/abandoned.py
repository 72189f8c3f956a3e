"""Recorders that nobody closed: closed with the process, or soon after whatever opened them is gone."""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventstream.recorder import Recorder

__all__ = ["close_gone", "close_of", "close_when_gone", "keep"]

_GUARDS: weakref.WeakKeyDictionary[Any, weakref.finalize[..., Any]] = weakref.WeakKeyDictionary()
_GONE: deque[tuple[Recorder, str, str | None]] = deque()


def close_when_gone(owner: object, recorder: Recorder, status: str, error: str | None = None) -> None:
    """Close `recorder` at the end of the process, or when the next one is made after `owner` was collected.

    Not in the collection itself: that interrupts any code at all, an import for one, and closing waits for threads
    that may need what was interrupted.
    """
    keep(owner)
    guard = weakref.finalize(owner, _GONE.append, (recorder, status, error))
    guard.atexit = False
    _GUARDS[owner] = guard


def keep(owner: object) -> None:
    """Forget what was to be closed for `owner`."""
    guard = _GUARDS.pop(owner, None)
    if guard is not None:
        guard.detach()


def close_of(owner: object) -> None:
    """Close now what was to be closed for `owner`."""
    guard = _GUARDS.pop(owner, None)
    # Detached and not called: at the end of the process finalizers are no longer run.
    found = None if guard is None else guard.detach()
    if found is not None:
        _GONE.append(found[2][0])
    close_gone()


def close_gone() -> None:
    """Close the recorders of owners that are gone."""
    while _GONE:
        recorder, status, error = _GONE.popleft()
        recorder.close(status, error)


@atexit.register
def _close_all() -> None:
    for owner in list(_GUARDS):
        close_of(owner)
    close_gone()
