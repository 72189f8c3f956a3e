"""A diagnosis as HTML for notebooks: its incidents, what is mere information folded, and what was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from analysis.findings import Finding
from analysis.incidents import Incident
from analysis.story.listing import located

if TYPE_CHECKING:
    from analysis.diagnose import Diagnosis

__all__ = ["html_of"]

_SHOWN = 50


def html_of(diagnosis: Diagnosis) -> str:
    """Incidents as a list, the worst first; followers under their root; nothing out of a log is markup."""
    told = [one for one in diagnosis.incidents if one.severity != "info"]
    notes = [f for one in diagnosis.incidents if one.severity == "info" for f in one.findings]
    skipped = [f"{escape(n.kind)}: {escape(n.reason)}" for n in diagnosis.not_applicable[:_SHOWN]]
    parts = [f"<p><b>Diagnosis of {escape(diagnosis.run)}: {diagnosis.status}</b></p>"]
    parts += [_incident(one) for one in told[:_SHOWN]]
    if len(told) > _SHOWN:
        parts.append(f"<p>{len(told) - _SHOWN} more incidents: see incidents</p>")
    if not diagnosis.findings:
        parts.append("<p>no findings</p>")
    if notes:
        parts.append(
            _folded(f"{len(notes)} {'note' if len(notes) == 1 else 'notes'}", [_finding(f) for f in notes[:_SHOWN]])
        )
    if skipped:
        parts.append(_folded("not judged", skipped))
    return f"<div>{''.join(parts)}</div>"


def _incident(one: Incident) -> str:
    told = [f"<p><b>{one.severity}</b> {escape(one.story)}</p>"] if one.followers or one.facts else []
    told.append(f"<ul><li>{_finding(one.root)}{_items([_finding(f) for f in one.followers[:_SHOWN]])}</li></ul>")
    if one.causes or one.suggestions:
        told.append(_folded("causes and what to try", [escape(text) for text in (*one.causes, *one.suggestions)]))
    return "".join(told)


def _finding(finding: Finding) -> str:
    return f"<b>{finding.severity} {escape(finding.kind)}</b>{located(finding)}: {escape(finding.message)}"


def _folded(summary: str, items: Sequence[str]) -> str:
    return f"<details><summary>{escape(summary)}</summary>{_items(items)}</details>"


def _items(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""
