"""Keys of folders by the content of what stands in them, below them and, for configurations, above them."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from parsers.collection.cache import file_key
from parsers.places.place import is_local
from parsers.tree import SKIPPED, may_be_log

__all__ = ["Keys"]

#: What of the folders above may belong to a run: the configuration of its experiment (MLflow, ablations).
BESIDE = (".yaml", ".yml", ".json", ".toml")
#: How many folders above are looked at.
ABOVE = 2


@dataclass(slots=True)
class Keys:
    """Keys of the folders and archives below some paths, by their path as walked.

    The key of a folder changes with every file in it and below it, with the configurations in the two folders above,
    and with the path by which it was reached, since runs tell it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = Keys(), Keys()
    ...     first.add(Path(folder))
    ...     _ = Path(folder, "log.jsonl").write_text("{}")
    ...     second.add(Path(folder))
    ...     first.of(Path(folder)) == second.of(Path(folder)), first.of(Path(folder, "log.jsonl")) is None
    (False, False)
    """

    _keys: dict[str, bytes] = field(default_factory=dict)

    def add(self, root: Path) -> None:
        """Look at everything below `root`; what is no local folder or archive gets no key."""
        if not is_local(root) or str(root) in self._keys:
            return
        if root.is_dir():
            self._folders(str(root), os.path.realpath(root))
        elif root.is_file() and may_be_log(root.name):
            # of a file given by name only an archive: what stands beside a log may be more work than reading it
            from parsers.places.archives import archive_suffix

            if archive_suffix(root.name):
                self._keys[str(root)] = _digest([str(root), os.path.realpath(root)], file_key(str(root), log=True))

    def of(self, place: Path) -> bytes | None:
        """The key of the folder that a run stands in, or of the archive; None where nothing is known of it."""
        here = str(place)
        while here not in self._keys:
            above = os.path.dirname(here)  # noqa: PTH120 - a text: the place may be inside an archive
            if above == here:
                return None
            here = above
        return self._keys[here]

    def _folders(self, top: str, real: str) -> None:
        order = [(top, real, _around(real))]
        listed: list[tuple[str, str, list[str], list[str], bytes]] = []
        while order:
            here, place, around = order.pop()
            parts, folders, configurations = _entries(here)
            listed.append((here, place, parts, folders, b"".join(around)))
            inner = [*around[1 - ABOVE :], configurations]
            order += [(os.path.join(here, name), os.path.join(place, name), inner) for name in folders]  # noqa: PTH118
        for here, place, parts, folders, around_it in reversed(listed):  # a folder after all that are below it
            below = [f"{name} {self._keys[os.path.join(here, name)].hex()}" for name in folders]  # noqa: PTH118
            self._keys[here] = _digest([here, place, *parts, "", *below], around_it)


def _digest(told: list[str], more: bytes) -> bytes:
    return hashlib.blake2b("\0".join(told).encode("utf-8", "surrogateescape") + more, digest_size=16).digest()


def _around(real: str) -> list[bytes]:
    """Digests of the configurations in the folders above `real`, the highest first."""
    return [_configurations(folder) for folder in list(Path(real).parents)[:ABOVE][::-1]]


def _configurations(folder: Path) -> bytes:
    try:
        with os.scandir(folder) as found:
            files = sorted((e.name, e.path) for e in found if e.name.endswith(BESIDE) and e.is_file())
    except OSError:
        return b""  # nothing above can be read for a run either
    return _digest([f"{name} {file_key(path, log=False).hex()}" for name, path in files], b"")


def _entries(here: str) -> tuple[list[str], list[str], bytes]:
    """Names and keys of the files of a folder; its folders, links to folders left out; its configurations alone."""
    parts: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda e: e.name)
    except OSError as error:
        return [f"unreadable {error.errno}"], [], b""
    for entry in entries:
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            parts.append(f"{entry.name} unreadable {error.errno}")
            continue
        if stat.S_ISDIR(mode):
            if not entry.is_symlink() and entry.name not in SKIPPED:
                folders.append(entry.name)
        elif stat.S_ISREG(mode):
            parts.append(f"{entry.name} {file_key(entry.path, log=may_be_log(entry.name)).hex()}")
    beside = [part for part in parts if part.rpartition(" ")[0].endswith(BESIDE)]
    return parts, folders, _digest(beside, b"") if beside else b""
