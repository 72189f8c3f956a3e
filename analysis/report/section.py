"""What the page says about one run, in the order in which it is read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
from markupsafe import Markup

from analysis.diagnose import Diagnosis
from analysis.findings import Finding
from analysis.kinds import KINDS
from analysis.report.blocks import Block, blocks_of
from analysis.report.curves import Curve, Curves, read_curves
from analysis.report.drawings import Drawing, Drawings
from analysis.report.groups import Group
from analysis.report.sparkline import sparkline, wants_log
from analysis.report.text import clean, counted, flatten, number
from analysis.report.views import (
    OWN_CHECKS,
    OWN_FIGURE,
    OWN_FIGURES,
    View,
    check_views,
    curve_views,
    finding_view,
)
from analysis.report.vitals import health_rows
from parsers.naming.primary_roles import PRIMARY
from parsers.naming.run_roles import Roles
from parsers.plan import Plan
from parsers.run import Run, Source

__all__ = ["Card", "Section", "Spark", "section"]

#: Cards with everything; what is beyond stands in a table of one line each.
CARDS = 24
#: Small charts of one run: a log with more metrics than that is read with the tools, not by eye.
SPARKS = 400
REJECTS = 30
#: Resumes told one by one among the facts of a run.
_RESUMES = 6
PIECES = ("piece of input", "pieces of input")
#: Figures of one run's findings and checks, where the page has room.
FIGURES = 16


@dataclass(frozen=True)
class Card:
    """Findings of one kind on one metric with their figure; `see` is the number of a figure that shows them too.

    Causes and suggestions of an incident stand in the card of its root, and once.
    """

    group: Group
    drawing: Drawing | None
    see: int | None
    causes: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """Incidents that are alike: what happened in a line each, the card of the root, those of the followers."""

    block: Block
    root: Card
    followers: tuple[Card, ...]

    @property
    def kinds(self) -> str:
        """The followers' kinds, each once."""
        return ", ".join(dict.fromkeys(card.group.kind for card in self.followers))


@dataclass(frozen=True)
class Spark:
    """A small chart with what it shows in words."""

    name: str
    facts: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """One run in the page."""

    key: str
    diagnosis: Diagnosis
    facts: tuple[tuple[str, str], ...]
    health: tuple[tuple[str, str, str, str, str], ...]
    told: tuple[Told, ...]
    notes: tuple[Told, ...]
    beyond: tuple[Finding, ...]
    views: tuple[View, ...]
    sparks: tuple[tuple[str, tuple[Spark, ...]], ...]
    sparks_left: int
    config: tuple[list[tuple[str, str]], int]
    plan: tuple[list[tuple[str, str]], int]
    rejects: tuple[tuple[str, str, str, str], ...]
    clear: tuple[str, ...]

    @property
    def metrics(self) -> int:
        """How many small charts there are."""
        return sum(len(sparks) for _, sparks in self.sparks)


def section(diagnosis: Diagnosis, key: str, drawings: Drawings, *, large: bool = True) -> Section:
    """The section of one run; its figures are drawn as far as the page's budget allows.

    `large` says whether the main curves are drawn large too, besides the small charts of all metrics.
    """
    run = diagnosis.source
    curves = read_curves(run)
    shown, beyond = _room(blocks_of(diagnosis.incidents))
    drawn: dict[str, int] = {}
    told = [_told(block, diagnosis, curves, drawings, drawn) for block in shown]
    views = (*(curve_views(diagnosis, curves, drawings) if large else ()), *check_views(diagnosis, drawings, drawn))
    sparks, left = _sparks(curves, diagnosis.findings, run.roles)
    rejects = [
        (clean(file, 60), f"line {line:,}" if line is not None else f"byte {offset:,}" if offset is not None else "",
         clean(reason), clean(text, 80))
        for file, line, offset, reason, text in run.rejects.head(REJECTS).iter_rows()
    ]  # fmt: skip
    found = {f.kind for f in diagnosis.findings}
    return Section(
        key=key,
        diagnosis=diagnosis,
        facts=_facts(diagnosis, curves),
        health=health_rows(diagnosis),
        told=tuple(one for one in told if one.block.severity != "info"),
        notes=tuple(one for one in told if one.block.severity == "info"),
        beyond=tuple(f for group in beyond for f in group.findings),
        views=views,
        sparks=sparks,
        sparks_left=left,
        config=flatten(run.config),
        plan=flatten(run.plan),
        rejects=tuple(rejects),
        clear=tuple(kind for kind in diagnosis.judged if kind not in found),
    )


