"""The figures of judges as tables in Markdown, on the screen and on the page."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.faults.score import Figure, Score
from benchmarks.faults.score_intervals import poisson
from benchmarks.faults.score_truth import MAGNITUDES, OBVIOUS_TO_MIDDLE, Truth

__all__ = ["GOALS", "further", "headline", "kinds_table", "quirks_table", "sizes_table", "table", "worst_table"]

#: What is aimed at: macro recall at magnitudes 1 to 4, precision, false alarms per healthy run, median onset error.
GOALS = {"recall": 0.95, "precision": 0.95, "false alarms": 0.02, "onset error": 0.01}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(heads), "|".join("---" for _ in heads), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines) + "\n"


def _number(value: float, percent: bool) -> str:
    if math.isinf(value):
        return "inf"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def shown(figure: Figure, *, percent: bool = False, interval: bool = True) -> str:
    """`0.95 (0.93 to 0.97)`; a dash where there is nothing."""
    if figure.value is None:
        return "-"
    said = _number(figure.value, percent)
    if figure.interval is None or not interval:
        return said
    low, high = figure.interval
    return f"{said} ({_number(low, percent)} to {_number(high, percent)})"


def headline(scores: Sequence[Score]) -> str:
    """One row a judge, with the goals below: what is aimed at, and nothing else."""
    heads = ["judge", "macro recall, 1 to 4", "precision", "false alarms a healthy run", "median onset error, %"]
    rows = [
        [
            score.judge,
            shown(score.macro_recall()),
            shown(score.precision()),
            shown(score.false_alarms()),
            shown(score.onset_error(), percent=True),
        ]
        for score in scores
    ]
    goal = [
        "goal",
        f">= {GOALS['recall']}",
        f">= {GOALS['precision']}",
        f"<= {GOALS['false alarms']}",
        f"<= {100 * GOALS['onset error']:g}",
    ]
    return table(heads, [*rows, goal])


def further(scores: Sequence[Score]) -> str:
    """What else is known of each judge."""
    heads = ["judge", "named", "placed", "obvious", "middle", "faint", "overall precision", "flagged", "not read"]
    rows = [
        [
            score.judge,
            shown(score.macro_recall(said="named")),
            shown(score.macro_recall(said="placed")),
            *(shown(score.macro_recall(pair), interval=False) for pair in ((1, 2), (3, 4), (5, 6))),
            shown(score.overall_precision()),
            shown(score.runs_flagged()),
            f"{len(score.unread())} of {len(score.outcomes)}",
        ]
        for score in scores
    ]
    return table(heads, rows)


def kinds_table(score: Score, others: Sequence[Score] = ()) -> str:
    """One row a fault: recall at each magnitude, and the best other judge at 1 to 4."""
    heads = ["fault", "runs", *(str(m) for m in MAGNITUDES), "1 to 4", "named", "precision", "onset error, %"]
    rows = []
    for kind in score.kinds:
        best = _best(others, kind)
        rows.append(
            [
                kind,
                str(score.cell(kind, MAGNITUDES)[1]),
                *(shown(score.recall(kind, [m]), interval=False).removesuffix("0") for m in MAGNITUDES),
                shown(score.recall(kind, OBVIOUS_TO_MIDDLE)),
                shown(score.recall(kind, OBVIOUS_TO_MIDDLE, "named"), interval=False),
                shown(score.precision(kind)),
                shown(score.onset_error(kind), percent=True),
                *([best] if others else []),
            ]
        )
    return table([*heads, *(["best other, 1 to 4"] if others else [])], rows)


def _best(others: Sequence[Score], kind: str) -> str:
    reached = [(score.recall(kind, OBVIOUS_TO_MIDDLE).value or 0.0, score.judge) for score in others]
    value, judge = max(reached, default=(0.0, ""))
    return f"{value:.2f} {judge}" if value > 0 else "0, by all"


def quirks_table(score: Score) -> str:
    """False alarms of healthy runs by what is peculiar to them, and by family and format."""
    groups: dict[str, list[int]] = defaultdict(list)
    for one in score.healthy:
        truth = one.truth
        for name in (*truth.quirks, f"family: {truth.family}", f"format: {truth.format}"):
            groups[name].append(len(one.false))
    rows = []
    for name, alarms in sorted(groups.items(), key=lambda item: (-sum(item[1]) / len(item[1]), item[0])):
        rate = Figure(sum(alarms) / len(alarms), poisson(sum(alarms), len(alarms)))
        rows.append([name, str(len(alarms)), str(sum(alarms)), shown(rate)])
    return table(["quirk", "healthy runs", "false alarms", "a run"], rows)


def worst_table(score: Score, most: int = 25) -> str:
    """The faults and magnitudes (1 to 4) at which most is missed, with what is said instead."""
    cells = []
    for kind in score.kinds:
        for magnitude in OBVIOUS_TO_MIDDLE:
            hits, of = score.cell(kind, [magnitude])
            if of and hits < of:
                cells.append((hits / of, kind, magnitude, f"{hits} of {of}"))
    rows = []
    for _, kind, magnitude, said in sorted(cells)[:most]:
        instead = ", ".join(f"{name} ({count})" for name, count in score.confusion(kind).most_common(4))
        rows.append([kind, str(magnitude), said, instead])
    return table(["fault", "magnitude", "found", "said instead, at 1 to 4"], rows)


def sizes_table(truths: Iterable[Truth]) -> str:
    """What the magnitudes mean: the size of each fault and variant at each, with its unit.

    The size that was asked for, or the measured one where none was; the median where runs differ.
    """
    sizes: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for truth in truths:
        size = truth.size if truth.wanted is None else truth.wanted
        if truth.fault is not None and truth.magnitude is not None and size is not None:
            sizes[truth.fault, truth.variant, truth.unit or ""][truth.magnitude].append(size)
    rows = [
        [*key, *(f"{statistics.median(by[m]):.3g}" if by[m] else "-" for m in MAGNITUDES)]
        for key, by in sorted(sizes.items())
    ]
    return table(["fault", "variant", "size is", *(str(m) for m in MAGNITUDES)], rows)
