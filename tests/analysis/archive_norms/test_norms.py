"""Norms of an archive: fewer false alarms on noisy projects, smaller faults on quiet ones, and no fault is learned."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

import aftertrain as at
from aftertrain.cli import main
from analysis.archive_norms.healthy import Teacher, refusals
from analysis.archive_norms.learned import Norm, norms_of
from analysis.archive_norms.norm_file import norms_in, norms_text
from analysis.diagnose import Diagnosis
from analysis.findings import Finding
from analysis.kinds import KINDS
from analysis.limits import Learned, Limits, Measure
from analysis.norms import Norms, norms, read_norms
from eventstream.errors import InputError
from parsers.finish import finish
from parsers.run import Run

CHECKS = ["stream", "train_eval_gap"]
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def family(times: float, spread: float, seed: int, name: str = "", fault: float = 0.0) -> Run:
    """A run that waits once for its shared file system, `times` its usual interval give or take; and a `fault`, a
    longer pause. Its eval loss ends a little above its train loss.
    """
    rng = np.random.default_rng(seed)
    train = 2 * np.exp(-np.arange(300) / 150) * np.exp(rng.normal(0, 0.02, 300))
    evaluated = train[::10] * np.linspace(1, 1.1 * np.exp(rng.normal(0, 0.02)), 30)
    seconds = 10 * np.exp(rng.normal(0, 0.01, 300))
    seconds[10 * rng.integers(5, 25) + 5] *= times * np.exp(rng.normal(0, spread))
    seconds[275] *= max(fault, 1.0)  # with no evaluation in it
    clock = [START + dt.timedelta(seconds=float(s)) for s in np.cumsum(seconds)]
    rows = {
        "tag": ["loss"] * 300 + ["eval_loss"] * 30,
        "step": [*range(300), *range(0, 300, 10)],
        "value": [*train, *evaluated],
        "time": [*clock, *clock[::10]],
    }
    return finish(name or f"run-{seed}", "r", "jsonl", pl.DataFrame(rows))


def stalls(run: Run, learned: Norms | None) -> list[Finding]:
    return [f for f in at.diagnose(run, checks=CHECKS, norms=learned).findings if f.kind == "stall"]


@pytest.fixture(scope="module")
def noisy() -> Norms:
    return norms([family(45.0, 0.1, seed) for seed in range(24)])


@pytest.fixture(scope="module")
def quiet() -> Norms:
    return norms([family(7.0, 0.1, seed) for seed in range(24)])


def test_a_project_that_is_warned_of_its_healthy_runs_is_silent_and_larger_faults_are_found(noisy: Norms) -> None:
    healthy = [family(45.0, 0.1, seed) for seed in range(100, 140)]
    assert sum(stalls(run, None)[0].severity == "warning" for run in healthy) == 40, "false alarms at the default"
    assert sum(bool(stalls(run, noisy)) for run in healthy) == 0
    faulty = [family(45.0, 0.1, seed, fault=200.0) for seed in range(200, 220)]
    assert sum(bool(stalls(run, noisy)) for run in faulty) == 20
    (told,) = stalls(faulty[0], noisy)
    limit = told.evidence["limit"]
    assert isinstance(limit, float) and 60.0 < limit < 120.0
    assert f"(limit {limit:.3g} learned from 24 healthy runs, default 30)" in told.message


def test_a_quiet_project_sees_smaller_faults_and_its_healthy_runs_stay_silent(quiet: Norms) -> None:
    healthy = [family(7.0, 0.1, seed) for seed in range(100, 140)]
    assert sum(bool(stalls(run, quiet)) for run in healthy) == 0
    faulty = [family(7.0, 0.1, seed, fault=20.0) for seed in range(200, 220)]
    assert sum(bool(stalls(run, None)) for run in faulty) == 0, "too small for the default"
    assert sum(bool(stalls(run, quiet)) for run in faulty) == 20


def test_all_other_kinds_stay_as_silent_as_they_were(noisy: Norms, quiet: Norms) -> None:
    for learned, times in ((noisy, 45.0), (quiet, 7.0)):
        for seed in range(300, 315):
            told = at.diagnose(family(times, 0.1, seed), norms=learned).findings
            assert [(f.kind, f.message) for f in told if f.severity != "info"] == []


def test_the_frame_says_what_was_learned_and_from_what(noisy: Norms) -> None:
    (row,) = noisy.frame.filter(pl.col("kind") == "stall").to_dicts()
    assert row["n"] == 24 and row["default"] == 30 < row["healthy_median"] < row["healthy_high"] <= row["norm"]
    assert "lognormal tolerance bound (99% of runs, confidence 95%), margin 1.25" in row["why"]
    gap = noisy.frame.filter(pl.col("kind") == "train-eval-gap")
    assert set(gap.select("metric", "role").rows()) == {("loss", ""), ("", "loss"), ("", "")}
    levels = noisy.frame.filter(pl.col("kind") == "level")
    assert {"final train_loss", "final eval_loss"} <= set(levels["metric"])
    assert (levels["healthy_low"] <= levels["healthy_median"]).all() and levels["norm"].null_count() == levels.height
    assert isinstance(noisy.plot(), Axes) and "24 healthy runs" in noisy.plot().get_title(loc="left")
    assert noisy.status == "healthy" and "24 healthy runs" in repr(noisy)


def test_a_threshold_of_the_project_goes_before_a_norm(noisy: Norms) -> None:
    run = family(45.0, 0.1, 400)
    told = at.diagnose(run, checks=CHECKS, norms=noisy, rules={"threshold": {"stall": 20}}).findings
    (stall,) = [f for f in told if f.kind == "stall"]
    assert stall.evidence["limit"] == 20.0 and "learned" not in stall.message


def test_the_norm_of_a_metric_goes_before_that_of_its_role_and_of_all() -> None:
    limits = Limits((), (Learned("stall", None, 50.0), Learned("stall", "loss", 20.0)))
    assert (limits.of("stall", "loss"), limits.of("stall", "other"), limits.of("stall")) == (20.0, 50.0, 50.0)
    metrics = norms([family(7.0, 0.1, seed) for seed in range(8)]).learned_for(family(7.0, 0.1, 500))
    assert {(one.kind, one.metric) for one in metrics if one.kind == "train-eval-gap"} >= {
        ("train-eval-gap", None), ("train-eval-gap", "loss"),
    }  # fmt: skip


def test_fewer_than_eight_runs_change_nothing_and_say_so() -> None:
    learned = norms([family(7.0, 0.1, seed) for seed in range(7)])
    limits = learned.frame.filter(pl.col("kind") != "level")
    assert (limits["norm"] == limits["default"]).all()
    assert limits["why"].str.contains("runs, 8 are needed").all()
    empty = norms([])
    assert empty.frame.schema == learned.frame.schema and empty.frame.is_empty() and isinstance(empty.plot(), Axes)


def test_norms_stay_within_four_times_the_default_and_round_to_the_milder_side() -> None:
    wild = norms([family(25.0, 0.8, seed) for seed in range(12)])
    for row in wild.frame.filter(pl.col("kind") != "level").iter_rows(named=True):
        limit = KINDS[row["kind"]].limit
        assert limit is not None
        assert limit.default / 4 * 0.999 <= row["norm"] <= limit.default * 4.001
        assert limit.lowest < row["norm"] <= limit.highest


def test_a_run_with_a_fault_teaches_nothing_and_is_listed() -> None:
    def broken(change: Callable[[list[float]], list[float]], name: str) -> Run:
        run = family(7.0, 0.1, 77, name)
        values = run.scalars["value"].to_list()
        rows = run.scalars.select("tag", "step", "time").with_columns(value=pl.Series(change(values)))
        return finish(name, "r", "jsonl", rows)

    sound = [family(7.0, 0.1, seed) for seed in range(12)]
    nan = broken(lambda v: [*v[:100], *[float("nan")] * 50, *v[150:]], "with NaN")
    # eval falls, then rises threefold while train goes on: overfitting that no other run shows
    apart = broken(lambda v: [*v[:300], *(0.5 + np.abs(np.arange(30) - 15) / 5).tolist()], "overfitted")
    learned = norms([*sound, nan, apart])
    assert {name for name, _ in learned.refused} == {"with NaN", "overfitted"}
    assert len(learned.taught) == 12
    why = dict(learned.refused)
    assert "non-finite" in why["with NaN"] and "no limit would explain it" in why["with NaN"]
    assert learned.frame.equals(norms(sound).frame), "they taught nothing"


def teacher(value: float, severity: str = "warning", kind: str = "stall") -> Teacher:
    finding = Finding(kind, severity, "r", "m")  # type: ignore[arg-type]
    return Teacher("r", (finding,), (Measure(kind, value),), {}, {}, 100)


def test_what_many_runs_share_is_noise_and_what_one_shows_is_a_fault() -> None:
    shared = [teacher(float(v)) for v in (33, 35, 40, 44, 50, 38, 36, 41)]
    assert refusals(shared) == {}
    assert list(refusals([*shared, teacher(110.0)])) == [8], "stands out from the others"
    assert "may allow 4" in refusals([*shared, teacher(200.0)])[8]
    assert refusals([*shared, teacher(200.0, "info")]) == {}, "information is no fault"
    assert set(refusals(shared[:3])) == {0, 1, 2}, "too few to tell a fault from noise"


def test_a_ceiling_is_not_moved_nearer_by_runs_that_stay_far_below_it() -> None:
    def using(seed: int) -> Run:
        share = np.random.default_rng(seed).uniform(0.4, 0.5, 60)
        rows = {"tag": ["gpu_memory_mb"] * 60 + ["gpu_memory_total_mb"] * 60, "step": [*range(60)] * 2}
        return finish(f"m{seed}", "r", "jsonl", pl.DataFrame({**rows, "value": [*(share * 1e4), *[1e4] * 60]}))

    learned = norms([using(seed) for seed in range(10)]).frame.filter(pl.col("kind") == "memory-overflow")
    assert learned.height and (learned["norm"] == learned["default"]).all()


def test_a_file_gives_the_same_norms_and_says_where_they_come_from(noisy: Norms, tmp_path: Path) -> None:
    place = noisy.save(tmp_path / "norms.json")
    again = read_norms(place)
    assert again.frame.equals(noisy.frame) and again.taught == noisy.taught
    kept = json.loads(place.read_text())
    assert kept["version"] == 1 and kept["healthy_runs"] == 24 and kept["margin"] == 1.25 and len(kept["runs"]) == 24
    assert max(len(line) for line in place.read_text().splitlines()) < 400, "one line a norm, for people to compare"
    run = family(45.0, 0.1, 200, fault=200.0)
    one, other = (at.diagnose(run, checks=CHECKS, norms=given) for given in (noisy, place))
    assert [f.message for f in one.findings] == [f.message for f in other.findings] != []
    assert norms([], path=tmp_path / "none.json").frame.equals(read_norms(tmp_path / "none.json").frame)


def rows(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def changed(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda kept: kept["norms"][0].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.update(version=2), "norms of version 2; this aftertrain reads 1"),
        (lambda kept: kept.update(norms={}), "a list of at most 20,000 was expected"),
        (lambda kept: kept.update(norms=[{}] * 20_001), "a list of at most 20,000"),
        (changed(norm=1e9), "it must be within 4 times the default"),
        (changed(norm=True), "must be within 4 times"),
        (changed(norm="3"), "must be within 4 times"),
        (changed(kind=7), "with the texts kind, metric, role, why"),
        (changed(n=-1), "n (a count)"),
        (changed(median=None), "finite numbers"),
        (changed(kind="non-finite"), "unknown kind with a limit 'non-finite'"),
        (lambda kept: kept["norms"].__setitem__(0, 3), "entry 1: an object"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(
    noisy: Norms, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    place = noisy.save(tmp_path / "norms.json")
    kept = rows(place)
    change(kept)
    place.write_text(json.dumps(kept))
    with pytest.raises(InputError) as error:
        read_norms(place)
    assert said in str(error.value) and str(place) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": 1}'])
def test_what_is_no_file_of_norms_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "norms.json").write_bytes(content)
    with pytest.raises(InputError, match=r"norms\.json: "):
        read_norms(tmp_path / "norms.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_norms(tmp_path / "none.json")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "norms.json").open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(InputError, match="larger than 8 MB"):
        read_norms(tmp_path / "norms.json")


def test_norms_of_kinds_that_are_not_known_here_are_left_out_with_a_warning(noisy: Norms, tmp_path: Path) -> None:
    place = noisy.save(tmp_path / "norms.json")
    kept = rows(place)
    kept["norms"].append({**kept["norms"][0], "kind": "their-own"})
    place.write_text(json.dumps(kept))
    with pytest.warns(UserWarning, match="not known here are left out: their-own"):
        assert read_norms(place).frame.equals(noisy.frame)


@pytest.mark.parametrize("wrong", [{"margin": 0.5}, {"coverage": 1.0}, {"confidence": 0.1}, {"margin": float("nan")}])
def test_settings_that_make_no_bound_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        norms([], **wrong)


def test_the_command_line_takes_a_file_of_norms(
    noisy: Norms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = noisy.save(tmp_path / "norms.json")
    run = family(45.0, 0.1, 200, fault=200.0)
    lines = [
        json.dumps({"step": step, "time": time.timestamp(), tag: value})
        for tag, step, value, time in run.scalars.sort("step").select("tag", "step", "value", "time").iter_rows()
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["check", str(tmp_path / "log.jsonl"), "--norms", str(place), "--fail-on", "never"]) == 0
    assert "learned from 24 healthy runs" in capsys.readouterr().out
    out = tmp_path / "report.md"
    assert main(["report", str(tmp_path / "log.jsonl"), "--norms", str(place), "-o", str(out)]) == 0
    assert "learned from 24 healthy runs" in out.read_text()
    assert main(["check", str(tmp_path / "log.jsonl"), "--norms", str(tmp_path / "no.json")]) == 2
    assert "no.json: cannot be read" in capsys.readouterr().err


def test_a_diagnosis_holds_the_measures_of_all_its_checks() -> None:
    judged = at.diagnose(family(7.0, 0.1, 1))
    assert isinstance(judged, Diagnosis)
    assert {m.kind for m in judged.measures} >= {"train-eval-gap", "overfitting", "missing-steps"}


def test_a_limit_becomes_milder_only_where_a_sound_run_was_reported() -> None:
    """What was measured may lie beyond the limit where other conditions do not hold: that was no false alarm."""
    silent = [Teacher(f"r{i}", (), (Measure("stall", 40.0 + i),), {}, {}, 100) for i in range(10)]
    told = [replace(one, findings=(Finding("stall", "info", one.name, "m"),)) for one in silent]
    (kept,), (moved,) = (list(norms_of(teachers, 1.25, 0.99, 0.95)) for teachers in (silent, told))
    assert (kept.norm, kept.why) == (30.0, "default: no sound run was reported at it")
    assert moved.norm is not None and moved.norm > 50.0


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
POSITIVE = st.floats(0, 1e9)


@given(
    st.lists(
        st.tuples(st.sampled_from(["stall", "memory-growth", "throughput-drop"]), TEXT, TEXT, POSITIVE, POSITIVE, TEXT),
        max_size=5,
    ),
    st.floats(0.25, 4.0),
)
def test_any_norms_come_back_from_their_file_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], times: float
) -> None:
    made = []
    for kind, metric, role, median, high, why in drawn:
        limit = KINDS[kind].limit
        assert limit is not None
        made.append(Norm(kind, metric, role, 9, median, high, limit.default, limit.default * times, why))
    place = tmp_path_factory.mktemp("norms") / "norms.json"
    place.write_text(norms_text(made, {"made": "today"}), encoding="utf-8")
    assert norms_in(place) == (tuple(made), {"version": 1, "made": "today"})


def test_norms_of_more_metrics_than_a_file_holds_are_those_that_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.norms.MOST", 10)
    learned = norms([family(7.0, 0.1, seed) for seed in range(8)], path=tmp_path / "norms.json")
    assert learned.norms and all(norm.metric == "" for norm in learned.norms)
    assert read_norms(tmp_path / "norms.json").frame.equals(learned.frame)
