"""Incidents made fit for a page: those that are alike in one block, the cards of the root first, then its followers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.findings import SEVERITIES, Finding, Severity
from analysis.incidents import Incident
from analysis.report.groups import Group, group_findings

__all__ = ["Block", "arrows", "blocks_of"]


@dataclass(frozen=True)
class Block:
    """Incidents with roots of one kind on one metric and followers of the same kinds; `groups` are its cards.

    The first group is that of the roots; the followers' come in the order of time.
    """

    incidents: tuple[Incident, ...]
    groups: tuple[Group, ...]

    @property
    def severity(self) -> Severity:
        """Of the worst finding."""
        return max((i.severity for i in self.incidents), key=SEVERITIES.index)

    @property
    def stories(self) -> list[str]:
        """What happened, one line an incident; empty where findings stand alone and their messages say it all."""
        return [arrows(i.story) for i in self.incidents if i.followers or i.facts]

    @property
    def causes(self) -> list[str]:
        """Causes of all incidents, each once, in their order."""
        return list(dict.fromkeys(c for i in self.incidents for c in i.causes))

    @property
    def suggestions(self) -> list[str]:
        """What to try, each once, in the order to try it."""
        return list(dict.fromkeys(s for i in self.incidents for s in i.suggestions))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of the block."""
        return tuple(f for group in self.groups for f in group.findings)


def blocks_of(incidents: Iterable[Incident]) -> list[Block]:
    """Blocks in the order of their first incident; mere information never shares one with anything worse.

    >>> import polars as pl
    >>> from analysis.incidents import incidents
    >>> from parsers.finish import finish
    >>> spikes = [Finding("loss-spike", "warning", "a", "up", metric="loss", first_step=s) for s in (5, 900)]
    >>> [block] = blocks_of(incidents(finish("a", "a", "jsonl", None), spikes))
    >>> len(block.incidents), [(g.kind, g.spans) for g in block.groups]
    (2, [('loss-spike', [(5, 5), (900, 900)])])
    """
    alike: dict[tuple[bool, str, str | None, frozenset[str]], list[Incident]] = {}
    for one in incidents:
        kinds = frozenset(f.kind for f in one.followers)
        alike.setdefault((one.severity == "info", one.root.kind, one.root.metric, kinds), []).append(one)
    return [_block(same) for same in alike.values()]


def _block(same: Sequence[Incident]) -> Block:
    roots, followers = (i.root for i in same), (f for i in same for f in i.followers)
    return Block(tuple(same), tuple(group_findings([*roots, *followers])))


def arrows(story: str) -> str:
    """A story with arrows as a page has them.

    >>> arrows("lr peaked at 0.003 at step 4 -> loss NaN at 9")
    'lr peaked at 0.003 at step 4 → loss NaN at 9'
    """
    return story.replace(" -> ", " → ")
