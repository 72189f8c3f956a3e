"""Incidents in the page: worst first, followers folded under their root, information as folded lines, on paper too."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.diagnose import Diagnosis
from analysis.findings import Finding, NotApplicable, findings_frame
from analysis.incidents import incidents
from analysis.report import report
from analysis.report.blocks import blocks_of
from parsers.run import Run

OVERVIEW = """
(page) => {
  const d = page.document, nav = d.querySelector('nav'), width = d.documentElement.clientWidth;
  const cells = [...d.querySelectorAll('table.runs td.worst')].map(e => e.getBoundingClientRect());
  return {
    scrolls: nav.scrollWidth > nav.clientWidth + 1,
    inside: cells.every(c => c.width > 0 && c.left >= 0 && c.right <= width),
    narrowest: Math.min(...cells.map(c => c.width)) / width,
    labels: page.getComputedStyle(d.querySelector('td[data-label]'), '::before').content,
    open: [...d.querySelectorAll('details.followers, details.notes')].map(e => e.open),
  };
}
"""


def found(
    kind: str, severity: Any, step: int | None, message: str, metric: str | None = "loss", **more: Any
) -> Finding:
    told = {name: more.pop(name) for name in ("causes", "suggestions") if name in more}
    return Finding(kind, severity, "chained", message, metric, step, step, more, **told)


def judged(run: Run, findings: list[Finding]) -> Diagnosis:
    return Diagnosis(
        run.name,
        findings_frame(findings),
        findings=tuple(findings),
        not_applicable=(NotApplicable("mode-collapse", "no generator"),),
        source=run,
        results={},
        judged=tuple({f.kind: None for f in findings}),
    )


@pytest.fixture(scope="module")
def run(make: Callable[..., Run]) -> Run:
    values = 1 + np.exp(-np.arange(3000) / 500)
    rows = [
        pl.DataFrame({"tag": [tag] * 3000, "step": range(3000), "value": values}) for tag in ("loss", "grad_norm", "lr")
    ]
    return make("chained", rows)


@pytest.fixture(scope="module")
def chained(run: Run) -> Diagnosis:
    return judged(
        run,
        [
            found("non-finite", "critical", 1320, "the loss is lost", suggestions=("go back", "clip")),
            found("exploding-gradient", "warning", 1300, "gradients leapt", "grad_norm", low=1.0, high=40.0,
                  causes=("norm of 40",), suggestions=("clip",)),
            found("loss-spike", "warning", 1306, "the loss leapt", factor=3.2),
            found("loss-spike", "warning", 2000, "it leapt alone"),
            *(found("outlier", "info", 100 * n, f"odd value {n}", f"odd/{n}") for n in range(1, 9)),
            found("clock-skew", "info", None, "the clock is wrong", None),
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(chained: Diagnosis) -> str:
    return report(chained).text


def test_the_worst_incident_leads_and_its_story_stands_in_the_verdict(page: str) -> None:
    story = "grad_norm x 40 at step 1,300 → loss spike x 3.2 at 1,306 → loss NaN at 1,320"
    assert page.count(story) == 3  # in the verdict, in the table, over its root
    order = [("1", "gradients leapt"), ("1-1", "the loss leapt"), ("1-2", "the loss is lost"), ("2", "it leapt alone")]
    places = [page.index(f'<h4 id="run-1-finding-{number}-title">{said}') for number, said in order]
    assert places == sorted(places)


def test_followers_are_folded_under_their_root_and_causes_and_suggestions_stand_there_once(page: str) -> None:
    block = page[page.index('<div class="incident critical long">') : page.index('<div class="incident warning">')]
    root, folded = block.split('<details class="fold followers">')
    assert "2 things that came of it, or with it: loss-spike, non-finite" in folded
    assert [root.count("What to try"), folded.count("What to try")] == [1, 0]
    assert re.findall(r"<li>(.*?)</li>", root) == [
        "clip",
        "go back",
        "norm of 40 (evidence: exploding-gradient of grad_norm at step 1,300)",
    ]
    assert [root.count("<figure"), folded.count("<figure")] == [1, 2]


def test_information_is_folded_into_one_line_and_each_note_below_it_into_another(page: str) -> None:
    notes = page[page.index('<details class="fold notes">') :]
    assert "9 notes: outlier, clock-skew" in " ".join(notes[:400].split()) or "9 notes: clock-skew, outlier" in notes
    assert notes.count('<details class="fold note">') == 9
    assert "odd value 8" in notes and "the clock is wrong" in notes
    assert 'class="card info"' not in page[: page.index('<details class="fold notes">')]


def test_incidents_that_are_alike_share_a_block_and_keep_their_stories_apart(run: Run) -> None:
    pairs = [
        f
        for step in (500, 1500, 2500)
        for f in (
            found("exploding-gradient", "warning", step, "up", "grad_norm", low=1.0, high=9.0),
            found("loss-spike", "warning", step + 2, "leapt", factor=2.0),
        )
    ]
    alone = found("loss-spike", "warning", 2000, "leapt alone")
    together, single = blocks_of(incidents(run, [*pairs, alone]))
    assert [(g.kind, len(g.findings)) for g in together.groups] == [("exploding-gradient", 3), ("loss-spike", 3)]
    assert len(together.stories) == 3 and single.stories == []
    text = report(judged(run, [*pairs, alone])).text
    assert text.count('<ul class="story">') == 1 and "loss spike x 2 at 2,502" in text


def test_an_incident_of_more_kinds_than_a_page_holds_is_still_told(run: Run) -> None:
    row = [found("outlier", "warning", 1000, f"odd {n}", f"odd/{n}") for n in range(60)]
    text = report(judged(run, row)).text
    assert text.count('<article class="card') == 24
    assert "36 more findings" in text


def test_on_a_phone_the_table_of_runs_shows_what_was_found_without_scrolling(
    browser: Any, chained: Diagnosis, run: Run
) -> None:
    quiet = judged(run, [found("outlier", "info", 5, "odd")])
    text = report([chained, quiet, judged(run, [])]).text
    for measured in browser.measure(text, OVERVIEW, (360, 400)):
        assert not measured["scrolls"] and measured["inside"] and measured["narrowest"] > 0.8
        assert "last step" in measured["labels"] or "attr" in measured["labels"]
        assert not any(measured["open"])
    assert "nothing worse than 1 note: outlier" in text and "nothing found" in text


def test_on_paper_notes_are_lines_and_what_is_worse_keeps_its_figure(browser: Any, run: Run, tmp_path: Path) -> None:
    def pages(severity: str) -> int:
        cards = [found("outlier", severity, 100 * n, f"odd {n}", "loss" if n % 2 else "lr") for n in range(1, 3)]
        more = [
            found(kind, severity, 50, f"{kind} seen", "loss")
            for kind in ("plateau", "stall", "oscillation", "clipping")
        ]
        place, made = tmp_path / f"{severity}.html", tmp_path / f"{severity}.pdf"
        place.write_text(report(judged(run, [*cards, *more])).text, encoding="utf-8")
        browser.run("--no-pdf-header-footer", f"--print-to-pdf={made}", place.as_uri())
        return len(re.findall(rb"/Type\s*/Page\b", made.read_bytes()))

    assert pages("info") < pages("warning")
