"""Plain text logs of many programs (`text_logs.dialects`), of a user's own, or of any that write keys and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from eventstream.errors import InputError
from parsers.content.lines import Block, to_utf8
from parsers.finish import Reject, finish
from parsers.places.rotation import is_later_part, packed_of, part_before, parts_of
from parsers.run import Run
from parsers.tables.events import event_frame, payload_text
from parsers.text_logs.dialect import PLACE, Dialect
from parsers.text_logs.dialects import DIALECTS
from parsers.text_logs.lines import Lines, line_frame, text_lines
from parsers.text_logs.reader import Reader, choose
from parsers.text_logs.tail import ending

__all__ = ["dialect_names", "is_part", "is_text", "read", "read_parts", "sniff", "speaks"]

#: Bytes searched for a first line: some logs print their source code or their environment before.
SEARCHED = 4 << 20
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = re.compile(r"^size (\d+)", re.MULTILINE)
#: Beginnings of what is no text log although it may hold text: JSON, XML, pickles, archives, images.
_FOREIGN = re.compile(
    rb"\s*(?:[{\[]\s*[\"{\[\]}]|<[?!a-zA-Z]|%PDF|PK\x03\x04|\x1f\x8b|\x28\xb5\x2f\xfd|\x89PNG|PAR1|SQLite)"
)
#: Where the plan was read that the lines tell in passing.
_LINES = "the lines of the log"
#: File names so general that the folder tells more.
_GENERAL = re.compile(
    r"(?:train(?:er)?(?:_\d+)?(?:_?log)?|output|out|stdout|stderr|log|logs|main|loss_log|console|run)", re.IGNORECASE
)


def sniff(path: Path, head: bytes) -> bool:
    """Whether lines of a known dialect stand in the first 4 MiB, or three lines that say a step and the same name.

    Of a rotated set whose newest part is empty or says nothing yet, the part before. A Git-LFS pointer is taken too, so
    that `read` can say what it is.
    """
    if head.startswith(_LFS):
        return True
    if not head:
        return path.is_file() and _speaks(part_before(path, SEARCHED))
    if not is_text(head) or not _speaks(head):
        if not is_text(head):
            return False
        if len(head) < 1 << 16:
            return _in_older_part(path)
        with path.open("rb") as file:
            return _speaks(file.read(SEARCHED))
    return True


def speaks(path: Path, head: bytes, dialects: Sequence[Dialect]) -> bool:
    """Whether lines of one of `dialects` stand in the first 4 MiB; other dialects and the automatic mode are not asked.

    >>> from parsers.text_logs.dialect import Pattern
    >>> mine = Dialect("mine", "my own", (Pattern("it ", "^it (?P<step>[0-9]+) L (?P<loss>[0-9.]+)$"),))
    >>> speaks(Path("a.log"), b"it 1 L 0.5", [mine]), speaks(Path("a.log"), b"step: 1 loss: 0.5", [mine])
    (True, False)
    """
    if not head or not is_text(head):
        return False
    if len(head) == 1 << 16:
        with path.open("rb") as file:
            head = file.read(SEARCHED)
    lines = line_frame(Block(to_utf8(head), 1))
    return choose(lines, dialects) in dialects


def is_part(path: Path) -> bool:
    """Whether `path` is a rotated part of another log here, which is read with it."""
    return is_later_part(path)


def read(path: Path, dialects: Sequence[Dialect] = ()) -> Run:
    r"""The run in a text log; rotated parts (`train.log.1`, `train.log.2.gz`, ...) are read before it.

    The dialect is told by the lines themselves: the one of `dialects` (a user's own,
    `parsers.text_logs.dialect_toml.from_toml`) or of the table (`parsers.text_logs.dialects.DIALECTS`) that most lines
    speak; where none does, lines with a step or an epoch that hold `key: value`, `key=value` or `| key value |`, or
    nothing but `key value, key value`. A letter behind a number counts: `1.2k` is 1200. An event `note` says which
    lines were used and how many; text between them is no reject, but a line of numbers that is cut or damaged is. Tags
    are the names as printed; the metric of `lm loss` is `lm_loss`. Settings that a log prints (arguments) become
    `config`; an error at its end an event `end`. Raises `InputError` when the file cannot be opened, is a Git-LFS
    pointer, or holds no such line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "gpt.log")
    ...     _ = path.write_text("compiling\nstep 0: train loss 4.2, val loss 4.3\niter 0: loss 4.25, time 31.52ms\n")
    ...     run = read(path)
    >>> run.series("loss", split="eval").select("step", "value").rows()
    [(0, 4.3)]
    >>> run.events["kind"].to_list()
    ['note']
    """
    return read_parts(path, (*dialects, *DIALECTS), "text")


def read_parts(path: Path, dialects: Sequence[Dialect], format: str) -> Run:
    """The run in the rotated set of `path`, in one of `dialects` or automatically."""
    reader = Reader(str(path), dialects)
    parts = parts_of(path)
    tail, order = "", 0
    for part in parts:
        reader.file = str(part)
        for item in _blocks(part, order, whole=len(parts) == 1):
            if isinstance(item, Reject):
                reader.rejects.append(item)
                continue
            order += item.frame.height
            tail = (tail + item.text[-(1 << 16) :])[-(1 << 16) :]
            _refuse_pointer(path, item.text)
            reader.add(item)
    if reader.chosen is None:
        raise InputError(_nothing(path, reader))
    return _run(path, reader, tail, format, len(parts))


def _blocks(part: Path, order: int, *, whole: bool) -> Iterator[Lines | Reject]:
    """The lines of one part; damage of a compressed one is a reject, and so is a part that cannot be opened."""
    packed = packed_of(part)
    try:
        yield from text_lines(part if packed is None else cast(Path, packed), order)
    except InputError as error:
        if whole:
            raise
        yield Reject(str(part), f"this part of the log is left out: {error}")
    if packed is not None:
        yield from (Reject(file, reason) for file, reason in packed.damage)


def _run(path: Path, reader: Reader, tail: str, format: str, parts: int) -> Run:
    name = _name(path)
    table = reader.table(name)
    events = [_note(reader, parts)]
    events += [_event(*event) for event in reader.events]
    if (end := ending(tail)) is not None:
        events.append((1 << 62, 0, 0, None, None, None, "", "end", payload_text(end)))
    if reader.settings:
        events.insert(0, (0, 0, 0, None, None, None, "", "config", payload_text(_config(reader))))
    reader.rejects.sort(key=lambda r: (r.file, r.line or 0))
    run = finish(
        name,
        str(path),
        format,
        table.lazy(),
        events=event_frame(events, reader.opened),
        rejects=reader.rejects,
        config=_config(reader),
    )
    # What each line counts towards is no setting of the program's, whose own may say "as many as there is data for".
    return replace(run, beside={_LINES: {"max_steps": reader.planned_steps}}) if reader.planned_steps else run


def _note(reader: Reader, parts: int) -> tuple[Any, ...]:
    assert reader.chosen is not None
    used = sum(reader.used.values())
    line, text = reader.examples.get(reader.chosen.name, (0, ""))
    kinds = ", ".join(f"{count:,} with {literal!r}" for literal, count in reader.used.most_common())
    said = f"read as {reader.chosen.name} ({reader.chosen.what}): {used:,} of {reader.total:,} lines used ({kinds})"
    if reader.chosen.carry:
        said += f"; {' and '.join(reader.chosen.carry)} of the last line that says it hold for the lines after it"
    if reader.epoch_length is not None:
        said += (
            "; iterations begin again with every epoch: the step is that of the epochs before, "
            f"{reader.epoch_length:,} iterations each, plus the iteration"
        )
    payload = {
        "text": said, "level": "info", "dialect": reader.chosen.name, "lines": reader.total, "used": used,
        "iterations_per_epoch": reader.epoch_length,
        "used_by": dict(reader.used), "example": text, "example_line": line, "parts": parts,
    }  # fmt: skip
    return (0, 0, 0, None, None, None, "", "note", payload_text(payload))


def _event(place: dict[str, Any], kind: str, groups: dict[str, Any]) -> tuple[Any, ...]:
    """One event: the groups of its line as payload; of samples the files as a list."""
    payload: dict[str, Any] = {key: value for key, value in groups.items() if value is not None and key not in PLACE}
    if "level" in payload:
        payload["level"] = str(payload["level"]).lower()
    if "files" in payload:
        payload = {"kind": "sample", **payload, "files": re.split(r",\s+", str(payload["files"])), "metadata": {}}
    time = place["time"]
    micros = None if time is None else round(time.timestamp() * 1e6)
    return (
        place["order"], place["rank"] or 0, 0, place["step"], place["epoch"], micros, place["split"] or "", kind,
        payload_text({**payload, "line": place["line"]}),
    )  # fmt: skip


def _config(reader: Reader) -> dict[str, Any]:
    return {key: _plain(value) for key, value in reader.settings.items()}


def _plain(text: str) -> Any:
    """A setting as it was meant: a truth value, nothing, a number, or text."""
    words = {"true": True, "false": False, "none": None, "null": None, "~": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text):
        return float(text)
    return text


def _name(path: Path) -> str:
    """The stem of the file, or its folder's name where the file is called as most logs are."""
    stem = re.sub(r"\.(?:log|txt|out|err)(?:\.\d{1,4})?$", "", path.name) or path.name
    folder = path.parent.name
    return folder if folder and _GENERAL.fullmatch(stem) else stem


