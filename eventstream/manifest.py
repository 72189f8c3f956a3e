"""The manifest of a run folder: who and what, whole or absent, kept over restarts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from eventstream.locks import folder_lock
from eventstream.records import FORMAT, MANIFEST, VERSION, encode_numbers

__all__ = ["add_attempt", "merge_config", "refuse_newer"]


def add_attempt(
    folder: Path,
    attempt: int,
    *,
    run: str | None,
    config: Mapping[str, Any] | None,
    plan: Mapping[str, Any] | None,
    trouble: Callable[[str, str], None],
    processes: int | None = None,
) -> None:
    """Write the manifest of a new run, or add an attempt to the one that stands.

    `processes` is how many the job has, where that is known. `run`, `config` and `plan` replace what stands where they
    are given. A manifest that cannot be read is set aside as `manifest.json.damaged` and said through `trouble`.
    """
    now = round(time.time(), 6)

    def change(manifest: dict[str, Any]) -> None:
        given = {"run": run, "config": config, "plan": plan}
        manifest.update({key: value for key, value in given.items() if value is not None})
        started = manifest.get("attempts")
        begun = {"attempt": attempt, "started": now, **({} if processes is None else {"processes": processes})}
        manifest["attempts"] = [*(started if isinstance(started, list) else []), begun]

    fresh = {"format": FORMAT, "version": VERSION, "run": folder.name, "created": now, "config": {}, "plan": {}}
    _change(folder, fresh, change, trouble)


def merge_config(folder: Path, values: Mapping[str, Any], *, trouble: Callable[[str, str], None]) -> None:
    """Add hyper-parameters that became known after the start; later values of a key win."""

    def change(manifest: dict[str, Any]) -> None:
        known = manifest.get("config")
        manifest["config"] = {**(known if isinstance(known, dict) else {}), **values}

    _change(folder, {"format": FORMAT, "version": VERSION, "run": folder.name}, change, trouble)


def refuse_newer(folder: Path) -> None:
    """Raise InputError when the folder holds a run of a newer version, or a manifest of something else."""
    found = _read(folder)
    if found is None:
        return
    version = found.get("version", VERSION)
    if found.get("format", FORMAT) != FORMAT:
        raise InputError(f"{folder / MANIFEST}: format is {found['format']!r}, not {FORMAT!r}; choose another folder")
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{folder / MANIFEST}: version {version} is newer than {VERSION}, the newest known here; update aftertrain"
        )


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _change(
    folder: Path, fresh: dict[str, Any], change: Callable[[dict[str, Any]], None], trouble: Callable[[str, str], None]
) -> None:
    path = folder / MANIFEST
    with folder_lock(folder):
        manifest = _read(folder)
        if manifest is None and path.exists():
            path.replace(folder / f"{MANIFEST}.damaged")
            trouble("manifest", f"{MANIFEST} could not be read; it is set aside as {MANIFEST}.damaged")
        manifest = manifest if manifest is not None else fresh
        change(manifest)
        _write(path, manifest)


def _write(path: Path, manifest: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    # What stood there before may hold NaN literals of another writer; what is written never does.
    text = json.dumps(encode_numbers(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        with temporary.open("wb") as file:
            file.write(text.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
