"""The story of findings that belong together, what may have caused them, and what to try: root first, said once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from analysis.findings import Finding
from analysis.story.context import Fact
from analysis.story.phrases import phrase

__all__ = ["causes_of", "story_of", "suggestions_of"]

#: Links of a story that are told; a longer one is cut in its middle, for the end is what the run came to.
_TOLD = 7
_CANNOT = re.compile(r"^cannot (?:tell|be told)\b", re.IGNORECASE)
_NUMBERS = re.compile(r"\d[\d.,e+-]*")
#: What stands in brackets is where a cause names the evidence that it goes by.
_ASIDE = re.compile(r"\(([^()]*)\)")


def story_of(root: Finding, followers: Sequence[Finding], facts: Sequence[Fact]) -> str:
    """One line in the order of time, joined by arrows; the message itself where a finding stands alone."""
    if not followers and not facts:
        return root.message
    # What has no step opens the story as its root, and closes it otherwise; what is known at its end stands there. A
    # fact comes before the finding that it explains, which is placed less surely than a fact is.
    begin = _placed(root, float("inf"))
    told = [(min(f.step, begin), 0, n, f"{f.text} at step {f.step:,.0f}") for n, f in enumerate(facts)]
    for n, one in enumerate([root, *followers]):
        told.append((_placed(one, float("inf") if n else float("-inf")), 1, n, phrase(one)))
    links = list(dict.fromkeys(text for *_, text in sorted(told)))
    if len(links) > _TOLD:
        links = [*links[: _TOLD - 3], f"{len(links) - _TOLD + 1} more", *links[-2:]]
    return " -> ".join([links[0], *(link.replace(" step ", " ") for link in links[1:])])


def _placed(finding: Finding, otherwise: float) -> float:
    step = finding.last_step if finding.first_step is None else finding.first_step
    return otherwise if step is None else float(step)


def causes_of(root: Finding, followers: Sequence[Finding], facts: Sequence[Fact]) -> tuple[str, ...]:
    """Causes, the best supported first, each with its evidence: facts of the log, what the findings measured, and
    then what would fit the root but cannot be seen in this log. That it cannot be told is said where nothing is left.
    """
    alone = not followers and not facts
    measured, guessed = _known(root)
    said = " ".join(measured).casefold()
    seen = [_of(f, root) for f in facts if f.causal and f.word not in said]
    ranked = {_NUMBERS.sub("#", c): c if alone else _with(c, root) for c in measured}
    told = [fact.word for fact in facts if fact.causal]
    for finding in followers:
        for cause in (c for c in _known(finding)[0] if not any(word in c.casefold() for word in told)):
            ranked.setdefault(_NUMBERS.sub("#", cause), _with(cause, finding))
    fitting = [(c, root) for c in guessed] or [(c, f) for f in followers for c in _known(f)[1] if not ranked]
    found = [*seen, *ranked.values(), *(_fitting(c, None if alone else f) for c, f in fitting)]
    unknown = [c for f in (root, *followers) for c in f.causes if _CANNOT.match(c)]
    return tuple(dict.fromkeys(found)) or tuple(unknown[:1])


def _known(finding: Finding) -> tuple[list[str], list[str]]:
    """Causes of a finding that name a number or a piece of its evidence, and those that only fit its kind."""
    keys = {word for key in finding.evidence for word in (key, key.replace("_", " "))}
    told = [c for c in finding.causes if not _CANNOT.match(c)]
    shown = [
        c for c in told if _NUMBERS.search(c) or any(_names(key, part) for part in _ASIDE.findall(c) for key in keys)
    ]
    return shown, [c for c in told if c not in shown]


def _names(key: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(key)}\b", text) is not None


def _of(fact: Fact, root: Finding) -> str:
    before = (root.first_step or 0) - fact.step
    when = f"{before:,.0f} steps before" if before > 0 else "at the step of" if before == 0 else "where about stands"
    return f"{fact.text} at step {fact.step:,.0f} (evidence: it is logged, {when} {root.kind})"


def _with(cause: str, finding: Finding) -> str:
    return f"{cause} (evidence: {_where(finding)})"


def _fitting(cause: str, finding: Finding | None) -> str:
    return f"{cause} ({f'fits {_where(finding)}; ' if finding else ''}this log cannot confirm it)"


def _where(finding: Finding) -> str:
    of = f" of {finding.metric[:60]}" if finding.metric else ""
    return f"{finding.kind}{of}" + (f" at step {finding.first_step:,}" if finding.first_step is not None else "")


def suggestions_of(root: Finding, followers: Sequence[Finding]) -> tuple[str, ...]:
    """What to try, the root's first, each once; those of mere information only where the root is no more than that."""
    kept: dict[str, str] = {}
    for suggestion in _suggestions(root, followers):
        kept.setdefault(_plain(suggestion), suggestion)
    return tuple(kept.values())


def _suggestions(root: Finding, followers: Sequence[Finding]) -> Iterator[str]:
    yield from root.suggestions
    for finding in followers:
        if finding.severity != "info" or root.severity == "info":
            yield from finding.suggestions


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
