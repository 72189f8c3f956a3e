"""The facts come in the common form, draw themselves, and reach diagnose, check and report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

import aftertrain as at
from analysis.diagnose import diagnose
from analysis.hidden_facts import HiddenFacts, hidden_facts
from parsers.run import Run
from tests.analysis.hidden.build import decay, run_of

WILD = Path(__file__).parents[4] / "shared" / "wild"


def everything() -> Run:
    """A run of 500 rows that hides all but epochs: sampled, carried, in micro-batches, and NaN at the end."""
    rng = np.random.default_rng(0)
    steps = np.sort(rng.choice(5000, 500, replace=False))
    at_steps = np.arange(400)
    loss, norm = decay(500, rng), np.ones(500)
    loss[-40:], norm[-40:] = 0.0, np.nan
    return run_of(
        {
            "loss": (steps, loss),
            "grad_norm": (steps, norm),
            "val_loss": (at_steps, np.repeat(decay(20, rng), 20)),
            "lr": (at_steps, np.repeat(1e-3 * 0.98 ** np.arange(100), 4)),
        },
        config={"gradient_accumulation_steps": 4},
    )


def test_each_fact_is_one_finding_and_one_row():
    result = hidden_facts(everything())
    kinds = ["hidden-non-finite", "stale-values", "sampled-series", "micro-batch-steps"]
    assert [f.kind for f in result.findings] == kinds and result.status == "warning"
    assert result.frame.filter(result.frame["verdict"] == "found")["kind"].to_list() == kinds
    assert result.frame["detail"].to_list()[:4] == [f.message for f in result.findings]


@pytest.mark.parametrize("kind", ["hidden-non-finite", "stale-values", "sampled-series", "micro-batch-steps"])
def test_each_fact_draws_the_series_that_shows_it(kind: str):
    result = hidden_facts(everything())
    drawn = result.plot(kind=kind)
    fact = next(f for f in result.facts if f.kind == kind)
    assert isinstance(drawn, Axes) and drawn.get_title(loc="left").startswith("r: ") and drawn.get_xlabel() == "step"
    assert fact.drawn is not None and len(drawn.lines) == 2
    assert drawn.lines[1].get_ydata().tolist() == fact.drawn.y[fact.drawn.marked].tolist()


def test_a_fact_that_was_not_found_cannot_be_drawn():
    with pytest.raises(ValueError, match="unknown fact that was found 'epoch-only'"):
        hidden_facts(everything()).plot(kind="epoch-only")


def test_an_empty_run_gives_an_empty_frame_and_a_reason_for_each_kind():
    result = hidden_facts(run_of({}))
    assert result.frame.is_empty() and len(result.not_applicable) == 5 and not result.findings
    assert result.plot().get_title(loc="left") == "r: nothing could be judged"


def test_only_what_misleads_is_a_warning():
    severities = {f.kind: f.severity for f in hidden_facts(everything()).findings}
    assert severities.pop("hidden-non-finite") == "warning" and set(severities.values()) == {"info"}


def test_diagnosis_and_report_say_the_facts():
    run = everything()
    diagnosis = diagnose(run)
    assert isinstance(diagnosis.results["hidden_facts"], HiddenFacts)
    assert {"hidden-non-finite", "stale-values"} <= {f.kind for f in diagnosis.findings}
    page = at.report(diagnosis).text
    assert "the log hides it" in page and "was evaluated 20 times" in page
    assert page.count("the rows that show it, marked") >= 4, "each fact has its own figure"


def test_every_fact_that_is_found_can_be_drawn_in_a_report():
    planned = run_of({"loss": decay(2000, np.random.default_rng(1))}, config={"accum_iter": 4, "max_steps": 500})
    by_epoch = run_of({"loss": decay(30, np.random.default_rng(2))}, epochs=np.arange(30), steps=False)
    for run in (everything(), planned, by_epoch):
        facts = [fact for fact in hidden_facts(run).facts if fact.finding is not None]
        assert facts and all(fact.drawn is not None for fact in facts)


def test_a_small_log_loads_no_heavy_library(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": {i}, "loss": {2 - i / 100}}}\n' for i in range(100)))
    code = (
        "import sys; from parsers.loading import load; from analysis.hidden_facts import hidden_facts;"
        f"hidden_facts(load({str(tmp_path / 'log.jsonl')!r}));"
        "print([m for m in ('numba', 'pandas', 'sklearn', 'matplotlib', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 1e308, 5e-324]), st.floats())
TAGS = st.sampled_from(["loss", "eval_loss", "grad_norm", "lr", "epoch", "val_acc", "kd_loss", ""])
CONFIGS = st.sampled_from(
    [{}, {"accum_iter": 4, "max_steps": 10}, {"gradient_accumulation_steps": -1}, {"logging_nan_inf_filter": True}]
)


@given(
    st.dictionaries(TAGS, st.lists(st.tuples(st.integers(-(2**62), 2**62), NUMBERS), max_size=40), max_size=5),
    st.integers(1, 20),
    st.booleans(),
    st.booleans(),
    CONFIGS,
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_was_logged_gets_a_verdict_or_a_reason(
    rows: dict[str, list[tuple[int, float]]], times: int, stepped: bool, ordered: bool, config: dict[str, object]
):
    columns = {
        tag: ([i if ordered else s for i, (s, _) in enumerate(v * times)], [x for _, x in v * times])
        for tag, v in rows.items()
    }
    result = hidden_facts(run_of(columns, steps=stepped, format="huggingface", config=config))
    told, untold = set(result.frame["kind"]), {n.kind for n in result.not_applicable}
    assert told.isdisjoint(untold) and len(told | untold) == 5
    assert result.frame.schema == hidden_facts(run_of({})).frame.schema
    assert {f.kind for f in result.findings} == set(result.frame.filter(pl.col("verdict") == "found")["kind"])
    for fact in result.facts:
        if fact.drawn is not None:
            result.plot(kind=fact.kind).figure.canvas.draw()


def test_the_sample_runs_hide_nothing(samples: Path):
    for run in at.load_all(samples):
        assert not hidden_facts(run).findings, run.name


#: Runs of strangers whose log counts epochs alone, as reading them shows; no other fact holds of any.
EPOCHS_ALONE = re.compile(r"ultralytics_csv|ecapa-voxceleb|aasist-cs3/train_log|graphcore-resnet")


def test_nothing_false_is_said_of_strangers_runs():
    for run in at.load_all(WILD) if WILD.is_dir() else ():
        kinds = [f.kind for f in hidden_facts(run).findings]
        assert kinds == (["epoch-only"] if EPOCHS_ALONE.search(run.path) else []), run.path
