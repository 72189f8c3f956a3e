"""Where the log of a run ends, and which steps of saves lie beyond it."""

from __future__ import annotations

from dataclasses import dataclass

from parsers.run import Run

__all__ = ["BY_ONE", "LogEnd", "log_end"]

#: A counter may be read before or after it is raised.
BY_ONE = 1


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last logged step of all series, and the steps from record to record of the longest of them."""

    last: int
    every: float

    def reaches(self, step: int) -> bool:
        """Whether the log may speak of a step: a save may stand before a record that was not made any more."""
        return step <= self.last + max(self.every, 1) + BY_ONE


def log_end(run: Run) -> LogEnd | None:
    """The end of the numbers of a run (events do not count: a save is one); None where no series has steps.

    A single record tells no interval: `every` is 0 then.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 3, "step": [10, 20, 30], "value": [3.0, 2.0, 1.0]})
    >>> end = log_end(finish("demo", "demo.jsonl", "jsonl", rows))
    >>> end, end.reaches(41), end.reaches(42)
    (LogEnd(last=30, every=10.0), True, False)
    """
    rows = run.catalogue.drop_nulls("last_step")
    if rows.is_empty():
        return None
    longest = rows.sort("count", descending=True, maintain_order=True).row(0, named=True)
    every = (longest["last_step"] - longest["first_step"]) / max(longest["count"] - 1, 1)
    return LogEnd(max(rows["last_step"].to_list()), every)
