"""Incidents as lines of text: a block each, what is mere information in one line; for terminals and for `repr`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from analysis.findings import Finding, Severity
from analysis.incidents import Incident

__all__ = ["SIGNS", "lines_of", "located", "notes_of", "plain"]

SIGNS: dict[Severity, str] = {"info": "i", "warning": "!", "critical": "X", "fatal": "X"}
#: Followers, causes and suggestions of an incident that a block of text has room for.
_FOLLOWERS, _CAUSES = 6, 3


def plain(text: str) -> str:
    """Text of a log without control characters: it must not steer a terminal.

    >>> plain("loss\x1b[31m")
    'loss?[31m'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def lines_of(incidents: Sequence[Incident], shown: Callable[[str], str] = plain) -> Iterator[str]:
    """One block an incident: its story, its findings, causes and what to try once; `shown` makes text of a log fit.

    >>> from analysis.incidents import incidents
    >>> from parsers.finish import finish
    >>> spike = Finding("loss-spike", "warning", "a", "up", "loss", 7, causes=("a bad batch",), suggestions=("look",))
    >>> print("\\n".join(lines_of(incidents(finish("a", "a", "jsonl", None), [spike]))))
      ! warning  loss-spike at step 7: up
          cause: a bad batch (this log cannot confirm it)
          try:   look
    """
    for one in incidents:
        if one.severity != "info":
            yield from _block(one, shown)
    yield from notes_of([one for one in incidents if one.severity == "info"], shown)


def _block(one: Incident, shown: Callable[[str], str]) -> Iterator[str]:
    if one.followers or one.facts:
        yield f"  {SIGNS[one.severity]} {one.severity:8} {shown(one.story)}"
        yield f"      root:  {_line(one.root, shown)}"
        yield from (f"      then:  {_line(f, shown)}" for f in one.followers[:_FOLLOWERS])
        if len(one.followers) > _FOLLOWERS:
            yield f"      then:  {len(one.followers) - _FOLLOWERS} more findings"
    else:
        yield f"  {_line(one.root, shown)}"
    yield from (f"      cause: {shown(cause)}" for cause in one.causes[:_CAUSES])
    yield from (f"      try:   {shown(suggestion)}" for suggestion in one.suggestions[:_CAUSES])


def _line(finding: Finding, shown: Callable[[str], str]) -> str:
    told = f"{finding.kind}{located(finding)}: {shown(finding.message)}"
    return f"{SIGNS[finding.severity]} {finding.severity:8} {told}"


def notes_of(incidents: Sequence[Incident], shown: Callable[[str], str] = plain) -> Iterator[str]:
    """What is mere information in one line: a single finding as it is, more of them counted by kind."""
    findings = [finding for one in incidents for finding in one.findings]
    if len(findings) == 1:
        yield f"  {_line(findings[0], shown)}"
    elif findings:
        yield f"  i info     {len(findings)} notes: {_counted(findings)}"


def _counted(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(kind if n == 1 else f"{kind} ({n})" for kind, n in counts.most_common())


def located(finding: Finding) -> str:
    """Where a finding is, to stand behind its kind or message; empty for one about the whole run."""
    if finding.first_step is None:
        return ""
    if finding.last_step in (None, finding.first_step):
        return f" at step {finding.first_step:,}"
    return f" at steps {finding.first_step:,} to {finding.last_step:,}"
