"""Episodes as Stable-Baselines' Monitor writes them: `monitor.csv`, or one `N.monitor.csv` for each environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from parsers.content.lines import Block, blocks, to_utf8
from parsers.content.table_rows import add_table
from parsers.content.table_text import cells, decoded
from parsers.csv import dialect_of
from parsers.finish import Reject
from parsers.places.beside import children, folder_name, load_beside, run_name
from parsers.run import Run
from parsers.tables.assemble import INDEX
from parsers.tables.columns import number
from parsers.tables.generic import Records

__all__ = ["owned", "read", "sniff"]

#: Reward, length in timesteps, seconds since the start.
COLUMNS = ("r", "l", "t")
PROGRESS = "progress.csv"
_FILE = re.compile(r"(?:(\d{1,9})\.)?monitor\.csv")
_SAFE = re.compile(r"\w[\w.\-]*")


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins a file of Monitor, or the folder holds several: `#{...}`, then a header with r, l and t."""
    if not head:
        return path.is_dir() and len(_files(path)) > 1
    return _opening(head) is not None


def _opening(head: bytes) -> tuple[Mapping[str, Any], list[str]] | None:
    """The object in the first line and the names in the second, where the file begins like that."""
    lines = decoded(to_utf8(head))[0].split("\n", 2)
    if len(lines) < 2 or not lines[0].startswith("#"):
        return None
    names = [name.strip() for name in cells(lines[1].rstrip("\r"), ",")]
    if not set(COLUMNS) <= set(names):
        return None
    try:
        facts = json.loads(lines[0].lstrip("# "))
    except (ValueError, RecursionError):
        facts = {}  # damaged, and nothing of the episodes depends on it but their time
    return (facts if isinstance(facts, dict) else {}), names


def _files(folder: Path) -> list[Path]:
    return [path for path in children(folder) if _FILE.fullmatch(path.name) and path.is_file() and _begins(path)]


def owned(folder: Path) -> set[str]:
    """Names of the files of Monitor and of `progress.csv`, which is read with them."""
    return {PROGRESS, *(path.name for path in _files(folder))}


