"""The header of a safetensors file: its tensors, each checked by itself, and what is wrong with the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from parsers.checkpoints.checkpoint import Damage
from parsers.checkpoints.spans import holes, overlapping
from parsers.checkpoints.tensors import DTYPES, Storage, Tensor

__all__ = ["LONGEST", "Header", "header_of"]

#: The longest header that the format allows.
LONGEST = 100_000_000
#: The format's names of element types, and ours.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
#: Types of the format whose elements share bytes: they are known, and not decoded here.
_PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_KNOWN = frozenset((*_DTYPES, *_PACKED))
#: An array has no more dimensions and no more bytes than this (NumPy's limits).
_MOST_DIMENSIONS, _MOST_BYTES = 64, 2**63 - 1


@dataclass(slots=True)
class Header:
    """What a header says: tensors that fit their file, `__metadata__`, and the damage of all others."""

    tensors: list[Tensor] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)


class _Object(dict[str, Any]):
    """A JSON object, and the keys that stand in it twice."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        super().__init__()
        self.twice: set[str] = set()
        for key, value in pairs:
            if key in self:
                self.twice.add(key)
            self[key] = value


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as the header has it: bytes `first` to `end` of the data."""

    dtype: str
    shape: tuple[int, ...]
    first: int
    end: int


def header_of(text: bytes, file: Path, data: int) -> Header:
    """The tensors of a header, of a file whose values stand behind it in `data` bytes.

    A tensor is given where its type is known, its shape and type make the bytes that it claims, these lie in the file,
    and no other tensor claims them. Each of the others is a `Damage` with its name and the byte of the file at which it
    would begin; bytes between tensors that belong to none are damage too, and take no tensor away.

    >>> header = header_of(b'{"w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}', Path("a.safetensors"), 12)
    >>> header.tensors[0].shape, header.tensors[0].storage.start, header.damage
    ((2, 3), 65, [])
    """
    found = Header()
    try:
        told = json.loads(text.decode("utf-8"), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        found.damage.append(Damage(file, "byte 8", f"the header is not JSON: {error}"))
        return found
    if not isinstance(told, _Object):
        found.damage.append(Damage(file, "byte 8", f"the header is no JSON object but {_shown(told)}"))
        return found
    found.metadata = _metadata(told.pop("__metadata__", None), file, found.damage)
    start = 8 + len(text)
    _add_tensors(found, told, file, start, data)
    return found


def _metadata(told: Any, file: Path, damage: list[Damage]) -> dict[str, str]:
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        damage.append(Damage(file, "__metadata__", f"is no JSON object but {_shown(told)}"))
        return {}
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def _add_tensors(found: Header, told: _Object, file: Path, start: int, data: int) -> None:
    entries: dict[str, _Entry] = {}
    for name, fields in told.items():
        entry = "the header has this name twice" if name in told.twice else _entry(fields)
        if isinstance(entry, _Entry):
            entries[name] = entry
        else:
            found.damage.append(Damage(file, f"tensor {name!r}", entry))
    spans = {name: (entry.first, entry.end) for name, entry in entries.items() if entry.end <= data}
    shared = overlapping(spans)
    for name, entry in entries.items():
        where = f"tensor {name!r}, byte {start + entry.first:,}"
        if entry.dtype in _PACKED:
            reason = f"elements of {_PACKED[entry.dtype]} bits ({entry.dtype}) are not decoded here"
            found.damage.append(Damage(file, where, reason, unsupported=True))
        elif wrong := _wrong(entry, data, shared.get(name, "")):
            found.damage.append(Damage(file, where, wrong))
        else:
            storage = Storage(file, start + entry.first, entry.end - entry.first)
            found.tensors.append(Tensor(name, _DTYPES[entry.dtype], entry.shape, storage))
    claimed = [(min(entry.first, data), min(entry.end, data)) for entry in entries.values()]
    for first, end in holes(claimed, data):
        reason = f"{end - first:,} bytes belong to no tensor; the format has no holes"
        found.damage.append(Damage(file, f"byte {start + first:,}", reason))


def _entry(fields: Any) -> _Entry | str:
    """An entry whose fields have the right types, or what is wrong with them."""
    if not isinstance(fields, _Object):
        return f"is no JSON object but {_shown(fields)}"
    if fields.twice:
        return f"its entry has {', '.join(sorted(fields.twice))} twice"
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _KNOWN:
        return f"its dtype is {_shown(dtype)}, which the format does not have"
    if not _are_counts(shape):
        return f"its shape is {_shown(shape)}, and no list of whole numbers from 0"
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"its data_offsets are {_shown(offsets)}, and not a first byte and the byte after the last"
    return _Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _wrong(entry: _Entry, data: int, other: str) -> str:
    """Why a well-formed entry does not fit its file, or nothing."""
    if len(entry.shape) > _MOST_DIMENSIONS or math.prod(n for n in entry.shape if n) * 16 > _MOST_BYTES:
        return f"no array can have the shape {_shown(list(entry.shape))}"
    needed = math.prod(entry.shape) * DTYPES[_DTYPES[entry.dtype]].bits // 8
    if needed != entry.end - entry.first:
        claimed = f"it claims {entry.end - entry.first:,} bytes"
        return f"{claimed}, and {entry.dtype} of the shape {_shown(list(entry.shape))} takes {needed:,}"
    if entry.end > data:
        return f"its {needed:,} bytes end {entry.end - data:,} beyond the end of the file: the file is cut off"
    return f"tensor {other!r} claims the same bytes" if other else ""


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= 80 else f"{text[:77]}..."
