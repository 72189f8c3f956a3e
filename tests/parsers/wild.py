"""Logs of other people's runs, where a folder of them stands beside the repository: path and facts by format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from parsers.run import Run

WILD = Path(__file__).parents[3] / "shared" / "wild"
#: Parts of a number, by which the counted facts were rounded.
ROUNDED = 2e-6


def wild(kind: str, ending: str = "") -> list[tuple[Path, dict[str, Any]]]:
    """Path and facts (metric -> n, first, last, min, max) of each file of one kind; empty where there is no folder."""
    manifest = WILD / "MANIFEST.json"
    if not manifest.is_file():
        return []
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    chosen = [f for f in files if f["format"] == kind and f["file"].endswith(ending) and f.get("facts")]
    return [(WILD / f["file"], f["facts"]) for f in chosen if (WILD / f["file"]).is_file()]


def told(run: Run, tag: str) -> pl.DataFrame:
    """The rows of one tag, in the order logged."""
    return run.scalars.filter(pl.col("tag") == tag)


def disagreement(run: Run, tag: str, facts: dict[str, Any]) -> str:
    """What of the counted facts of one metric the run tells otherwise; empty where they agree."""
    values = told(run, tag)["value"]
    if len(values) != facts["n"]:
        return f"{tag}: {len(values)} values, {facts['n']} were counted"
    found = {"first": values[0], "last": values[-1], "min": values.min(), "max": values.max()}
    for name, value in found.items():
        expected = facts[name][1] if isinstance(facts[name], list) else facts[name]
        if abs(float(str(value)) - expected) > ROUNDED * max(abs(expected), 1e-300):
            return f"{tag}: {name} is {value}, {expected} was counted"
    return ""
