"""What is shown of scores: tables, the page with its figures, and the list of misses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import page
from benchmarks.faults.score import Figure, Score, score_of
from benchmarks.faults.score_figures import draw_all, draw_kinds
from benchmarks.faults.score_found import Told
from benchmarks.faults.score_misses import misses, write_misses
from benchmarks.faults.score_tables import further, headline, kinds_table, quirks_table, shown, sizes_table, worst_table
from tests.benchmarks.faults.scored_runs import faulty, finding, healthy, told

TRUTHS = [
    *(
        faulty(kind, m, variant="plain", size=m / 2, unit="sigma")
        for kind in ("loss-spike", "stall")
        for m in range(1, 7)
    ),
    healthy(quirks=["warmup", "dropout"]),
    healthy(quirks=["warmup"]),
]


def scores() -> tuple[Score, Score]:
    """Ours finds spikes to magnitude 4, and stalls but for the first; the other nothing, and reads half."""
    said = [told(finding("loss-spike", 505)) if m < 5 else told() for m in range(1, 7)]
    said += [told(finding("clock-skew"))] + [told(finding("stall"))] * 5
    said += [told(finding("plateau")), told()]
    other = [Told("run", read=i % 2 == 0, error="cut") for i in range(len(TRUTHS))]
    return score_of("aftertrain", TRUTHS, said), score_of("other", TRUTHS, other)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "---" not in line]


@pytest.mark.parametrize(
    ("figure", "percent", "text"),
    [
        (Figure(None), False, "-"),
        (Figure(0.5), False, "0.500"),
        (Figure(0.005, (0.001, 0.02)), True, "0.5 (0.1 to 2.0)"),
        (Figure(0.0, (0.0, float("inf"))), False, "0.000 (0.000 to inf)"),
    ],
)
def test_a_figure_is_shown_with_its_interval(figure: Figure, percent: bool, text: str) -> None:
    assert shown(figure, percent=percent) == text


def test_the_headline_has_the_figures_of_each_judge_and_the_goals() -> None:
    heads, ours, _, goal = cells(headline(scores()))
    row = dict(zip(heads, ours, strict=True))
    assert row["macro recall, 1 to 4"].startswith("0.875 (")
    assert row["false alarms a healthy run"].startswith("0.500 (")
    assert row["precision"].startswith("0.900 (")
    assert row["median onset error, %"].startswith("0.0 (")  # four spikes are half a per cent late, five stalls are not
    assert goal == ["goal", ">= 0.95", ">= 0.95", "<= 0.02", "<= 1"]


def test_what_else_is_known_of_each_judge_is_told_below() -> None:
    heads, ours, other = cells(further(scores()))
    row = dict(zip(heads, ours, strict=True))
    assert (row["obvious"], row["middle"], row["faint"]) == ("0.750", "1.000", "0.500")
    assert row["flagged"].startswith("0.500 (")
    assert row["not read"] == "0 of 14"
    assert dict(zip(heads, other, strict=True))["not read"] == "7 of 14"


def test_every_fault_has_its_recall_at_each_magnitude_and_the_best_other() -> None:
    ours, other = scores()
    heads, spike, stall = cells(kinds_table(ours, [other]))
    assert spike[:8] == ["loss-spike", "6", "1.00", "1.00", "1.00", "1.00", "0.00", "0.00"]
    assert dict(zip(heads, stall, strict=True))["best other, 1 to 4"] == "0, by all"
    assert dict(zip(heads, stall, strict=True))["1 to 4"].startswith("0.750")


def test_the_worst_cells_say_what_is_said_instead() -> None:
    assert cells(worst_table(scores()[0]))[1:] == [["stall", "1", "0 of 1", "clock-skew (1)"]]


def test_false_alarms_are_parted_by_quirk() -> None:
    rows = {row[0]: row[1:3] for row in cells(quirks_table(scores()[0]))[1:]}
    assert rows["dropout"] == ["1", "1"]
    assert rows["warmup"] == ["2", "1"]


def test_sizes_are_the_medians_of_each_magnitude() -> None:
    assert cells(sizes_table(TRUTHS))[1] == ["loss-spike", "plain", "sigma", "0.5", "1", "1.5", "2", "2.5", "3"]


def test_misses_tell_what_was_missed_and_what_was_wrong(tmp_path: Path) -> None:
    ours, other = scores()
    rows = list(misses(ours))
    assert [(row["what"], row["fault"]) for row in rows] == [
        ("missed", "stall"),
        ("false finding", "stall"),
        ("false alarm", None),
    ]
    assert rows[0]["instead"][0]["kind"] == "clock-skew"
    (far,) = misses(score_of("ours", [faulty("stall", 2)], [told(finding("stall", 600))]))
    assert (far["what"], far["onset_error"]) == ("misplaced", 0.1)
    assert rows[2]["message"] == "plateau at 500"
    count = write_misses(other, tmp_path / "misses.jsonl")
    written = [json.loads(line) for line in (tmp_path / "misses.jsonl").read_text().splitlines()]
    assert count == len(written) == 8 + 7  # magnitudes 1 to 4 of two faults, and seven logs that were not read


def test_the_page_and_its_figures_are_the_same_for_the_same_scores(tmp_path: Path) -> None:
    paths = page.write(scores(), TRUTHS, "scored", tmp_path)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in page.write(scores(), TRUTHS, "scored", tmp_path)] == first
    text = paths[0].read_text()
    for part in ("# Faults, planted and found", "12 runs have one planted fault", "Over the runs alone", "stall | 1 |"):
        assert part in text
    assert not [line for line in text.splitlines() if line.startswith("None")]
    for path in paths[1:]:
        assert f"]({path.name})" in text


def test_curves_are_the_recall_of_the_tables() -> None:
    ours, other = scores()
    panel = draw_kinds([ours, other]).axes[0]
    assert panel.get_title(loc="left") == "loss-spike"
    assert np.asarray(panel.lines[0].get_ydata()).tolist() == [1, 1, 1, 1, 0, 0]
    everything = draw_all([ours, other]).axes[0]
    assert np.asarray(everything.lines[0].get_ydata()).tolist() == [0.5, 1, 1, 1, 0.5, 0.5]
    assert np.asarray(everything.lines[1].get_ydata()).tolist() == [0] * 6


def test_the_page_of_a_set_that_is_not_whole_says_so() -> None:
    ours, _ = scores()
    part = score_of("aftertrain", TRUTHS[:5], [one.told for one in ours.outcomes[:5]])
    assert "1 of 6 pairs of fault and magnitude have no run" in page.page([part], TRUTHS[:5], "scored")
    assert "have no run" not in page.page(scores(), TRUTHS, "scored")
