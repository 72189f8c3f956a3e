"""`diagnose`: every check that applies to a run, its findings, what was not judged and why, and one status."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.check_sources import own_checks
from analysis.checks import CHECKS, Check
from analysis.custom_checks import CustomCheck
from analysis.findings import SEVERITIES, Finding, NotApplicable, findings_frame
from analysis.incidents import Incident
from analysis.incidents import incidents as join_findings
from analysis.limits import Learned, Limits
from analysis.result import Result
from analysis.rules import Rules, rules_of
from analysis.running import run_checks
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.norms import Norms

__all__ = ["Diagnosis", "diagnose"]

#: Lines of incidents in a repr: a screen full.
_LINES = 60
#: Judged in every log, whatever it holds: it says nothing about the training.
OF_ANY_LOG = frozenset({"truncated-stream"})


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Result):
    """The judgement of one run. `frame` has one row a finding, worst first (see `analysis.findings.findings_frame`).

    `results` maps the name of each check to its own result, with its figures and frames; `judged` are the kinds that
    were looked for, whether found or not; `source` is the run.
    """

    source: Run
    results: Mapping[str, Result]
    judged: tuple[str, ...]

    @cached_property
    def incidents(self) -> tuple[Incident, ...]:
        """The findings as stories, the worst first; each finding is in exactly one (see `analysis.incidents`)."""
        return join_findings(self.source, self.findings)

    @cached_property
    def summary(self) -> str:
        """What was found and what could not be judged, in one sentence: `healthy` alone would not say that."""
        from analysis.summary import summary_of

        return summary_of(self)

    @property
    def verdict(self) -> str:
        """The status in words; `not judged` in place of healthy where nothing asked for could be looked at."""
        return self.status if self.findings or set(self.judged) - OF_ANY_LOG else "not judged"

    def __repr__(self) -> str:
        from analysis.story.listing import lines_of, plain

        found = f"{len(self.findings)} findings in {len(self.incidents)} incidents"
        head = f"<Diagnosis of {plain(self.run)}: {self.verdict}, {found}>"
        left = f"  {plain(self.summary)}"
        return "\n".join([head, *itertools.islice(lines_of(self.incidents), _LINES), left])

    def _repr_html_(self) -> str:
        from analysis.story.in_html import html_of

        return html_of(self)

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The run's main loss over steps with each finding's span shaded; `options` go to the loss line."""
        from analysis.timeline import draw_timeline

        return draw_timeline(self.source, self.findings, ax, **options)


