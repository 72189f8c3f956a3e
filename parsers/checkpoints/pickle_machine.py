"""The state of reading a pickle: what opcodes take from the bytes, leave on the stack, and would call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parsers.checkpoints.inert_objects import Buffer, Buildable, MisuseError, Named, Record, Span, shortened
from parsers.checkpoints.pickle_names import global_named
from parsers.checkpoints.unsafe_calls import Calls

__all__ = ["MOST_INTEGER_BYTES", "BrokenPickleError", "Builders", "Machine"]

#: Bytes of an integer. Random states have integers of 16 bytes; decoding and hashing cost the square of the length.
MOST_INTEGER_BYTES = 1024
#: Bytes from here on stay in the file: arrays are mapped and not copied.
LEFT_IN_PLACE = 256
#: What calls may copy, in lengths of the pickle: a text named once and encoded a million times ends here.
MOST_COPIES = 4

#: By dotted name: what stands in for the callable. Raises `MisuseError` for arguments that it cannot take.
Builders = Mapping[str, Callable[[tuple[Any, ...]], Any]]


class BrokenPickleError(Exception):
    """The bytes are no pickle from here on; the message says why."""


class Machine:
    """The state of reading one pickle: where in the bytes, the stack, the stacks below marks, the memo."""

    __slots__ = (
        "_builders",
        "_globals",
        "_offset",
        "_persistent",
        "_spent",
        "at",
        "calls",
        "data",
        "end",
        "file",
        "first",
        "marks",
        "memo",
        "misused",
        "stack",
    )

    def __init__(
        self,
        data: Buffer,
        start: int,
        end: int,
        file: Path,
        offset: int | None,
        builders: Builders,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.data, self.first, self.at, self.end, self.file = data, start, start, min(end, len(data)), file
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.calls = Calls()
        self.misused: list[tuple[int, str]] = []
        self._offset, self._builders, self._persistent = offset, builders, persistent
        self._globals: dict[tuple[str, str], Named] = {}
        self._spent = 0

    def take(self, count: int) -> bytes:
        """The next bytes, which must be there."""
        at = self.at
        if count > self.end - at:
            raise BrokenPickleError(f"{count:,} bytes are announced and {self.end - at:,} are left: cut off or damaged")
        self.at = at + count
        return self.data[at : at + count]

    def line(self) -> bytes:
        """The next bytes up to the end of the line, without it."""
        found = self.data.find(b"\n", self.at, self.end)
        if found < 0:
            raise BrokenPickleError("a line has no end: cut off or damaged")
        line = self.data[self.at : found]
        self.at = found + 1
        return line

    def bytes_or_span(self, count: int) -> bytes | Span:
        """The next bytes: copied where they are few, else where they lie."""
        if count < LEFT_IN_PLACE or count > self.end - self.at:
            return self.take(count)
        self.at += count
        return Span(self.data, self.at - count, count, self.file, self._offset)

    def pop(self) -> Any:
        """The top of the stack, taken off."""
        if not self.stack:
            raise BrokenPickleError("the stack is empty where a value is wanted")
        return self.stack.pop()

    def top(self) -> Any:
        """The top of the stack."""
        if not self.stack:
            raise BrokenPickleError("the stack is empty where a value is wanted")
        return self.stack[-1]

    def above_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off with it."""
        if not self.marks:
            raise BrokenPickleError("a mark is wanted and none is there")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def named(self, module: str, name: str) -> Named:
        """The global of this name, as a name."""
        key = (module, name)
        if (found := self._globals.get(key)) is None:
            found = self._globals[key] = global_named(module, name, self._builders)
            self.calls.name(found)
        return found

    def call(self, function: Any, args: Any) -> Any:
        """What comes of calling `function`: what its builder makes, or a record of the call, which is then listed."""
        given = args if isinstance(args, tuple) else (args,)
        if isinstance(function, Named):
            if function.name == "builtins.getattr" and (found := self._attribute(given)) is not None:
                function.called = True
                return found
            if (builder := self._builders.get(function.name)) is not None:
                return self._built(function, builder, given)
            self.calls.call(function, given)
            return Record(function.name, given)
        name = function.name if isinstance(function, Record) else type(function).__name__
        self.calls.result(name, shortened(given))
        return Record(f"{name}()", given)

    def build(self, target: Buildable, state: Any) -> None:
        """The target takes its state; one that does not fit is told as damage."""
        try:
            target.build(state)
        except MisuseError as misuse:
            self.misused.append((self.at, f"{type(target).__name__} {shortened(state)}: {misuse}"))

    def change(self, target: Named, what: str, value: Any) -> None:
        """A global of another module is changed by the pickle (`sys.modules['x'] = ...`): listed, not done."""
        self.calls.change(target, f"{what} {shortened(value)}")

    def persistent(self, key: Any) -> Any:
        """What stands outside the pickle under this key."""
        return Record("persistent id", (key,)) if self._persistent is None else self._persistent(key)

    def salvaged(self) -> Any:
        """What stood until the pickle broke: containers get what was on its way into them."""
        while self.marks:
            items = self.above_mark()
            into = self.stack[-1] if self.stack else None
            if isinstance(into, dict):
                into.update((key, value) for key, value in zip(items[::2], items[1::2], strict=False) if _plain(key))
            elif isinstance(into, list):
                into.extend(items)
        return self.stack[0] if self.stack else None

    def _attribute(self, args: tuple[Any, ...]) -> Named | None:
        """A name within a named global (a nested class, a method), which pickles of old protocols spell as a call."""
        if len(args) != 2 or not isinstance(args[0], Named) or not isinstance(args[1], str):
            return None
        owner, name = args
        if owner.risk == "dangerous" or name.startswith("_") or not name.isidentifier():
            return None
        found = self.named(owner.name, name)
        if found.risk == "dangerous":
            owner.called = True
        else:  # members of an enumeration, by which some versions of Python pickle them: the class alone is told
            found.called = True
        return found

    def _built(self, function: Named, builder: Callable[[tuple[Any, ...]], Any], args: tuple[Any, ...]) -> Any:
        function.called = True
        self._spent += sum(len(arg) for arg in args if isinstance(arg, str | bytes | list | tuple | dict | set | Span))
        if self._spent > MOST_COPIES * (self.end - self.first) + 4096:
            raise BrokenPickleError("calls copy far more than the pickle holds: made to fill the memory")
        try:
            return builder(args)
        except MisuseError as misuse:
            if function.name.startswith(("torch.", "numpy.")):  # a tensor is lost; of others the record says enough
                self.misused.append((self.at, f"{function.name}{shortened(args)}: {misuse}"))
            return Record(function.name, args)


def _plain(key: Any) -> bool:
    return isinstance(key, str | int | float | bytes | Buildable | Named) or key is None
