"""One series of saves, read: every tensor once, each save beside the one before, and what is to be said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from analysis.findings import Finding, NotApplicable
from analysis.limits import Gauge
from analysis.weights.averages import stated_decay
from analysis.weights.between_saves import findings_between
from analysis.weights.counters import weighed_together
from analysis.weights.joined import series_of
from analysis.weights.one_save import findings_of_save
from analysis.weights.saved import Saved, is_buffer, told_once
from analysis.weights.several import groups, several_differences, several_statistics
from analysis.weights.unread import GONE, changed_meanwhile, judged_while_there, with_unread
from eventstream.errors import InputError, unknown_name
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.mapped import MappedFiles
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.series import Save
from parsers.checkpoints.tensors import Role
from parsers.checkpoints.verify import has_checksums
from parsers.checkpoints.verify import verify as broken
from parsers.plan import Plan
from parsers.run import Run

__all__ = ["Kept", "Reading", "read_series"]

Progress = Callable[[int, int, str], None]
#: Formats of what was never opened: no reader for it, a link out of the folder, no right to, or gone.
_UNREAD = ("unread", "unknown", "link", GONE)


@dataclass(frozen=True)
class Kept:
    """What is known of a save once it was read; the files are closed."""

    save: Save
    step: int | None
    epoch: float | None
    format: str
    bytes: int
    statistics: pl.DataFrame = field(repr=False)
    #: What changed since the save before; None for the first, and for one that stands for the same weights.
    changes: pl.DataFrame | None = field(default=None, repr=False)
    before: str | None = None
    spectra: pl.DataFrame | None = field(default=None, repr=False)
    #: Whether it has checksums that were compared; None where nobody asked for it, or it was deleted meanwhile.
    checksums: bool | None = None
    #: Its files, closed, which know whether they still are what they were when they were read; None for a save that is
    #: no copy of one process, which is not opened again.
    files: MappedFiles | None = field(default=None, repr=False, compare=False)

    @property
    def is_read(self) -> bool:
        """Whether there was anything to read: not a link out of the folder, nor what no reader knows."""
        return self.format not in _UNREAD

    def still_there(self) -> bool:
        """Whether its files are what they were: a running training deletes old saves, and writes the last anew."""
        return os.path.lexists(self.save.path) and not (self.files is not None and self.files.changed())


@dataclass(frozen=True)
class Reading:
    """A series of saves in the order of their steps, and its findings."""

    saves: tuple[Kept, ...]
    findings: tuple[Finding, ...] = ()
    not_applicable: tuple[NotApplicable, ...] = ()

    @property
    def series(self) -> str:
        """What the saves are a series of; empty where there is but one."""
        return self.saves[0].save.series if self.saves else ""

    @property
    def rank(self) -> int | None:
        """The process whose copies these are; None where there are no copies."""
        return self.saves[0].save.rank if self.saves else None

    def name(self, which: int | str) -> str:
        """The name of one of the saves, by its place or its name; `InputError` with the known ones for another."""
        names = [kept.save.name for kept in self.saves]
        if isinstance(which, str):
            if which not in names:
                raise InputError(unknown_name("save", which, names))
            return which
        if not -len(names) <= which < len(names):
            raise InputError(f"save {which}: there are {len(names)}")
        return names[which]

    def open(self, which: int | str) -> Checkpoint:
        """One of the saves, by its place or its name, opened again."""
        wanted = self.name(which)
        save = next(kept.save for kept in self.saves if kept.save.name == wanted)
        return open_checkpoint(save.path, within=save.within)

    def last_with_spectra(self) -> Reading:
        """The last save alone, with its spectra."""
        with self.open(-1) as checkpoint:
            return Reading((replace(self.saves[-1], spectra=_spectra(checkpoint)),))


def read_series(
    saves: Sequence[Save],
    *,
    run: str,
    log: Run | None,
    roles: tuple[Role, ...],
    spectra: bool,
    verify: bool,
    strict: bool,
    gauge: Gauge,
    progress: Progress | None = None,
) -> Reading:
    """Reads the saves of one series, in the order of their steps; files are closed when this returns.

    Saves that stand for the same step (`last.ckpt`, `best.ckpt`) are read and judged by themselves, and are no part of
    the story from save to save. Links and copies are left out: what they are copies of has their labels.
    With `strict` a save that no reader can open raises its `InputError`; else it is told, and the others are read.
    """
    plan = None if log is None else log.planned
    with ExitStack() as stack:
        opened = in_time([(save, stack.enter_context(_opened(save, strict=strict))) for save in saves])
        story, read, judged = _Story(), list[Kept](), list[Saved]()
        found: list[Finding] = []
        for places in groups([_numbers(checkpoint, roles) for _, checkpoint in opened]):
            group = opened[places.start : places.stop]
            if verify:
                group = [(save, _verified(one)) for save, one in group]
            checked = [_has_checksums(one) if verify else None for _, one in group]
            tables = several_statistics([checkpoint for _, checkpoint in group], roles)
            told = [_saved(save, one, table) for (save, one), table in zip(group, tables, strict=True)]
            for number, saved in zip(places, told, strict=True):
                if progress is not None:
                    progress(number, len(opened), saved.name)
                found += changed_meanwhile(saved, run)
                alone = partial(_alone, run=run, plan=plan, gauge=gauge)
                found += judged_while_there([saved], [], run, alone)
            changes = story.went_on(told)
            for (save, _), saved, (changed, before), has in zip(group, told, changes, checked, strict=True):
                read.append(replace(_kept(save, saved, changed, before, spectra=spectra), checksums=has))
                saved.checkpoint.close()
            judged += told
        found = told_once(found)
        decay = None if log is None else stated_decay(log.config)
        rates = _rates(log)
        judge = partial(findings_between, run_name=run, learning_rates=rates, plan=plan, decay=decay, gauge=gauge)
        found += judged_while_there(story.saves, story.changes, run, judge)
        found = weighed_together(found, judged)
    return Reading(tuple(read), tuple(found), _unjudged(story.saves))


def _alone(
    saves: Sequence[Saved], _: Sequence[pl.DataFrame], *, run: str, plan: Plan | None, gauge: Gauge
) -> list[Finding]:
    """What each of some saves says by itself."""
    return [found for one in saves for found in findings_of_save(one, run_name=run, plan=plan, gauge=gauge)]


@dataclass
class _Story:
    """The saves that follow upon one another, and what changed between them."""

    saves: list[Saved] = field(default_factory=list)
    changes: list[pl.DataFrame] = field(default_factory=list)

    def went_on(self, group: Sequence[Saved]) -> list[tuple[pl.DataFrame | None, str | None]]:
        """For each of the next saves what changed since that before it, and its name; None where none is before it."""
        befores: list[Saved | None] = []
        pairs: list[tuple[Checkpoint, Checkpoint]] = []
        for saved in group:
            tells = _tells(saved)
            before = self.saves[-1] if self.saves and tells and _is_next(self.saves[-1], saved) else None
            befores.append(before)
            if before is not None:
                pairs.append((before.checkpoint, saved.checkpoint))
            if tells and (before is not None or not self.saves):
                self.saves.append(saved)
        changes = several_differences(pairs)
        self.changes += changes
        left = iter(changes)
        return [(None, None) if before is None else (next(left), before.name) for before in befores]


def _numbers(checkpoint: Checkpoint, roles: Sequence[Role]) -> int:
    return sum(tensor.count for tensor in checkpoint.of_role(*roles))


def _verified(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the damage that its checksums show."""
    if _is_unread(checkpoint):
        return checkpoint
    try:
        return checkpoint.but(damage=(*checkpoint.damage, *broken(checkpoint)))
    except InputError:
        if os.path.lexists(checkpoint.path):
            raise
        return checkpoint  # deleted meanwhile, and told when its values are read (`changed_meanwhile`)