def diagnose(
    run: Run,
    *,
    checks: Iterable[str] | None = None,
    rules: Rules | Mapping[str, Any] | None = None,
    norms: Norms | Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Everything the checks find in `run`, worst first, with the kinds that could not be judged and the reason.

    `checks` limits the work to some checks by name (default all: `analysis.checks.CHECKS`, and those of `at.check`,
    whose names are their kinds); an unknown name raises `ValueError` with the known ones. `rules` say which kinds
    count, from where on, how severe they are and what is waived (a mapping as `analysis.rules.rules_of` takes it);
    checks that judge no kind asked for do not run. `norms` are limits learned from healthy runs (`at.norms`, or its
    file): a threshold of the rules goes before them, and they before the defaults; findings that rest on one say so.
    `progress` is called with each check's name before it runs. The checks of a long run go beside one another
    (`analysis.running`). A run without any number or event gets a finding that says so: it is never called healthy
    for want of data.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> losses = [2.0 / (1 + 0.05 * i) for i in range(200)]
    >>> steps = {"tag": ["loss"] * 200, "step": list(range(200))}
    >>> diagnose(finish("a", "a", "jsonl", pl.DataFrame({**steps, "value": losses})), checks=["anomalies"]).status
    'healthy'
    """
    known: dict[str, Check | CustomCheck] = {**{check.name: check for check in CHECKS}, **own_checks()}
    wanted = list(known) if checks is None else list(checks)
    for name in wanted:
        if name not in known:
            raise ValueError(unknown_name("check", name, known))
    ruled = rules if isinstance(rules, Rules) else rules_of(rules or {})
    limits = ruled.limits if norms is None else replace(ruled.limits, learned=_learned(norms, run))
    asked = [name for name in wanted if ruled.wants((*known[name].kinds, *known[name].also))]
    results = run_checks({name: known[name] for name in asked}, run, limits, progress)
    kinds = [kind for name in wanted for kind in known[name].kinds]
    found = [_with_limit(f, limits) for result in results.values() for f in result.findings]
    findings, left_out = ruled.applied(found, kinds)
    skipped = (*left_out, *_not_applicable(results, found, {n.kind for n in left_out}))
    unjudged = {n.kind for n in skipped}
    findings += _nothing_to_judge(run, set(kinds) - unjudged)  # whatever the rules say: such a run is never healthy
    findings.sort(key=_worst_first)
    return Diagnosis(
        run=run.name,
        frame=findings_frame(findings),
        findings=tuple(findings),
        not_applicable=skipped,
        measures=tuple(one for result in results.values() for one in result.measures),
        source=run,
        results=results,
        judged=tuple(k for k in dict.fromkeys([*kinds, *(f.kind for f in findings)]) if k not in unjudged),
    )


def _learned(norms: Norms | Path | str, run: Run) -> tuple[Learned, ...]:
    from analysis.norms import Norms, read_norms

    return (norms if isinstance(norms, Norms) else read_norms(norms)).learned_for(run)


def _with_limit(finding: Finding, limits: Limits) -> Finding:
    """The finding, which says where its limit was learned, if it was, and no rule set another."""
    taught = limits.taught(finding.kind, finding.metric)
    if taught is None or not taught.told or limits.of(finding.kind, finding.metric) != taught.value:
        return finding
    return replace(finding, message=f"{finding.message} ({taught.told})")


def _nothing_to_judge(run: Run, judged: set[str]) -> list[Finding]:
    """What is said of a log without a number: that nothing was recorded, or nothing that any check could judge."""
    if run.catalogue.height or (run.events.height and judged - OF_ANY_LOG):
        return []
    if run.events.height:
        return [_only_events(run)]
    return [
        Finding(
            "truncated-stream",
            "critical",
            run.name,
            f"nothing was recorded: no number and no event could be read ({run.rejects.height} rejects)",
            evidence={"rejects": run.rejects.height},
            causes=("the job stopped before its first record", "the file is not the log it is taken for"),
            suggestions=("look at the rejects of the run", "check the path that the job wrote to"),
        )
    ]


def _only_events(run: Run) -> Finding:
    counted = run.events["kind"].value_counts().sort("count", "kind", descending=[True, False]).head(5)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in counted.iter_rows())
    return Finding(
        "truncated-stream",
        "warning",
        run.name,
        f"nothing could be judged: the log holds no number, and its {run.events.height} events ({kinds}) are none that "
        "the checks asked for look at",
        evidence={"events": run.events.height, "rejects": run.rejects.height},
        causes=("the numbers of the training were written elsewhere, or not at all",),
        suggestions=("give the log that holds the loss, or record it (docs/recording.md)",),
    )


def _worst_first(finding: Finding) -> tuple[int, int, str, str]:
    step = finding.first_step if finding.first_step is not None else -1
    return -SEVERITIES.index(finding.severity), step, finding.kind, finding.metric or ""


def _not_applicable(
    results: Mapping[str, Result], findings: Iterable[Finding], told: set[str]
) -> tuple[NotApplicable, ...]:
    """One entry a kind that was not `told` of: a kind that some check found, or another one judged, is none of them."""
    done = {f.kind for f in findings} | told
    for check in (one for one in CHECKS if one.name in results):
        unjudged = {entry.kind for entry in results[check.name].not_applicable}
        done |= {*check.kinds, *check.also} - unjudged
    reasons: dict[str, NotApplicable] = {}
    for result in results.values():
        for entry in result.not_applicable:
            if entry.kind not in done:
                reasons.setdefault(entry.kind, entry)
    return tuple(reasons.values())
