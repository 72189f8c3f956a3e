"""Numbers that are still on a device: copied to the host without waiting, written when they have arrived."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["HostCopy", "Pending", "copies_of", "on_device"]

#: Records that may wait for their device. A device that is this far behind is waited for, so that memory stays bounded.
MOST_PENDING = 64


def on_device(value: object) -> bool:
    """Whether `value` is a torch tensor of one number that the host cannot read without waiting.

    Tensors on the `meta` device hold no number and are none; arrays of other libraries are read at once.

    >>> on_device(1.0)
    False
    """
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and isinstance(value, torch.Tensor)
        and value.device.type not in ("cpu", "meta")
        and value.numel() == 1
    )


class HostCopy:
    """The numbers of one tensor on their way to the host, as they were when the copy was made.

    On CUDA the copy goes into pinned memory behind the work already queued and an event tells when it has arrived; a
    tensor of the host is read at once. Other devices have no such queue that is the same for all: there the numbers
    are cloned on the device and read when somebody needs them.
    """

    def __init__(self, tensor: Any) -> None:
        self._numbers: list[Any] | None = None
        self._event: Any = None
        flat = tensor.detach().reshape(-1)
        kind = flat.device.type
        if kind == "cpu":
            self._numbers = flat.tolist()
        elif kind == "cuda":
            self._copy_to_pinned(flat)
        else:
            self._held = flat.clone()

    def _copy_to_pinned(self, flat: Any) -> None:
        torch = sys.modules["torch"]
        with torch.cuda.device(flat.device):
            self._held = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            self._held.copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def ready(self) -> bool:
        """Whether `numbers` would return without waiting."""
        return self._numbers is not None or (self._event is not None and bool(self._event.query()))

    def numbers(self) -> list[Any]:
        """The numbers; waits for the device where they have not arrived."""
        if self._numbers is None:
            if self._event is not None:
                self._event.synchronize()
            self._numbers = self._held.cpu().tolist()
            del self._held
        return self._numbers


def copies_of(tensors: Mapping[str, Any]) -> list[tuple[list[str], HostCopy]]:
    """One copy for all tensors that share device and type, with their names in the order of its numbers."""
    torch = sys.modules["torch"]
    groups: dict[tuple[Any, Any], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((tensor.device, tensor.dtype), []).append(name)
    stacked = (
        (names, torch.stack([tensors[name].detach().reshape(()) for name in names])) for names in groups.values()
    )
    return [(names, HostCopy(stack)) for names, stack in stacked]


class Pending:
    """Records that wait for their numbers, in the order in which they were given, at most `MOST_PENDING` of them."""

    def __init__(self) -> None:
        #: What waits; its truth tells callers at little cost whether there is anything to drain.
        self.waiting: deque[tuple[list[HostCopy], Callable[[], None]]] = deque()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, copies: Iterable[HostCopy], write: Callable[[], None]) -> None:
        """Call `write` once all of `copies` have arrived: now, at a later `drain`, or when too many wait."""
        self.waiting.append((list(copies), write))
        self.drain()

    def drain(self, *, wait: bool = False) -> None:
        """Write the records whose numbers have arrived, oldest first; with `wait`, all of them."""
        with self._lock:
            while self.waiting:
                copies, write = self.waiting[0]
                late = not wait and len(self.waiting) <= MOST_PENDING
                if late and not all(copy.ready() for copy in copies):
                    return
                self.waiting.popleft()
                write()
