"""A W&B run that was resumed: a folder for each start, the same identifier in their names, read as attempts of one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from parsers.places.beside import children
from parsers.run import Run, live_branch
from parsers.schema import EVENTS

__all__ = ["FOLDER", "Start", "resumed_in", "spliced"]

#: The folder of one start: when it was, and whose.
FOLDER = re.compile(r"(?:offline-)?run-(?P<start>\d{8}_\d{6})-(?P<id>[^/\\]+)")
#: Names under which frameworks log the step of training beside W&B's own count of calls, the most telling first.
_GLOBAL = ("trainer/global_step", "train/global_step", "global_step", "iteration", "step")


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a run as it was read, and what its record says about it."""

    run: Run
    about: Mapping[str, Any]


def resumed_in(folder: Path) -> dict[str, list[Path]]:
    """The run folders of each identifier that has several in `folder`, in the order of their starts.

    >>> resumed_in(Path("no/such/folder"))
    {}
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for path in children(folder):
        match = FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found.setdefault(match["id"], []).append((match["start"], path))
    starts = {name: sorted(places, key=lambda one: (one[0], one[1].name)) for name, places in found.items()}
    return {name: [path for _, path in places] for name, places in starts.items() if len(places) > 1}


def spliced(starts: Sequence[Start]) -> Run:
    """One run of several starts, each an attempt of its own (or several, where its steps go back).

    Steps are as logged, but for a start that says it is a resume while its count of steps begins again (offline, W&B
    cannot know where it had stopped): these are moved to where the training went on, by the step of training that both
    starts log (`trainer/global_step` and the like), else to the end of what was logged before. A `note` says so.
    """
    run, last = starts[0].run, _last_attempt(starts[0].run)
    scalars, events, rejects, config = [run.scalars], [run.events], [run.rejects], dict(run.config)
    for start in starts[1:]:
        own = start.run.scalars
        before = live_branch(pl.concat(scalars))
        last += 1
        moved = _moved(before, own, start.about)
        attempts = pl.col("attempt") + pl.lit(last, pl.Int32)
        scalars.append(own.with_columns(attempts, step=pl.col("step") + moved))
        events.append(start.run.events.with_columns(attempts, step=pl.col("step") + moved))
        if moved:
            events.append(_note(start.run, last, moved))
        rejects.append(start.run.rejects)
        config |= start.run.config
        last += _last_attempt(start.run)
    rows = pl.concat(scalars).sort("rank", "attempt", "tag", "split", maintain_order=True)
    named = starts[-1].run
    joined = replace(
        named, source=rows.lazy(), whole=None, events=pl.concat(events), rejects=pl.concat(rejects), config=config
    )
    return joined.renamed(named.name)


def _last_attempt(run: Run) -> int:
    return int(run.scalars["attempt"].to_numpy().max(initial=0))


def _moved(before: pl.DataFrame, own: pl.DataFrame, about: Mapping[str, Any]) -> int:
    """By how much the steps of a resumed start are to be moved."""
    known, mine = before["step"].drop_nulls(), own["step"].drop_nulls()
    begins_again = not about.get("starting_step") and "branched_from" not in about
    if not (about.get("resumed") and begins_again) or known.is_empty() or mine.is_empty():
        return 0
    first = int(mine.to_numpy().min())
    if first > int(known.to_numpy().min()):
        return 0  # the training gives its own steps
    for tag in _GLOBAL:
        theirs, ours = (_counts(rows, tag) for rows in (before, own))
        if theirs.height and ours.height:
            went_on = theirs.filter(pl.col("value") >= ours["value"][0])
            at = int(went_on["step"][0]) if went_on.height else int(known.to_numpy().max()) + 1
            return at - int(ours["step"][0])
    return int(known.to_numpy().max()) + 1 - first


def _counts(rows: pl.DataFrame, tag: str) -> pl.DataFrame:
    """Step and value of a tag that only grows; nothing where it does not."""
    found = rows.filter(pl.col("tag") == tag).select("step", "value").drop_nulls().sort("step", maintain_order=True)
    return found if found["value"].is_sorted() else found.head(0)


def _note(run: Run, attempt: int, moved: int) -> pl.DataFrame:
    text = (
        f"{run.path}: W&B's count of steps began again at this resume; its steps are moved by {moved} to where the "
        "training went on"
    )
    row = {"run": run.name, "rank": 0, "attempt": attempt, "split": "", "kind": "note"}
    payload = json.dumps({"text": text, "level": "info", "moved": moved})
    blank = {name: None for name in EVENTS.names() if name not in row and name != "payload"}
    return pl.DataFrame([{**row, **blank, "payload": payload}], schema=EVENTS)