def _begins(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _opening(file.read(1 << 16)) is not None
    except OSError:
        return False  # not one that could be read


def read(path: Path | str) -> Run:
    r"""The episodes in a file of Monitor, or in all of a folder, the environment's number as rank.

    The metrics are `r` (reward of the episode), `l` (its length in timesteps), `t` (seconds since the start) and
    whatever numbers else were recorded. The format has no step: `step` is the number of timesteps of that
    environment up to the end of the episode, so the sum of `l`. The time is `t_start` of the first line plus `t`, until
    `t` goes back, where the file was appended to. Of a folder, `progress.csv` belongs to the run, and `args.yml` and
    `config.yml` of the folder named like the environment are configuration. Raises `InputError` when nothing can be
    opened. Source: `stable_baselines3.common.monitor` and `results_plotter` in their documentation.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "0.monitor.csv")
    ...     _ = path.write_text('#{"t_start": 1.6e9, "env_id": "Acrobot-v1"}\nr,l,t\n-500.0,500,4.5\n-255.0,256,9.5\n')
    ...     run = read(path)
    >>> run.series("r")["step"].to_list(), run.series("r")["value"].to_list(), run.config["env_id"]
    ([500, 756], [-500.0, -255.0], 'Acrobot-v1')
    """
    path = Path(path) if isinstance(path, str) else path
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no monitor.csv here")
    records = Records(str(path), numbered=True)  # timesteps only grow: an appended file shows no restart
    for file in files:
        _add_file(records, file, _rank(file) if len(files) > 1 else 0)
    folder = path if path.is_dir() else path.parent
    _add_config(records, folder)
    if path.is_dir() and (folder / PROGRESS).is_file():
        _add_progress(records, folder / PROGRESS)
    return records.run(folder_name(folder) if path.is_dir() else _name(path), "stable-baselines")


def _name(path: Path) -> str:
    rank = _FILE.fullmatch(path.name)
    return folder_name(path.parent) if rank else run_name(path)


def _rank(path: Path) -> int:
    match = _FILE.fullmatch(path.name)
    return min(int(match[1] or 0), 2**31 - 1) if match else 0


def _add_progress(records: Records, path: Path) -> None:
    try:
        dialect = dialect_of(path)
    except InputError as error:
        records.rejects.append(Reject(str(path), str(error)))
        return
    add_table(path, dialect, records)


def _add_config(records: Records, folder: Path) -> None:
    environment = records.config.get("env_id")
    if not isinstance(environment, str) or not _SAFE.fullmatch(environment):
        return  # a name out of a file must not lead out of the folder
    found, rejects = load_beside(folder / environment, ("args.yml", "config.yml"))
    records.rejects += rejects
    for content in found.values():
        records.config.update(content)
        records.event((0, 0, 0, None, None, None, ""), "config", content)


@dataclass(slots=True)
class _Episodes:
    file: str
    names: list[str]
    lines: list[int] = field(default_factory=list)
    rows: list[list[float | None]] = field(default_factory=list)

    def add(self, records: Records, line: int, text: str, *, cut: bool) -> None:
        """One line of the file."""
        found = cells(text, ",")
        if cut:
            reason = "the last line has no line end and may be cut; it was not read"
        elif len(found) != len(self.names):
            reason = f"{len(found)} cells where the header has {len(self.names)}"
        else:
            reason = self._take(line, found)
        if reason:
            records.rejects.append(Reject(self.file, reason, line=line, text=text))

    def _take(self, line: int, found: Sequence[str]) -> str:
        row = [number(cell) for cell in found]
        if all(value is None for value in row):
            return "" if [cell.strip() for cell in found] == self.names else "no number in the line"
        self.lines.append(line)
        self.rows.append(row)
        odd = [f"{n} is {c[:40]!r}" for n, c, v in zip(self.names, found, row, strict=True) if v is None and c.strip()]
        return f"not a number: {', '.join(odd)}" if set(COLUMNS) & {o.split(" ")[0] for o in odd} else ""


def _add_file(records: Records, path: Path, rank: int) -> None:
    episodes: _Episodes | None = None
    start: object = None
    for block in blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        first = 0
        if episodes is None:
            opening = _opening(block.data[: 1 << 16])
            if opening is None:
                records.rejects.append(Reject(str(path), "does not begin as Monitor writes", line=1))
                return
            facts, names = opening
            records.config.update(facts)
            start, first = facts.get("t_start"), 2
            episodes = _Episodes(str(path), names)
        _add_lines(records, episodes, block, first)
    if episodes is not None and episodes.rows:
        _add_episodes(records, episodes, rank, number(start))


def _add_lines(records: Records, episodes: _Episodes, block: Block, first: int) -> None:
    lines = decoded(block.data)[0].split("\n")
    last = len(lines) - 1
    for place, text in enumerate(lines):
        if place >= first and text.strip() and not text.startswith("#"):
            cut = place == last and not block.ended
            episodes.add(records, block.first + place, text.rstrip("\r"), cut=cut)


def _add_episodes(records: Records, episodes: _Episodes, rank: int, start: float | None) -> None:
    schema = dict.fromkeys(dict.fromkeys(episodes.names), pl.Float64)
    values = pl.DataFrame(episodes.rows, schema=schema, orient="row")
    length = pl.when(pl.col("l").is_finite() & (pl.col("l") >= 0) & (pl.col("l") < 2**31)).then(pl.col("l"))
    index = values.select(
        order=pl.Series(episodes.lines, dtype=pl.Int64),
        rank=pl.lit(rank, pl.Int32),
        attempt=pl.lit(0, pl.Int32),
        step=length.fill_null(0.0).cum_sum().cast(pl.Int64),
        epoch=pl.lit(None, pl.Float64),
        time=_times(start),
        split=pl.lit(""),
    )
    records.pieces.add_wide(index.select(list(INDEX)), values)


def _times(start: float | None) -> pl.Expr:
    """When each episode ended; null from where the seconds go back, as the clock was then started anew."""
    if start is None or not 0.0 < start < 4e9:
        return pl.lit(None, INDEX["time"])
    seconds = pl.col("t")
    known = seconds.is_between(0.0, 1e9) & (seconds.diff() < 0).fill_null(False).cum_max().not_()
    return pl.when(known).then(((seconds + start) * 1e6).round().cast(pl.Int64)).cast(INDEX["time"])
