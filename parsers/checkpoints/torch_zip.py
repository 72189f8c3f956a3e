"""Reader of what `torch.save` writes since torch 1.6: a zip of one pickle and a file for each storage.

The pickle is read without running it (`inert_pickle`), storages are mapped where they lie in the archive. TorchScript
archives have the same shape: their tensors are read, their code is not. Lightning's `.ckpt` is one too.
Source: torch/serialization.py (`_save`, `_load`) and the layout notes in torch's documentation of serialization.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parsers.checkpoints.checkpoint import Checkpoint, Damage, UnsafeCall
from parsers.checkpoints.file_bytes import content
from parsers.checkpoints.inert_objects import Buffer, PickledStorage, Record
from parsers.checkpoints.inert_pickle import unpickle
from parsers.checkpoints.legacy_stream import Stream, torch_builders
from parsers.checkpoints.located import located
from parsers.checkpoints.pickled_tree import Tree, flattened
from parsers.checkpoints.progress import epoch_of, step_of
from parsers.checkpoints.storages import storage_asked
from parsers.checkpoints.tensors import DTYPES, Storage
from parsers.checkpoints.zip_directory import Directory, Entry, directory, unpacked

__all__ = ["Archive", "read", "read_archive", "sniff"]

#: A pickle that is packed is unpacked into memory up to this length; those of torch are a few megabytes, and mapped.
MOST_PICKLE = 1 << 28
HEAD = 1 << 16
LOCAL = b"PK\x03\x04"
PICKLES = ("data.pkl", "constants.pkl", "attributes.pkl")


@dataclass
class Archive:
    """What one archive holds, before its tensors are held against their bytes."""

    file: Path
    tree: Tree = field(default_factory=Tree)
    calls: list[UnsafeCall] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


def sniff(path: Path) -> bool:
    """Whether `path` is a zip that holds a pickle as torch names it; a cut one is told by its first entries."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        head = opened.read(HEAD)
        if head[:4] != LOCAL:
            return False
        if any(name.encode() in head for name in PICKLES):
            return True
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(_is_pickle(entry) for entry in directory(data).entries)


def read(path: Path) -> Checkpoint:
    """The tensors and values of an archive of torch, named by their dotted path in it.

    A tensor that is quantised by channel has no `scale`: its `scales` and `zero_points` are tensors beside it
    (`layer.weight.scales`); one that is sparse is its stored values, with its indices beside it (`w.indices`, or
    `w.crow_indices` and `w.col_indices`). Meta tensors have a shape and no values; of a `DTensor` the shard that the
    file holds is told. Bits that torch keeps for lazy conjugation and negation are not applied to the values.

    Every pickle of the archive is read for what it would call, also those that torch would not open; two entries of one
    name, or that overlap, are damage, as readers disagree which one counts. A cut archive gives the tensors whose bytes
    are there. Checksums are not compared, which would read every byte: `parsers.checkpoints.verify` does.
    """
    with content(path) as data:
        found = read_archive(path, data)
    tensors, missing = located(path, found.tree.tensors)
    values = found.tree.values
    return Checkpoint(
        path,
        "torch",
        tensors,
        values,
        tuple(found.calls),
        (*found.damage, *missing),
        (path,),
        step_of(values),
        epoch_of(values),
    )


def read_archive(path: Path, data: Buffer, start: int = 0, end: int | None = None, name: str = "") -> Archive:
    """The archive in these bytes of a file; `name` stands before the names of what is in it."""
    listed = directory(data, start, end)
    archive = Archive(path, damage=[Damage(path, where, why) for where, why in listed.damage])
    pickles = [entry for entry in listed.entries if _is_pickle(entry)]
    main = _main(listed, pickles)
    big = any(entry.name.endswith("/byteorder") and unpacked(data, entry, 8) == b"big" for entry in listed.entries)
    for entry in pickles:
        beside = entry is not main
        _read_pickle(archive, data, entry, _storages(path, listed, entry, big), None if beside else name)
    _tell_twins(archive, pickles, main)
    code = [entry.name for entry in listed.entries if "/code/" in entry.name and entry.name.endswith(".py")]
    if code:
        told = f"{len(code)} files of TorchScript, {code[0][:100]} the first"
        archive.calls.append(UnsafeCall(path, code[0][:100], "torch.jit.load", told, "unknown"))
    return archive


