"""What the events of each kind hold, made of what a training has at hand: loss parts, tensors, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eventstream.records import LOSS_PARTS
from eventstream.values import describe_tensor, plain_text

__all__ = ["inside", "losses", "sample", "tensors"]


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
    payload: dict[str, Any] = {"kind": kind, "files": [inside(folder, Path(file).absolute(), file) for file in listed]}
    if metadata is not None:
        payload["metadata"] = metadata
    return payload


def inside(folder: Path, place: Path, given: object) -> str:
    """A file as an event names it: relative to the run's folder where it lies inside, else as it was given.

    A relative name that means nothing from the current folder is taken as relative to the run's.
    """
    if place.is_relative_to(folder):
        return plain_text(place.relative_to(folder).as_posix())
    text = os.fsdecode(given)  # type: ignore[arg-type] # a path was made of it
    return plain_text(os.fspath(place) if not os.path.isabs(text) and place.exists() else text)  # noqa: PTH117
