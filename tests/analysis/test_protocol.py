"""The law of all results: every check, on every kind of run, answers in the common form."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import matplotlib as mpl
import polars as pl
import pytest
from matplotlib.axes import Axes

from analysis.checks import CHECKS, Check
from analysis.findings import Finding, NotApplicable, findings_frame, status_of
from analysis.kinds import KINDS
from analysis.result import Result
from parsers.finish import finish
from parsers.run import Run


def run_of(tag_values: dict[str, list[float]], *, step: Callable[[int], int | None] = lambda i: i) -> Run:
    rows = [(tag, step(i), value) for tag, values in tag_values.items() for i, value in enumerate(values)]
    schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
    return finish("r", "r.jsonl", "jsonl", pl.DataFrame(rows, schema=schema, orient="row"))


def decay(n: int, seed: int = 0) -> list[float]:
    noise = random.Random(seed)
    return [(2 * math.exp(-3 * i / n) + 0.5) * math.exp(0.05 * noise.gauss(0, 1)) for i in range(n)]


RUNS: dict[str, Callable[[], Run]] = {
    "empty": lambda: run_of({}),
    "one point": lambda: run_of({"loss": [1.0]}),
    "two points": lambda: run_of({"loss": [1.0, 0.9], "eval_loss": [1.0, 1.1]}),
    "constant": lambda: run_of({"loss": [1.0] * 200, "lr": [0.1] * 200}),
    "all NaN": lambda: run_of({"loss": [math.nan] * 100, "eval_loss": [math.nan] * 100}),
    "all infinite": lambda: run_of({"loss": [math.inf, -math.inf] * 50}),
    "no step": lambda: run_of({"loss": decay(100)}, step=lambda _: None),
    "repeated step": lambda: run_of({"loss": decay(100)}, step=lambda i: i // 4),
    "backwards": lambda: run_of({"loss": decay(100)}, step=lambda i: 100 - i),
    "huge": lambda: run_of({"loss": [1e308, -1e308] * 50, "g_loss": [1e-308] * 100, "d_loss": [0.0] * 100}),
    "no usable name": lambda: run_of({"foo": decay(100), "": decay(100)}),
    "healthy": lambda: run_of(
        {"loss": decay(400), "eval_loss": decay(40, 1), "lr": [1e-3] * 400, "kd_loss": decay(400)}
    ),
    "hostile name": lambda: run_of({"<script>$x^{2}$|loss\n": decay(100)}),
}


@pytest.mark.parametrize("kind_of_run", RUNS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_every_check_answers_in_the_common_form(check: Check, kind_of_run: str):
    result = check(RUNS[kind_of_run]())
    assert isinstance(result, Result) and result.run == "r"
    reference = check(RUNS["empty"]())
    assert result.frame.schema == reference.frame.schema, "columns and types are the same in every branch"
    told = [*result.findings, *result.not_applicable]
    assert {entry.kind for entry in told} <= {*check.kinds, *check.also}, "a check speaks of the kinds it is listed for"
    for finding in result.findings:
        assert finding.message.strip() and finding.evidence, "a finding brings its numbers"
        if finding.severity != "info":
            assert finding.suggestions, "a warning says what to try"
    assert {f.kind for f in result.findings}.isdisjoint({n.kind for n in result.not_applicable})
    assert repr(result) and "<script>" not in result._repr_html_()
    assert result.to_pandas().shape == result.frame.shape


@pytest.mark.parametrize("kind_of_run", ["empty", "constant", "all NaN", "healthy", "hostile name", "no step"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_every_result_draws_itself_and_leaves_global_style_alone(check: Check, kind_of_run: str):
    before = dict(mpl.rcParams)
    drawn = check(RUNS[kind_of_run]()).plot()
    assert isinstance(drawn, Axes)
    drawn.figure.canvas.draw()
    assert drawn.get_title() or drawn.get_title(loc="left"), "the title says the finding"
    assert dict(mpl.rcParams) == before


def test_healthy_runs_are_healthy_for_every_check():
    for seed in range(20):
        run = run_of({"loss": decay(500, seed), "eval_loss": decay(50, seed + 1000), "lr": [1e-3] * 500})
        for check in CHECKS:
            assert check(run).status == "healthy", (check.name, seed, check(run).findings)


def test_every_check_names_known_kinds_and_no_kind_twice():
    kinds = [kind for check in CHECKS for kind in check.kinds]
    assert set(kinds) <= set(KINDS) and len(kinds) == len(set(kinds))


def test_an_unknown_kind_or_severity_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'loss-spike'"):
        Finding("loss-spke", "warning", "r", "m")
    with pytest.raises(ValueError, match="unknown severity 'warn'"):
        Finding("loss-spike", "warn", "r", "m")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown finding kind"):
        NotApplicable("nothing", "reason")


def test_the_worst_finding_decides_the_status():
    def of(*severities: str) -> str:
        return status_of(Finding("loss-spike", s, "r", "m") for s in severities)  # type: ignore[arg-type]

    assert [of(), of("info"), of("info", "warning"), of("critical", "info"), of("fatal")] == [
        "healthy",
        "healthy",
        "warning",
        "critical",
        "critical",
    ]


def test_findings_become_a_frame_with_fixed_columns():
    empty = findings_frame([])
    full = findings_frame([Finding("loss-spike", "warning", "r", "m", metric="loss", first_step=3, causes=("c",))])
    assert empty.schema == full.schema and full.row(0, named=True)["causes"] == ["c"]


def test_evidence_that_is_not_finite_is_strict_json():
    finding = Finding("non-finite", "critical", "r", "m", evidence={"a": math.nan, "b": -math.inf, "c": 1.5, "d": None})
    assert finding.to_dict()["evidence"] == {"a": "NaN", "b": "-Infinity", "c": 1.5, "d": None}