def dialect_names() -> str:
    """The dialects of the table, as they are listed where none of them was found."""
    return ", ".join(dialect.name for dialect in DIALECTS)


def is_text(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be a text log."""
    text = to_utf8(head)
    return bool(text) and not _FOREIGN.match(text) and text.count(b"\0") * 100 < len(text)


def _speaks(data: bytes) -> bool:
    lines = line_frame(Block(to_utf8(data), 1))
    return choose(lines, DIALECTS) is not None


def _in_older_part(path: Path) -> bool:
    """Whether an older part of a rotated set speaks where the newest does not yet."""
    for part in parts_of(path)[-2:-1]:
        try:
            with (packed_of(part) or part).open("rb") as file:
                return _speaks(file.read(SEARCHED))
        except (OSError, InputError):
            return False  # the part is judged when it is read
    return False


def _refuse_pointer(path: Path, text: str) -> None:
    if text.startswith(_LFS.decode()):
        size = _LFS_SIZE.search(text)
        what = f"a file of {int(size[1]):,} bytes" if size else "a file"
        raise InputError(f"{path}: a Git LFS pointer to {what}, not the file itself; run `git lfs pull` there")


def _nothing(path: Path, reader: Reader) -> str:
    known = ", ".join(d.name for d in reader.dialects)
    end = f"; line {reader.last[0]:,}, the last, is {reader.last[1].strip()[:80]!r}" if reader.last[0] else ""
    return (
        f"{path}: no line of metrics among {reader.total:,} lines (looked for {known}, and for key: value or "
        f"| key value | with a step or an epoch in three lines or more){end}"
    )
