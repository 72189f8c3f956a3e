"""What is slow to make and never changed is made once, whichever process of the test session asks first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["SHARED", "once"]

#: The variable that tells every process of a session the folder that they share.
SHARED = "AFTERTRAIN_TESTS_SHARED"


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled. Whoever uses it only reads: others read it at the same time."""
    shared = Path(os.environ[SHARED])
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what an attempt that failed left
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
