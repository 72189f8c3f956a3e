"""Markdown for a step summary or a comment: verdicts as a table, then each finding with its evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from analysis.diagnose import Diagnosis
from analysis.findings import status_of
from analysis.report.groups import Group, group_findings
from analysis.report.text import clean, counted, span

__all__ = ["markdown"]

#: Cards of one run, and runs of one summary, that are written out; the services that show summaries cut at 1 MB.
CARDS, RUNS = 20, 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@<>&-])")
_SIGNS = {"healthy": "🟢", "warning": "🟡", "critical": "🔴", "fatal": "🔴", "info": "🔵"}
_PLAIN = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}


def markdown(diagnoses: Sequence[Diagnosis], *, title: str = "Training runs", command: str = "") -> str:
    """The judgement of several runs as GitHub-flavoured Markdown; nothing out of a log can act as markup.

    >>> print(markdown([], title="Nightly", command="aftertrain report runs").splitlines()[0])
    # Nightly: healthy
    """
    status = status_of([f for d in diagnoses for f in d.findings])
    lines = [f"# {escape(title)}: {status}", ""]
    if diagnoses:
        lines += ["| verdict | run | findings | worst | last step | not judged |", "|---|---|--:|---|--:|--:|"]
        lines += [_row(d) for d in diagnoses]
    for diagnosis in diagnoses[:RUNS]:
        lines += _run(diagnosis)
    if len(diagnoses) > RUNS:
        lines += ["", f"{len(diagnoses) - RUNS} more runs stand in the table above only."]
    if command:
        lines += ["", f"Made by `{clean(command, 500).replace('`', '')}`"]
    return "\n".join([*lines, ""])


def escape(text: object, limit: int = 120) -> str:
    """`text` on one line with everything that Markdown or HTML would act on made harmless.

    >>> escape("a|b <script> *x* @all")
    'a\\\\|b &lt;script&gt; \\\\*x\\\\* &#64;all'
    """
    return _SPECIAL.sub(lambda m: _PLAIN.get(m[1], f"\\{m[1]}"), clean(text, limit))


def _row(diagnosis: Diagnosis) -> str:
    worst = diagnosis.findings[0] if diagnosis.findings else None
    said = f"{worst.kind}: {escape(worst.message, 160)}" if worst else "nothing found"
    step = "" if diagnosis.source.last_step is None else str(diagnosis.source.last_step)
    return (
        f"| {_SIGNS[diagnosis.status]} {diagnosis.status} | {escape(diagnosis.run, 80)} | {len(diagnosis.findings)} "
        f"| {said} | {step} | {len(diagnosis.not_applicable)} |"
    )


def _run(diagnosis: Diagnosis) -> Iterator[str]:
    yield from ("", f"## {escape(diagnosis.run, 80)}: {diagnosis.status}", "")
    groups = group_findings(diagnosis.findings)
    if not groups:
        yield f"Nothing found among {len(diagnosis.judged)} kinds of fault that could be judged."
    for group in groups[:CARDS]:
        yield from _card(group)
    if len(groups) > CARDS:
        yield f"{len(groups) - CARDS} more kinds of finding stand in the JSON report."
    if diagnosis.source.rejects.height:
        yield from (
            "",
            f"Not readable: {counted(diagnosis.source.rejects.height, 'piece of input', 'pieces of input')}.",
        )
    if diagnosis.not_applicable:
        yield from ("", "<details><summary>Not judged</summary>", "")
        yield from (f"* {n.kind}: {escape(n.reason, 300)}" for n in diagnosis.not_applicable)
        yield from ("", "</details>")


def _card(group: Group) -> Iterator[str]:
    worst = group.findings[0]
    where = ", ".join(
        part for part in (escape(group.metric or "", 60), span(worst.first_step, worst.last_step)) if part
    )
    yield f"### {_SIGNS[group.severity]} {group.severity}: {group.kind}{f' ({where})' if where else ''}"
    yield from ("", escape(worst.message, 400), "")
    for finding in group.findings[1:6]:
        yield f"* also {span(finding.first_step, finding.last_step)}: {escape(finding.message, 300)}"
    if len(group.findings) > 6:
        yield f"* and {len(group.findings) - 6} more"
    if group.evidence:
        yield from ("", "| evidence | value |", "|---|--:|")
        yield from (f"| {escape(name, 60)} | {escape(values[0])} |" for name, values in group.evidence[:24])
    for title, items in (("What to try", group.suggestions), ("Likely causes", group.causes)):
        if items:
            yield from ("", f"{title}:", "")
            yield from (f"{n}. {escape(item, 400)}" for n, item in enumerate(items[:6], start=1))
    yield ""
