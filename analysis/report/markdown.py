"""Markdown for a step summary or a comment: verdicts as a table, then each finding with its evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from analysis.diagnose import Diagnosis
from analysis.findings import Finding, status_of
from analysis.report.blocks import Block, arrows, blocks_of
from analysis.report.groups import Group
from analysis.report.text import clean, counted, span
from analysis.report.vitals import health_rows

__all__ = ["markdown"]

#: Incidents of one run, and runs of one summary, that are written out; the services that show summaries cut at 1 MB.
CARDS, RUNS = 20, 100
#: Findings in a folded list.
LINES = 40
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
    worst = next((one for one in diagnosis.incidents if one.severity != "info"), None)
    notes = counted(len(diagnosis.findings), "note") if diagnosis.findings else "nothing found"
    said = f"{worst.root.kind}: {escape(arrows(worst.story), 160)}" if worst else notes
    step = "" if diagnosis.source.last_step is None else str(diagnosis.source.last_step)
    return (
        f"| {_SIGNS[diagnosis.status]} {diagnosis.status} | {escape(diagnosis.run, 80)} | {len(diagnosis.findings)} "
        f"| {said} | {step} | {len(diagnosis.not_applicable)} |"
    )


def _run(diagnosis: Diagnosis) -> Iterator[str]:
    yield from ("", f"## {escape(diagnosis.run, 80)}: {diagnosis.status}", "")
    blocks = blocks_of(diagnosis.incidents)
    told = [block for block in blocks if block.severity != "info"]
    notes = [f for block in blocks if block.severity == "info" for f in block.findings]
    if not blocks:
        yield f"{escape(diagnosis.summary[0].upper() + diagnosis.summary[1:], 400)}."
    for block in told[:CARDS]:
        yield from _block(block)
    if len(told) > CARDS:
        yield f"{len(told) - CARDS} more incidents stand in the JSON report."
    if notes:
        yield from _folded(f"{_SIGNS['info']} {counted(len(notes), 'note')}", [_line(f) for f in notes[:LINES]])
    if len(notes) > LINES:
        yield f"{len(notes) - LINES} more notes stand in the JSON report."
    if diagnosis.source.rejects.height:
        yield from (
            "",
            f"Not readable: {counted(diagnosis.source.rejects.height, 'piece of input', 'pieces of input')}.",
        )
    if rows := health_rows(diagnosis):
        yield from _folded("Health", ["| indicator | status | number | healthy |", "|---|---|---|---|", *_health(rows)])
    if diagnosis.not_applicable:
        reasons = [f"* {n.kind}: {escape(n.reason, 300)}" for n in diagnosis.not_applicable]
        yield from _folded("Not judged", reasons)


def _health(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for name, state, value, healthy, _ in rows:
        yield f"| {name} | {state} | {escape(value)} | {escape(healthy, 200)} |"


def _block(block: Block) -> Iterator[str]:
    """The story, the root with its evidence, followers folded, then what to try and the causes, once for all."""
    root, *followers = block.groups
    yield f"### {_SIGNS[block.severity]} {block.severity}: {_titled(root)}"
    for story in block.stories[:6]:
        yield from ("", f"**{escape(story, 600)}**")
    yield from _proof(root)
    if followers:
        kinds = ", ".join(dict.fromkeys(group.kind for group in followers))
        cards = [line for group in followers[:CARDS] for line in _follower(group)]
        yield from _folded(f"{counted(len(followers), 'thing')} that came of it, or with it: {kinds}", cards)
    for title, items in (("What to try", block.suggestions), ("Likely causes", block.causes)):
        if items:
            yield from ("", f"{title}:", "")
            yield from (f"{n}. {escape(item, 400)}" for n, item in enumerate(items[:6], start=1))
    yield ""


def _titled(group: Group) -> str:
    worst = group.findings[0]
    where = ", ".join(
        part for part in (escape(group.metric or "", 60), span(worst.first_step, worst.last_step)) if part
    )
    return f"{group.kind}{f' ({where})' if where else ''}"


def _follower(group: Group) -> Iterator[str]:
    yield f"#### {_SIGNS[group.severity]} {group.severity}: {_titled(group)}"
    yield from (*_proof(group), "")


def _proof(group: Group) -> Iterator[str]:
    """What the findings of a card say, and their numbers."""
    yield from ("", escape(group.findings[0].message, 400), "")
    for finding in group.findings[1:6]:
        yield f"* also {span(finding.first_step, finding.last_step)}: {escape(finding.message, 300)}"
    if len(group.findings) > 6:
        yield f"* and {len(group.findings) - 6} more"
    if group.evidence:
        yield from ("", "| evidence | value |", "|---|--:|")
        yield from (f"| {escape(name, 60)} | {escape(values[0])} |" for name, values in group.evidence[:24])


def _line(finding: Finding) -> str:
    one = Group(finding.kind, finding.metric, (finding,))
    return f"* {finding.severity}: {_titled(one)}: {escape(finding.message, 300)}"


def _folded(summary: str, lines: Sequence[str]) -> Iterator[str]:
    yield from ("", f"<details><summary>{summary}</summary>", "", *lines, "", "</details>")
