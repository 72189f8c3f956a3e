"""What to say where nothing could be read: what stands there, what was looked for, and what may help."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from parsers.places.archives import damage_of
from parsers.registry import HEAD, formats
from parsers.tree import SKIPPED, Unread, may_be_log

__all__ = ["nothing_at"]

#: Files named in the sentence, and entries of folders looked at to find them: a message, not a second walk.
_SHOWN, _LOOKED = 3, 500
#: Bytes that a text has few of: control characters other than line ends, tabs, backspaces and escapes.
_CONTROL = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})


def nothing_at(path: Path, unread: Unread) -> str:
    """The sentence for a path given by name at which no run was found.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder, "train.log")
    ...     _ = place.write_text("loading\\nKilled\\n")
    ...     print(nothing_at(place, []).removeprefix(folder).partition(" (")[0])
    /train.log: text without numbers that have a step or an epoch, in 2 lines
    """
    if unread:
        listed = "; ".join(f"{where}: {reason}" for where, reason in unread[:_SHOWN])
        return f"{path}: no run can be read here, {len(unread)} could not be looked into ({listed})"
    if not path.is_dir():
        return f"{path}: {_about(path)}"
    return f"{path}: no run below this folder{_in_folder(path)} (known are {_known()})"


def _known() -> str:
    return "; ".join(f"{f.name}: {f.what}" for f in formats())


def _about(path: Path) -> str:
    """What the file is, and what of it was looked for."""
    if path.stat().st_size == 0:
        return "the file is empty"
    text = _text_without_numbers(path)
    return text or f"not a format that is known (known are {_known()})"


def _text_without_numbers(path: Path) -> str:
    """What a text log lacks, with its last line; empty for what is no text log."""
    from parsers import text

    with path.open("rb") as file:
        head = file.read(HEAD)
    if not text.is_text(head) or len(head.translate(None, _CONTROL)) * 20 < len(head) * 19:
        return ""
    lines, last = _lines(path)
    said = f"; the last line is {last[:80]!r}" if last else ""
    return (
        f"text without numbers that have a step or an epoch, in {lines:,} lines (looked for the lines of "
        f"{text.dialect_names()}, and for key: value, key=value or | key value | with a step or an epoch "
        f"in three lines or more{said}); it is not a format that is known. If its program prints numbers in a form of "
        "its own, a few lines of TOML describe it, given as load(path, dialects=FILE) or --dialects FILE: "
        "parsers.text_logs.dialect_toml.from_toml"
    )


def _lines(path: Path) -> tuple[int, str]:
    """How many lines the file has, and the last that is not empty."""
    from parsers.content.lines import blocks
    from parsers.finish import Reject

    count, last = 0, ""
    for block in blocks(path):
        if isinstance(block, Reject):
            continue
        count += block.count()
        filled = [line for line in block.data.rsplit(b"\n", 50) if line.strip()]
        last = filled[-1].decode("utf-8", "replace").strip() if filled else last
    return count, last


def _in_folder(folder: Path) -> str:
    """Files that are named as logs are, and what is wrong with them."""
    named = list(islice(_likely(folder), _SHOWN + 1))
    if not named:
        return ", and no file that is named as logs are"
    said = [f"{path.name}: {_short(path)}" for path in named[:_SHOWN]]
    return f"; {'; '.join(said)}{', ...' if len(named) > _SHOWN else ''}"


def _short(path: Path) -> str:
    try:
        damage = damage_of(path)
        return damage[0][1] if damage else _about(path).partition(" (")[0]
    except OSError as error:
        return f"cannot be opened ({error.strerror or error})"


def _likely(folder: Path) -> Iterator[Path]:
    """Files below the folder that are named as logs are, as far as a short look finds them."""
    waiting, looked = [folder], 0
    while waiting and looked < _LOOKED:
        try:
            entries = sorted(islice(waiting.pop(0).iterdir(), _LOOKED), key=lambda entry: entry.name)
        except OSError:
            continue  # a folder that may not be entered was said already
        looked += len(entries)
        yield from (entry for entry in entries if may_be_log(entry.name) and entry.is_file())
        waiting += [entry for entry in entries if entry.is_dir() and entry.name not in SKIPPED]
