"""Every log of strangers in which numbers were counted is found in its tree, as a run or as a part of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parsers.listing import list_runs

WILD = Path(__file__).parents[3] / "shared" / "wild"


def _counted() -> dict[str, list[str]]:
    """Folder -> files below it in which numbers were counted; empty where the logs do not stand beside the project."""
    manifest = WILD / "MANIFEST.json"
    if not manifest.is_file():
        return {}
    found: dict[str, list[str]] = {}
    for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
        if entry.get("facts") and (WILD / entry["file"]).is_file():
            found.setdefault(entry["file"].split("/")[0], []).append(entry["file"])
    return found


COUNTED = _counted()


@pytest.mark.parametrize("folder", sorted(COUNTED))
def test_every_log_in_which_numbers_were_counted_is_found_with_its_numbers(folder: str) -> None:
    frame = list_runs(WILD / folder, cache=False).frame
    told = {row["path"]: row["scalars"] for row in frame.iter_rows(named=True)}
    for file in COUNTED[folder]:
        path = WILD / file
        covering = [told[str(place)] for place in (path, *path.parents) if str(place) in told]
        assert covering, f"{file} belongs to no run"
        assert max(covering) > 0, f"{file}: a run without numbers"