def _facts(diagnosis: Diagnosis, curves: Curves) -> tuple[tuple[str, str], ...]:
    run = diagnosis.source
    table, last = run.catalogue, run.events["time"].max()
    numbers = int(table["count"].sum())
    facts = [
        ("format", run.format),
        ("read from", clean(run.path, 160)),
        ("numbers", f"{numbers:,} in {table.height:,} series of {len(curves):,} metrics"),
        ("steps", "none" if run.last_step is None else f"{number(table['first_step'].min())} to {run.last_step:,}"),
        ("processes", f"{table['rank'].n_unique() or 1:,}"),
        ("events", f"{run.events.height:,}"),
        ("not readable", counted(run.rejects.height, *PIECES) if run.rejects.height else "nothing"),
    ]
    if run.planned != Plan():
        facts.append(("plan", clean(run.planned.summary, 160)))
    if run.last_attempt:
        facts.insert(4, ("attempts", _attempts(run)))
    facts += [(name.replace("_", " "), _taken_for(run, name)) for name in PRIMARY if run.roles[name]]
    facts += [("log", _log_of(source, run.path)) for source in run.sources]
    if isinstance(last, datetime):
        facts.append(("last event", f"{last:%Y-%m-%d %H:%M} UTC"))
    return tuple(facts)


def _attempts(run: Run) -> str:
    """How often the run was started, and for its lowest rank where each resume began and what it left behind."""
    mine = run.attempts.filter(pl.col("rank") == pl.col("rank").min()).drop_nulls("begin")
    told = []
    for former, later in itertools.pairwise(mine.iter_rows(named=True)):
        lost = former["last_step"] is not None and former["last_step"] >= later["begin"]
        left = f", left at {former['last_step']:,}" if lost else ""
        told.append(f"from step {later['begin']:,}{left}")
    more = f"; {len(told) - _RESUMES:,} more" if len(told) > _RESUMES else ""
    return f"{mine.height:,}; resumed {'; '.join(told[:_RESUMES])}{more}" if told else f"{mine.height:,}"


def _taken_for(run: Run, name: str) -> str:
    """Which series stands for the run as `name`, and why."""
    chosen = run.roles[name]
    return f"{clean(chosen.series.tag if chosen.series else '', 80)} ({clean(chosen.why, 160)})"


def _log_of(source: Source, folder: str) -> str:
    """One of the logs that the run was joined from: how much it holds, and how far it agrees with those before it."""
    path = source.path.removeprefix(folder).lstrip("/\\") or source.path
    told = f"{clean(path, 160)} ({source.format}): {source.scalars:,} numbers"
    compared, differing = (int(source.against[column].sum()) for column in ("compared", "differing"))
    return f"{told}, {compared:,} of them also in an earlier log, {differing:,} differ" if compared else told


def _room(blocks: Sequence[Block]) -> tuple[list[Block], list[Group]]:
    """The blocks that the page has room for, and the cards that are left over; of the first block as many as fit."""
    cards = list(itertools.accumulate(len(block.groups) for block in blocks))
    room = max(sum(count <= CARDS for count in cards), 1)
    over = [group for block in blocks[:room] for group in block.groups[CARDS:]]
    return list(blocks[:room]), [*over, *(group for block in blocks[room:] for group in block.groups)]


def _told(block: Block, diagnosis: Diagnosis, curves: Curves, drawings: Drawings, drawn: dict[str, int]) -> Told:
    root, *rest = (_card(group, diagnosis, curves, drawings, drawn) for group in block.groups[:CARDS])
    root = replace(root, causes=tuple(block.causes), suggestions=tuple(block.suggestions))
    return Told(block, root, tuple(rest))


