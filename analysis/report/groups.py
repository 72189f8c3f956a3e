"""Findings that belong together: one card for a kind on a metric, however often it was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.findings import SEVERITIES, Finding, Severity
from analysis.report.text import number

__all__ = ["Group", "group_findings"]

#: Columns of an evidence table: more would not fit a page; the other findings are listed below it.
SHOWN = 4
#: Characters of a value of which two, with their names, stand side by side in half of a card.
_SHORT = 18


@dataclass(frozen=True)
class Group:
    """Findings of one kind on one metric."""

    kind: str
    metric: str | None
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """Of the worst finding."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index)

    @property
    def spans(self) -> list[tuple[float, float]]:
        """First and last step of each finding that has steps."""
        return [
            (f.first_step, f.first_step if f.last_step is None else max(f.last_step, f.first_step))
            for f in self.findings
            if f.first_step is not None
        ]

    @property
    def evidence(self) -> list[tuple[str, list[str]]]:
        """Rows of the evidence table: what was measured, and its value for each of the first findings."""
        shown = self.findings[:SHOWN]
        names = dict.fromkeys(name for f in shown for name, value in f.evidence.items() if value != "")
        return [
            (name.replace("_", " "), [number(f.evidence[name]) if name in f.evidence else "" for f in shown])
            for name in names
        ]

    @property
    def paired(self) -> bool:
        """Whether the evidence table may have two entries a row: there are many, of one finding, and all are short."""
        rows = self.evidence
        return len(self.findings) == 1 and len(rows) > 6 and all(len(values[0]) <= _SHORT for _, values in rows)


def group_findings(findings: Iterable[Finding]) -> list[Group]:
    """Findings grouped by kind and metric; groups and their findings stay in the order given.

    >>> spikes = [Finding("loss-spike", "warning", "a", "up", metric="loss", first_step=s) for s in (5, 9)]
    >>> [(g.kind, len(g.findings), g.spans) for g in group_findings(spikes)]
    [('loss-spike', 2, [(5, 5), (9, 9)])]
    """
    grouped: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.kind, finding.metric), []).append(finding)
    return [Group(kind, metric, tuple(found)) for (kind, metric), found in grouped.items()]