def _has_checksums(checkpoint: Checkpoint) -> bool | None:
    return None if _is_unread(checkpoint) else has_checksums(checkpoint)


def _is_unread(checkpoint: Checkpoint) -> bool:
    """Whether it was never opened, or is gone."""
    return checkpoint.format in _UNREAD or not os.path.lexists(checkpoint.path)


def _saved(save: Save, checkpoint: Checkpoint, table: pl.DataFrame) -> Saved:
    return Saved(save.name, with_unread(checkpoint, table), table, save.step, save.label)


def _kept(save: Save, saved: Saved, changed: pl.DataFrame | None, before: str | None, *, spectra: bool) -> Kept:
    one = saved.checkpoint
    measured = _spectra(one) if spectra and not _is_unread(one) else None
    epoch = _epoch(save, one)
    known = (save, saved.at, epoch, one.format, _bytes(one), saved.statistics)
    return Kept(*known, changed, before, measured, files=None if save.rank is None else one.mapped)


def _bytes(checkpoint: Checkpoint) -> int:
    """Bytes of all files, of those deleted meanwhile none."""
    size = 0
    for file in set(checkpoint.files):
        with suppress(OSError):
            size += file.stat().st_size
    return size


def _opened(save: Save, *, strict: bool) -> Checkpoint:
    """The open checkpoint; one that no reader can open has nothing but the reason, or raises it where `strict`."""
    try:
        return open_checkpoint(save.path, within=save.within)
    except InputError as error:
        if strict:
            raise
        if not os.path.lexists(save.path):
            return Checkpoint(save.path, GONE, ())
        return Checkpoint(
            save.path, "unknown", (), damage=(Damage(save.path, "the whole", str(error), unsupported=True),)
        )