def _card(group: Group, diagnosis: Diagnosis, curves: Curves, drawings: Drawings, drawn: dict[str, int]) -> Card:
    """The figure that shows a finding: that of its check where the kind asks for it, else its metric over steps."""
    check = _check_of(group, diagnosis)
    if check in OWN_FIGURES:
        return Card(group, finding_view(check, diagnosis.results[check], group, drawings), None)
    own = check is not None and (check in OWN_CHECKS or group.findings[0].family in OWN_FIGURE)
    if own and check is not None and check not in drawn:
        drawing = finding_view(check, diagnosis.results[check], group, drawings)
        if drawing is not None:
            drawn[check] = drawing.number
            return Card(group, drawing, None)
    series = _series_of(group, curves)
    drawing = drawings.finding(group, series) if series else None
    return Card(group, drawing, drawn.get(check or "") if own else None)


def _check_of(group: Group, diagnosis: Diagnosis) -> str | None:
    worst = group.findings[0]
    return next((name for name, result in diagnosis.results.items() if worst in result.findings), None)


def _series_of(group: Group, curves: Curves) -> Sequence[Curve]:
    """Curves of the metric that the findings name: a metric, `split metric`, a tag `split/metric`, a loss component."""
    name = group.metric
    if name is None:
        return ()
    for form in (name, f"losses/{name}/contribution", f"losses/{name}/raw", f"losses/{name}/weighted"):
        if form in curves:
            return curves[form]
    spellings = {form: c for cs in curves.values() for c in cs for form in _spellings(c)}
    return (spellings[name],) if name in spellings else ()


def _spellings(curve: Curve) -> list[str]:
    return [f"{curve.split}{mark}{curve.metric}" for mark in " /_."]


def _sparks(
    curves: Curves, findings: Sequence[Finding], roles: Roles
) -> tuple[tuple[tuple[str, tuple[Spark, ...]], ...], int]:
    spans: dict[str, list[tuple[float, float]]] = {}
    for f in findings:
        if f.metric is not None and f.first_step is not None:
            spans.setdefault(f.metric, []).append((f.first_step, f.last_step or f.first_step))
    groups: dict[str, list[Spark]] = {}
    for metric in list(curves)[:SPARKS]:
        title = "Losses" if roles.is_loss(metric) else _TITLES.get(roles.of(metric).role, "Other metrics")
        groups.setdefault(title, []).append(_spark(metric, curves[metric], spans.get(metric, [])))
    return tuple((title, tuple(sparks)) for title, sparks in groups.items()), max(len(curves) - SPARKS, 0)


_TITLES = {
    "learning_rate": "Learning rate and gradients",
    "grad_norm": "Learning rate and gradients",
    "param_norm": "Learning rate and gradients",
    "loss_scale": "Learning rate and gradients",
    "accuracy": "Scores and error rates",
    "reward": "Scores and error rates",
    "best": "Scores and error rates",
    "error_rate": "Scores and error rates",
    "throughput": "Speed and memory",
    "step_time": "Speed and memory",
    "memory": "Speed and memory",
    "wall_time": "Speed and memory",
    "system": "Speed and memory",
    "hyperparameter": "Weights and schedules",
    "weight": "Weights and schedules",
}


def _spark(metric: str, curves: Sequence[Curve], spans: Sequence[tuple[float, float]]) -> Spark:
    log = all(wants_log(c.y) for c in curves)
    splits = ", ".join(c.split for c in curves if c.split)
    facts = "; ".join(_numbers(c, named=len(curves) > 1) for c in curves[:3]) + ("; log scale" if log else "")
    name = clean(metric, 60)
    label = f"{name}{f' ({splits})' if splits else ''}: {facts}"
    return Spark(name, facts, sparkline([(c.x, c.y) for c in curves], label=label, spans=spans, log=log))


def _numbers(curve: Curve, *, named: bool) -> str:
    finite = curve.y[curve.y == curve.y]
    low, high = (number(float(finite.min())), number(float(finite.max()))) if len(finite) else ("NaN", "NaN")
    said = f"last {number(float(curve.y[-1]))}, between {low} and {high}"
    return f"{curve.split or 'logged'} {said}" if named else said


def meaning(kind: str) -> str:
    """What a kind of finding means, as the table of kinds has it."""
    return KINDS[kind].meaning
