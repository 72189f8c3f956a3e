"""The page about runs that left checkpoints: figures beside the findings that they show, none beside the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import aftertrain as at
from analysis.findings import Finding
from analysis.report import report
from analysis.report.groups import Group

SAMPLES = Path(__file__).parents[3] / "data" / "samples"
CARDS = re.compile(r'<article class="card (?P<look>[^"]*)".*?</article>', re.DOTALL)

CLIPPED = """
(page) => [...page.document.querySelectorAll('.card .scroll')].map(e => e.scrollWidth - e.clientWidth)
"""


@pytest.fixture(scope="module")
def frozen() -> str:
    return report(at.diagnose(at.load(SAMPLES / "classifier-frozen-layer"))).text


@pytest.fixture(scope="module")
def dead() -> str:
    return report(at.diagnose(at.load(SAMPLES / "classifier-dead-units"))).text


def card(page: str, kind: str) -> re.Match[str]:
    return next(found for found in CARDS.finditer(page) if f"<code>{kind}</code>" in found[0])


def test_a_layer_that_stood_still_stands_beside_the_map_of_what_moved(frozen: str) -> None:
    told = card(frozen, "frozen-layer")
    assert "plain" not in told["look"]
    assert "1 of 3 layers never moved: second" in told[0] and "<svg" in told[0]
    assert frozen.count("1 of 3 layers never moved: second</figcaption>") == 1


def test_a_finding_that_no_figure_of_weights_shows_has_the_width_of_the_card(dead: str) -> None:
    told = card(dead, "dead-units")
    assert "plain" in told["look"] and "<svg" not in told[0] and 'class="shown"' not in told[0]
    assert "every one of 3 layers moved" in dead  # the map stands with the other figures of the weights


def test_no_evidence_is_cut_off_on_a_desk_or_a_phone(browser: Any, frozen: str, dead: str) -> None:
    for page in (frozen, dead):
        for overhang in browser.measure(page, CLIPPED, (390, 1280)):
            assert overhang and max(overhang) <= 0


@pytest.mark.parametrize(("value", "paired"), [("short", True), ("checkpoints/step_001000.pt", False)])
def test_entries_of_evidence_stand_two_a_row_while_they_are_short(value: str, paired: bool) -> None:
    evidence = {f"entry {i}": 1.0 for i in range(7)} | {"save": value}
    assert Group("frozen-layer", None, (Finding("frozen-layer", "info", "a", "m", evidence=evidence),)).paired is paired
