"""What the events of each kind hold, made of what a training has at hand: loss parts, tensors, files, checkpoints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eventstream.records import LOSS_PARTS
from eventstream.values import describe_tensor, plain_text

__all__ = ["checkpoint", "losses", "sample", "tensors"]

_CHUNK = 1 << 20


def losses(components: Mapping[Any, Any], total: object, displayed: object) -> dict[str, Any]:
    """Payload of `losses`. A component is a mapping of its parts, a pair (raw, weight), or its raw value alone.

    Only what was given is written: a product computed here would hide a training that multiplies wrongly.

    >>> losses({"kd": (2.0, 0.5), "ce": 1.0}, 2.0, None)
    {'components': {'kd': {'raw': 2.0, 'weight': 0.5}, 'ce': {'raw': 1.0}}, 'total': 2.0}
    """
    payload: dict[str, Any] = {"components": {name: _parts(name, given) for name, given in components.items()}}
    payload |= {key: value for key, value in (("total", total), ("displayed", displayed)) if value is not None}
    return payload


def _parts(name: object, given: object) -> dict[str, Any]:
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in LOSS_PARTS]
        if unknown:
            raise ValueError(f"component {name!r} has {unknown[0]!r}; its parts are {', '.join(LOSS_PARTS)}")
        parts = dict(given)
    elif isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise ValueError(f"component {name!r} is a pair (raw, weight) or a mapping, got {len(given)} values")
        parts = {"raw": given[0], "weight": given[1]}
    else:
        parts = {"raw": given}
    return {key: value for key, value in parts.items() if value is not None}


def tensors(stage: str, given: object, status: Mapping[str, str] | None) -> dict[str, Any]:
    """Payload of `inputs` and `outputs`: shape, dtype and device under each name, nothing of the content.

    Nested mappings give names joined by `/`, lists and tuples of tensors names by position. A mapping that has a
    `shape` is taken as a description already made.
    """
    payload: dict[str, Any] = {"stage": plain_text(stage), "tensors": dict(_described("", given))}
    if status is not None:
        payload["status"] = {plain_text(key): plain_text(value) for key, value in status.items()}
    return payload


def _described(name: str, given: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(given, Mapping) and "shape" not in given:
        parts: Iterable[tuple[object, object]] = given.items()
    elif isinstance(given, (list, tuple)) and any(hasattr(part, "shape") for part in given):
        parts = enumerate(given)
    else:
        yield name or "0", describe_tensor(given)
        return
    for key, value in parts:
        text = plain_text(key)
        yield from _described(f"{name}/{text}" if name else text, value)


def sample(folder: Path, kind: str, files: object, metadata: object) -> dict[str, Any]:
    """Payload of `samples`: files inside the run's folder by their relative names, others as given."""
    listed = [files] if isinstance(files, (str, os.PathLike)) else files
    if not isinstance(listed, Iterable):
        raise TypeError(f"files must be a path or several, got {type(files).__name__}")
    payload: dict[str, Any] = {"kind": kind, "files": [_inside(folder, file) for file in listed]}
    if metadata is not None:
        payload["metadata"] = metadata
    return payload


def checkpoint(folder: Path, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Payload of `checkpoint`: the size in bytes, and the SHA-256 of the content.

    For a folder, the size of all its files and the digest over their names, sizes and contents in the order of names.
    """
    given = Path(path)
    digest, size = hashlib.sha256(), 0
    if given.is_dir():
        for file in sorted(part for part in given.rglob("*") if part.is_file()):
            name = file.relative_to(given).as_posix()
            digest.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            size += _digest(file, digest)
    else:
        size = _digest(given, digest)
    return {"path": _inside(folder, path), "bytes": size, "sha256": digest.hexdigest()}


def _digest(file: Path, digest: Any) -> int:
    size = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size


def _inside(folder: Path, path: Any) -> str:
    given = Path(path)
    absolute = given.absolute()
    return plain_text(absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else os.fspath(given))
