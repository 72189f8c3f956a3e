"""Copies that several processes saved of one model: one of them is the story, the others are held against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from analysis.findings import Finding
from analysis.limits import Gauge
from analysis.weights.kept import OF_FILES
from analysis.weights.reading import Kept, Reading
from analysis.weights.replicas import findings_of_replicas
from analysis.weights.saved import told_once
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
    """Ranks whose copy of the model differs from that of the lowest rank (`rank-divergence`): a finding a rank."""
    groups: dict[tuple[str, int | None], list[Kept]] = {}
    for reading in readings:
        for kept in reading.saves:
            if kept.save.rank is not None:
                groups.setdefault((reading.series, kept.step), []).append(kept)
    found: dict[str, list[Finding]] = {}
    for (series, step), group in groups.items():
        if len(group) < 2:
            continue
        with ExitStack() as stack:
            opened = [open_checkpoint(kept.save.path, within=kept.save.within) for kept in group]
            copies = [(k.save.rank or 0, stack.enter_context(one)) for k, one in zip(group, opened, strict=True)]
            found.setdefault(series, []).extend(findings_of_replicas(copies, run_name=run, step=step, gauge=gauge))
    return [one for of_series in found.values() for one in told_once(of_series)]
