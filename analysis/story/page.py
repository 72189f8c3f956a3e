"""The page of docs that says what an incident is and lists the links, made from the table of links itself.

`python -m analysis.story.page docs/incidents.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from analysis.kinds import KINDS
from analysis.story.joining import CHANCE
from analysis.story.links import LINKS, Link

__all__ = ["page"]

_HEAD = f"""# Incidents

A fault seldom comes alone: the learning rate leaps, gradients explode, the loss spikes, and then it is NaN. `check`,
`report` and `at.diagnose(run).incidents` tell such findings as one story, in the order of time, with what led to it
(the root) first, what came of it below, one list of causes and one of what to try.

Findings are joined by knowledge and evidence, never for being near in time alone:

* The table below has a link between their kinds, and both tell of the same rank, model, layer, metric or loss component
  where the link asks for it. What a finding does not say agrees with all, unless the link asks that both say it.
* The effect sets in within the records of the link, given how surely each of the two is placed. Records are those of
  the run's main loss, so that a log with a row every 100 steps has windows 100 times as long in steps. In short logs,
  and among many findings of a kind, windows are narrowed until all of a link together cover {CHANCE:.0%} of the log,
  so that chance alone seldom joins two strangers; two records are always one moment, however dense the findings.
* Signs of one kind gather around one of them. No story comes to the same kind a second time.

Each finding is in exactly one incident, and has at most one cause: the nearest in time. One about the whole run stands
alone, unless what it says links it. A planned change (information) stands in a story, and is the root of nothing worse.

What the log tells right before a root is told with it: a resume, a new phase, a learning rate that was set or peaked,
another batch size, other data, a checkpoint that was saved.

`causes` are ranked by what the log supports: facts of the log, then what findings measured, each with its evidence,
then what would fit and cannot be confirmed, which is said. Where nothing is left it says so, and what to record.

## In JSON

`check --format json` and `report -o report.json` have `incidents` beside `findings`, the worst first:

| key | meaning |
|---|---|
| `story` | one line in the order of time |
| `severity` | of the worst finding |
| `first_step`, `last_step` | null where no finding has steps |
| `root` | place of the root in `findings`, from 0 |
| `followers` | places of the others, in the order of time |
| `why` | for each follower the reason why it is joined |
| `causes`, `suggestions` | for the incident as a whole |

## Links

*After*: within so many records of the onset of the cause. *During*: while it lasts, and so many records longer.
*Around*: near its beginning or its end. *Ever*: whenever. *Either*: two signs of one thing, of which the earlier leads.
"""


def page() -> str:
    """The text of docs/incidents.md.

    >>> page().splitlines()[0]
    '# Incidents'
    """
    families = groupby(sorted(LINKS, key=_family), key=_family)
    return "\n".join([_HEAD, *(_section(family, links) for family, links in families)])


def _family(link: Link) -> str:
    return KINDS[link.cause].family


def _section(family: str, links: Iterable[Link]) -> str:
    rows = [f"| `{link.cause}` | `{link.effect}` | {_when(link)} | {_same(link)} | {link.why} |" for link in links]
    head = ["| cause | effect | when | same | because |", "|---|---|---|---|---|"]
    return "\n".join([f"### From {family}", "", *head, *rows, ""])


def _when(link: Link) -> str:
    told = link.when if link.when == "ever" else f"{link.when}, {link.records} records"
    return f"{told}, either" if link.either else told


def _same(link: Link) -> str:
    return ", ".join(f"{a.removeprefix('same-')} (both say it)" if "same-" in a else a for a in link.agree)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
