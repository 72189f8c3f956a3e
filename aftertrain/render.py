"""Runs and diagnoses as text for terminals, Markdown, JSON, JUnit and GitHub's annotations."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:  # listing runs must not wait for the analyses
    from analysis.diagnose import Diagnosis
    from parsers.listing import Listing
    from parsers.run import RunSet

__all__ = ["DIAGNOSES", "ROLES", "RUNS", "grid", "markdown_table", "markdown_text", "printable"]


#: So many reasons why kinds were not judged fit into the line below a run; of more the kinds alone are told.
_REASONS = 3


def printable(text: str, limit: int = 300) -> str:
    """Text from a log without control characters (a log must not steer the terminal), cut to `limit`.

    >>> printable("loss\\x1b[31m")
    'loss?[31m'
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def grid(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Rows as a table for the terminal."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def markdown_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Rows as a table in Markdown, with every cell made safe."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(markdown_text(c) for c in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *[line(row) for row in rows]])


def markdown_text(text: str) -> str:
    """Text from a log that Markdown shows as it is."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\|`*_[]":
        safe = safe.replace(sign, "\\" + sign)
    return safe


_RUN_COLUMNS = ("run", "format", "steps", "attempts", "scalars", "series", "events", "rejects", "path")


def _run_rows(runs: Listing) -> list[list[str]]:
    return [
        [
            printable(r["run"], 60),
            r["format"],
            "-" if r["last_step"] is None else f"{r['last_step']:,}",
            f"{r['attempts']:,}",
            f"{r['scalars']:,}",
            f"{r['series']:,}",
            f"{r['events']:,}",
            f"{r['rejects']:,}",
            printable(r["path"], 200),
        ]
        for r in runs.frame.iter_rows(named=True)
    ]


def _runs_json(runs: Listing) -> str:
    listed = runs.frame.to_dicts()
    unread = [{"path": path, "reason": reason} for path, reason in runs.unread]
    return json.dumps({"version": 1, "runs": listed, "unread": unread}, indent=2, allow_nan=False)


_ROLE_COLUMNS = ("run", "series", "role", "for the run", "why")


def _role_rows(runs: RunSet) -> list[list[str]]:
    """Every series with what it is, those that stand for the run first."""
    rows = []
    for run in runs:
        for row in run.roles.frame.sort("primary", descending=True, maintain_order=True).iter_rows(named=True):
            name = f"{row['split']} {row['metric']}".strip()
            why = run.roles[row["primary"]].why if row["primary"] else row["why"]
            told = [printable(run.name, 60), printable(name, 80), row["role"] or "other", row["primary"]]
            rows.append([*told, printable(why, 160)])
    return rows


def _roles_json(runs: RunSet) -> str:
    listed = [{"run": run.name, "path": run.path, "series": run.roles.frame.to_dicts()} for run in runs]
    return json.dumps({"version": 1, "runs": listed}, indent=2, allow_nan=False)


def _table(diagnoses: Sequence[Diagnosis]) -> str:
    from analysis.story.listing import lines_of

    blocks = []
    for d in diagnoses:
        lines = [f"{d.verdict.upper()}  {printable(d.run)}  ({d.source.format}, {printable(d.source.path)})"]
        lines += lines_of(d.incidents, printable)
        planned = d.source.planned.summary
        lines += [] if planned == "no plan" else [f"  plan: {printable(planned)}"]
        lines.append(f"  {printable(d.summary)}; {d.source.rejects.height} rejects")
        lines += _not_judged(d)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _not_judged(diagnosis: Diagnosis) -> list[str]:
    """Few kinds with their reasons; of many the names alone, whole families as one, wrapped."""
    from analysis.kinds import KINDS

    reasons: dict[str, list[str]] = {}
    for entry in diagnosis.not_applicable:
        reasons.setdefault(entry.reason, []).append(entry.kind)
    if not reasons:
        return ["  nothing was left out"]
    if len(reasons) <= _REASONS:
        listed = "; ".join(f"{', '.join(kinds)} ({printable(reason, 100)})" for reason, kinds in reasons.items())
        return [f"  not judged: {listed}"]
    left = {entry.kind for entry in diagnosis.not_applicable}
    looked = {KINDS[kind].family for kind in diagnosis.judged}
    whole = [f"all {family}" for family in dict.fromkeys(KINDS[k].family for k in left) if family not in looked]
    single = [kind for kind in KINDS if kind in left and KINDS[kind].family in looked]
    told = f"not judged: {', '.join([*sorted(whole), *single])}; the reasons: --format markdown"
    return textwrap.wrap(told, 118, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _json(diagnoses: Sequence[Diagnosis]) -> str:
    from analysis.report.json import diagnosis_json

    return json.dumps(diagnosis_json(diagnoses), indent=2, allow_nan=False)


def _markdown_report(diagnoses: Sequence[Diagnosis]) -> str:
    from analysis.report.markdown import markdown

    return markdown(diagnoses)


def _junit(diagnoses: Sequence[Diagnosis]) -> str:
    """One suite a run, one case a kind; a finding of warning or worse fails its case, a kind not judged is skipped.

    The text of a failure tells the story that the finding belongs to.
    """
    from analysis.story.listing import located

    suites = ET.Element("testsuites", name="aftertrain")
    for d in diagnoses:
        bad = {f.kind for f in d.findings if f.severity != "info"}
        cases = dict.fromkeys([*d.judged, *(n.kind for n in d.not_applicable)])
        skipped = {n.kind: n.reason for n in d.not_applicable}
        stories = {id(f): f"story: {i.story}" for i in d.incidents if i.followers or i.facts for f in i.findings}
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=printable(d.run),
            tests=str(len(cases)),
            failures=str(len(bad)),
            skipped=str(len(skipped)),
        )
        for kind in cases:
            case = ET.SubElement(suite, "testcase", classname=printable(d.run), name=kind)
            if kind in skipped:
                ET.SubElement(case, "skipped", message=printable(skipped[kind]))
            for f in d.findings:
                if f.kind == kind and f.severity != "info":
                    told = printable(f"{f.message}{located(f)}", 1000)
                    failure = ET.SubElement(case, "failure", type=f.severity, message=told)
                    failure.text = "\n".join(
                        [told, *([printable(story, 1000)] if (story := stories.get(id(f))) else [])]
                    )
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _github(diagnoses: Sequence[Diagnosis]) -> str:
    """One annotation an incident, since only ten of a level are shown, and one a run for what is mere information.

    Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
    """
    from analysis.story.listing import located, notes_of

    level = {"info": "notice", "warning": "warning", "critical": "error", "fatal": "error"}

    def escape(text: str, *, value: bool = False) -> str:
        safe = printable(text, 1000).replace("%", "%25")
        return safe.replace(":", "%3A").replace(",", "%2C") if value else safe

    lines = []
    for d in diagnoses:
        for one in d.incidents:
            if one.severity != "info":
                told = one.story if one.followers or one.facts else one.story + located(one.root)
                title = escape(f"{d.run}: {one.root.kind}", value=True)
                lines.append(f"::{level[one.severity]} title={title}::{escape(told)}")
        notes = notes_of([one for one in d.incidents if one.severity == "info"])
        title = escape(f"{d.run}: information", value=True)
        lines += [f"::notice title={title}::{escape(note.split(maxsplit=2)[2])}" for note in notes]
    lines.append(f"::notice title=aftertrain::{len(diagnoses)} runs judged")
    return "\n".join(lines)


RUNS: dict[str, Callable[[Listing], str]] = {
    "table": lambda runs: grid(_run_rows(runs), _RUN_COLUMNS),
    "markdown": lambda runs: markdown_table(_run_rows(runs), _RUN_COLUMNS),
    "json": _runs_json,
}
ROLES: dict[str, Callable[[RunSet], str]] = {
    "table": lambda runs: grid(_role_rows(runs), _ROLE_COLUMNS),
    "markdown": lambda runs: markdown_table(_role_rows(runs), _ROLE_COLUMNS),
    "json": _roles_json,
}
DIAGNOSES: dict[str, Callable[[Sequence[Diagnosis]], str]] = {
    "table": _table,
    "json": _json,
    "markdown": _markdown_report,
    "junit": _junit,
    "github": _github,
}
