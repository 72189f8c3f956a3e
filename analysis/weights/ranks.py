"""Copies that several processes saved of one model: one of them is the story, the others are held against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from analysis.findings import Finding
from analysis.limits import Gauge
from analysis.weights.kept import OF_FILES
from analysis.weights.reading import Kept, Reading
from analysis.weights.replicas import findings_of_replicas
from analysis.weights.saved import Saved, told_once
from analysis.weights.unread import lost_meanwhile
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import open_checkpoint

__all__ = ["apart", "findings_of"]


def findings_of(readings: Iterable[Reading]) -> list[Finding]:
    """The findings of all series; of the copies of other ranks only what is wrong with the files themselves."""
    told: list[Finding] = []
    seen: set[str] = set()
    for reading in readings:
        copies = reading.rank is not None and reading.series in seen
        seen.add(reading.series)
        told += [one for one in reading.findings if not copies or one.kind in OF_FILES]
    return told


def apart(readings: Sequence[Reading], run: str, gauge: Gauge) -> list[Finding]:
    """Ranks whose copy of the model differs from that of the lowest rank (`rank-divergence`): a finding a rank.

    Copies that were deleted or written anew since they were read are told, and left out: the others are held against
    one another.
    """
    groups: dict[tuple[str, int | None], list[Kept]] = {}
    for reading in readings:
        for kept in reading.saves:
            if kept.save.rank is not None and kept.is_read:
                groups.setdefault((reading.series, kept.step), []).append(kept)
    known = {one.evidence.get("save") for reading in readings for one in reading.findings if one.kind in OF_FILES}
    found: dict[str, list[Finding]] = {}
    for (series, _), group in groups.items():
        told, lost = _told_of(group, run, gauge) if len(group) > 1 else ([], [])
        found.setdefault(series, []).extend(told)
        for kept in lost:
            found[series] += _lost(kept, run) if kept.save.name not in known else []
    return [one for of_series in found.values() for one in told_once(of_series)]


def _told_of(group: Sequence[Kept], run: str, gauge: Gauge) -> tuple[list[Finding], list[Kept]]:
    """What the copies of one step say beside one another, and those of them that changed or went meanwhile."""
    left, lost = list(group), list[Kept]()
    while len(left) > 1:
        try:
            told = _compared(left, run, gauge)
        except InputError:
            if all(kept.still_there() for kept in left):
                raise
            told = []
        there = [kept.still_there() for kept in left]
        if all(there):
            return told, lost
        lost += [kept for kept, still in zip(left, there, strict=True) if not still]
        left = [kept for kept, still in zip(left, there, strict=True) if still]
    return [], lost


def _compared(group: Sequence[Kept], run: str, gauge: Gauge) -> list[Finding]:
    with ExitStack() as stack:
        copies = [
            (kept.save.rank or 0, stack.enter_context(open_checkpoint(kept.save.path, within=kept.save.within)))
            for kept in group
        ]
        return findings_of_replicas(copies, run_name=run, step=group[0].step, gauge=gauge)


def _lost(kept: Kept, run: str) -> list[Finding]:
    checkpoint = Checkpoint(kept.save.path, kept.format, ())
    return lost_meanwhile(Saved(kept.save.name, checkpoint, kept.statistics, kept.step), run)