def in_time(opened: Sequence[tuple[Save, Checkpoint]]) -> list[tuple[Save, Checkpoint]]:
    """Saves by the steps (else the epochs) that they tell themselves, where all do; else in that of names."""
    for counter in (_step, _epoch):
        counts = [counter(*one) for one in opened]
        if None not in counts:
            places = sorted(range(len(opened)), key=lambda at: (counts[at], bool(opened[at][0].label), at))
            return [opened[at] for at in places]
    return list(opened)


def _step(save: Save, checkpoint: Checkpoint) -> float | None:
    return save.step if checkpoint.step is None else checkpoint.step


def _epoch(save: Save, checkpoint: Checkpoint) -> float | None:
    return save.epoch if checkpoint.epoch is None else checkpoint.epoch


def _tells(saved: Saved) -> bool:
    """Whether a save tells anything of training: not one of which nothing could be read, or where all is NaN.

    Such a save is told by itself, and the story goes on with the one after it: between two of NaN nothing moves, no
    tie is lost, and no average lags.
    """
    if saved.statistics["error"].null_count() == 0:  # no tensors, or none of which the bytes could be had
        return False
    weights = [row for row in saved.rows("weights") if not is_buffer(row["parameter"] or "") and row["nan"] is not None]
    return not weights or any(row["nan"] < row["elements"] for row in weights)


def _is_next(before: Saved, saved: Saved) -> bool:
    """Whether a save follows another in training: not the same step again, and not a copy without a step."""
    return saved.at != before.at if saved.at is not None or before.at is not None else not saved.label


def _rates(log: Run | None) -> Mapping[int, float] | None:
    """Learning rates by the step at which they were logged."""
    rates = None if log is None else series_of(log, log.roles["learning_rate"].series)
    return None if rates is None else dict(zip(rates.steps.tolist(), rates.values.tolist(), strict=True))


def _spectra(checkpoint: Checkpoint) -> pl.DataFrame:
    from analysis.weights.spectra import spectra as measure  # loads LAPACK, which a look at the saves does not need

    return measure(checkpoint)


def _unjudged(story: Sequence[Saved]) -> tuple[NotApplicable, ...]:
    if len(story) > 1:
        return ()
    reason = "one save alone does not show what moves" if story else "no save could be read"
    return (NotApplicable("weight-drift", reason), NotApplicable("frozen-layer", reason))
