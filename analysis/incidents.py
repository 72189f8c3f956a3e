"""`incidents`: findings that belong together made into one story each, in the order of time, with the root first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.findings import SEVERITIES, Finding, Severity
from analysis.story.context import Facts
from analysis.story.joining import Joined, join
from analysis.story.onset import Onset, Rhythm, onset_of
from analysis.story.telling import causes_of, story_of, suggestions_of
from parsers.run import Run

__all__ = ["Incident", "incidents"]


@dataclass(frozen=True, eq=False)
class Incident:
    """Findings that belong together: what came first (`root`), what came of it (`followers`, in the order of time).

    `why` has a reason for each follower; `story` is one line in the order of time, `facts` what the log tells right
    before it (a resume, a phase, a learning rate that peaked). `causes` are ranked by what the log supports, each
    with its evidence; `suggestions` are one set in the order to try them. `severity` is that of the worst finding;
    the steps are None where no finding has any.
    """

    root: Finding
    followers: tuple[Finding, ...]
    why: tuple[str, ...]
    facts: tuple[str, ...]
    first_step: int | None
    last_step: int | None
    severity: Severity
    story: str
    causes: tuple[str, ...]
    suggestions: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The root, then its followers."""
        return (self.root, *self.followers)

    def to_dict(self, findings: Sequence[Finding] | None = None) -> dict[str, Any]:
        """The incident as JSON has it; with `findings`, root and followers are places in that list.

        Without it they are whole findings. Raises ValueError where one of them is not in the list.
        """
        places = None if findings is None else _places(findings, self.findings)
        members: list[Any] = [f.to_dict() for f in self.findings] if places is None else list(places)
        return {
            "story": self.story,
            "severity": self.severity,
            "first_step": self.first_step,
            "last_step": self.last_step,
            "root": members[0],
            "followers": members[1:],
            "why": list(self.why),
            "causes": list(self.causes),
            "suggestions": list(self.suggestions),
        }


def incidents(run: Run, findings: Iterable[Finding]) -> tuple[Incident, ...]:
    """The stories that `findings` of `run` make, the worst first; every finding is in exactly one of them.

    Findings are joined where it is known that one brings about the other (`analysis.story.links`), and where the log
    bears it out: the effect sets in within so many records of the cause, given how surely each is placed, and both
    tell of the same rank, layer or loss component. Nearness in time alone joins nothing, and in short logs or among
    many findings the windows are narrowed, so that chance alone seldom joins two strangers. A finding about the
    whole run stands alone unless it is linked by what it says. Changes that were planned stand in the story, and are
    the root of nothing worse. No findings make no incidents; the order of `findings` does not matter.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 900, "step": list(range(900)), "value": [1.0] * 900})
    >>> run = finish("a", "a", "jsonl", rows)
    >>> spike = Finding("loss-spike", "warning", "a", "", "loss", 500, 505, {"factor": 3.2})
    >>> nan = Finding("non-finite", "critical", "a", "", "loss", 512, 899, {"metrics": "loss", "nan": 388})
    >>> [one] = incidents(run, [nan, spike])
    >>> one.story, one.root is spike, one.severity
    ('loss spike x 3.2 at step 500 -> loss NaN at 512', True, 'critical')
    """
    given = list(findings)
    if not given:
        return ()
    rhythm = Rhythm(run)
    onsets = [onset_of(finding, rhythm, run) for finding in given]
    groups = _groups(join(onsets, rhythm))
    facts = Facts(run, rhythm)
    made = [_incident(group, onsets, facts) for group in groups]
    return tuple(one for _, one in sorted(made, key=lambda pair: pair[0]))


def _groups(joined: Sequence[Joined]) -> list[list[Joined]]:
    """The members of each tree, its root first."""
    causes = {one.place: one.cause for one in joined}
    groups: dict[int, list[Joined]] = {one.place: [one] for one in joined if one.cause is None}
    for one in joined:
        place = one.place
        while (cause := causes[place]) is not None:
            place = cause
        if place != one.place:
            groups[place].append(one)
    return list(groups.values())


def _incident(group: Sequence[Joined], onsets: Sequence[Onset], facts: Facts) -> tuple[tuple[Any, ...], Incident]:
    """The incident of a tree, and what it is sorted by."""
    root, *rest = group
    first = onsets[root.place]
    rest.sort(key=lambda one: _in_time(onsets[one.place]))
    found = [onsets[one.place].finding for one in rest]
    before = facts.before(first)
    members = [first.finding, *found]
    starts = [f.first_step for f in members if f.first_step is not None]
    ends = [f.first_step if f.last_step is None else f.last_step for f in members]
    worst = max((f.severity for f in members), key=SEVERITIES.index)
    made = Incident(
        root=first.finding,
        followers=tuple(found),
        why=tuple(one.link.why for one in rest if one.link is not None),
        facts=tuple(f"{fact.text} at step {fact.step:,.0f}" for fact in before),
        first_step=min(starts, default=None),
        last_step=max((end for end in ends if end is not None), default=None),
        severity=worst,
        story=story_of(first.finding, found, before),
        causes=causes_of(first.finding, found, before),
        suggestions=suggestions_of(first.finding, found),
    )
    return (-SEVERITIES.index(worst), made.first_step if made.first_step is not None else -1, first.key), made


def _in_time(onset: Onset) -> tuple[bool, tuple[Any, ...]]:
    """Findings without a step come after those that have one."""
    return onset.first is None, onset.key


def _places(findings: Sequence[Finding], members: Sequence[Finding]) -> list[int]:
    """Where the members stand in the list: the very objects, else their equals."""
    places: list[int] = []
    for one in members:
        at = [n for n, f in enumerate(findings) if f is one and n not in places]
        at = at or [n for n, f in enumerate(findings) if f == one and n not in places]
        if not at:
            raise ValueError(f"the finding {one.kind!r} of this incident is not in the list of findings given")
        places.append(at[0])
    return places
