"""Pickles that would do harm, each by another way: opened the ordinary way, each makes a file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any


class Calls:
    """Pickled, it calls `function` with `args` as soon as it is opened."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def touches(file: Path) -> str:
    """A command that makes `file`."""
    return f"touch {file}"


def system(file: Path) -> Calls:
    """The plain case."""
    return Calls(os.system, touches(file))


def by_hand(file: Path) -> dict[str, bytes]:
    """Pickles that no `dumps` writes, by how they call."""
    command = touches(file).encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    return {
        "global and reduce": b"cposix\nsystem\n(" + text + b"tR.",
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.",
        "attributes of a harmless module": b"\x80\x04\x8c\x06random\x8c\x09os.system\x93" + text + b"\x85R.",
        "instance": b"(" + text + b"iposix\nsystem\n.",
        "object": b"(cposix\nsystem\n" + text + b"o.",
        "new object": b"\x80\x02cposix\nsystem\n" + text + b"\x85\x81.",
        "result of a call": b"cbuiltins\ngetattr\n(cos\n__dict__\nX\x03\x00\x00\x00gettR(" + text + b"tR.",
        "name of Python 2": b"c__builtin__\neval\n("
        + b"X"
        + (20).to_bytes(4, "little")
        + b"__import__('antigra'"
        + b"tR.",
        "after a broken end": b"cposix\nsystem\n(" + text + b"tR\xff\xff\xff",
        "dropped before the end": b"cposix\nsystem\n(" + text + b"tR0N.",
        "inside a rebuilt tensor": b"ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\nN(" + text + b"ttR.",
        "inside a map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cposix\nsystem\n](" + text + b"etRtR.",
        "a module changed": b"csys\nmodules\nX\x02\x00\x00\x00os" + text + b"s.",
        "a class changed": b"ctorch.nn.modules.module\nModule\n}X\x07\x00\x00\x00forwardcposix\nsystem\nsb.",
        "partly applied": pickle.dumps(Calls(__import__("functools").reduce, os.system, [touches(file)])),
    }
