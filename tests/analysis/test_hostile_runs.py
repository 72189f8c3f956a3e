"""Whatever a log holds, all checks together give a judgement in the common form, and never a traceback."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftertrain.render import DIAGNOSES
from analysis.checks import CHECKS
from analysis.diagnose import Diagnosis, diagnose
from parsers.finish import finish
from parsers.run import Run

ALL = {kind for check in CHECKS for kind in check.kinds}
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NAMES = (
    "loss", "train/loss", "eval_loss", "val/loss", "accuracy", "eval/accuracy", "grad_norm", "grad_norm/fc1", "lr",
    "lr/1", "update_ratio/a", "update_ratio/b", "dead_units/a", "clip_rate", "grad_norm_after_clip", "amp_scale",
    "perplexity", "amp_skipped_count", "param_norm", "d_loss", "g_loss", "g_adv_loss", "d_real", "d_fake",
    "diversity", "g_grad_norm",
    "d_grad_norm", "Loss/signs/real", "losses/kd/raw", "losses/kd/weight", "losses/kd/weighted", "losses/total",
    "losses/kd/contribution", "losses/displayed", "curriculum/weight/kd", "curriculum/progress", "resources/memory_mb",
    "gpu_memory_mb", "gpu_memory_total_mb", "tokens_per_second", "step_time", "data/files", "epoch", "", " ", "\n",
    "%s{}", "<script>", "損失", "a" * 300, "loss\x1b[31m",
)  # fmt: skip
EDGES = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e-310, 1e308, -1e308, 1.7976931348623157e308, math.nan, math.inf, -math.inf)
Numbers = st.one_of(
    st.builds(lambda value, n: [value] * n, st.sampled_from(EDGES), st.integers(0, 90)),
    st.lists(st.sampled_from(EDGES), max_size=90),
    st.lists(st.floats(0, 10), min_size=20, max_size=90),
    st.builds(
        lambda n, a: [2 * math.exp(-i / 30) + a * (i * 37 % 11) for i in range(n)], st.integers(1, 300), st.floats(0, 1)
    ),
)


def steps_of(way: str, n: int) -> list[int | None]:
    ways: dict[str, list[int | None]] = {
        "none": [None] * n,
        "some": [i if i % 3 else None for i in range(n)],
        "up": [*range(n)],
        "down": [*range(n, 0, -1)],
        "negative": [i - 50 for i in range(n)],
        "repeated": [i // 4 for i in range(n)],
        "same": [7] * n,
        "unsorted": [i * 7919 % 101 for i in range(n)],
        "huge": [2**62 + i for i in range(n)],
        "far": [i * 2**40 * (-1) ** i for i in range(n)],
    }
    return ways[way]


def times_of(way: str, n: int) -> list[dt.datetime | None]:
    seconds = {"tick": range(n), "back": range(n, 0, -1), "same": [0] * n, "years": [i * 10**8 for i in range(n)]}
    return [START + dt.timedelta(seconds=s) for s in seconds[way]] if way in seconds else [None] * n


WAYS = st.sampled_from(["none", "some", "up", "up", "down", "negative", "repeated", "same", "unsorted", "huge", "far"])
CLOCKS = st.sampled_from(["none", "tick", "back", "same", "years"])
Odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)
TENSORS = {
    "stage": "forward",
    "tensors": {"x": {"device": "cpu"}, "y": {"device": "cuda:0"}},
    "status": {"x": "DISABLED"},
}
Events = st.lists(
    st.tuples(
        st.sampled_from(
            ["inputs", "outputs", "curriculum", "losses", "checkpoint", "end", "data", "embeddings", "odd", ""]
        ),
        st.one_of(st.none(), st.integers(-10, 1000)),
        st.sampled_from([TENSORS, {}, [], "text", None, {"status": "failed", "error": "CUDA out of memory"}]) | Odd,
    ),
    max_size=5,
)
PLANS = st.sampled_from(
    [
        {}, {"max_steps": 50}, {"max_steps": -1}, {"max_steps": "many"}, {"lr": {"schedule": "cosine", "peak": 1.0}},
        {"lr": {"schedule": "linear", "peak": 1e-3, "total_steps": 60, "warmup_steps": 90}}, {"lr": 3},
        {"loss_weights": {"kd": 0.5}, "aggregation": "mean"}, {"loss_weights": {"kd": None}},
        {"curriculum": {"phases": [{"name": "a", "start": 5, "weights": {"kd": 0.0}}]}}, {"curriculum": []},
        {"inputs": {"forward": {"require": ["x", "z*"], "forbid": ["y"]}}}, {"inputs": None},
    ]
)  # fmt: skip


@st.composite
def runs(draw: Any) -> Run:
    parts = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        values = draw(Numbers)
        n = len(values)
        columns = {"tag": [name] * n, "step": steps_of(draw(WAYS), n), "value": values}
        columns["time"] = times_of(draw(CLOCKS), n)
        schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64, "time": pl.Datetime("us", "UTC")}
        part = pl.DataFrame(columns, schema=schema)
        rank, attempt = pl.lit(draw(st.integers(0, 5)), pl.Int32), pl.lit(draw(st.integers(0, 3)), pl.Int32)
        parts.append(
            part.with_columns(rank=rank, attempt=attempt, epoch=pl.lit(draw(st.sampled_from([None, 0.5, 1e9]))))
        )
    rows = pl.concat(parts, how="vertical_relaxed") if parts else None
    told = [(kind, step, json.dumps(payload)) for kind, step, payload in draw(Events)]
    schema = {"kind": pl.String, "step": pl.Int64, "payload": pl.String}
    events = pl.DataFrame(told, schema=schema, orient="row") if told else None
    config = draw(st.dictionaries(st.sampled_from(["lr", "world_size", "max_steps", "epochs", "num_classes"]), Odd))
    form = draw(st.sampled_from(["jsonl", "aftertrain", "huggingface", "csv"]))
    return finish("r", "r", form, rows, events=events, plan=draw(PLANS), config=config)


def judge(run: Run) -> Diagnosis:
    """The diagnosis, held to what every one promises."""
    made = diagnose(run)
    left = {n.kind for n in made.not_applicable}
    assert set(made.judged) | left == ALL and left.isdisjoint(made.judged)
    assert all(f.message.strip() and (f.suggestions or f.severity == "info") for f in made.findings)
    assert all(math.isfinite(m.value) or math.isinf(m.value) for m in made.measures)
    assert sum(len(one.findings) for one in made.incidents) == len(made.findings)
    if not run.catalogue.height and not run.events.height:
        assert made.status == "critical"
    assert made.verdict != "healthy" or set(made.judged) - {"truncated-stream"}
    assert made._repr_html_()
    for told in (repr(made), *(render([made]) for render in DIAGNOSES.values())):
        assert told and "\x1b" not in told
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(runs())
def test_any_run_is_judged_by_all_checks_together(run: Run) -> None:
    judge(run)


@pytest.mark.parametrize("way", ["none", "down", "negative", "repeated", "same", "unsorted", "huge", "far"])
@pytest.mark.parametrize("kind", ["falling", "constant", "not a number", "one", "two", "tiny", "huge"])
def test_usual_metrics_with_odd_numbers_and_steps_are_judged(kind: str, way: str) -> None:
    made = {
        "falling": [2 * math.exp(-i / 60) + 0.1 * (i * 37 % 11) / 11 for i in range(250)],
        "constant": [1.0] * 250,
        "not a number": [math.nan] * 250,
        "one": [1.0],
        "two": [1.0, 2.0],
        "tiny": [5e-324 * (1 + i % 3) for i in range(250)],
        "huge": [1.7e308 * (-1) ** i for i in range(250)],
    }[kind]
    steps = steps_of(way, len(made))
    tags = ("train/loss", "eval/loss", "lr", "grad_norm", "g_loss", "d_loss", "tokens_per_second", "gpu_memory_mb")
    rows = [(tag, step, value) for tag in tags for step, value in zip(steps, made, strict=True)]
    schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
    judge(finish("r", "r", "jsonl", pl.DataFrame(rows, schema=schema, orient="row")))
