"""Tables in text that count steps or epochs: Keras, Ultralytics, Stable-Baselines, spreadsheets, anybody's CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from eventstream.errors import InputError
from parsers.content.jsontext import plain_pairs
from parsers.content.lines import LINE_LIMIT
from parsers.content.table_rows import add_table
from parsers.content.table_text import Dialect, find_dialect
from parsers.finish import Reject
from parsers.places.beside import GENERIC, load_beside, run_name
from parsers.run import Run
from parsers.tables.generic import Records

__all__ = ["read", "read_as", "sniff"]

#: Configuration that training tools write beside their table.
CONFIGS = ("args.yaml", "args.yml", "hparams.yaml", "config.yaml", "config.yml", "params.yaml")
HEAD = 1 << 16


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins a table with a header that names a step or an epoch, and rows that hold one."""
    if not head or (b"\x00" in head[:512] and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))):
        return False
    return find_dialect(_with_first_line(path, head)) is not None


def _with_first_line(path: Path, head: bytes) -> bytes:
    """`head`, or more of the file where its first line does not end there: thousands of columns have a long header."""
    if len(head) < HEAD or b"\n" in head:
        return head
    with path.open("rb") as file:
        return file.readline(LINE_LIMIT) + file.read(HEAD)


def read(path: Path) -> Run:
    r"""The run in a table of text: comma, semicolon, tab or bar between the cells, names in the first line.

    Wide (one column a metric) or long (columns such as step, metric, value). Names may be padded or quoted, a name that
    stands twice gets a number (`loss.1`), decimal commas are understood where the separator is none. The step, epoch,
    time, split and rank are told by their names (`parsers.tables.columns.ALIASES`); timesteps are the step where
    nothing else is. UTF-8 with or without mark, UTF-16, UTF-32, and Latin-1 where it is none of these. Where the file
    has a common name (`results.csv`, `progress.csv`), the configuration beside it (`args.yaml` and its like) is
    `run.config`. Lines that cannot be read are rejects with their number. Raises `InputError` when there is no such
    header.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "keras.csv")
    ...     _ = path.write_text("epoch,loss,val_loss\n0,2.5,2.75\n1,2.0,2.5\n")
    ...     run = read(path)
    >>> run.scalars.select("epoch", "split", "metric", "value").rows()[-1]
    (1.0, 'eval', 'loss', 2.5)
    """
    return read_as(path, "csv", CONFIGS)


def read_as(path: Path | str, format: str, configs: tuple[str, ...]) -> Run:
    """The run in a table, said to be of `format`, with its configuration out of the first of `configs` beside it.

    >>> read_as(Path("no/such.csv"), "csv", ())
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: no/such.csv: cannot be opened (No such file or directory)
    """
    path = Path(path) if isinstance(path, str) else path
    dialect = dialect_of(path)
    records = Records(str(path))
    _add_comments(records, dialect)
    add_table(path, dialect, records)
    if not records.pieces.tags() and not records.rejects:
        records.rejects.append(Reject(str(path), "a header and no rows: nothing was logged", line=dialect.skip))
    if GENERIC.fullmatch(path.name.split(".")[0]):
        add_config(records, path.parent, configs)
    return records.run(run_name(path), format)


def dialect_of(path: Path) -> Dialect:
    """How the table at `path` is written; raises `InputError` where it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        dialect = find_dialect(_with_first_line(path, head))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    if dialect is None:
        raise InputError(f"{path}: no header that names a step or an epoch; name the column `step` or `epoch`")
    return dialect


def add_config(records: Records, folder: Path, names: tuple[str, ...]) -> None:
    """The first of `names` in `folder` that holds an object as configuration."""
    found, rejects = load_beside(folder, names)
    records.rejects += rejects
    for content in list(found.values())[:1]:
        _configured(records, content)


def _configured(records: Records, content: Mapping[str, object]) -> None:
    if content:
        records.config.update(content)
        records.event((0, 0, 0, None, None, None, ""), "config", content)


def _add_comments(records: Records, dialect: Dialect) -> None:
    """A JSON object in a comment is configuration."""
    for comment in dialect.comments:
        try:
            content = json.loads(comment.lstrip("# "), object_pairs_hook=plain_pairs)
        except (ValueError, RecursionError):
            continue  # words: nothing that could be read wrongly
        if isinstance(content, dict):
            _configured(records, content)
