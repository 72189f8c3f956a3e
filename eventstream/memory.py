"""Memory that a training takes, as the text log shows it: asked of the system and of torch, never of the device."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Memory", "gpu_gb", "ram_gb"]

GB = 1e9
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Memory:
    """Gigabytes in use; None where it is not known."""

    gpu_gb: float | None = None
    gpu_total_gb: float | None = None
    ram_gb: float | None = None

    @classmethod
    def now(cls) -> Memory:
        """What this process takes at the moment. Costs some ten microseconds."""
        used, total = gpu_gb()
        return cls(used, total, ram_gb())


def ram_gb() -> float | None:
    """Resident memory of this process: from /proc, else psutil where it is installed, else None.

    >>> 0.001 < ram_gb() < 1000
    True
    """
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GB
    except (OSError, ValueError, IndexError, AttributeError):
        return _by_psutil()  # no /proc here (macOS, Windows)


def _by_psutil() -> float | None:
    if not _has_psutil():
        return None
    return float(importlib.import_module("psutil").Process().memory_info().rss) / GB


@lru_cache(maxsize=1)
def _has_psutil() -> bool:
    return importlib.util.find_spec("psutil") is not None


def gpu_gb() -> tuple[float | None, float | None]:
    """What torch took of the current CUDA device, and what the device has; None where CUDA is not in use.

    torch is not imported for it, CUDA not started, and the device not waited for: the figure is the allocator's own.
    """
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None, None
    device = cuda.current_device()
    return cuda.memory_reserved(device) / GB, cuda.get_device_properties(device).total_memory / GB
