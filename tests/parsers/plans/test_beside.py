from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import aftertrain as at
from parsers.run import Run

LOG = "".join(f'{{"step": {step}, "loss": {1 / (step + 1)}}}\n' for step in range(30))
ARGS = {"lr": 0.1, "max_steps": 30}


def beside(folder: Path, log: str = "metrics.jsonl", **files: object) -> Run:
    """The run of a log with some files beside it; `_` before the last word of a name stands for the point."""
    folder.mkdir(exist_ok=True)
    (folder / log).write_text(LOG)
    for name, content in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return at.load(folder / log)


def test_a_configuration_that_no_parser_took_is_found(tmp_path: Path) -> None:
    run = beside(tmp_path, args_json=ARGS)
    assert run.config == {} and run.beside == {"args.json": ARGS}
    assert run.planned.max_steps == 30 and run.planned.sources["max_steps"] == "args.json: max_steps"


def test_what_the_parser_read_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("lr: 0.1\nmax_steps: 3\n")
    (tmp_path / "config.yaml").write_text("max_epochs: 4\n")
    (tmp_path / "results.csv").write_text("step,loss\n0,1\n1,2\n2,1\n")
    run = at.load(tmp_path)
    assert run.config_source == "args.yaml" and set(run.beside) == {"config.yaml"}
    assert run.planned.sources["max_steps"] == "args.yaml: max_steps"
    assert run.planned.sources["epochs"] == "config.yaml: max_epochs"


def test_a_log_with_a_name_of_its_own_takes_a_common_configuration_only_where_it_is_alone(tmp_path: Path) -> None:
    assert beside(tmp_path / "one", "a7.jsonl", config_json=ARGS).planned.max_steps == 30
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "b1.jsonl").write_text(LOG)
    two = beside(tmp_path / "two", "a7.jsonl", config_json=ARGS)
    assert two.beside == {} and two.planned.max_steps is None
    named = beside(tmp_path / "two", "a7.jsonl", a7_config_json="", a7_yaml="max_steps: 70")
    assert named.planned.max_steps == 70


def test_a_table_with_a_name_of_its_own_has_the_configuration_that_its_parser_left(tmp_path: Path) -> None:
    (tmp_path / "a7.csv").write_text("step,loss\n0,1\n1,2\n2,1\n")
    (tmp_path / "args.yaml").write_text("max_steps: 3\n")
    run = at.load(tmp_path)
    assert run.config == {} and run.planned.sources["max_steps"] == "args.yaml: max_steps"


def test_in_a_folder_of_hundreds_of_logs_only_what_bears_the_name_of_a_log_is_its_own(tmp_path: Path) -> None:
    for number in range(250):
        (tmp_path / f"n{number}.jsonl").write_text("")
    run = beside(tmp_path, "a7.jsonl", config_json=ARGS, a7_yaml="max_steps: 70")
    assert run.planned.max_steps == 70 and set(run.beside) == {"a7.yaml"}
    generic = beside(tmp_path, "metrics.jsonl", training_args_bin=b"x")
    assert set(generic.beside) == {"config.json"} and len(generic.beside_unread) == 1


def test_the_configuration_of_a_model_is_none_of_a_training(tmp_path: Path) -> None:
    run = beside(tmp_path, config_json={"architectures": ["GPT2"], "max_steps": 5, "lr": 1})
    assert run.beside == {} and run.planned.sources == {}


