"""The HTML report in a real browser: quiet, within the width of a phone, readable in the dark and on paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis.diagnose import Diagnosis
from analysis.report import report

MEASURE = """
(page) => {
  const d = page.document, seen = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
  const width = d.documentElement.clientWidth;
  const boxed = e => e.closest('.scroll, pre, .skip, .hidden, svg');
  const wide = [...d.querySelectorAll('body *')].filter(e => !boxed(e) && e.getBoundingClientRect().right > width + 1);
  const size = e => parseFloat(page.getComputedStyle(e).fontSize) * e.closest('svg').getScreenCTM().a;
  const card = d.querySelector('.card'), chart = card.querySelector('svg').getBoundingClientRect();
  const line = d.querySelector('figure svg path[style*="--blue"]');
  return {
    inner: width, whole: d.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 80)),
    cards: [...d.querySelectorAll('.card')].filter(seen).length,
    titles: [...d.querySelectorAll('.card h4')].filter(seen).map(e => e.textContent.trim()),
    back: page.getComputedStyle(d.body).backgroundColor, ink: page.getComputedStyle(d.body).color,
    label: page.getComputedStyle(d.querySelector('figure svg text')).fill,
    line: page.getComputedStyle(line).stroke,
    hidden: [...d.querySelectorAll('main figure svg:not(.spark)')].filter(e => !seen(e)).length,
    smallest: Math.min(...[...d.querySelectorAll('main figure svg text')].map(size)),
    gap: Math.abs(chart.top - card.querySelector('h4').getBoundingClientRect().bottom),
    fetched: page.performance.getEntriesByType('resource').length,
    pieces: [...d.querySelectorAll('script, img, iframe, object')].length,
  };
}
"""


@pytest.fixture(scope="module")
def page(spiky: Diagnosis, hostile: Diagnosis, healthy: Diagnosis) -> str:
    return report([spiky, hostile, healthy]).text


@pytest.fixture(scope="module")
def light(browser: Any, page: str) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = browser.measure(page, MEASURE, (390, 1280))
    return measured


@pytest.fixture(scope="module")
def dark(browser: Any, page: str) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = browser.measure(page, MEASURE, (390,), dark=True)
    return measured


def test_the_page_opens_from_disk_without_a_word_on_the_console(browser: Any, page: str, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.write_text(page, encoding="utf-8")
    done = browser.run("--dump-dom", place.as_uri())
    assert "the loss is NaN at step 2400" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_the_console_would_be_heard(browser: Any, tmp_path: Path) -> None:
    place = tmp_path / "loud.html"
    place.write_text("<script>console.error('heard')</script>", encoding="utf-8")
    assert "CONSOLE" in browser.run("--dump-dom", place.as_uri()).stderr


def test_a_phone_never_scrolls_sideways_and_nothing_sticks_out(light: list[dict[str, Any]]) -> None:
    for measured in light:
        assert measured["whole"] <= measured["inner"]
        assert measured["wide"] == []
    assert light[0]["inner"] <= 390


def test_every_finding_is_visible_at_once_with_its_chart_beside_it(
    light: list[dict[str, Any]], spiky: Diagnosis
) -> None:
    for measured in light:
        assert {"the loss is NaN at step 2400", "the loss leaps to 3.61"} <= set(measured["titles"])
        assert measured["cards"] == len(measured["titles"]) >= 10
        assert measured["gap"] < 200
        assert measured["hidden"] == 0


def test_the_smallest_letter_of_a_figure_can_be_read_on_a_phone(light: list[dict[str, Any]]) -> None:
    assert light[0]["smallest"] >= 7
    assert light[1]["smallest"] >= 10


def test_nothing_is_fetched_and_no_script_or_picture_came_out_of_the_log(light: list[dict[str, Any]]) -> None:
    assert [(m["fetched"], m["pieces"]) for m in light] == [(0, 0), (0, 0)]


def test_dark_readers_get_dark_paper_and_light_ink_in_the_figures_too(
    light: list[dict[str, Any]], dark: list[dict[str, Any]]
) -> None:
    assert (light[0]["back"], light[0]["ink"]) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert (dark[0]["back"], dark[0]["ink"]) == ("rgb(20, 23, 27)", "rgb(232, 235, 238)")
    assert dark[0]["label"] == dark[0]["ink"]
    assert light[0]["label"] == light[0]["ink"]
    assert light[0]["line"] == "rgb(0, 114, 178)" != dark[0]["line"]


def test_folded_parts_are_printed_open(browser: Any, healthy: Diagnosis, tmp_path: Path) -> None:
    text = report(healthy).text
    sizes = []
    rows = "<tr><td>row</td></tr>" * 400
    for name, body in (("short", ""), ("long", f"<details><summary>more</summary><table>{rows}</table></details>")):
        place, made = tmp_path / f"{name}.html", tmp_path / f"{name}.pdf"
        place.write_text(text.replace("</main>", f"{body}</main>"), encoding="utf-8")
        browser.run("--no-pdf-header-footer", f"--print-to-pdf={made}", place.as_uri(), dark=True)
        sizes.append(len(re.findall(rb"/Type\s*/Page\b", made.read_bytes())))
    assert sizes[0] >= 1
    assert sizes[1] >= sizes[0] + 4
