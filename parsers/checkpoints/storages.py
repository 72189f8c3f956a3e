"""The storage that a pickle of torch asks for by its persistent id."""

from __future__ import annotations

from typing import Any

from parsers.checkpoints.inert_objects import Named, PickledStorage
from parsers.checkpoints.torch_objects import STORAGES

__all__ = ["storage_asked"]

#: Elements of a storage that can be counted with bytes in 64 bits.
MOST_ELEMENTS = 1 << 58


def storage_asked(key: Any) -> PickledStorage | None:
    """The storage of the id `("storage", class, key, device, elements)`; None for any other id.

    >>> storage_asked(("storage", Named("torch.FloatStorage", True, "unknown"), "0", "cpu", 12))
    PickledStorage(key='0', dtype='float32', count=12, place=None, trouble='', unsupported=False)
    """
    if not isinstance(key, tuple) or len(key) < 5 or key[0] not in ("storage", b"storage"):
        return None
    _, kind, name, _, count = key[:5]
    dtype = storage_type(kind)
    if dtype == "" or not isinstance(count, int) or not 0 <= count < MOST_ELEMENTS:
        return None
    return PickledStorage(name if isinstance(name, str) else str(name)[:100], dtype, count)


def storage_type(kind: Any) -> str | None:
    """Element type of a class of storages; None of an untyped one, empty where it is no such class."""
    name = kind.name.rpartition(".")[2] if isinstance(kind, Named) else ""
    return STORAGES.get(name, "")
