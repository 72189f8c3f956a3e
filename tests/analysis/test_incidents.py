"""Findings that belong together become one story with the right root, and what does not belong stays apart."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aftertrain as at
from analysis.findings import SEVERITIES, Finding
from analysis.incidents import Incident, incidents
from analysis.kinds import KINDS
from analysis.story import joining
from analysis.story.links import LINKS, Link
from analysis.story.page import page
from parsers.finish import finish
from parsers.run import Run
from tests.analysis.story.planted import CHAINS, columns_of, far_apart, run_of

N = 6000


def flat(n: int = N, **more: Any) -> Run:
    """A run of `n` steps in which nothing happens."""
    steps = np.arange(n)
    return run_of({"loss": (steps, np.ones(n)), "grad_norm": (steps, np.ones(n))}, **more)


FLAT = flat()


def found(
    kind: str, step: int | None = None, severity: Any = "warning", last: int | None = None, **more: Any
) -> Finding:
    metric = more.pop("metric", "loss")
    told = {name: more.pop(name) for name in ("causes", "suggestions") if name in more}
    return Finding(kind, severity, "r", f"{kind} {step}", metric, step, step if last is None else last, more, **told)


def kinds(made: Sequence[Incident]) -> list[list[str]]:
    return [[f.kind for f in one.findings] for one in made]


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_planted_into_a_run_is_one_incident_with_the_right_root(name: str):
    make, root, members = CHAINS[name]
    diagnosis = at.diagnose(make())
    told = next(i for i in diagnosis.incidents if i.root.kind == root)
    assert members <= {f.kind for f in told.followers}, diagnosis
    assert told.severity == diagnosis.findings[0].severity
    others = {f.kind for i in diagnosis.incidents if i is not told for f in i.findings}
    assert others.isdisjoint({root} | members)


@pytest.mark.parametrize(
    ("sample", "root", "members"),
    [
        ("charlm-spike", ("lr-schedule", 520), ["loss-spike", "loss-spike"]),
        ("charlm-overfit", ("overfitting", 180), ["train-eval-gap"]),
        ("distillation-bypass", ("curriculum-bypass", 1), ["curriculum-bypass", "loss-sum-mismatch"]),
    ],
)
def test_the_worst_incident_of_a_sample_is_the_fault_that_was_planted(
    sample: str, root: tuple[str, int], members: list[str], samples: Path
):
    first = at.diagnose(at.load(samples / sample)).incidents[0]
    assert (first.root.kind, first.root.first_step) == root
    assert [f.kind for f in first.followers] == members


CHAINED: list[tuple[str, list[Finding]]] = [
    (
        "a rate off its plan ends in NaN",
        [
            found("lr-schedule", 4000, last=N, metric="lr"),
            found("exploding-gradient", 4012, metric="grad_norm", low=1.0, high=40.0),
            found("loss-spike", 4020),
            found("divergence", 4035, last=4100),
            found("non-finite", 4100, "critical"),
        ],
    ),
    (
        "infinite gradients take the loss scale with them",
        [
            found("non-finite", 900, metric="grad_norm", first_metric="grad_norm"),
            found("hidden-non-finite", 902, last=N),
            found("amp-collapse", 915, metric="amp_scale", last=N),
        ],
    ),
    (
        "a dead layer is frozen and starves the one below",
        [
            found("dead-units", 500, metric="dead_units/blocks.2", layer="blocks.2", last=N),
            found("frozen-layer", 500, "info", metric="update_ratio/blocks.2.fc", layer="blocks.2.fc", last=N),
            found("vanishing-gradient", 505, metric="grad_norm/blocks.2", layer="blocks.2", last=N),
        ],
    ),
    (
        "data fed again after a resume",
        [
            found("step-regression", 3000),
            found("repeated-data", 3000, last=4000),
            found("level-shift", 3003, value=1.0, expected=2.0),
        ],
    ),
    ("data fed again is learned by heart", [found("repeated-data", 3000, last=4000), found("overfitting", 3500)]),
    (
        "a weight off its plan",
        [
            found("curriculum-off-schedule", 200, metric="kd", last=N),
            found("loss-sum-mismatch", 200, metric=None, last=N),
            found("loss-display-mismatch", 0, metric="displayed", last=N),
        ],
    ),
    (
        "a weight of the plan that comes late shifts the level",
        [found("curriculum-off-schedule", 200), found("level-shift", 204)],
    ),
    (
        "a weight that comes late shifts the level where it comes",
        [found("curriculum-off-schedule", 200, last=900), found("level-shift", 903, "info")],
    ),
    ("a rank that is lost alone", [found("non-finite", 500, rank=3), found("rank-divergence", 500, rank=3)]),
    ("a rank that left the others", [found("rank-divergence", 480, rank=3), found("non-finite", 500, rank=3)]),
    ("ranks that lost one", [found("rank-missing", 700, metric=None, rank=3), found("rank-divergence", 705, rank=0)]),
    (
        "memory fills until the job is killed",
        [
            found("memory-growth", 0, metric="mem", last=5990),
            found("throughput-drop", 4000, metric="speed", last=5990),
            found("memory-overflow", 5990, "critical", metric="mem"),
            found("truncated-stream", None, metric=None),
            found("unfinished-run", None, metric=None),
        ],
    ),
    ("a clock that was set", [found("stall", 2000, metric=None), found("clock-skew", 2001, metric=None)]),
    (
        "a lost game",
        [found("discriminator-dominance", 800, metric="d", last=N), found("mode-collapse", 2500, metric="x")],
    ),
    (
        "a term left out",
        [
            found("weight-not-applied", 5, "critical", metric="losses/kd/weighted"),
            found("inactive-component", 5, metric="losses/kd/raw"),
        ],
    ),
    ("two scales", [found("train-eval-scale-mismatch", 0, last=N), found("train-eval-gap", 4000, last=N)]),
    ("answers among the inputs", [found("forbidden-input", None, metric="labels"), found("suspiciously-good", 50)]),
    (
        "no variety of vectors",
        [found("embedding-collapse", 100, metric=None), found("low-separation", 100, metric=None)],
    ),
    ("gradients that vanish stall the loss", [found("vanishing-gradient", 800, last=N), found("plateau", 900, last=N)]),
]


@pytest.mark.parametrize("chain", [chain for _, chain in CHAINED], ids=[name for name, _ in CHAINED])
def test_links_of_the_table_make_one_incident_whose_root_is_the_first_of_the_chain(chain: list[Finding]):
    for seed in range(5):
        mixed = random.Random(seed).sample(chain, len(chain))
        [one] = incidents(FLAT, mixed)
        assert one.root is chain[0]
        assert {id(f) for f in one.followers} == {id(f) for f in chain[1:]}
        assert len(one.why) == len(one.followers) and all(one.why)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (found("loss-spike", 1000), found("loss-spike", 1400)),
        (found("exploding-gradient", 1000), found("loss-spike", 1500)),
        (found("non-finite", 1000), found("loss-spike", 1040)),
        (found("dead-units", 500, layer="a.1", last=N), found("frozen-layer", 500, layer="a.10", last=N)),
        (found("dead-units", 500, last=N), found("frozen-layer", 500, last=N)),
        (found("exploding-gradient", 500, model="generator"), found("clipping", 500, model="discriminator")),
        (found("non-finite", 500, rank=1), found("hidden-non-finite", 500, rank=2)),
        (found("inactive-component", 5, metric="kd"), found("weight-not-applied", 5, metric="feature")),
        (found("level-shift", 500, value=2.0, expected=1.0), found("level-shift", 500, value=1.0, expected=2.0)),
        (found("overfitting", 500), found("train-eval-gap", 500, metric="kd_loss")),
        (found("stall", 500), found("loss-spike", 500)),
        (found("curriculum-off-schedule", 200, last=900), found("level-shift", 500)),
        (found("throughput-drop", 500), found("non-finite", 500)),
        (found("truncated-stream", None), found("loss-spike", 500)),
        (found("memory-overflow", 1000), found("unfinished-run", None)),
        (found("level-shift", 1000, "info"), found("non-finite", 1010, "critical")),
    ],
)
def test_what_has_nothing_to_do_with_each_other_stays_apart(one: Finding, other: Finding):
    assert len(incidents(FLAT, [one, other])) == len(incidents(FLAT, [other, one])) == 2


def test_faults_far_apart_stay_apart_in_two_hundred_runs_and_healthy_runs_have_no_incident():
    merged, several = [], 0
    for seed in range(200):
        diagnosis = at.diagnose(far_apart(seed), checks=["anomalies", "gradients", "resources"])
        told = [i for i in diagnosis.incidents if i.severity != "info"]
        several += len(told) > 1
        for one in diagnosis.incidents:
            steps = [f.first_step for f in one.findings if f.first_step is not None]
            if steps and max(steps) - min(steps) >= 80:
                merged.append((seed, one.story))
    assert merged == [], f"{len(merged)} of 200 runs joined strangers"
    assert several >= 30, f"only {several} runs have several incidents: that proves nothing"


def test_hundreds_of_spikes_and_gradients_at_random_are_joined_by_chance_no_more_than_promised():
    joined = total = 0
    for seed in range(30):
        rng = random.Random(seed)
        spikes = [found("loss-spike", rng.randrange(N)) for _ in range(100)]
        gradients = [found("exploding-gradient", rng.randrange(N)) for _ in range(100)]
        made = incidents(FLAT, [*spikes, *gradients])
        assert max(len(i.findings) for i in made) <= 8
        joined += sum(len(i.findings) > 1 and len({f.kind for f in i.findings}) > 1 for i in made)
        total += len(spikes)
    # Each spike meets one of the hundred windows by chance, which are narrowed for that, but never below two records.
    assert joined / total < 0.12


def test_a_short_log_narrows_the_windows():
    pair = [found("exploding-gradient", 10), found("loss-spike", 18)]
    assert len(incidents(FLAT, pair)) == 1
    assert len(incidents(flat(40), pair)) == 2
    assert joining.CHANCE * 40 < 8


def test_windows_follow_the_rhythm_of_the_log():
    steps = np.arange(0, 600_000, 100)
    sparse = run_of({"loss": (steps, np.ones(N)), "grad_norm": (steps, np.ones(N))})
    pair = [found("exploding-gradient", 100_000), found("loss-spike", 100_800)]
    assert len(incidents(sparse, pair)) == 1 and len(incidents(flat(200_000), pair)) == 2


def test_a_row_of_signs_of_one_kind_never_becomes_one_incident():
    row = [found("outlier", step, metric=f"m{step}") for step in range(300)]
    assert max(len(i.findings) for i in incidents(FLAT, row)) <= 10


def test_the_same_leap_in_many_metrics_is_one_incident_led_by_the_train_loss():
    tags = ["kd_loss", "val/loss", "loss", "losses/feature/raw"]
    [one] = incidents(FLAT, [found("loss-spike", 500, metric=tag) for tag in tags])
    assert one.root.metric == "loss" and len(one.followers) == 3


def test_a_gradient_leads_the_loss_that_is_lost_at_the_same_step():
    lost = found("non-finite", 500, "critical", first_metric="loss")
    gradient = found("non-finite", 500, "critical", metric="grad_norm", first_metric="grad_norm")
    [one] = incidents(FLAT, [lost, gradient])
    assert one.root is gradient


def _issue(**more: Any) -> tuple[Run, list[Finding]]:
    """The chain of the issue: the rate peaks, gradients explode, the loss spikes, NaN."""
    steps = np.arange(N)
    rate = np.where(steps < 4180, 3e-3 * (steps + 1) / 4181, 3e-3)
    run = run_of({"loss": (steps, np.ones(N)), "grad_norm": (steps, np.ones(N)), "lr": (steps, rate)}, **more)
    chain = [
        found(
            "exploding-gradient", 4201, metric="grad_norm", low=0.5, high=20.0, suggestions=("clip", "lower the rate")
        ),
        found("loss-spike", 4210, factor=3.2, suggestions=("look at the batch", "Clip.")),
        found("non-finite", 4233, "critical", metrics="loss", nan=10, suggestions=("resume",), causes=("cannot tell",)),
    ]
    return run, chain


def test_the_story_is_told_in_time_order_with_its_numbers_from_what_led_to_it():
    run, chain = _issue()
    [one] = incidents(run, chain[::-1])
    assert one.story == (
        "lr peaked at 0.003 at step 4,180 -> grad_norm x 40 at 4,201 -> loss spike x 3.2 at 4,210 -> loss NaN at 4,233"
    )
    assert (one.first_step, one.last_step, one.severity) == (4201, 4233, "critical")
    assert one.facts == ("lr peaked at 0.003 at step 4,180",)
    assert one.suggestions == ("clip", "lower the rate", "look at the batch", "resume")


def test_causes_name_their_evidence_facts_first_and_admit_what_cannot_be_told():
    run, chain = _issue()
    [one] = incidents(run, chain)
    assert one.causes == (
        "lr peaked at 0.003 at step 4,180 (evidence: it is logged, 21 steps before exploding-gradient)",
    )
    unknown = "cannot tell from this log; record grad_norm to know"
    [alone] = incidents(FLAT, [found("loss-spike", 500, causes=(unknown,))])
    assert alone.causes == (unknown,)
    guess, shown = "a bad batch", "grad_norm peaked at 9, 12 times its usual"
    [mixed] = incidents(FLAT, [found("loss-spike", 500, causes=(guess, unknown, shown))])
    assert mixed.causes == (shown, "a bad batch (this log cannot confirm it)")


def _event(kind: str, step: int, **payload: Any) -> dict[str, Any]:
    return {"kind": kind, "step": step, "payload": payload}


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (
            [_event("curriculum", 0, phase="warm"), _event("curriculum", 2990, phase="align")],
            "phase warm became align at step 2,990",
        ),
        (
            [_event("config", 0, batch_size=16), _event("config", 2995, batch_size=64)],
            "batch_size went from 16 to 64 at step 2,995",
        ),
        (
            [_event("data", 0, files=["a"]), _event("data", 2999, files=["b"])],
            "files of the data became b at step 2,999",
        ),
        ([_event("checkpoint", 2998, path="c.pt")], "a checkpoint was saved at step 2,998"),
    ],
)
def test_what_the_log_tells_right_before_belongs_into_the_story(events: list[dict[str, Any]], told: str):
    steps = np.arange(N)
    run = run_of({"loss": (steps, np.ones(N))}, events)
    [near] = incidents(run, [found("loss-spike", 3000, factor=2.0)])
    assert near.facts == (told,) and near.story == f"{told} -> loss spike x 2 at 3,000"
    assert (near.causes != ()) == (events[-1]["kind"] != "checkpoint")
    [far] = incidents(run, [found("loss-spike", 3500, factor=2.0)])
    assert far.facts == () and far.causes == ()


def test_a_resume_stands_in_the_story_and_counts_that_grow_do_not():
    steps = [*range(3000), *range(2900, 6000)]
    rows = pl.DataFrame(
        {"tag": ["loss"] * len(steps), "step": steps, "value": [1.0] * len(steps), "attempt": [0] * 3000 + [1] * 3100},
        schema_overrides={"attempt": pl.Int32},
    )
    events = pl.DataFrame(
        {"kind": ["data"] * 600, "step": range(0, 6000, 10), "payload": [json.dumps({"files": i}) for i in range(600)]}
    )
    run = finish("r", "r", "jsonl", rows, events=events)
    [one] = incidents(run, [found("level-shift", 2905, value=2.0, expected=1.0)])
    assert one.facts == ("the run was resumed (attempt 1) at step 2,900",)


def test_what_is_known_at_the_end_of_a_log_is_told_there():
    steps = np.arange(N)
    run = run_of({"loss": (steps, np.ones(N))}, [_event("checkpoint", N - 1, path="c.pt")])
    ended = Finding("unfinished-run", "warning", "r", "the log ends at step 5,999 of 9,000", last_step=N - 1)
    lost = found("non-finite", N - 9, "critical", last=N - 1, metrics="loss", nan=9)
    [one] = incidents(run, [ended])
    assert one.story == "a checkpoint was saved at step 5,999 -> the log ends at 5,999 of 9,000"
    [both] = incidents(run, [ended, lost])
    assert both.root is lost and both.story.endswith("loss NaN at step 5,991 -> the log ends at 5,999 of 9,000")


def test_checkpoints_saved_all_the_time_say_nothing():
    steps = np.arange(N)
    run = run_of({"loss": (steps, np.ones(N))}, [_event("checkpoint", step, path="c") for step in range(0, N, 20)])
    assert incidents(run, [found("loss-spike", 3010, factor=2.0)])[0].facts == ()


def test_a_whole_run_finding_is_an_incident_of_its_own_without_steps():
    made = incidents(FLAT, [found("rank-missing", None, metric=None), found("epoch-only", None, "info", metric=None)])
    assert kinds(made) == [["rank-missing"], ["epoch-only"]]
    assert all(i.first_step is None and i.last_step is None for i in made)
    assert made[0].story == "rank-missing None"


def test_no_findings_make_no_incidents_and_a_run_of_nothing_has_one():
    assert incidents(FLAT, []) == ()
    diagnosis = at.diagnose(finish("r", "r", "jsonl", None))
    assert kinds(diagnosis.incidents) == [["truncated-stream"]]


def test_json_names_members_by_their_place_and_refuses_a_stranger():
    run, chain = _issue()
    [one] = incidents(run, chain)
    made = json.loads(json.dumps(one.to_dict(chain[::-1]), allow_nan=False))
    assert (made["root"], made["followers"]) == (2, [1, 0])
    assert one.to_dict()["root"]["kind"] == "exploding-gradient"
    with pytest.raises(ValueError, match="'exploding-gradient' of this incident is not in the list"):
        one.to_dict([])


def test_every_link_has_a_reason_and_every_pair_of_kinds_one_link_for_each_manner():
    assert all(link.why and link.records >= 0 for link in LINKS)
    pairs = [(link.cause, link.effect, link.when, link.agree) for link in LINKS]
    assert len(pairs) == len(set(pairs))
    with pytest.raises(ValueError, match="unknown finding kind 'loss-spik'; did you mean 'loss-spike'"):
        Link("loss-spik", "non-finite", 5, "...")


STEPS = st.one_of(st.none(), st.integers(0, N), st.integers(2990, 3010))
FINDINGS = st.lists(
    st.builds(
        found,
        st.sampled_from(sorted(KINDS)),
        STEPS,
        st.sampled_from(SEVERITIES),
        last=st.one_of(st.none(), st.integers(0, N)),
        metric=st.sampled_from([None, "loss", "grad_norm", "lr", "losses/kd/raw", "kd", "strange"]),
        rank=st.sampled_from([0, 1]),
        layer=st.sampled_from(["", "a", "a.b"]),
        value=st.sampled_from([1.0, float("nan"), float("inf")]),
        expected=st.sampled_from([0.0, 2.0]),
        factor=st.sampled_from([0.0, 3.0, float("nan")]),
        causes=st.sampled_from([(), ("a",), ("cannot tell from this log",), ("b 1",)]),
        suggestions=st.sampled_from([(), ("x", "y"), ("Y.",)]),
    ),
    max_size=25,
)


@settings(deadline=None)  # a busy machine is no fault of the order
@given(FINDINGS, st.randoms(use_true_random=False))
def test_every_finding_is_in_exactly_one_incident_whatever_the_order(findings: list[Finding], order: random.Random):
    made = incidents(FLAT, findings)
    assert sorted(id(f) for i in made for f in i.findings) == sorted(map(id, findings))
    mixed = order.sample(findings, len(findings))
    again = incidents(FLAT, mixed)
    assert [i.to_dict() for i in again] == [i.to_dict() for i in made]
    ranks = [SEVERITIES.index(i.severity) for i in made]
    assert ranks == sorted(ranks, reverse=True)
    for one in made:
        assert one.severity == max((f.severity for f in one.findings), key=SEVERITIES.index)
        steps = [f.first_step for f in one.followers]
        told = [s for s in steps if s is not None]
        assert one.story and len(one.why) == len(one.followers)
        if all(f.last_step is None or s is not None for f, s in zip(one.followers, steps, strict=True)):
            assert told == sorted(told)
        json.dumps(one.to_dict(findings), allow_nan=False)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["phase", "batch_size", "files", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["curriculum", "config", "data", "checkpoint", "end"]),
            "step": st.one_of(st.none(), st.integers(-5, 200)),
            "payload": JSON,
        }
    ),
    max_size=8,
)
RATES = st.lists(st.sampled_from([0.0, 1e-3, 3e-3, -1.0, float("nan"), float("inf")]), min_size=1, max_size=60)


@given(EVENTS, RATES)
def test_events_and_rates_of_any_kind_never_stop_a_story(events: list[dict[str, Any]], rates: list[float]):
    steps = np.arange(len(rates))
    run = run_of({"loss": (steps, np.ones(len(rates))), "lr": (steps, np.array(rates))}, events)
    [one] = incidents(run, [found("loss-spike", 20, factor=2.0)])
    assert len(one.facts) <= 6 and one.story
    text = finish("r", "r", "jsonl", None, events=pl.DataFrame({"kind": ["data"], "step": [3], "payload": ["no JSON"]}))
    assert incidents(text, [found("stall", 4)])[0].facts == ()


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"loss": (np.arange(1), np.ones(1))},
        {"loss": (np.arange(5), np.full(5, np.nan))},
        {"loss": (np.zeros(50), np.ones(50))},
        {"lr": (np.arange(300), np.zeros(300)), "loss": (np.arange(300)[::-1], np.ones(300))},
    ],
)
def test_runs_that_hold_next_to_nothing_give_incidents_all_the_same(columns: Any):
    run = run_of(columns) if columns else finish("r", "r", "jsonl", None)
    made = incidents(run, [found("loss-spike", 3), found("non-finite", 4), found("stall", None)])
    assert sum(len(i.findings) for i in made) == 3


def test_a_healthy_run_has_no_incident_worse_than_a_note():
    assert all(i.severity == "info" for i in at.diagnose(run_of(columns_of(0))).incidents)


def test_thousands_of_findings_are_joined_without_comparing_each_with_each(monkeypatch: pytest.MonkeyPatch):
    compared = 0
    edge = joining._edge

    def counted(*given: Any) -> Any:
        nonlocal compared
        compared += 1
        return edge(*given)

    monkeypatch.setattr(joining, "_edge", counted)
    many = [found("loss-spike", step) for step in range(0, N, 2)]
    assert sum(len(i.findings) for i in incidents(FLAT, many)) == len(many) == 3000
    assert compared < 20 * len(many)


def test_the_page_of_docs_is_the_one_that_the_links_make():
    told = (Path(__file__).parents[2] / "docs" / "incidents.md").read_text(encoding="utf-8")
    assert told == page(), "run python -m analysis.story.page docs/incidents.md"
    assert told.count("\n| `") == len(LINKS) + 7
