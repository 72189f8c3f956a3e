"""Messages that say memory ran out: ends with an error, notes, printed lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from parsers.run import Run

__all__ = ["OutOfMemory", "is_out_of_memory", "out_of_memory"]

#: What PyTorch, CUDA, HIP, TensorFlow, JAX, Python, C++ and the kernel say when memory runs out.
_SAID = (
    r"(?i)\bout[ _-]of[ _-]memory\b|outofmemory|\bOOM\b|oom[- _]kill|\bRESOURCE_EXHAUSTED\b|std::bad_alloc"
    r"|\bMemoryError\b|cannot allocate memory|can't allocate memory|failed to allocate .{0,40}memory"
    r"|unable to allocate .{0,40}(?:array|memory|bytes|GiB|MiB)"
)
_MATCH = re.compile(_SAID)
#: Advice and settings speak of it too.
_ADVICE = re.compile(
    r"(?i)\b(?:avoid|prevent|reduce|in case of|if you|may|might|could|can cause|would|likely to|risk|handling|retry on"
    r"|no out of memory|without)\b.{0,60}$"
)
_KINDS = ("end", "note", "console", "unreadable", "error", "log")


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """One such message: who said it (`end`, `note`, ...), rank and step, whether it ended the run, and its words."""

    kind: str
    rank: int
    step: int | None
    final: bool
    text: str


def is_out_of_memory(text: str) -> bool:
    """Whether a line says that memory ran out, and does not only speak of the danger.

    >>> is_out_of_memory("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    True
    >>> is_out_of_memory("expandable segments are on to avoid out of memory errors"), is_out_of_memory("zoom: 3")
    (False, False)
    """
    found = _MATCH.search(text)
    return found is not None and not _ADVICE.search(text[: found.start()])


def out_of_memory(run: Run) -> list[OutOfMemory]:
    """The messages in a run's events and rejects, in order; of one kind, rank and step only the first."""
    kinds = run.events.filter(pl.col("kind").is_in(_KINDS) & pl.col("payload").str.contains(_SAID))
    found: dict[tuple[str, int, int | None], OutOfMemory] = {}
    for row in kinds.iter_rows(named=True):
        line = next((line for line in _texts(row["payload"]) if is_out_of_memory(line)), None)
        if line is not None:
            final = row["kind"] == "end" or _is_last(run, row)
            told = OutOfMemory(row["kind"], row["rank"], row["step"], final, _excerpt(line))
            found.setdefault((told.kind, told.rank, told.step), told)
    for text in run.rejects.filter(pl.col("text").str.contains(_SAID))["text"].to_list():
        if is_out_of_memory(text):
            found.setdefault(("reject", 0, None), OutOfMemory("reject", 0, None, False, _excerpt(text)))
    return list(found.values())


def _texts(payload: str) -> Iterator[str]:
    """The lines of text in a payload, from end to beginning of a traceback."""
    try:
        waiting: list[Any] = [json.loads(payload)]
    except json.JSONDecodeError:
        waiting = [payload]  # a foreign event whose payload is text
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield from reversed(value.splitlines())
        elif isinstance(value, dict):
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)


def _is_last(run: Run, row: dict[str, Any]) -> bool:
    """Whether no number was recorded after an event: by step, else by time; unknown counts as no."""
    if row["step"] is not None and run.catalogue.height:
        last = run.catalogue.filter(pl.col("rank") == row["rank"])["last_step"].drop_nulls().to_list()
        return bool(last) and row["step"] >= max(last)
    ended = run.attempts["ended"].drop_nulls().to_list() if row["time"] is not None else []
    return bool(ended) and row["time"] >= max(ended)


def _excerpt(line: str) -> str:
    found = _MATCH.search(line)
    begin = max(0, (found.start() if found else 0) - 80)
    return line[begin : begin + 200].strip()
