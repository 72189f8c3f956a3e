"""A pickle read without running it: an own machine for its opcodes, in which every global is only a name.

Python's unpickler imports what a pickle names and calls what it says. Here a name stays a name (`Named`), a call is
made only to builders of this package (a tensor becomes a description of a tensor), and every other call becomes a
`Record` and is listed. Each claim of the bytes (a length, a count) is held against the bytes that are there before
anything is built, so that memory stays in proportion to the file. Where a pickle breaks off, what was built until then
is kept.

Source of the opcodes: the comments of Python's `pickletools`, protocols 0 to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parsers.checkpoints.checkpoint import Damage, UnsafeCall
from parsers.checkpoints.inert_objects import Buffer
from parsers.checkpoints.pickle_machine import BrokenPickleError, Builders, Machine
from parsers.checkpoints.pickle_opcodes import HANDLERS, STOP

__all__ = ["MOST_OPCODES", "Unpickled", "unpickle"]

#: Opcodes of one pickle. A checkpoint has about 45 for each tensor: this is one of 200,000 tensors, in about five
#: seconds and one gigabyte of memory; more is no checkpoint.
MOST_OPCODES = 10_000_000
TOO_LONG = f"more than {MOST_OPCODES:,} opcodes: what comes behind is not read"
#: Calls with arguments that they cannot take, of which damage tells.
MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Unpickled:
    """What a pickle holds, as inert objects; `end` is the byte behind it, `whole` whether its end was reached."""

    value: Any
    end: int
    whole: bool
    calls: tuple[UnsafeCall, ...]
    damage: tuple[Damage, ...]


def unpickle(
    data: Buffer,
    *,
    file: Path,
    builders: Builders,
    member: str = "",
    start: int = 0,
    end: int | None = None,
    offset: int | None = 0,
    persistent: Callable[[Any], Any] | None = None,
) -> Unpickled:
    """The pickle that begins at `start` of `data`, as inert objects: nothing it names is imported, looked up or called.

    `builders` are the calls that are known, by dotted name; `persistent` answers persistent ids (a storage of torch).
    `offset` is where in `file` the data begin, None where they were packed there; `member` names the pickle in what it
    reports. A pickle that breaks off, or claims more than there is, is in `damage` with its byte, and `value` is what
    stood until there.

    >>> from parsers.checkpoints.inert_builders import STANDARD
    >>> got = unpickle(b"cposix\\nsystem\\n(S'rm -r /'\\ntR.", file=Path("a.pkl"), builders=STANDARD)
    >>> [(call.name, call.arguments, call.risk) for call in got.calls]
    [('posix.system', "('rm -r /')", 'dangerous')]
    """
    machine = Machine(data, start, len(data) if end is None else end, file, offset, builders, persistent)
    reason = ""
    try:
        reason = _run(machine)
        value = machine.salvaged() if reason else machine.pop()
    except BrokenPickleError as broken:
        reason, value = str(broken), machine.salvaged()
    what = f"{member}, " if member else ""
    damage = [Damage(file, f"{what}byte {at - start:,}", why) for at, why in machine.misused[:MOST_TOLD]]
    if reason:
        damage.append(Damage(file, f"{what}byte {machine.at - start:,}", reason, unsupported=reason == TOO_LONG))
    return Unpickled(value, machine.at, not reason, machine.calls.told(file, member), tuple(damage))


def _run(machine: Machine) -> str:
    """Run the opcodes up to the pickle's end; why it was left before, if it was."""
    data, end, handlers = machine.data, machine.end, HANDLERS
    for _ in range(MOST_OPCODES):
        at = machine.at
        if at >= end:
            raise BrokenPickleError("no end of the pickle: cut off")
        opcode = data[at]
        machine.at = at + 1
        if opcode == STOP:
            return ""
        handlers[opcode](machine)
    return TOO_LONG
