"""Any threshold that is allowed, on any run: a result in the common form, and more findings the stricter it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from analysis.checks import CHECKS, Check
from analysis.kinds import KINDS, Limit
from analysis.limits import Gauge, Limits, Measure
from analysis.result import Result
from parsers.finish import finish
from parsers.run import Run
from tests.analysis.limits.borderline import BORDERLINE, run_of

LIMITED = [check for check in CHECKS if any(KINDS[kind].limit is not None for kind in check.kinds)]
NOISE = np.random.default_rng(0).normal(size=300)
RUNS: dict[str, Callable[[], Run]] = {
    "empty": lambda: finish("r", "r", "jsonl", pl.DataFrame(schema={"tag": pl.String, "value": pl.Float64})),
    "one point": lambda: run_of({"loss": [1.0], "grad_norm": [1.0]}),
    "constant": lambda: run_of({name: [1.0] * 200 for name in ("loss", "eval_loss", "grad_norm", "lr", "diversity")}),
    "all NaN": lambda: run_of({name: [math.nan] * 60 for name in ("loss", "eval_loss", "grad_norm", "gpu_memory_mb")}),
    "huge": lambda: run_of({name: [1e308, -1e308] * 30 for name in ("loss", "eval_loss", "grad_norm", "g_loss")}),
    "noise": lambda: run_of(
        dict.fromkeys(("loss", "eval_loss", "grad_norm", "d_loss", "g_loss", "step_time", "rss_mb"), 1 + 0.1 * NOISE)
    ),
    "stages": lambda: BORDERLINE["loss-sum-mismatch"][1](0.01),
}


def edge(limit: Limit, strict: bool) -> float:
    """The strictest or the mildest number that a project may set."""
    low = limit.lowest + max(limit.lowest, limit.default) * 1e-3
    high = min(limit.highest, limit.default * 1e3)
    return low if strict == limit.above else high


@pytest.mark.parametrize("kind_of_run", RUNS)
@pytest.mark.parametrize("check", LIMITED, ids=lambda check: check.name)
def test_the_strictest_and_the_mildest_thresholds_give_results(check: Check, kind_of_run: str) -> None:
    run = RUNS[kind_of_run]()
    counts = []
    for strict in (True, False):
        pairs = [(kind, limit) for kind in check.kinds if (limit := KINDS[kind].limit) is not None]
        result = check(run, Limits(tuple((kind, "*", edge(limit, strict)) for kind, limit in pairs)))
        assert isinstance(result, Result)
        assert all(isinstance(one, Measure) and not math.isnan(one.value) for one in result.measures)
        assert {one.kind for one in result.measures} <= {kind for kind, _ in pairs}
        counts.append(len([f for f in result.findings if KINDS[f.kind].limit is not None]))
    assert counts[0] >= counts[1], "no milder threshold finds more"


def test_the_worst_of_several_measures_stays_whichever_side_the_limit_is_on() -> None:
    gauge = Gauge()
    for value in (3.0, 9.0, math.nan, 4.0):
        gauge.keep("stall", value)
        gauge.keep("throughput-drop", value / 10, "speed")
    assert gauge.measures == (Measure("stall", 9.0), Measure("throughput-drop", 0.3, "speed"))
    assert not gauge.reaches("throughput-drop", 0.8) and gauge.reaches("throughput-drop", 0.75)


@pytest.mark.parametrize("kind", [kind for kind, one in KINDS.items() if one.limit is not None])
def test_every_limit_says_its_unit_and_its_source_and_lies_where_it_may(kind: str) -> None:
    limit = KINDS[kind].limit
    assert limit is not None
    assert limit.unit.strip() and limit.source.strip() and limit.measure.isidentifier()
    assert limit.lowest < limit.default <= limit.highest
    assert limit.highest <= 1 or "share" not in limit.unit or limit.above
