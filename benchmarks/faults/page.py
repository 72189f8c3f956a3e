"""The page of the benchmark of faults: docs/faults.md and its figures, from scores of the scored split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import rules
from benchmarks.faults import score as definitions
from benchmarks.faults.score import INFORMATION, Score
from benchmarks.faults.score_figures import draw_all, draw_kinds, save
from benchmarks.faults.score_tables import further, headline, kinds_table, quirks_table, sizes_table, worst_table
from benchmarks.faults.score_truth import MAGNITUDES, OBVIOUS_TO_MIDDLE, Truth

__all__ = ["DOCS", "page", "write"]

DOCS = Path(__file__).parents[2] / "docs"


def _list_of(module_doc: str | None) -> str:
    """The bullet points of a docstring."""
    text = module_doc or ""
    return text[text.index("\n- ") :].strip()


def _opening(ours: Score, truths: Sequence[Truth], split: str) -> str:
    faulty, healthy = len(ours.faulty), len(ours.healthy)
    formats = sorted({truth.format for truth in truths})
    families = sorted({truth.family for truth in truths})
    points = [truth.points for truth in truths]
    return f"""# Faults, planted and found

Every run here was really trained: {len(families)} families ({", ".join(families)}), {min(points):,} to {max(points):,}
logged points, written as {", ".join(formats)}. {faulty} runs have one planted fault, of {len(ours.kinds)} kinds, in six
magnitudes (1 and 2 obvious, 3 and 4 middle, 5 and 6 faint); {healthy} are healthy, with the quirks that fool detectors.
Seeds part all runs in two: thresholds were set on one part, and this page is made of the other
({split}), on which nothing was set.{_gaps(ours)}

`python -m benchmarks.faults generate` makes the logs, `python -m benchmarks.faults score --split scored --peers
--write` makes this page.
"""


def _gaps(ours: Score) -> str:
    """What is to be said of a set that is not whole yet."""
    empty = sum(not ours.cell(kind, [magnitude])[1] for kind in ours.kinds for magnitude in MAGNITUDES)
    of = len(ours.kinds) * len(MAGNITUDES)
    return f" **Not all are made yet: {empty} of {of} pairs of fault and magnitude have no run.**" if empty else ""


def _headlines(scores: Sequence[Score]) -> str:
    read = [score.only_read() for score in scores if score.unread() and len(score.only_read().outcomes)]
    some = f"\nOver the runs alone that each could read:\n\n{headline(read)}" if read else ""
    return f"""## How well

In parentheses the 95 % interval: Wilson's for shares and for the mean over faults, exact Poisson for rates, the sign
test for medians. A log that a judge cannot read counts as not found.

{headline(scores)}
![Share of faults found against their magnitude](faults-all.svg)

More of each: macro recall at 1 to 4 counted only where the finding names the planted kind, and where it also begins
within 5 % of the run of the onset; macro recall at obvious (1, 2), middle (3, 4) and faint (5, 6) magnitude; precision
over faulty and healthy runs together; the share of healthy runs with any false alarm; logs that could not be read.

{further(scores)}{some}"""


def _definitions() -> str:
    return f"""## What is counted

{_list_of(definitions.__doc__)}

Kinds that count at any level: {", ".join(sorted(INFORMATION))}. Macro recall is the mean over faults of the recall at
magnitudes {OBVIOUS_TO_MIDDLE[0]} to {OBVIOUS_TO_MIDDLE[-1]}.

What another judge says is taken for any of our kinds that it could mean (`benchmarks/faults/peers_kinds.py`, and
`KINDS_OF` in `rules.py`), and each is fed all files that it reads; our own event stream, which none of them knows, is
given to them as flat JSONL, and names in JSONL are put into the form that all of them know.
Plain rules get the series that our reader finds: the global z-score (|z| > 3) and the
rolling IQR (1.5 IQR beyond the quartiles of the 50 rows before) the training loss; of the published rules of smdebug,
with their defaults, those run that a log can feed: {", ".join(list(rules.KINDS_OF)[2:])}.
"""


def _limits(ours: Score) -> str:
    unread = ours.unread()
    crashed = sum((one.told.error or "").startswith("crash") for one in unread)
    said = f"{len(unread)} logs could not be read, {crashed} of them with a crash." if unread else "Every log was read."
    return f"""## What is missed

The worst cells at obvious and middle magnitude, and what is said in such runs instead. {said}

{worst_table(ours)}"""


def _fault_by_fault(ours: Score, others: Sequence[Score]) -> str:
    return f"""## Fault by fault

The share of runs in which each fault is found, at each magnitude; then over 1 to 4. The band is our 95 % interval.

![Recall against magnitude, fault by fault](faults-kinds.svg)

{kinds_table(ours, others)}"""


def _sizes(truths: Sequence[Truth]) -> str:
    return f"""## What the magnitudes mean

Written down before any detector ran. Each fault is measured in the run that it was planted in, and drawn again where it
did not take effect.

{sizes_table(truths)}"""


def page(scores: Sequence[Score], truths: Sequence[Truth], split: str) -> str:
    """The page; the first score is ours."""
    ours, others = scores[0], scores[1:]
    parts = [
        _opening(ours, truths, split),
        _headlines(scores),
        _definitions(),
        _fault_by_fault(ours, others),
        _limits(ours),
        f"## False alarms, by quirk\n\n{quirks_table(ours)}",
        _sizes(truths),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def write(scores: Sequence[Score], truths: Sequence[Truth], split: str, docs: Path = DOCS) -> list[Path]:
    """Writes docs/faults.md and its two figures; returns their paths."""
    text, everything, kinds = docs / "faults.md", docs / "faults-all.svg", docs / "faults-kinds.svg"
    text.write_text(page(scores, truths, split), encoding="utf-8")
    save(draw_all(scores), everything)
    save(draw_kinds(scores), kinds)
    return [text, everything, kinds]
