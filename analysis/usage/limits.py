"""Units of memory by name, and the limits that a run tells: logged totals, settings, and a hundred percent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from parsers.naming.roles import words_of
from parsers.run import Run

__all__ = ["Limit", "Unit", "device_of", "limit_for", "limits_of", "number", "shown", "unit_of"]

_BYTES = {"b": 1, "byte": 1, "bytes": 1, "kb": 1024, "kib": 1024, "mb": 1 << 20, "mib": 1 << 20}
_BYTES |= {"gb": 1 << 30, "gib": 1 << 30, "tb": 1 << 40, "tib": 1 << 40}
_PERCENT = re.compile(r"\b(?:percent|percentage|pct|perc)\b|\bgpu \d+ memory allocated$")
_DEVICE = re.compile(r"\b(?:gpu\d*|cuda|vram|hbm|gpumem|device|allocated|reserved|allocator|active|npu|tpu|hip)\b")
_HOST = re.compile(r"\b(?:rss|ram|host|cpu|proc|process|swap|maxrss)\b")
_NAMED = re.compile(
    r"\b(?:gpu|cuda|vram|ram|hbm|host|device|mem|memory|\w*mem)\b.*\b(?:total|limit|capacity)\b|"
    r"\b(?:total|max) (?:gpu|cuda|vram|device|host|system) (?:mem|memory|ram)\b"
)
#: What is counted, and is no limit: total memory allocated, or used.
_USED = re.compile(r"\b(?:used|allocated|reserved|usage|alloc|free|available|percent)\b")
#: A number without a unit is one of bytes where it is larger than any number of megabytes of one machine.
_SURELY_BYTES = 1e9
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Unit:
    """What one is of a series: `factor` in bytes (None for percent and for unknown), and its `name`."""

    name: str
    factor: float | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in bytes of a `device` (`gpu`, `host`, or empty where its name does not say), and where it stands."""

    bytes: float
    device: str
    where: str


def unit_of(metric: str, largest: float = 0.0) -> Unit:
    """The unit of a series of memory by its name, and where that is silent by its largest value.

    >>> [unit_of(m).name for m in ("gpu_memory_mb", "rssGB", "system.gpu.0.memoryAllocated", "memory")]
    ['mb', 'gb', 'percent', '']
    """
    words = words_of(metric)
    if _PERCENT.search(words):
        return Unit("percent", None)
    for word in reversed(words.split()):
        if word in _BYTES and word != "b":
            return Unit("bytes" if word == "byte" else word, float(_BYTES[word]))
    return Unit("bytes", 1.0) if largest >= _SURELY_BYTES else Unit("", None)


def device_of(metric: str) -> str:
    """`gpu`, `host`, or empty where the name does not say.

    >>> [device_of(m) for m in ("gpu_memory_mb", "proc.memory.rssMB", "memory")]
    ['gpu', 'host', '']
    """
    words = words_of(metric)
    return "gpu" if _DEVICE.search(words) else "host" if _HOST.search(words) else ""


def shown(value: float, unit: Unit) -> str:
    """A number of a series as a sentence says it.

    >>> shown(8123.4, Unit("mb", 2.0**20)), shown(93.25, Unit("percent", None))
    ('8,123 MB', '93.2 %')
    """
    name = "%" if unit.name == "percent" else unit.name.upper() if len(unit.name) < 4 else unit.name
    return f"{number(value)} {name}".strip()


def number(value: float) -> str:
    """A number in three digits, or whole with its thousands apart.

    >>> number(8123.4), number(0.012345)
    ('8,123', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def limits_of(run: Run) -> list[Limit]:
    """Every limit of memory that the run tells: series such as `gpu_memory_total_gb`, and numbers of its settings."""
    found: list[Limit] = []
    names = dict.fromkeys(run.catalogue["metric"].to_list())
    for metric in [name for name in names if _is_limit(name)]:
        values = run.series(metric)["value"].to_numpy()
        known = values[values > 0]
        if len(known) and known.min() == known.max():
            found += _limit(metric, float(known[0]), f"the series {metric}")
    for key, value in _numbers(run.config, "", 0):
        if _is_limit(key) and value > 0:
            found += _limit(key, value, f"the setting {key}")
    return found


def _is_limit(name: str) -> bool:
    words = words_of(name)
    return _NAMED.search(words) is not None and not _USED.search(words)


def _limit(name: str, value: float, where: str) -> Iterator[Limit]:
    unit = unit_of(name, value)
    if unit.factor is not None:
        yield Limit(value * unit.factor, device_of(name), where)


def _numbers(settings: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, float]]:
    for key, value in settings.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _numbers(value, f"{name}.", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def limit_for(metric: str, values: pl.Series, limits: list[Limit]) -> tuple[float, str] | None:
    """The limit of a series in its own unit, and where it stands; None where none is known to be of this series.

    A limit belongs to a series of the same device; one without a device to a series without. A percentage has its
    limit at 100, unless it goes beyond (some tools count 100 % a core).
    """
    known = values.drop_nans().drop_nulls().to_numpy()
    if len(known) == 0:
        return None
    unit = unit_of(metric, float(known.max()))
    if unit.name == "percent":
        return (100.0, "a percentage") if known.max() <= 100.0 else None
    fit = [limit for limit in limits if limit.device == device_of(metric)]
    if unit.factor is None or not fit:
        return None
    least = min(fit, key=lambda limit: limit.bytes)
    return least.bytes / unit.factor, least.where
