"""Lightning, recorded: `LightningLogger`, a logger of whichever of its two packages is in use."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from eventstream.late_classes import derived
from eventstream.lightning_logger import LoggerCore
from eventstream.optional import need

if TYPE_CHECKING:
    from eventstream.lightning_logger import LoggerCore as LightningLogger

__all__ = ["LightningLogger"]

#: The one library under its two names; classes of one are none of the other's.
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def __getattr__(name: str) -> Any:
    if name == "LightningLogger":
        return _logger_class(_package())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _package() -> str:
    """The package that the training imported, else the one that is installed."""
    found = [name for name in _PACKAGES if name in sys.modules]
    found += [name for name in _PACKAGES if importlib.util.find_spec(name.partition(".")[0]) is not None]
    return found[0] if found else _PACKAGES[0]


@functools.cache
def _logger_class(package: str) -> type[LoggerCore]:
    need(package, feature="LightningLogger", extra="lightning")
    loggers = importlib.import_module(f"{package}.loggers")
    return derived("LightningLogger", __name__, LoggerCore, loggers.Logger)
