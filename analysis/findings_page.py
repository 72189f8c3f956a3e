"""The page that says of each kind of finding what it means, how it is judged, and what to try, made from the kinds.

`python -m analysis.findings_page docs/findings.md` writes it; `aftertrain explain KIND` prints one section.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from analysis.checks import CHECKS
from analysis.kinds import BUILT_IN, KINDS, Limit
from analysis.kinds.evidence import meaning_of
from analysis.kinds.examples import EXAMPLES
from eventstream.errors import InputError, unknown_name

__all__ = ["index", "page", "section"]

_HEAD = """# Findings

What each kind of finding means, what it needs, how it is judged and from where on, and what to try. The names are
stable: [settings](settings.md) select, ignore and waive by them, and change severities and limits. A kind that a log
cannot show is listed as not judged, with the reason. `aftertrain explain KIND` prints one of these sections. This page
is generated: `python -m analysis.findings_page docs/findings.md`.

The quoted message of each kind is that of a run in which it was planted for the tests, and so is the evidence; findings
of other shapes bring other numbers as well. Limits learned from your own healthy runs (`at.norms`) go before the
defaults below, and those of the settings before both.
"""
_NOBODY = "No check judges this kind yet: its name is kept for what is to come."
_CHECK = {kind: check.name for check in CHECKS for kind in check.kinds}


def page() -> str:
    """The whole page as Markdown: an index by family, then a section a kind.

    >>> page().splitlines()[0]
    '# Findings'
    """
    parts = [_HEAD, *index(links=True), ""]
    for family, kinds in _families():
        parts += [f"## {family[0].upper()}{family[1:]}\n", *(f"{section(kind)}\n" for kind in kinds)]
    return "\n".join(parts)


def index(*, links: bool = False) -> list[str]:
    """A line a kind, under its family: the name, with a link to its section where asked for, and the meaning.

    >>> index()[1]
    '* truncated-stream: the log ends inside a record, or parts of it cannot be read'
    """
    lines = []
    for family, kinds in _families():
        lines += [f"\n**{family}**\n" if links else f"{family}:"]
        lines += [f"* {f'[{k}](#{k})' if links else k}: {KINDS[k].meaning}" for k in kinds]
    return lines


def section(kind: str) -> str:
    """All that is known of one kind, as Markdown. Raises InputError for an unknown one, with the nearest known name.

    >>> print(section("stall").splitlines()[0])
    ### stall
    """
    if kind not in BUILT_IN:
        raise InputError(unknown_name("kind", kind, BUILT_IN))
    one = KINDS[kind]
    lines = [f"### {kind}\n", f"{_sentence(one.meaning)} {_judged_by(kind)}"]
    if kind in EXAMPLES:
        lines += ["", f"> **{EXAMPLES[kind].severity}:** {_safe(EXAMPLES[kind].message)}"]
    for title, text in (("Needs", one.needs), ("Statistic", one.statistic), ("Severity", one.severity)):
        lines += ["", f"**{title}:** {_sentence(text)}"] if text else []
    if kind in _CHECK:
        lines += ["", f"**Limit:** {_limit(kind, one.limit)}"]
    lines += _listed("Likely causes", one.causes)
    lines += _listed("What to try, in this order", one.suggestions)
    lines += _evidence(kind)
    lines += ["", f"**Reference:** {_sentence(one.reference)}"] if one.reference else []
    return "\n".join(lines)


def _families() -> Iterator[tuple[str, list[str]]]:
    for family, kinds in groupby(BUILT_IN, key=lambda kind: KINDS[kind].family):
        yield family, list(kinds)


def _judged_by(kind: str) -> str:
    return f'Judged by `at.diagnose(run, checks=["{_CHECK[kind]}"])`.' if kind in _CHECK else _NOBODY


def _limit(kind: str, limit: Limit | None) -> str:
    if limit is None:
        return "none; it is a matter of fact, or of the noise of the series itself, and no number can be set."
    side = "or more" if limit.above else "or less"
    default = f"{limit.default:.4g} {limit.unit}, {side} (evidence `{limit.measure}`)"
    return (
        f'{default}. {_sentence(limit.source)} Set another in `[findings.threshold]`: `"{kind}" = {limit.default:.4g}`.'
    )


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return ["", f"**{title}:**", "", *(f"{n}. {item}" for n, item in enumerate(items, 1))] if items else []


def _evidence(kind: str) -> list[str]:
    if kind not in EXAMPLES:
        return []
    told = [(key, meaning_of(kind, key)) for key in EXAMPLES[kind].evidence.split()]
    return ["", "**Evidence:**", "", *(f"* `{key}`: {meaning}" for key, meaning in told if meaning)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _safe(text: str) -> str:
    return re.sub(r"([*<_`|])", r"\\\1", text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
