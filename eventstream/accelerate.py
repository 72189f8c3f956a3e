"""Accelerate, recorded: `AccelerateTracker`, for `Accelerator(log_with=...)`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from eventstream.accelerate_tracker import TrackerCore
from eventstream.late_classes import derived
from eventstream.optional import need

if TYPE_CHECKING:
    from eventstream.accelerate_tracker import TrackerCore as AccelerateTracker

__all__ = ["AccelerateTracker"]


def __getattr__(name: str) -> Any:
    if name == "AccelerateTracker":
        return _tracker_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _tracker_class() -> type[TrackerCore]:
    tracking = need("accelerate.tracking", feature="AccelerateTracker", extra="huggingface")
    return derived("AccelerateTracker", __name__, TrackerCore, tracking.GeneralTracker)
