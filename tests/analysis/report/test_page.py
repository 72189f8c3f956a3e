"""The HTML report as a file: whole, closed, without links out of it, and with nothing of the log in its markup."""

from __future__ import annotations

import re
from functools import lru_cache
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from analysis.diagnose import Diagnosis
from analysis.findings import Finding
from analysis.report import report
from analysis.report.drawings import Drawings
from parsers.finish import finish

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, ids, texts; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(attribute)) is not None]


@lru_cache
def text_of(*diagnoses: Diagnosis) -> str:
    """The page of some runs, drawn once for all tests that only read it."""
    return report(diagnoses).text


def page_of(*diagnoses: Diagnosis) -> Page:
    return Page(text_of(*diagnoses))


def test_every_tag_closes_and_every_id_is_unique_and_every_reference_leads_somewhere(
    spiky: Diagnosis, healthy: Diagnosis, hostile: Diagnosis
) -> None:
    text = text_of(spiky, healthy, hostile, spiky)
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 20
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    targets += re.findall(r"url\(#([^)]*)\)", text)
    assert len(targets) > 20
    assert set(targets) <= set(ids)
    assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)


def test_nothing_in_the_page_points_outside_it(spiky: Diagnosis, healthy: Diagnosis, hostile: Diagnosis) -> None:
    page = page_of(spiky, healthy, hostile, spiky)
    for attribute in ("href", "src", "srcset", "action", "data", "poster", "background"):
        assert all(value.startswith(("#", "data:image/png;base64,")) for value in page.values(attribute))
    style = text_of(spiky).split("<style>")[1].split("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_finding_stands_in_the_page_with_its_evidence_causes_and_suggestions(spiky: Diagnosis) -> None:
    text = page_of(spiky).text
    for finding in spiky.findings:
        assert finding.message in text
    for said in ("41.2", "3.61", "a bad batch", "look at the batch", "steps 1,800 to 1,801"):
        assert said in text


def test_what_was_not_judged_and_what_was_not_read_stand_in_the_page(spiky: Diagnosis) -> None:
    text = page_of(spiky).text
    for said in (
        "no generator loss in this log",
        "line 812",
        '{"loss": 0.4',
        "model.layers",
        "max_steps",
        "divergence",
    ):
        assert said in text
    assert "aftertrain report runs/spiky -o report.html" in text


def test_a_log_cannot_bring_an_element_an_attribute_or_a_handler_into_the_page(
    spiky: Diagnosis, hostile: Diagnosis
) -> None:
    usual = {tag for tag, _ in page_of(spiky).elements}
    page = page_of(hostile)
    assert {tag for tag, _ in page.elements} <= usual | {"thead", "ol", "ul"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "$x^{2}$" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_control_characters_direction_marks_and_endless_names_do_not_reach_the_page(hostile: Diagnosis) -> None:
    text = text_of(hostile)
    assert not set(text) & {"\x00", "\u202e", "\u200f", "\udc80"}
    assert "x" * 401 not in text
    assert text.encode("utf-8")


def test_dollars_in_names_are_drawn_as_they_are_and_powers_of_ten_in_plain_digits() -> None:
    values = np.geomspace(1e-4, 1e4, 300)
    rows = pl.DataFrame({"tag": ["$loss^{2}$"] * 300, "step": range(300), "value": values})
    text = report(finish("a", "a", "jsonl", rows), checks=[]).text
    assert "$loss^{2}$" in text
    assert "mathdefault" not in text
    assert ">0.01<" in text


def test_each_figure_is_announced_by_the_message_of_its_finding(spiky: Diagnosis) -> None:
    labels = page_of(spiky).values("aria-label")
    assert "the loss is NaN at step 2400" in labels
    assert "the loss leaps to 3.61" in labels


def test_a_figure_stands_in_the_card_of_its_finding(spiky: Diagnosis) -> None:
    cards = re.findall(r'<article class="card.*?</article>', text_of(spiky), re.DOTALL)
    assert len(cards) == 3
    assert [card.count("<figure") for card in cards] == [1, 1, 0]
    assert all("var(--orange)" in card for card in cards[:2])


def test_the_status_has_a_word_and_a_shape_besides_its_colour(
    spiky: Diagnosis, healthy: Diagnosis, hostile: Diagnosis
) -> None:
    text = page_of(spiky, healthy, hostile, spiky).text
    assert "■ critical" in text
    assert "● healthy" in text


def test_the_same_runs_give_the_same_bytes(spiky: Diagnosis) -> None:
    assert report(spiky).text == text_of(spiky)


def test_a_lone_spike_in_a_million_points_is_drawn_and_the_page_stays_small() -> None:
    values = np.full(1_000_000, 1.0)
    values[654_321] = 50.0
    rows = pl.DataFrame({"tag": ["loss"] * len(values), "step": np.arange(len(values)), "value": values})
    made = report(finish("long", "long", "jsonl", rows), checks=[])
    heights = [re.findall(r"[ML](\d+) (\d+(?:\.\d)?)", d) for d in re.findall(r'class="s0" d="([^"]*)"', made.text)]
    assert len(heights) == 1
    top = min(heights[0], key=lambda point: float(point[1]))
    assert top == ("157", "4")  # 654,321 of 999,999 on an axis of 240
    assert len(made.text) < 300_000


def test_three_hundred_metrics_make_a_page_of_less_than_two_megabytes_with_a_chart_each() -> None:
    random = np.random.default_rng(3)
    frame = pl.DataFrame(
        {
            "tag": np.repeat([f"layer{i}/norm" for i in range(300)], 1000),
            "step": np.tile(np.arange(1000), 300),
            "value": random.standard_normal(300_000),
        }
    )
    text = report(finish("wide", "wide", "jsonl", frame), checks=[]).text
    assert text.count('class="spark"') == 300
    assert len(text) < 2_000_000


def test_a_thousand_findings_keep_the_page_bounded_and_are_counted(healthy: Diagnosis) -> None:
    from dataclasses import replace

    many = tuple(Finding("outlier", "warning", "healthy", f"value {i} is odd", f"metric{i}", i, i) for i in range(1000))
    text = report(replace(healthy, findings=many)).text
    assert text.count('<article class="card') == 24
    assert "976 more findings" in text
    assert "476 more stand in the JSON report" in text
    assert len(text) < 1_000_000


@pytest.mark.parametrize("values", [[], [np.nan] * 5, [1.0], [np.inf, -np.inf, 1.0], [1e308, -1e308], [0.0] * 400])
def test_empty_constant_single_and_non_finite_series_are_drawn_without_complaint(values: list[float]) -> None:
    rows = pl.DataFrame(
        {"tag": ["loss"] * len(values), "step": list(range(len(values))), "value": values},
        schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64},
    )
    Page(report(finish("odd", "odd", "jsonl", rows), checks=[]).text)


def test_a_run_without_steps_is_drawn_over_its_rows() -> None:
    rows = pl.DataFrame({"tag": ["loss"] * 3, "value": [3.0, 2.0, 1.0]})
    assert ">row<" in report(finish("a", "a", "jsonl", rows), checks=[]).text


def test_no_run_at_all_is_said() -> None:
    assert "no run was read" in page_of().text


def test_hundreds_of_runs_make_one_page_of_bounded_size(healthy: Diagnosis) -> None:
    text = report([healthy] * 250).text
    assert text.count('<section class="run"') == 250
    assert len(text) < 3_000_000


def test_a_page_draws_no_more_figures_than_its_budget_and_numbers_those(healthy: Diagnosis) -> None:
    drawings = Drawings(budget=2)
    made = [drawings.axes(lambda ax: ax.plot([1, 2]), "a line") for _ in range(3)]
    assert [drawing and drawing.number for drawing in made] == [1, 2, None]


def test_names_in_any_script_are_drawn_without_complaint() -> None:
    rows = pl.DataFrame({"tag": ["損失 потеря خسارة"] * 3, "step": [1, 2, 3], "value": [3.0, 2.0, 1.0]})
    assert "損失 потеря خسارة" in report(finish("a", "a", "jsonl", rows), checks=[]).text
