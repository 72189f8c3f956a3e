"""Generated samples in folders by epoch or step: `samples/epoch_10/` with its files and `metadata.json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsers.places.beside import children, load_beside
from parsers.tables.generic import Records

__all__ = ["add_samples"]

METADATA = "metadata.json"
_PLACE = re.compile(r"(?:(?P<epoch>epoch|ep)|(?P<step>step|iter|iteration))[-_=]?(?P<number>\d{1,15})", re.IGNORECASE)
#: Suffix -> kind of sample.
KINDS = {
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg"), "audio"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif"), "image"),
    **dict.fromkeys((".mid", ".midi"), "midi"),
    **dict.fromkeys((".mp4", ".webm"), "video"),
    ".txt": "text",
}
#: Keys of the metadata that name the run.
_NAMES = ("ablation", "experiment", "run", "run_name", "name", "model")


def add_samples(records: Records, folder: Path, only: str = "") -> None:
    """Add an event `samples` for each folder of samples of one epoch or step below `folder`.

    Its payload is `kind` (audio, image, midi, video, text or other: that of most files), `files` (paths below
    `folder`'s parent), and `metadata`. Samples that lie one folder deeper, each with metadata of its own, are events of
    their own. `only` takes those alone whose metadata names this run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = Path(place, "samples", "epoch_10")
    ...     folder.mkdir(parents=True)
    ...     _ = (folder / "original.wav").write_bytes(b"")
    ...     records = Records("demo")
    ...     add_samples(records, Path(place, "samples"))
    >>> records.run("demo", "ablation").events.select("epoch", "kind", "payload").row(0)
    (10.0, 'samples', '{"kind":"audio","files":["samples/epoch_10/original.wav"],"metadata":{}}')
    """
    if not folder.is_dir():
        return
    found = [(m, place) for place in children(folder) if place.is_dir() and (m := _PLACE.fullmatch(place.name))]
    found.sort(key=lambda pair: int(pair[0]["number"]))
    for match, place in found:
        number = int(match["number"])
        step, epoch = (None, float(number)) if match["epoch"] else (number, None)
        index = (number, 0, 0, step, epoch, None, "")
        for inner in (place, *(p for p in children(place) if p.is_dir() and not p.is_symlink())):
            _add_folder(records, inner, folder.parent, index, only)


def _add_folder(records: Records, place: Path, above: Path, index: tuple[Any, ...], only: str) -> None:
    files = [p for p in children(place) if p.is_file() and p.name != METADATA]
    held, rejects = load_beside(place, (METADATA,))
    metadata = held.get(METADATA, {})
    if not files and not metadata and not rejects:
        return
    if only and not _names_run(metadata, only):
        return
    records.rejects += rejects
    kinds = Counter(KINDS.get(p.suffix.lower(), "other") for p in files)
    kind = kinds.most_common(1)[0][0] if kinds else "other"
    payload = {"kind": kind, "files": [p.relative_to(above).as_posix() for p in files], "metadata": metadata}
    records.event(index, "samples", payload)


def _names_run(metadata: Mapping[str, Any], name: str) -> bool:
    return any(metadata.get(key) == name for key in _NAMES)
