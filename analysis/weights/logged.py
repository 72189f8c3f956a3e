"""`checkpoint-mismatch` between saves and their log: saves that it does not know, files that were changed since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from analysis.findings import Finding
from analysis.kinds import KINDS
from analysis.planned.log_end import log_end
from analysis.planned.saves import counts_steps_alike
from analysis.planned.saves import saves_of as recorded_saves
from eventstream.digests import bytes_of, digest_of, state_of
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["unlike_the_log"]


def unlike_the_log(run: Run | None, saves: pl.DataFrame, *, verify: bool) -> list[Finding]:
    """Saves beyond the end of the log that it does not record, and saves that are not the files it recorded.

    `saves` are the rows of `Checkpoints.saves`. Size is compared, and with `verify` the SHA-256 that the event stream
    keeps; of a path recorded more than once the last record counts. A save that the log records at a step beyond its
    end is told by `analysis.plan`.
    """
    if run is None:
        return []
    return [*_unknown(run, saves), *_changed(run, saves, verify=verify)]


def _unknown(run: Run, saves: pl.DataFrame) -> Iterator[Finding]:
    end, recorded = log_end(run), {save.step for save in recorded_saves(run)}
    late = saves.filter(~pl.col("in_log") & ~pl.col("step").is_in(sorted(recorded)))
    if end is None or late.is_empty():
        return
    steps = late["step"].to_list()
    names = ", ".join(late["save"].to_list()[:3])
    yield Finding(
        "checkpoint-mismatch",
        "warning" if counts_steps_alike(run) else "info",
        run.name,
        f"{len(steps)} of {saves.height} saves lie beyond the end of the log at step {end.last:,}: {names}",
        first_step=min(steps),
        last_step=max(steps),
        evidence={
            "what": "saves beyond the log",
            "late": len(steps),
            "checkpoints": saves.height,
            "last_logged_step": end.last,
        },
        causes=(
            "the saves are of another run in the same folder, or of an attempt whose log is gone",
            "the end of the log was lost",
            "names and log count different things (epochs, batches, samples)",
        ),
        suggestions=KINDS["checkpoint-mismatch"].suggestions,
    )


def _changed(run: Run, saves: pl.DataFrame, *, verify: bool) -> Iterator[Finding]:
    told = _recorded(run)
    for name, path, step in saves.select("save", "path", "step").iter_rows():
        record = told.get(_within(Path(path), Path(run.path)))
        if record is None:
            continue
        differs = _difference(Path(path), record, verify=verify)
        if differs:
            yield Finding(
                "checkpoint-mismatch",
                "warning",
                run.name,
                f"{name} is not the file that the log recorded: {differs}",
                first_step=step,
                last_step=step,
                evidence={"what": f"recorded file {name}", "save": name, "recorded_bytes": record["bytes"]},
                causes=(
                    "the file was written again after it was recorded, by a later run or by hand",
                    "the file was copied incompletely, or damaged",
                ),
                suggestions=(
                    "do not take it for the save of that step before its origin is known",
                    "save under a name that holds the step, and never overwrite",
                ),
            )


def _recorded(run: Run) -> dict[str, dict[str, Any]]:
    """What the event stream says of its saves, by path; digests of large ones come in an event of their own."""
    told: dict[str, dict[str, Any]] = {}
    for payload in map(payload_object, run.events.filter(pl.col("kind").is_in(["checkpoint", "digest"]))["payload"]):
        path, size = payload.get("path"), payload.get("bytes")
        if isinstance(path, str) and isinstance(size, int):
            told[path] = payload
    return told


def _within(path: Path, folder: Path) -> str:
    try:
        return path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def _difference(path: Path, record: dict[str, Any], *, verify: bool) -> str:
    try:
        state = state_of(path)
        if bytes_of(state) != record["bytes"]:
            return f"{bytes_of(state):,} bytes, recorded were {record['bytes']:,}"
        if verify and record.get("sha256") not in (None, digest_of(path, state)):
            return "as long as recorded, with another SHA-256"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return ""
