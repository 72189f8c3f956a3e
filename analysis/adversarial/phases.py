"""When the game begins: an adversarial term that is exactly 0 has not started; where its start is planned, when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.adversarial.terms import adversarial_terms
from analysis.findings import Finding
from parsers.plans.entries import entries_of
from parsers.run import Run

__all__ = ["LEADING", "PlannedStart", "Start", "phase_findings", "planned_starts", "starts_of"]

#: As many zeros in a row at the beginning are no chance: a loss of real data is not exactly 0 three times.
LEADING = 3
#: A term that was to begin, and is still 0 so long after (as a share of the planned step), never will.
_LATE = 0.05
#: Parts of a name that say whose start is meant.
_WHOSE = {"d", "disc", "discriminator", "adv", "adversarial", "gan"}
_EPOCHS = {"epoch", "epochs"}


@dataclass(frozen=True, slots=True)
class Start:
    """The first rows of an adversarial term: `zeros` of them are exactly 0, of `rows`; null steps where unknown.

    `began` is the step of the first row that is not 0, None where all are.
    """

    metric: str
    rows: int
    zeros: int
    began: int | None
    first: int | None
    last: int | None
    began_epoch: float | None = None
    last_epoch: float | None = None

    @property
    def never(self) -> bool:
        """Whether every row is exactly 0."""
        return self.zeros == self.rows


@dataclass(frozen=True, slots=True)
class PlannedStart:
    """Where the adversarial phase was to begin: `at`, in steps or epochs, and the setting that says so."""

    at: float
    epochs: bool
    where: str


def planned_starts(run: Run) -> list[PlannedStart]:
    """The settings of plan and configuration that name the start of the adversarial phase, the plan's first.

    Known are names of a discriminator, adversary or GAN with `start` in them, whatever else they say: `disc_start`,
    `start_discriminator`, `adv_start`, `discriminator_train_start_steps`, `steps_to_start_discriminator`,
    `gan_start_epoch`. Values above 0 count; 0 is a start at once.

    >>> from parsers.finish import finish
    >>> run = finish("r", "r", "jsonl", None, config={"loss": {"disc_start": 5000}, "restart": 3, "d_start": True})
    >>> [(one.at, one.where) for one in planned_starts(run)]
    [(5000.0, 'configuration of the log: loss.disc_start')]
    """
    files: list[tuple[str, Mapping[str, Any]]] = [("plan", run.plan), (run.config_source, run.config)]
    found = []
    for file, content in [*files, *run.beside.items()]:
        for entry in entries_of(file, content):
            words = set(entry.name.split("_"))
            known = isinstance(entry.value, int | float) and not isinstance(entry.value, bool)
            if known and "start" in words and words & _WHOSE and 0 < entry.value < 1e15:
                found.append(PlannedStart(float(entry.value), bool(words & _EPOCHS), entry.where))
    return found


def starts_of(run: Run) -> list[Start]:
    """How each adversarial term of training begins (`adversarial_terms`), of the first rank; empty without terms."""
    return [start for one in _terms(run) if (start := _start(run, *one)) is not None]


def _terms(run: Run) -> Iterable[tuple[str, str, str]]:
    training = (one for one in adversarial_terms(run.roles) if one.side == "train")
    return dict.fromkeys((one.metric, one.split, one.tag) for one in training)


def _start(run: Run, metric: str, split: str, tag: str) -> Start | None:
    rows = run.series(metric, split=split).filter((pl.col("tag") == tag) & (pl.col("rank") == pl.col("rank").min()))
    rows = rows.drop_nulls("value")
    if rows.is_empty():
        return None
    begun = (rows["value"] != 0).arg_true()
    place = int(begun[0]) if len(begun) else rows.height
    first, last = rows.row(0, named=True), rows.row(rows.height - 1, named=True)
    began = rows.row(place, named=True) if place < rows.height else {"step": None, "epoch": None}
    ends = (began["step"], first["step"], last["step"], began["epoch"], last["epoch"])
    return Start(metric, rows.height, place, *ends)


def phase_findings(run: str, starts: Iterable[Start], planned: Iterable[PlannedStart]) -> list[Finding]:
    """What terms that are exactly 0 tell, one finding for those that begin together.

    An info with the step at which a phase began, or that it did not; a warning where a plan names its start, the log
    goes on beyond that by 5 %, and it never began.
    """
    plan = next(iter(planned), None)
    groups: dict[int | None, list[Start]] = {}
    for start in starts:
        if start.zeros >= LEADING:
            groups.setdefault(None if start.never else start.began, []).append(start)
    # a total that is not 0 from the first step on says nothing; a term that began while another never did, does
    return [_finding(run, began, group, plan) for began, group in groups.items()]


def _finding(run: str, began: int | None, group: list[Start], plan: PlannedStart | None) -> Finding:
    one = max(group, key=lambda start: start.rows)
    never, overdue = one.never, one.never and plan is not None and _overdue(one, plan)
    names = ", ".join(start.metric for start in group[:4]) + (f" and {len(group) - 4} more" if len(group) > 4 else "")
    are = "is" if len(group) == 1 else "are"
    if never:
        said = f"{names} {are} exactly 0 in all {one.rows:,} records: no adversarial phase has begun"
    else:
        where = f"until step {began:,}" if began is not None else f"in the first {one.zeros:,} records"
        said = f"{names} {are} exactly 0 {where}, where the adversarial phase begins"
    if plan is not None:
        said += f", planned from {'epoch' if plan.epochs else 'step'} {plan.at:,.0f} on ({plan.where})"
    return Finding(
        "adversarial-phase",
        "warning" if overdue else "info",
        run,
        said,
        metric=one.metric,
        first_step=one.first if never else began,
        last_step=one.last if never else began,
        evidence={
            "terms": len(group),
            "zero_records": one.zeros,
            "records": one.rows,
            "began_step": began,
            "planned": None if plan is None else plan.at,
            "planned_unit": None if plan is None else "epochs" if plan.epochs else "steps",
            "last_step": one.last,
        },
        causes=_causes(never, overdue),
        suggestions=_SUGGESTIONS if never else (),
    )


_SUGGESTIONS = (
    "look where the training loop compares its step with the start of the phase: epochs, batches and optimiser steps "
    "are counted apart",
    "look whether the weight of the adversarial term, or a factor before it, is 0",
)


def _causes(never: bool, overdue: bool) -> tuple[str, ...]:
    if overdue:
        return (
            "the start is counted in another unit than the log's steps (the planned number against the last step)",
            "the condition that starts the phase is never true, or the weight of the term is 0 (zeros to the end)",
        )
    if never:
        return ("the phase has not begun yet, or the term is switched off (zeros to the end); no plan says which",)
    return ("the generator is trained alone first, as is usual for vocoders and autoencoders (zeros, then none)",)


def _overdue(start: Start, plan: PlannedStart) -> bool:
    last = start.last_epoch if plan.epochs else start.last
    return last is not None and last > plan.at * (1 + _LATE)
