"""Where a log without attempt numbers was resumed: steps that go back and go on from there, per rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["attempt_of", "restarts", "with_starts"]

#: More backward steps than this share of the records (and than `A_FEW`) is interleaving or disorder, not resuming.
DISORDER, A_FEW = 0.1, 3
#: How many steps before a backward one tell the usual distance between records.
RECENT = 20


def restarts(records: pl.DataFrame) -> dict[int, npt.NDArray[np.int64]]:
    """Per rank, the `order` of each record that opens another attempt.

    `records` holds one row a record: order, rank, step (null where it has none), epoch and series, which is the tag of
    a record of one number and empty for others. A resume is a step below the largest so far from which the next record
    of the rank goes on. These are none: a lone late line after which the old count goes on; a step that begins again
    while whole epochs grow (it counts within epochs); the first rows of another series (a file sorted by metric); steps
    that go back again and again (processes that write without their rank).

    >>> rows = {"order": range(5), "rank": [0] * 5, "step": [1, 2, 3, 2, 3], "epoch": [None] * 5, "series": [""] * 5}
    >>> restarts(pl.DataFrame(rows))
    {0: array([3])}
    """
    found: dict[int, npt.NDArray[np.int64]] = {}
    known = records.filter(pl.col("step").is_not_null()) if records["step"].null_count() else records
    if known["step"].is_sorted() and known["order"].is_sorted():
        return found  # nothing goes back anywhere, so nothing does in any rank
    for (rank,), rows in known.group_by(["rank"], maintain_order=True):
        rows = rows if rows["order"].is_sorted() else rows.sort("order")
        step = rows["step"].to_numpy()
        back = np.flatnonzero(step[1:] < step[:-1]) + 1
        if 0 < len(back) <= max(A_FEW, DISORDER * rows.height):
            places = _restarts(rows, back.tolist())
            if places:
                found[int(str(rank))] = rows["order"].to_numpy()[places]
    return found


def _restarts(rows: pl.DataFrame, back: list[int]) -> list[int]:
    """Places of the records that open another attempt, out of the places where the step goes back."""
    step, series = rows["step"].to_numpy(), rows["series"]
    epoch = rows["epoch"].cast(pl.Float64).to_numpy()
    places: list[int] = []
    begin, top = 0, int(step[0])  # where this attempt's count was last looked at, and its largest step
    for i in back:
        top, begin = max(top, int(step[begin:i].max())), i
        repeats = series[i] == "" or bool(((series[:i] == series[i]).to_numpy() & (step[:i] >= step[i])).any())
        if not repeats or _within_epochs(epoch, i):
            top = int(step[i])
        elif step[i] < top and _goes_on(step, i, top):
            places.append(i)
            top = int(step[i])
    return places


def _goes_on(step: npt.NDArray[np.int64], i: int, top: int) -> bool:
    """Whether the next record counts on from this one rather than from the largest step before it."""
    if i + 1 == len(step):
        return False  # nothing follows: one late line at the end is no resume yet
    after = int(step[i + 1])
    if after <= top:
        return after >= int(step[i])
    recent = np.diff(step[max(i - RECENT, 0) : i])
    usual = float(np.median(recent[recent > 0])) if (recent > 0).any() else 1.0
    return abs(after - int(step[i]) - usual) < abs(after - top - usual)


def with_starts(
    records: pl.DataFrame, opened: Mapping[int, npt.NDArray[np.int64]], starts: Sequence[int]
) -> dict[int, npt.NDArray[np.int64]]:
    """What `restarts` found, and the first record of each rank after each of the `starts`, where one stands before it.

    A step that goes back right after a start is the same restart: it is counted once.

    >>> rows = pl.DataFrame({"order": [0, 2, 3], "rank": [0] * 3})
    >>> with_starts(rows, {}, [1])
    {0: array([2])}
    """
    found = dict(opened)
    for (rank,), rows in records.group_by(["rank"], maintain_order=True):
        order = np.sort(rows["order"].to_numpy())
        firsts = order[[i for i in np.searchsorted(order, starts) if 0 < i < len(order)]]
        known = found.get(int(str(rank)), np.empty(0, np.int64))
        if len(places := np.unique(np.concatenate([known, firsts]))):
            found[int(str(rank))] = places
    return found


def _within_epochs(epoch: npt.NDArray[np.float64], i: int) -> bool:
    whole = epoch[i] == np.floor(epoch[i]) and epoch[i - 1] == np.floor(epoch[i - 1])
    return bool(whole and epoch[i] > epoch[i - 1])


def attempt_of(
    rank: npt.NDArray[np.int32], order: npt.NDArray[np.int64], opened: Mapping[int, npt.NDArray[np.int64]]
) -> npt.NDArray[np.int32]:
    """The attempt of each record, given what `restarts` found.

    >>> attempt_of(np.array([0, 0, 1]), np.array([2, 3, 9]), {0: np.array([3])})
    array([0, 1, 0], dtype=int32)
    """
    attempt = np.zeros(len(order), np.int32)
    for one, places in opened.items():
        mine = rank == one
        attempt[mine] = np.searchsorted(places, order[mine], side="right")
    return attempt
