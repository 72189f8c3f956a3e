"""Health at a glance: each indicator is what the checks found, with its number; unknown where nothing can be said."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

import aftertrain as at
from analysis.diagnose import diagnose
from analysis.health import Health, health, health_of
from analysis.indicators.table import INDICATORS, states_of
from analysis.kinds import KINDS
from analysis.report import report
from analysis.rules import rules_of
from tests.analysis.adversarial.games import run_of, trained
from tests.analysis.test_protocol import RUNS

N = 400
T = np.arange(N) / N
NOISE = np.random.default_rng(0).normal(size=(9, N))


def healthy() -> dict[str, Any]:
    return {
        "loss": (2 * np.exp(-3 * T) + 0.5) * np.exp(0.05 * NOISE[0]),
        "grad_norm": np.exp(0.2 * NOISE[1]),
        "param_norm": 20 + T,
        "lr": np.full(N, 1e-3),
        "tokens_per_second": 1000 * np.exp(0.02 * NOISE[2]),
        "gpu_memory_mb": np.full(N, 4000.0),
        "diversity": 0.9 * np.exp(0.02 * NOISE[3]),
    }


def row(result: Health, name: str) -> dict[str, Any]:
    return result.frame.row(by_predicate=pl.col("indicator") == name, named=True)


def test_a_healthy_run_has_its_numbers_and_no_warning() -> None:
    result = health(run_of(healthy()))
    states = dict(result.frame.select("indicator", "status").iter_rows())
    assert set(states.values()) == {"healthy", "unknown"} and result.status == "healthy"
    known = {name for name, state in states.items() if state == "healthy"}
    assert known >= {"loss_trend", "finite_numbers", "gradient_norm", "throughput", "memory", "mode_collapse"}
    assert row(result, "gradient_norm")["value"] == pytest.approx(1.0, rel=0.2)
    assert row(result, "parameter_norm")["value"] == pytest.approx(21, rel=0.01)
    trend = row(result, "loss_trend")
    assert trend["low"] < trend["value"] < 0 and trend["metric"] == "loss" and trend["unit"].startswith("%")


PLANTED: dict[str, tuple[str, str, Any]] = {
    "gradient_norm": ("grad_norm", "exploding-gradient", lambda v: np.where(T < 0.7, v, 4000 * v)),
    "throughput": ("tokens_per_second", "throughput-drop", lambda v: np.where(T < 0.6, v, 0.3 * v)),
    "mode_collapse": ("diversity", "mode-collapse", lambda v: np.where(T < 0.6, v, 0.04 * v)),
    "loss_trend": ("loss", "divergence", lambda v: np.where(T < 0.6, v, v * np.exp(8 * (T - 0.6)) * 2)),
    "finite_numbers": ("loss", "non-finite", lambda v: np.where(T < 0.9, v, math.nan)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_shows_in_its_indicator_and_says_where(name: str) -> None:
    metric, kind, bent = PLANTED[name]
    values = healthy()
    values[metric] = bent(values[metric])
    result = health(run_of(values))
    found = row(result, name)
    assert found["status"] in ("warning", "critical") and kind in {f.kind for f in result.findings}
    assert found["first_step"] is not None and abs(found["first_step"] - 0.7 * N) <= 0.22 * N
    assert result.status == max((r["status"] for r in result.frame.iter_rows(named=True)), key=_rank)


def _rank(state: str) -> int:
    return ["unknown", "healthy", "warning", "critical"].index(state)


def test_it_judges_nothing_that_the_diagnosis_did_not() -> None:
    """On every kind of run: a status is the worst finding of the indicator's kinds, `unknown` none that was judged."""
    for made in RUNS.values():
        told = diagnose(made())
        result = health_of(told)
        for indicator in INDICATORS:
            status = row(result, indicator.name)["status"]
            kinds = {f.kind for f in told.findings if f.severity != "info"} & set(indicator.kinds)
            assert (status in ("warning", "critical")) == bool(kinds)
            judged = set(indicator.kinds) & (set(told.judged) | {f.kind for f in told.findings})
            assert (status == "unknown") == (not judged)
            assert states_of(told)[indicator.name] == status


