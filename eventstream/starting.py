"""What a recorder is given at its start and told at its end: the run's folder, the rank, how the training ended."""

from __future__ import annotations

import operator
import os
import sys
from pathlib import Path

from eventstream.errors import InputError
from eventstream.values import plain_text

__all__ = ["end_status", "error_text", "processes_of_job", "rank_of", "run_folder"]


def run_folder(given: object) -> Path:
    """The absolute path of a run's folder, which need not be there; InputError for what cannot be one.

    Absolute, so that the run stays where it was begun when the training changes its current folder.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"path must be the folder of the run, got {type(given).__name__}")
    text = os.fsdecode(given)
    if not text or "\0" in text:
        raise InputError(f"path must be the folder of the run, got {text!r}")
    try:
        path = Path(text).absolute()
    except OSError as error:
        raise InputError(f"{text}: is relative to a current folder that is gone; give an absolute path") from error
    # os.path, which takes what cannot be looked at for absent: making the folder then says why
    if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
        raise InputError(f"{path}: is a file; a run is recorded into a folder of its own")
    return path


def rank_of(given: object) -> int:
    """The rank that was given, else the environment's `RANK`, else that of `torch.distributed` where set up, else 0.

    InputError where what was given, or `RANK`, is no rank.
    """
    found = os.environ.get("RANK") if given is None else given
    if found is None:
        return _distributed_rank()
    try:
        rank = int(found) if isinstance(found, str) else operator.index(found)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rank = -1
    if not 0 <= rank < 10**9:
        where = "the environment's RANK" if given is None else "rank"
        raise InputError(f"{where} must be a whole number from 0, got {found!r}")
    return rank


def _distributed_rank() -> int:
    """Processes of `torch.multiprocessing.spawn` have no `RANK` in their environment; torch is not imported for it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0
    return int(distributed.get_rank())


def processes_of_job() -> int | None:
    """How many processes the job has: the environment's `WORLD_SIZE`, else what `torch.distributed` says, else None."""
    found = os.environ.get("WORLD_SIZE", "")
    if found.isascii() and found.isdigit() and 0 < int(found) < 10**9:
        return int(found)
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_world_size())


def end_status(error: BaseException | None) -> str:
    """What ended the `with` block; `sys.exit()` and `sys.exit(0)` are no failures."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else "failed"


def error_text(error: object) -> str:
    """An exception as the end of a run tells it, at most 4,000 characters."""
    return plain_text(f"{type(error).__name__}: {error}".removesuffix(": "))[:4000]