def _is_pickle(entry: Entry) -> bool:
    """torch looks entries up without regard to case."""
    return entry.name.lower().endswith((".pkl", ".pickle"))


def _main(listed: Directory, pickles: list[Entry]) -> Entry | None:
    """The pickle that torch opens: data.pkl in the folder of the first entry."""
    folder = listed.entries[0].name.split("/")[0] if listed.entries else ""
    wanted = f"{folder}/data.pkl".lower()
    named = [entry for entry in pickles if entry.name.lower() == wanted]
    other = [entry for entry in pickles if entry.name.lower().rpartition("/")[2] == "data.pkl"]
    return next(iter((*named, *other, *pickles)), None)


def _tell_twins(archive: Archive, pickles: list[Entry], main: Entry | None) -> None:
    twins = [entry for entry in pickles if entry.name.lower().rpartition("/")[2] == "data.pkl"]
    if main is not None and len(twins) > 1:
        why = f"{len(twins)} pickles are called data.pkl ({', '.join(repr(entry.name[:60]) for entry in twins[:3])}): "
        why += f"readers disagree which one counts, here the one at byte {main.header:,}; no library writes this"
        archive.damage.append(Damage(archive.file, f"byte {twins[-1].header:,}", why))


def _read_pickle(
    archive: Archive, data: Buffer, entry: Entry, persistent: Callable[[Any], Any], name: str | None
) -> None:
    """Read one pickle; its tree becomes the archive's where `name` is given (TorchScript's constants join it)."""
    source: Buffer = unpacked(data, entry, MOST_PICKLE) if entry.packed else data
    start = 0 if entry.packed else entry.start
    # Inside an archive no storage comes as a file of torch of its own; should one, it is read all the same.
    inner = Stream(archive.file, source, 0, 0)
    got = unpickle(
        source,
        file=archive.file,
        builders=torch_builders(inner),
        member=entry.name[:200],
        start=start,
        end=len(source) if entry.packed else start + entry.size,
        offset=None if entry.packed else 0,
        persistent=persistent,
    )
    archive.calls.extend((*got.calls, *inner.calls))
    archive.damage.extend((*got.damage, *inner.damage))
    if name is None and not entry.name.endswith("constants.pkl"):
        return
    tree = flattened(got.value, name or "" if name is not None else "constants")
    for place, tensor in tree.tensors.items():
        archive.tree.tensors.setdefault(place, tensor)
    archive.tree.values = {**tree.values, **archive.tree.values}
    archive.damage.extend(Damage(archive.file, entry.name[:200], why) for why in tree.trouble)


def _storages(path: Path, listed: Directory, pickle: Entry, big: bool) -> Callable[[Any], Any]:
    """What answers the pickle's persistent ids: the storages that lie in the archive beside it."""
    entries: Mapping[str, Entry] = {entry.name: entry for entry in reversed(listed.entries)}
    folder, _, own = pickle.name.rpartition("/")
    beside = "constants" if own == "constants.pkl" else "data"
    known: dict[tuple[str, str | None], PickledStorage] = {}

    def answer(key: Any) -> Any:
        asked = storage_asked(key)
        if asked is None:
            return Record("persistent id", (key,))
        mark = (asked.key, asked.dtype)
        if mark not in known:
            names = (f"{folder}/{beside}/{asked.key}", f"{folder}/{asked.key}")
            entry = next((entries[name] for name in names if name in entries), None)
            known[mark] = _placed(path, asked, entry, names[0], big)
        return known[mark]

    return answer


def _placed(path: Path, storage: PickledStorage, entry: Entry | None, name: str, big: bool) -> PickledStorage:
    width = DTYPES[storage.dtype].bits // 8 if storage.dtype in DTYPES else 1
    if entry is None:
        storage.trouble = f"its storage {name!r} is not in the archive"
    elif big and width > 1:
        storage.trouble = "its numbers have their most significant byte first, as some machines write them: not read"
        storage.unsupported = True
    else:
        storage.trouble = entry.trouble
        nbytes = min(entry.nbytes, storage.count * width)
        storage.place = Storage(path, entry.start, nbytes, entry.size if entry.packed else None)
    return storage