def test_the_indicators_of_a_gan_are_known_where_it_is_logged() -> None:
    result = health(run_of(trained("lsgan", 0), config={"gan_loss": "lsgan"}))
    for name in ("discriminator_dominance", "generator_dominance", "discriminator_skill", "imbalance"):
        found = row(result, name)
        assert found["status"] == "healthy" and (found["value"] is not None or name == "generator_dominance"), name
    idle = row(health(run_of(trained("lsgan", 10, "alike"), config={"gan_loss": "lsgan"})), "discriminator_skill")
    assert idle["status"] == "warning" and "never told real from fake" in idle["reason"]


def test_speakers_are_known_by_embeddings_and_shown_by_a_logged_similarity(tmp_path: Any) -> None:
    shown = row(health(run_of({"speaker_similarity": np.full(50, 0.7)})), "speaker_similarity")
    assert (shown["status"], shown["value"]) == ("unknown", pytest.approx(0.7))
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16))
    labels = np.repeat(np.arange(6), 20)
    vectors = centres[labels] + 0.2 * rng.normal(size=(120, 16))
    with at.Recorder(tmp_path / "r") as rec:
        rec.embeddings(10, vectors, labels=[f"s{label}" for label in labels])
    found = row(health(at.load(tmp_path / "r")), "speaker_similarity")
    assert found["status"] == "healthy" and found["value"] > 0.6 and found["unit"].startswith("cosine")


def test_columns_and_rows_are_the_same_for_every_run() -> None:
    reference = health(RUNS["empty"]())
    assert set(reference.frame["status"]) <= {"unknown", "healthy"} and reference.frame["value"].null_count() == 13
    for made in RUNS.values():
        result = health(made())
        assert result.frame.schema == reference.frame.schema
        assert result.frame["indicator"].to_list() == [one.name for one in INDICATORS]
        assert all(reason for reason in result.frame["reason"])
    assert {kind for one in INDICATORS for kind in one.kinds} <= set(KINDS)


def test_rules_and_ranges_are_those_of_the_project() -> None:
    values = healthy()
    values["diversity"] = np.where(T < 0.6, values["diversity"], 0.7 * values["diversity"])
    assert row(health(run_of(values)), "mode_collapse")["status"] == "healthy"
    rules = {"threshold": {"mode-collapse": 0.75}}
    stricter = row(health(run_of(values), rules=rules), "mode_collapse")
    assert stricter["status"] == "warning" and stricter["healthy"].startswith("above 0.75 ")
    assert row(health(run_of(values), rules=rules_of({"ignore": ["mode-collapse"]})), "mode_collapse")["status"] == (
        "unknown"
    )


@pytest.mark.parametrize("kind_of_run", ["empty", "healthy", "hostile name", "all NaN"])
def test_it_draws_itself(kind_of_run: str) -> None:
    drawn = health(RUNS[kind_of_run]()).plot()
    assert isinstance(drawn, Axes) and drawn.get_xlabel() and drawn.get_ylabel() == "indicator"
    drawn.figure.canvas.draw()
    assert len(drawn.get_yticklabels()) == len(INDICATORS)


def test_report_and_json_show_it() -> None:
    values = healthy()
    values["diversity"] = np.where(T < 0.6, values["diversity"], 0.04 * values["diversity"])
    told = diagnose(run_of(values))
    for form in ("html", "md"):
        text = report(told, format=form).text
        assert "mode collapse" in text and "Health" in text and "healthy" in text
    states = json.loads(report(told, format="json").text)["runs"][0]["health"]
    assert states["mode_collapse"] == "critical" and states["gradient_norm"] == "healthy"
    assert "speaker_similarity" not in states, "what is unknown is left out"
