"""Locks on files that vanish with the process that holds them, so that the living and the dead can be told apart."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["folder_lock", "try_lock"]


def try_lock(fd: int) -> bool | None:
    """Lock an open file without waiting: True when locked, False when another holds it, None where locks are missing.

    Windows and some network file systems have no such locks. The lock ends when the last copy of the descriptor is
    closed, hence with the process, however it ends.
    """
    try:
        fcntl = importlib.import_module("fcntl")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for the time of a short change; where locks are missing, the change is made without."""
    try:
        fcntl = importlib.import_module("fcntl")
        fd = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
