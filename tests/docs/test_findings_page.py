"""docs/findings.md: every kind that is judged is explained in full, and the page is what the code says today."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import aftertrain as at
import analysis
from aftertrain.cli import main
from analysis.checks import CHECKS
from analysis.custom_checks import forget
from analysis.findings_page import index, page, section
from analysis.kinds import BUILT_IN, KINDS
from analysis.kinds.evidence import meaning_of
from analysis.kinds.evidence_of_kinds import OF_KIND
from analysis.kinds.examples import EXAMPLES
from eventstream.errors import InputError
from tests.analysis.examples_of_kinds import found_in, skeleton

ROOT = Path(__file__).parents[2]
JUDGED = [kind for check in CHECKS for kind in check.kinds]
#: Kinds of which nothing that we know of was published: a definition of this project.
UNPUBLISHED = {"source-disagreement", "stale-values"}
AGAIN = "run `python -m analysis.findings_page docs/findings.md`"
ANEW = "run `python -m tests.analysis.examples_of_kinds && ruff format analysis/kinds`, and then the page again"


def test_the_page_is_what_the_code_generates() -> None:
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == page(), AGAIN


@pytest.mark.parametrize("kind", JUDGED)
def test_a_kind_that_is_judged_is_explained_in_full(kind: str) -> None:
    one = KINDS[kind]
    assert all(text.strip() for text in (one.meaning, one.needs, one.statistic, one.severity))
    assert one.causes and one.suggestions and (one.reference or kind in UNPUBLISHED)
    if one.limit is not None:
        assert f'`"{kind}" = {one.limit.default:.4g}`' in section(kind)


@pytest.mark.parametrize("kind", JUDGED)
def test_the_example_of_a_kind_is_what_it_says_of_its_planted_run(kind: str, tmp_path: Path) -> None:
    found, example = found_in(kind, tmp_path), EXAMPLES[kind]
    assert skeleton(found.message) == skeleton(example.message), ANEW
    assert (found.severity, list(found.evidence)) == (example.severity, example.evidence.split()), ANEW
    assert [key for key in found.evidence if meaning_of(kind, key) is None] == [], "say it in analysis/kinds/evidence*"


def test_every_kind_has_one_section_and_one_line_of_the_index_that_leads_to_it() -> None:
    text = page()
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == list(BUILT_IN)
    assert re.findall(r"^\* \[([\w-]+)\]\(#\1\)", text, re.MULTILINE) == list(BUILT_IN)
    assert len([line for line in index() if line.startswith("* ")]) == len(BUILT_IN)


def test_a_kind_that_nothing_judges_yet_says_so_and_shows_no_example() -> None:
    idle = set(BUILT_IN) - set(JUDGED)
    assert all("No check judges this kind yet" in section(kind) for kind in idle)
    assert idle.isdisjoint(EXAMPLES) and set(EXAMPLES) == set(JUDGED)
    assert not any("No check judges this kind yet" in section(kind) for kind in JUDGED)


def test_meanings_are_of_kinds_and_keys_that_the_analyses_write() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in Path(analysis.__path__[0]).rglob("*.py"))
    code = re.sub(r'f"(per_1000_)\{axis\}(\w*)"', r'"\1steps\2"', code)
    keys = {key for one in OF_KIND.values() for key in one}
    assert set(OF_KIND) <= set(BUILT_IN)
    # All names at once: a search for each of hundreds of keys through all of the code took fifteen seconds.
    written = Counter(re.findall(r'(?="(\w+)")', code) + re.findall(r"\b(\w+)=", code))
    assert [key for key in sorted(keys) if written[key] <= 1] == []


def test_checks_of_a_users_own_do_not_change_the_page() -> None:
    before = page()

    @at.check("page-own-kind", family="numbers", meaning="a kind of the user's own")
    def own(run: at.Run) -> None: ...

    try:
        assert "page-own-kind" in KINDS and page() == before
    finally:
        forget("page-own-kind")


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown kind 'loss-spik'; did you mean 'loss-spike'"):
        section("loss-spik")


def test_explain_prints_the_section_of_a_kind_or_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "stall", "clipping"]) == 0
    assert capsys.readouterr().out == f"{section('stall')}\n\n{section('clipping')}\n"
    assert main(["explain"]) == 0
    assert capsys.readouterr().out == "\n".join(index()) + "\n"
    assert main(["explain", "stal"]) == 2 and "did you mean 'stall'" in capsys.readouterr().err
