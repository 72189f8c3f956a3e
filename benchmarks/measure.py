"""One measured comparison, and how it is measured: ours and the alternative in turn, medians, in one process."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Row", "peak_rss_mb", "time_both", "time_call"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the benchmark table. `ratio` is `figure` over `against`, or its inverse where `faster` is wanted."""

    work: str
    ours: float
    other_name: str
    other: float
    goal: str  # "at most 2.5 x" or "at least 5 x faster", as the issue states it
    ratio: float
    met: bool
    unit: str = "s"
    note: str = ""

    @classmethod
    def at_most(
        cls, work: str, ours: float, other_name: str, other: float, limit: float, *, unit: str = "s", note: str = ""
    ) -> Row:
        """Ours may cost up to `limit` times the other."""
        ratio = ours / other
        return cls(work, ours, other_name, other, f"at most {limit:g} x", ratio, ratio <= limit, unit, note)

    @classmethod
    def faster(
        cls, work: str, ours: float, other_name: str, other: float, limit: float, *, unit: str = "s", note: str = ""
    ) -> Row:
        """Ours must be at least `limit` times faster than the other."""
        ratio = other / ours
        return cls(work, ours, other_name, other, f"at least {limit:g} x faster", ratio, ratio >= limit, unit, note)

    @classmethod
    def shown(cls, work: str, ours: float, other_name: str, other: float, *, unit: str = "s", note: str = "") -> Row:
        """Ours does more than the other, or nobody set a goal: the ratio is printed and cannot fail."""
        return cls(work, ours, other_name, other, "none set", other / ours, True, unit, note)


def time_call(call: Callable[[], Any], *, repeats: int = 3) -> float:
    """Median seconds of `call` over `repeats`, garbage collected before each."""
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def time_both(ours: Callable[[], Any], other: Callable[[], Any], *, repeats: int = 3) -> tuple[float, float]:
    """Median seconds of both, called in turn so that a slow spell of the machine hits both alike."""
    a, b = [], []
    for _ in range(repeats):
        a.append(time_call(ours, repeats=1))
        b.append(time_call(other, repeats=1))
    return statistics.median(a), statistics.median(b)


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB (grows only; measure in a fresh process)."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss survives exec, so a fresh process would show its parent's peak; the high-water mark does not
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024 * 1024)
