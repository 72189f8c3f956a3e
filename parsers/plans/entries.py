"""A configuration as a flat list: every setting with the path that leads to it, whatever form people nest it in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Entry", "entries_of", "number_of"]

#: Configurations are far smaller; what is larger is a dump, of which the beginning is read.
MOST_ENTRIES, MAX_DEPTH = 20_000, 16
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")
#: A reference to another setting of the file, and how many of them are followed from one to the next.
_POINTER, _HOPS = re.compile(r"\$\{([\w.]+)\}"), 8
_SPLIT = re.compile(r"[./]")
#: How Weights & Biases writes a setting into its `config.yaml`.
_WANDB = {"value", "desc"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: `path` as written, `keys` the same in lower case with underscores, `file` where it stands."""

    file: str
    path: tuple[str, ...]
    keys: tuple[str, ...]
    value: Any

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.keys[-1]

    @property
    def where(self) -> str:
        """File and path, as the user finds it: `hparams.yaml: optimizer.lr`."""
        return f"{self.file}: {'.'.join(self.path)}"[:200]

    def below(self, words: frozenset[str]) -> bool:
        """Whether a part of the path before the last is one of `words`."""
        return not words.isdisjoint(self.keys[:-1])


def entries_of(file: str, content: Mapping[str, Any]) -> list[Entry]:
    """Every setting of a configuration, objects before what they hold; at most `MOST_ENTRIES`, `MAX_DEPTH` levels.

    Names joined by points or slashes are paths (`optimizer.lr`), `--max-steps` and `maxSteps` are `max_steps`, and
    W&B's `{"value": ...}` is its value. A reference of Hydra's (`${trainer.max_steps}`) is what it refers to.

    >>> [(e.keys, e.value) for e in entries_of("a.yaml", {"optimizer.lr": 0.1, "T_max": {"value": 5}})]
    [(('optimizer', 'lr'), 0.1), (('t_max',), 5)]
    """
    found: list[Entry] = []
    for entry in _walk(file, (), (), content, 0):
        value = entry.value
        found.append(
            replace(entry, value=_pointed(content, value)) if isinstance(value, str) and "$" in value else entry
        )
        if len(found) >= MOST_ENTRIES:
            break
    return found


def _walk(
    file: str, path: tuple[str, ...], keys: tuple[str, ...], content: Mapping[Any, Any], depth: int
) -> Iterator[Entry]:
    for name, given in content.items():
        value = given["value"] if isinstance(given, Mapping) and "value" in given and set(given) <= _WANDB else given
        here, plain = (*path, str(name)), (*keys, *(_plain(part) for part in _SPLIT.split(str(name)) if part))
        if not plain:
            continue
        yield Entry(file, here, plain, value)
        if depth >= MAX_DEPTH:
            continue
        if isinstance(value, Mapping):
            yield from _walk(file, here, plain, value, depth + 1)
        elif isinstance(value, list | tuple):
            inner = {str(place): one for place, one in enumerate(value) if isinstance(one, Mapping)}
            yield from _walk(file, here, plain, inner, depth + 1)


def _pointed(content: Mapping[str, Any], value: str) -> Any:
    """The value that `${trainer.max_steps}` points to, as OmegaConf writes it; the text itself where to nothing."""
    for _ in range(_HOPS):
        match = _POINTER.fullmatch(value.strip())
        if match is None:
            return value
        found: Any = content
        for part in match[1].split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if not isinstance(found, str):
            return value if found is None else found
        value = found
    return value


def _plain(name: str) -> str:
    spaced = _CAMEL.sub("_", name.strip().lstrip("-"))
    return spaced.replace("-", "_").replace(" ", "_").lower()


def number_of(value: object) -> float | None:
    """A finite number, also where it is written as text (YAML 1.1 takes `1e-4` for text); None for all else.

    >>> number_of("1e-4"), number_of(True), number_of("auto"), number_of(float("nan"))
    (0.0001, None, None, None)
    """
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
