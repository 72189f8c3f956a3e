from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import aftertrain as at
from eventstream.errors import InputError, PlanError
from parsers.finish import finish
from parsers.plans.given import plan_of
from parsers.plans.names import NAMES
from parsers.plans.understanding import Declared, read_plan
from parsers.run import Run, RunSet

TOML = """
max_steps = 300
freeze = ["body"]
[lr]
schedule = "cosine"
peak = 1e-3
warmup_ratio = 0.1
[inputs.forward]
require = ["ids"]
"""


def a_run(plan: dict[str, Any] | None = None, format: str = "aftertrain") -> Run:
    rows = pl.DataFrame({"tag": ["loss"] * 20, "step": range(20), "value": [1.0] * 20})
    return finish("r", "r", format, rows, plan=plan or {}, config={"learning_rate": 0.5, "max_steps": 90})


@pytest.mark.parametrize("name", ["plan.toml", "plan.json", "plan.yaml"])
@pytest.mark.parametrize("table", [False, True])
def test_a_file_in_any_of_three_forms_is_the_same_plan(name: str, table: bool, tmp_path: Path) -> None:
    import tomllib

    content = tomllib.loads(TOML)
    written = {"plan": content, "other": 1} if table else content
    path = tmp_path / name
    if name.endswith(".toml"):
        path.write_text(TOML.replace("\n[", "\n[plan.").replace("\nmax", "\n[plan]\nmax", 1) if table else TOML)
    else:
        path.write_text(json.dumps(written) if name.endswith(".json") else yaml.safe_dump(written))
    assert plan_of(path) == (content, name) == plan_of(str(path))
    assert plan_of(content) == (content, "plan")


def test_a_given_plan_goes_before_the_manifest_and_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(TOML)
    run = a_run({"max_steps": 100, "aggregation": "mean"}).with_plan(*plan_of(tmp_path / "plan.toml"))
    planned = run.planned
    assert (planned.max_steps, planned.aggregation, planned.freeze) == (300, "mean", ("body",))
    assert planned.sources["max_steps"] == "plan.toml: max_steps"
    assert planned.sources["aggregation"] == "manifest.json: aggregation"
    assert planned.lr == {"schedule": "cosine", "peak": 1e-3, "total_steps": 300, "warmup_steps": 30}
    assert run.plan["lr"]["warmup_ratio"] == 0.1, "what was declared stays as it was"
    assert run.with_plan({"max_steps": 7}).planned.max_steps == 7


def test_a_run_with_a_plan_keeps_what_was_read_of_it() -> None:
    run = a_run()
    scalars, before = run.scalars, run.planned
    later = run.with_plan({"max_steps": 5})
    assert later.scalars is scalars and before.max_steps == 90 and later.planned.max_steps == 5
    both = RunSet((run, run)).with_plan({"max_steps": 5})
    assert [one.planned.max_steps for one in both] == [5, 5]


def test_load_takes_a_plan_for_one_run_and_for_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": 1.0}}\n' for s in range(9)))
    (tmp_path / "plan.toml").write_text(TOML)
    assert at.load(tmp_path / "a", plan=tmp_path / "plan.toml").planned.max_steps == 300
    runs = at.load_all([tmp_path / "a", tmp_path / "b"], plan={"max_steps": 8}, cache=False)
    assert [run.planned.max_steps for run in runs] == [8, 8]


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("max_steps = ", InputError, r"plan\.toml: the plan is not TOML that can be read"),
        ("max_steps = 0", PlanError, r"plan\.toml: plan\.max_steps: expected a whole number above 0, found 0"),
        ("[lr]\nx = 1\n[curriculum]\nphases = 3", PlanError, r"plan\.curriculum\.phases: expected a list of phases"),
        ("trainable = 5", PlanError, r"plan\.trainable: expected a list of names, found 5"),
        ("lr = true", PlanError, r"plan\.lr: expected an object, found True"),
        ("loss_weights = 1", PlanError, r"plan\.loss_weights: expected an object"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_an_error_with_its_file_and_place(
    text: str, error: type[Exception], told: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(error, match=told):
        plan_of(tmp_path / "plan.toml")


def test_what_is_no_plan_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_bytes(b"#" * (5 << 20))
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="more than 4,194,304 bytes"):
        plan_of(tmp_path / "big.toml")
    with pytest.raises(PlanError, match=r"list\.json: expected names and values, found \[1, 2\]"):
        plan_of(tmp_path / "list.json")
    for name in ("deep.json", "bad.yaml"):
        with pytest.raises(InputError, match="that can be read"):
            plan_of(tmp_path / name)
    with pytest.raises(InputError, match=r"gone\.toml: the plan cannot be read \(No such file"):
        plan_of(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="cannot be read"):
        plan_of(tmp_path)
    with pytest.raises(PlanError, match="expected a mapping or the path"):
        plan_of(5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="expected names and values"):
        a_run().with_plan([1])  # type: ignore[arg-type]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from([name for names in NAMES.values() for name in names]) | st.text(max_size=8)


@given(st.dictionaries(_KEYS, _VALUES | st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=6))
def test_any_configuration_and_any_declared_plan_give_a_plan(content: dict[str, Any]) -> None:
    for plan in (read_plan(Declared(content), {}), read_plan(Declared({}), {"a.json": content}, {"kd": "kd"})):
        assert plan.max_steps is None or plan.max_steps >= 1
        assert set(plan.sources) >= {f"lr.{key}" for key in plan.lr}
        assert all(isinstance(told, str) for told in plan.not_understood)
        assert isinstance(plan.summary, str)


@given(
    st.fixed_dictionaries(
        {"learning_rate": st.floats(1e-8, 10), "max_steps": st.integers(1, 10**7)},
        optional={"warmup_steps": st.integers(2, 1000), "min_lr": st.floats(0, 1), "max_grad_norm": st.floats(0.1, 9)},
    ),
    st.sampled_from(["linear", "cosine", "polynomial"]),
    st.sampled_from(["", "training.", "trainer/", "a.b/c."]),
)
def test_flat_and_nested_forms_of_a_configuration_are_one_plan(config: dict[str, Any], kind: str, prefix: str) -> None:
    flat = {f"{prefix}{name}": value for name, value in {**config, "lr_scheduler": kind}.items()}
    nested: dict[str, Any] = {**config, "lr_scheduler": kind}
    for part in reversed([part for part in prefix.replace("/", ".").split(".") if part]):
        nested = {part: nested}
    one, other = read_plan(Declared({}), {"a": flat}), read_plan(Declared({}), {"a": nested})
    assert one.lr == other.lr and one.max_steps == other.max_steps == config["max_steps"]
    assert one.lr["peak"] == config["learning_rate"] and one.lr["schedule"] == kind
    as_text = {name: repr(value) if isinstance(value, float) else value for name, value in flat.items()}
    assert read_plan(Declared({}), {"a": as_text}).lr == one.lr, "YAML 1.1 takes 1e-4 for text"
