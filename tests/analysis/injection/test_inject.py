"""What `inject` changes, and what it does not: places, sizes, series, lazy runs, and what it refuses."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aftertrain as at
from analysis.inject import FAULTS, fault_of
from analysis.injection.shapes import parted, ramp
from eventstream.errors import InputError
from parsers.finish import finish
from parsers.run import Run
from parsers.schema import EVENTS, REJECTS, SCALARS
from tests.analysis.injection.runs import falling, ranks, rich, sample, sources

#: What changes rows, steps, times or attempts, and not values alone.
_TABLES = {
    "missing-steps", "step-regression", "clock-skew", "stall", "unfinished-run", "repeated-data", "stale-values",
    "rank-missing", "memory-overflow", "throughput-drop",
}  # fmt: skip


def run_for(kind: str) -> Run:
    """A run that holds what the fault goes into."""
    for run in (rich(), ranks(), sources(), sample("distillation-healthy-seed0"), sample("gan-healthy")):
        try:
            at.inject(run, kind)
        except InputError:
            continue
        return run
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", FAULTS)
def test_the_old_run_stays_as_it_was_and_a_call_repeated_gives_the_same(kind: str):
    run = run_for(kind)
    before = run.scalars.clone(), run.events.clone(), run.rejects.clone(), run.plan
    first, again = at.inject(run, kind, seed=3), at.inject(run, kind, seed=3)
    assert before[0].equals(run.scalars) and before[1].equals(run.events) and before[2].equals(run.rejects)
    assert first.scalars.equals(again.scalars) and first.events.equals(again.events)
    assert first.rejects.equals(again.rejects)
    assert (first.name, first.path, first.config, first.plan) == (run.name, run.path, run.config, run.plan)


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in _TABLES])
def test_a_fault_of_values_changes_values_alone_and_none_before_its_onset(kind: str):
    run = run_for(kind)
    planted = at.inject(run, kind)
    note = json.loads(planted.events_of("injected")["payload"][0])
    old, new = run.scalars, planted.scalars
    assert old.drop("value").equals(new.drop("value"))
    changed = new.filter(~new["value"].eq_missing(old["value"]))
    if note["step"] is not None and changed.height:
        assert changed["step"].min() >= note["step"]


def test_without_consequences_one_series_changes():
    run = rich()
    for kind in ("loss-spike", "divergence", "exploding-gradient", "plateau", "non-finite"):
        new = at.inject(run, kind, consequences=False).scalars
        changed = new.filter(~new["value"].eq_missing(run.scalars["value"]))
        names = {name for name in changed["metric"].unique() if not name.startswith("grad_norm/")}
        assert names == ({"grad_norm"} if kind == "exploding-gradient" else {"loss"}), kind


def test_a_spike_multiplies_what_was_there_for_as_many_rows_as_said():
    run = rich()
    planted = at.inject(run, "loss-spike", at=301, size=5.0, length=4)
    old, new = (r.series("loss", split="train") for r in (run, planted))
    times = (new["value"] / old["value"]).to_numpy()
    assert (np.flatnonzero(~np.isclose(times, 1)) + 1).tolist() == [301, 302, 303, 304]
    assert times[300] == pytest.approx(5.0) and (np.diff(times[300:304]) < 0).all()
    norms = [r.series("grad_norm", split="train")["value"].to_numpy() for r in (run, planted)]
    assert np.allclose(norms[1] / norms[0], times)


def test_parts_of_a_loss_still_add_up_when_it_leaps():
    run = sample("distillation-healthy-seed0")
    planted = at.inject(run, "level-shift", at=0.5, size=2.0)
    assert at.losses(planted).status == "healthy"
    old, new = (r.series("losses/total")["value"].to_numpy() for r in (run, planted))
    assert np.allclose(new[len(new) // 2 + 2 :], 2 * old[len(old) // 2 + 2 :])


def test_a_perplexity_stays_the_exponential_of_its_loss():
    run = sample("charlm-healthy")
    planted = at.inject(run, "overfitting", at=0.5, size=1.0)
    loss, perplexity = (planted.series(m, split="eval")["value"].to_numpy() for m in ("loss", "perplexity"))
    assert np.allclose(np.exp(loss), perplexity, rtol=1e-5)


def test_the_noise_of_the_run_is_kept_by_a_plateau_and_multiplied_by_a_shift_of_variance():
    run = falling()
    own, stood, wide = (
        parted(r.series("loss")["value"].to_numpy())
        for r in (run, at.inject(run, "plateau", at=0.5), at.inject(run, "variance-shift", at=0.5, size=3.0))
    )
    late = slice(1100, 1900)
    assert np.std(stood.noise[late]) == pytest.approx(np.std(own.noise[late]), rel=0.05)
    assert np.ptp(stood.trend[late]) < 0.15 * np.ptp(own.trend[late])
    assert np.std(wide.noise[late]) == pytest.approx(3 * np.std(own.noise[late]), rel=0.1)


def test_a_resume_has_the_noise_of_the_beginning_as_far_as_said():
    run = falling()
    for share in (1.0, 0.5):
        again = at.inject(run, "repeated-data", at=0.5, size=share)
        noise = parted(again.series("loss", live=False)["value"].to_numpy()).noise
        assert np.corrcoef(noise[1050:1950], noise[50:950])[0, 1] == pytest.approx(share, abs=0.12)
        assert again.last_attempt == 1 and run.last_attempt == 0


@pytest.mark.parametrize("kind", ["loss-spike", "missing-steps", "stall", "plateau", "unfinished-run"])
def test_a_lazy_run_stays_lazy_and_comes_out_the_same(kind: str):
    run = rich()
    lazy = finish(run.name, run.path, run.format, run.scalars.lazy(), events=run.events, plan=run.plan)
    planted = at.inject(lazy, kind)
    assert "scalars" not in planted.__dict__ and "scalars" not in lazy.__dict__
    key = ["tag", "step"]
    assert planted.scalars.sort(key).equals(at.inject(run, kind).scalars.sort(key))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_place_and_any_size_gives_a_run_in_the_common_form(data: st.DataObject):
    kind = data.draw(st.sampled_from(sorted(FAULTS)))
    fault, run = FAULTS[kind], run_for(kind)
    size = data.draw(st.none() | st.floats(fault.lowest, min(fault.highest, 1e6))) if fault.sized else None
    size = float(int(size)) if size is not None and fault.counted else size
    place = data.draw(st.floats(0, 1, exclude_max=True) | st.integers(0, 500))
    length = data.draw(st.none() | st.integers(1, 10**6))
    planted = at.inject(run, kind, at=place, size=size, length=length, consequences=data.draw(st.booleans()))
    assert planted.scalars.schema == SCALARS and planted.events.schema == EVENTS and planted.rejects.schema == REJECTS
    assert planted.events_of("injected").height == 1
    if size == fault.nothing and fault.sized and not fault.counted and kind not in _TABLES | {"curriculum-bypass"}:
        same = np.isclose(planted.scalars["value"], run.scalars["value"], rtol=1e-9, atol=1e-12, equal_nan=True)
        assert same.all() or kind in {"clipping"}


def test_hostile_runs_give_a_run_or_a_sentence():
    odd = {
        "empty": [], "one": [1.0], "constant": [1.0] * 50, "not finite": [float("nan")] * 50,
        "negative": [-1.0, 0.0] * 25, "huge": [1e308, -1e308] * 25,
    }  # fmt: skip
    for name, values in odd.items():
        schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
        for steps in (list(range(len(values))), [None] * len(values)):
            rows = pl.DataFrame({"tag": ["loss"] * len(values), "step": steps, "value": values}, schema=schema)
            run = finish(name, name, "jsonl", rows)
            for kind in FAULTS:
                try:
                    assert at.inject(run, kind).scalars.schema == SCALARS
                except InputError as error:
                    assert f"{name}: {kind} cannot be planted: " in str(error)


def test_what_is_wrong_with_a_call_is_said():
    run = rich()
    for wrong, words in [
        ({"kind": "loss-spke"}, "did you mean 'loss-spike'"),
        ({"kind": "embedding-collapse"}, "cannot be planted into the numbers of a log"),
        ({"kind": "loss-spike", "at": 1.0}, "no share of the run"),
        ({"kind": "loss-spike", "at": True}, "a share of the run"),
        ({"kind": "loss-spike", "size": 0.5}, "from 1 to 1e+06 times the loss, not 0.5"),
        ({"kind": "non-finite", "size": 1.5}, "a whole number, not 1.5"),
        ({"kind": "missing-input", "size": 2.0}, "takes no size"),
        ({"kind": "loss-spike", "length": 0}, "length counts rows"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            at.inject(run, **wrong)
    with pytest.raises(InputError, match="unknown metric 'los'; did you mean 'loss'"):
        at.inject(run, "loss-spike", metric="los")
    with pytest.raises(InputError, match="behind the last step"):
        at.inject(run, "loss-spike", at=10_000)
    with pytest.raises(InputError, match=r"no displayed loss is logged .*record it"):
        at.inject(run, "loss-display-mismatch")


def test_a_series_can_be_chosen():
    planted = at.inject(rich(), "loss-spike", metric="accuracy", consequences=False)
    new, old = planted.scalars, rich().scalars
    assert set(new.filter(~new["value"].eq_missing(old["value"]))["metric"]) == {"accuracy"}


def test_steps_and_sizes_may_be_numbers_of_numpy():
    told = at.inject(rich(), "non-finite", at=np.int64(300), size=np.int64(4), length=None)
    assert told.scalars.equals(at.inject(rich(), "non-finite", at=300, size=4).scalars)


def test_a_ramp_begins_at_its_first_row_and_ends_after_its_length():
    assert ramp(np.arange(-2.0, 5.0), 4).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert fault_of("loss-spike").checked(None) == 3.0


def test_what_is_planted_shares_no_code_with_what_detects():
    folder = Path(__file__).parents[3] / "analysis"
    for path in [folder / "inject.py", *(folder / "injection").glob("*.py")]:
        if path.name == "trial.py":  # which asks the diagnosis, and plants nothing
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("analysis"):
                assert str(node.module).startswith(("analysis.injection", "analysis.kinds")), (path.name, node.module)