def test_a_pickle_is_mentioned_and_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "opened").write_text, ("x",))

    run = beside(tmp_path, training_args_bin=pickle.dumps(Bomb()))
    assert not (tmp_path / "opened").exists()
    assert "a pickle, which can run code and is never opened" in run.planned.not_understood[0]
    assert "training_args.to_json_string()" in run.planned.not_understood[0]
    assert beside(tmp_path, training_args_json=ARGS).planned.not_understood == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"lr: [1, 2", "not YAML"),
        (b"- 1\n- 2\n", "no object of names and values"),
        (b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
         "unfolds to more than"),
        (b"{" * 3000, "not YAML"),
        (b"a: " + b"[" * 300 + b"]" * 300, "levels"),
        (b"x" * (5 << 20), "more than 4,194,304 bytes, which no configuration has"),
        (b"\xff\xfe\x00\x01", "no object of names and values"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_said_and_spoils_nothing(content: bytes, reason: str, tmp_path: Path) -> None:
    run = beside(tmp_path, config_yaml=content, args_json=ARGS)
    assert run.planned.max_steps == 30, "the other file counts"
    assert run.rejects.is_empty(), "the log itself is whole"
    (told,) = run.beside_unread
    assert told.startswith("config.yaml: ") and reason in told
    assert told in run.planned.not_understood


def test_yaml_that_asks_to_be_executed_is_data(tmp_path: Path) -> None:
    evil = f"lr: 0.1\nmax_steps: !!python/object/apply:pathlib.Path.touch ['{tmp_path}/run']\n"
    run = beside(tmp_path, config_yaml=evil)
    assert not (tmp_path / "run").exists()
    assert run.planned.lr == {"peak": 0.1} and run.planned.max_steps is None


def test_wide_and_deep_json_is_read_in_bounded_time(tmp_path: Path) -> None:
    deep: dict[str, object] = {"max_steps": 9}
    for _ in range(100):
        deep = {"x": deep}
    wide = {f"k{i}": {"v": i} for i in range(60_000)}
    run = beside(tmp_path, args_json={"lr": 0.1, **wide, "max_steps": 3}, config_json=deep)
    assert run.planned.lr == {"peak": 0.1} and run.planned.max_steps is None, "the beginning is read"


@pytest.mark.parametrize(
    "value",
    [None, True, [], {}, "", "x", float("nan"), float("inf"), -5, 0, 1e300, 2**80, [1, "a"], {"a": 1}, "1e999", "0x10"],
    ids=repr,
)
def test_a_value_of_any_kind_under_every_name_is_used_or_said(value: object, tmp_path: Path) -> None:
    from parsers.plans.names import NAMES
    from parsers.plans.understanding import Declared, read_plan

    config = {name: value for names in NAMES.values() for name in names}
    nested = {"training": config, "scheduler": config, "optimizer": config}
    for one in (config, nested):
        plan = read_plan(Declared({}), {"config.json": one}, {"kd": "kd"})
        assert all(isinstance(told, str) and "config.json: " in told for told in plan.not_understood)
        declared = read_plan(Declared(one), {})
        assert all(isinstance(told, str) for told in declared.not_understood)


def test_what_was_found_beside_is_remembered_and_a_change_is_seen(tmp_path: Path) -> None:
    folder, cache = tmp_path / "runs", tmp_path / "cache"
    beside(folder, args_json=ARGS, training_args_bin=b"x")
    for _ in range(2):
        (run,) = at.load_all(folder, cache=cache)
        assert run.planned.max_steps == 30 and run.beside == {"args.json": ARGS}
        assert run.config_source == "configuration of the log" and len(run.beside_unread) == 1
    (folder / "args.json").write_text('{"max_steps": 31}')
    (run,) = at.load_all(folder, cache=cache)
    assert run.planned.max_steps == 31


def test_a_configuration_in_an_archive_is_found(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("run/metrics.jsonl", LOG)
        archive.writestr("run/args.json", json.dumps(ARGS))
    assert at.load(tmp_path / "a.zip").planned.sources["max_steps"] == "args.json: max_steps"


def test_a_run_of_several_logs_keeps_what_stands_beside_each(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text(json.dumps(ARGS))
    (tmp_path / "hparams.yaml").write_text("max_epochs: 2\n")
    (tmp_path / "metrics.csv").write_text("step,loss\n" + "".join(f"{s},{1 / (s + 1)}\n" for s in range(30)))
    (tmp_path / "metrics.jsonl").write_text(LOG)
    run = at.load(tmp_path)
    assert run.format == "jsonl+lightning" or run.format == "lightning+jsonl"
    assert run.config_source == "hparams.yaml" and run.planned.max_steps == 30 and run.planned.epochs == 2
