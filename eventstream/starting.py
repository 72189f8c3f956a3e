"""What a recorder is given at its start and told at its end: the run's folder, the rank, how the training ended."""

from __future__ import annotations

import operator
import os
from pathlib import Path

from eventstream.errors import InputError
from eventstream.values import plain_text

__all__ = ["end_status", "error_text", "rank_of", "run_folder"]


def run_folder(given: object) -> Path:
    """The absolute path of a run's folder, which need not be there; InputError for what cannot be one."""
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"path must be the folder of the run, got {type(given).__name__}")
    path = Path(os.fsdecode(given)).absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; a run is recorded into a folder of its own")
    return path


def rank_of(given: object) -> int:
    """The rank that was given, else the environment's `RANK`, else 0; InputError where it is no rank."""
    text = os.environ.get("RANK", "0") if given is None else given
    try:
        rank = int(text) if isinstance(text, str) else operator.index(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rank = -1
    if not 0 <= rank < 10**9:
        where = "the environment's RANK" if given is None else "rank"
        raise InputError(f"{where} must be a whole number from 0, got {text!r}")
    return rank


def end_status(error: BaseException | None) -> str:
    """What ended the `with` block; `sys.exit()` and `sys.exit(0)` are no failures."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else "failed"


def error_text(error: object) -> str:
    """An exception as the end of a run tells it, at most 4,000 characters."""
    return plain_text(f"{type(error).__name__}: {error}".removesuffix(": "))[:4000]
