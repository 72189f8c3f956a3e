"""The self-test: what it says was found, from which size on, what it cannot say, and its form."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import aftertrain as at
from aftertrain.cli import main
from analysis.findings import Finding
from analysis.inject import FAULTS, faults_table
from analysis.injection.trial import found_in, grid
from analysis.selftest import SelfTest
from parsers.finish import finish
from tests.analysis.injection.runs import SAMPLES, rich, sample

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tested() -> SelfTest:
    kinds = ["loss-spike", "level-shift", "plateau", "missing-input", "unfinished-run", "dead-units"]
    return at.selftest(sample("charlm-healthy"), kinds=kinds)


def row(tested: SelfTest, kind: str) -> dict[str, object]:
    return tested.frame.row(by_predicate=pl.col("kind") == kind, named=True)


def test_the_smallest_size_is_found_and_a_tenth_less_is_not(tested: SelfTest):
    run = sample("charlm-healthy")
    smallest = row(tested, "loss-spike")["smallest_found"]
    assert isinstance(smallest, float) and 1 < smallest < 3

    def hits(size: float) -> int:
        planted = [at.inject(run, "loss-spike", at=place, size=size) for place in tested.judged_at]
        found = [{f.kind for f in at.diagnose(one, checks=["anomalies"]).findings} for one in planted]
        return sum("loss-spike" in kinds for kinds in found)

    assert hits(smallest) >= 2 > hits(1 + (smallest - 1) / 1.12)


def test_what_is_found_missed_and_cannot_show_are_told_apart(tested: SelfTest):
    assert set(tested.caught["kind"]) == {"loss-spike", "level-shift", "missing-input", "unfinished-run"}
    assert tested.missed["kind"].to_list() == ["plateau"], "a loss that has settled shows no stop"
    assert tested.unseen["kind"].to_list() == ["dead-units"]
    assert "at.watch(model)" in str(row(tested, "dead-units")["not_injectable"])
    assert row(tested, "missing-input")["smallest_found"] is None
    assert row(tested, "unfinished-run")["said_instead"] == ["truncated-stream"]
    assert row(tested, "unfinished-run")["smallest_found"] == pytest.approx(0.05, abs=0.01), "the limit is 95 % of it"
    assert "4 of 5 faults would have been caught" in tested.summary
    assert tested.findings == () and tested.basis == "healthy" and tested.status == "healthy"


def test_a_result_is_the_same_again_and_draws_itself(tested: SelfTest):
    again = at.selftest(sample("charlm-healthy"), kinds=["level-shift"])
    assert row(again, "level-shift") == row(tested, "level-shift")
    drawn = tested.plot()
    drawn.figure.canvas.draw()
    bars = [patch.get_width() for patch in drawn.patches]
    share = tested.frame.filter(pl.col("not_injectable") == "").reverse()
    expected = (share["smallest_found"] / share["default_size"]).to_list()
    assert all(b == e or (e is None and math.isnan(b)) for b, e in zip(bars, expected, strict=True))
    assert "MISSED plateau" in repr(tested) and "loss-spike" in tested._repr_html_()


def test_a_kind_that_the_diagnosis_does_not_judge_says_why():
    tested = at.selftest(sample("gan-healthy"), kinds=["memory-growth", "mode-collapse"])
    assert "24 are needed" in str(row(tested, "memory-growth")["not_judged"])
    assert row(tested, "mode-collapse")["not_judged"] == "" and row(tested, "mode-collapse")["default_size_found"]


def test_an_unhealthy_run_is_tested_and_called_a_poor_basis(capsys: pytest.CaptureFixture[str]):
    assert main(["selftest", str(SAMPLES / "charlm-spike"), "--kinds", "non-finite"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("charlm-spike: as it is, the run is ") and "loss-spike" in out and "a poor basis" in out
    assert "1 of 1 faults would have been caught" in out


def test_a_finding_that_the_run_has_by_itself_is_no_catch():
    own = Finding("loss-spike", "warning", "r", "m", metric="loss", first_step=50)
    new = Finding("loss-spike", "warning", "r", "m", metric="loss", first_step=52)
    mild = Finding("loss-spike", "info", "r", "m", metric="loss", first_step=51)
    fault = FAULTS["loss-spike"]
    assert found_in([own], [own], fault, 50, 100.0) is None
    assert found_in([own, new], [own], fault, 50, 100.0) == (new, 0.02)
    assert found_in([mild], [], fault, 50, 100.0) is None, "a spike is a warning"
    assert found_in([new], [], fault, 80, 100.0) is None, "too far from the onset"
    assert found_in([mild], [], FAULTS["outlier"], 50, 100.0) is None, "another kind"


@pytest.mark.parametrize("kind", [kind for kind, fault in FAULTS.items() if fault.sized])
def test_sizes_rise_within_their_range_and_hold_the_default(kind: str):
    fault, sizes = FAULTS[kind], grid(FAULTS[kind])
    assert sizes == sorted(set(sizes)) and fault.default in sizes
    assert all(fault.checked(size) == size for size in sizes)
    assert fault.nothing not in sizes


def test_logs_without_numbers_and_short_ones_say_what_they_lack():
    for values in ([], [1.0], [1.0] * 200, [math.nan] * 100):
        schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
        columns = {"tag": ["loss"] * len(values), "step": list(range(len(values))), "value": values}
        run = finish("r", "r", "jsonl", pl.DataFrame(columns, schema=schema))
        tested = at.selftest(run, kinds=["loss-spike", "stall", "overfitting"], at=(0.5,))
        assert tested.frame.schema == at.selftest(rich(), kinds=["stall"], at=(0.5,)).frame.schema
        assert tested.frame.height == 3 and tested.unseen.height >= 2
        tested.plot().figure.canvas.draw()


def test_wrong_calls_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="did you mean 'loss-spike'"):
        at.selftest(rich(), kinds=["loss-spikes"])
    with pytest.raises(ValueError, match="at is empty"):
        at.selftest(rich(), at=())
    with pytest.raises(ValueError, match="no share of the run"):
        at.selftest(rich(), kinds=["loss-spike"], at=(1.5,))
    assert main(["selftest", str(SAMPLES / "charlm-healthy"), "--kinds", "loss-spikes"]) == 2
    assert "did you mean 'loss-spike'" in capsys.readouterr().err
    assert main(["selftest", "nowhere"]) == 2


def test_progress_is_told_kind_by_kind():
    told: list[tuple[int, int, str]] = []
    at.selftest(rich(), kinds=["missing-input", "stall"], at=(0.5,), progress=lambda *now: told.append(now))
    assert told == [(0, 2, "missing-input"), (1, 2, "stall")]


def test_the_command_line_gives_a_table_markdown_and_strict_json(capsys: pytest.CaptureFixture[str]):
    call = ["selftest", str(SAMPLES / "charlm-healthy"), "--kinds", "missing-input", "stall", "dead-units", "--format"]
    assert main([*call, "table"]) == 0
    table = capsys.readouterr().out
    assert "as it is, the run is healthy" in table and "everywhere" in table and "at.watch(model)" in table
    assert main([*call, "markdown"]) == 0
    assert "| missing-input | everywhere |" in capsys.readouterr().out
    assert main([*call, "json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert told["version"] == 1 and told["basis"] == {"status": "healthy", "kinds": []}
    assert [row["kind"] for row in told["faults"]] == ["missing-input", "stall", "dead-units"]


def test_the_page_has_the_table_of_the_code_and_its_code_runs():
    page = (ROOT / "docs" / "selftest.md").read_text(encoding="utf-8")
    assert faults_table() in page
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code.replace("runs/exp-1", str(SAMPLES / "charlm-healthy")), "selftest.md", "exec"), names)
    assert names["at"].diagnose(names["worse"]).status == "warning"


def test_the_rules_of_a_project_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = sample("charlm-healthy")
    mild, strict = (
        at.selftest(run, kinds=["stall"], at=(0.5,), rules={"threshold": {"stall": times}}).frame["smallest_found"][0]
        for times in (300.0, 30.0)
    )
    assert mild == pytest.approx(10 * strict, rel=0.25)
    settings = tmp_path / "aftertrain.toml"
    settings.write_text('[findings]\nignore = ["stall"]\n')
    call = ["selftest", str(SAMPLES / "charlm-healthy"), "--kinds", "stall", "--config", str(settings)]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "0 of 1 faults" in out and "not judged: ignored" in out
