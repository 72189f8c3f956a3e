"""The Trainer's state as the Trainer writes it, its checkpoints, LLaMA-Factory's log; whole, damaged, disagreeing."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerState

from eventstream.errors import InputError
from parsers.loading import load, load_all
from parsers.run import Run
from parsers.trainer_files.trainer_state import parse_state
from tests.once import once
from tests.parsers.tiny_net import tiny_net
from tests.parsers.wild import disagreement, told, wild


def train(place: Path) -> None:
    """Three checkpoints, the state, results, pickled arguments, in `tiny`."""
    import torch
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    data = [{"x": torch.randn(4), "labels": torch.randn(())} for _ in range(24)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and transformers themselves
        args = TrainingArguments(
            str(place / "tiny"), max_steps=12, per_device_train_batch_size=4, logging_steps=2, eval_strategy="steps",
            eval_steps=4, save_steps=4, report_to=[], use_cpu=True, seed=0, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model=tiny_net(), args=args, train_dataset=data, eval_dataset=data[:8])
        result = trainer.train()
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()


def history(count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        place = {"epoch": step / 100, "step": step * 10}
        found.append({"loss": 3.0 / step, "grad_norm": 1.0 + step, "learning_rate": 1e-4 / step, **place})
        if step % 5 == 0:
            found.append({"eval_loss": 2.0 / step, "eval_runtime": 1.25, **place})
    return found


def write_state(path: Path, entries: list[dict[str, Any]], **facts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    last = max((e["step"] for e in entries), default=0)
    TrainerState(log_history=entries, **{"global_step": last, "max_steps": 1000, **facts}).save_to_json(str(path))
    return path


def numbers(entries: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    """Every number of the entries by the obvious loop."""
    return sorted(
        (e["step"], key, float(value))
        for e in entries
        for key, value in e.items()
        if key not in ("step", "epoch") and value is not None
    )


def read_numbers(run: Run) -> list[tuple[int, str, float]]:
    return sorted(run.scalars.select("step", "tag", "value").iter_rows())


@pytest.fixture(scope="session")
def trained() -> Path:
    """The folder that a real Trainer left behind, see `train`; in this process, which has transformers already."""
    return once("parsers-trainer", train) / "tiny"


def test_what_the_trainer_wrote_is_one_run_with_every_number(trained: Path) -> None:
    run = load(trained)
    written = json.loads((trained / "trainer_state.json").read_text())
    assert (run.name, run.format, run.rejects.height) == ("tiny", "huggingface", 0)
    assert read_numbers(run) == numbers(written["log_history"])
    assert run.series("loss", split="train")["step"].to_list() == [2, 4, 6, 8, 10, 12]
    assert run.series("loss", split="eval")["step"].to_list() == [4, 8, 12]
    assert len(load_all(trained.parent)) == 1


def test_checkpoints_results_end_and_the_unopened_pickle_are_events(trained: Path) -> None:
    run = load(trained)
    assert run.events_of("checkpoint")["step"].to_list() == [4, 8, 12]
    assert json.loads(run.events_of("end")["payload"][0]) == {"status": "finished"}
    results = {json.loads(p)["file"] for p in run.events_of("results")["payload"]}
    assert results == {"train_results.json", "all_results.json"}
    alone = load(trained / "checkpoint-8" / "trainer_state.json")
    assert "training_args.bin is a pickle" in alone.events_of("note")["payload"][0]
    assert alone.last_step == 8 and alone.name == "tiny/checkpoint-8"


def test_the_mean_over_the_job_is_no_point_of_the_loss(trained: Path) -> None:
    run = load(trained)
    mean = told(run, "train_loss")
    assert mean.select("split", "metric").row(0) == ("", "train_loss")
    assert run.series("loss", split="train").height == 6


def test_a_pickle_beside_the_state_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    write_state(tmp_path / "trainer_state.json", history(3))
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps(Bomb()))
    load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_newest_checkpoint_wins_and_its_equal_forerunners_say_nothing(tmp_path: Path) -> None:
    entries = history(30)
    for step in (100, 200, 300):
        write_state(
            tmp_path / "run-a" / f"checkpoint-{step}" / "trainer_state.json", [e for e in entries if e["step"] <= step]
        )
    run = load(tmp_path / "run-a")
    assert read_numbers(run) == numbers(entries)
    assert run.rejects.is_empty() and run.events_of("note").is_empty()


def test_the_furthest_state_wins_even_over_the_one_in_the_folder(tmp_path: Path) -> None:
    write_state(tmp_path / "trainer_state.json", history(5))
    write_state(tmp_path / "checkpoint-300" / "trainer_state.json", history(30))
    assert load(tmp_path).last_step == 300


def test_nan_in_both_states_is_no_disagreement(tmp_path: Path) -> None:
    entries = [{"loss": math.nan, "step": 10, "epoch": 0.1}, {"loss": 1.0, "step": 20, "epoch": 0.2}]
    write_state(tmp_path / "checkpoint-10" / "trainer_state.json", entries[:1])
    write_state(tmp_path / "checkpoint-20" / "trainer_state.json", entries)
    run = load(tmp_path)
    assert run.rejects.is_empty() and math.isnan(run.series("loss")["value"][0])


def test_a_number_that_a_checkpoint_tells_otherwise_is_noted_with_both_values(tmp_path: Path) -> None:
    entries = history(20)
    changed = [dict(e) for e in entries if e["step"] <= 100]
    changed[2]["loss"] = 7.5
    write_state(tmp_path / "checkpoint-100" / "trainer_state.json", changed)
    write_state(tmp_path / "trainer_state.json", entries)
    run = load(tmp_path)
    assert run.rejects.height == 1
    reason = run.rejects["reason"][0]
    assert reason.startswith("1 of 46 numbers differ from") and "step 30: loss is 7.5 here and 1 there" in reason
    assert run.rejects["file"][0].endswith("trainer_state.json") and "checkpoint-100" in run.rejects["file"][0]
    note = json.loads(run.events_of("note")["payload"][0])
    assert note["level"] == "warning" and "checkpoint-100" in note["text"]
    assert run.series("loss", split="train").filter(pl.col("step") == 30)["value"][0] == 1.0


def branch(start: int, stop: int, salt: float) -> list[dict[str, float]]:
    """Entries every ten steps after `start`, with an evaluation every fifty that took a time of its own."""
    rows: list[dict[str, float]] = []
    for step in range(start + 10, stop + 1, 10):
        rows.append({"step": step, "epoch": step / 100, "loss": salt + 1 / step, "learning_rate": 1e-4})
        if step % 50 == 0:
            rows.append({"step": step, "epoch": step / 100, "eval_loss": salt + 2 / step, "eval_runtime": salt})
    return rows


def test_what_a_resume_left_behind_is_an_attempt_of_its_own_and_out_of_the_live_series(tmp_path: Path) -> None:
    begun = branch(0, 60, 0.0)
    second = [*begun, *branch(60, 90, 1.0)]
    states = {100: [*begun, *branch(60, 100, 0.5)], 140: [*second, *branch(90, 140, 1.5)], 60: begun, 90: second}
    for step, entries in states.items():
        write_state(tmp_path / f"checkpoint-{step}" / "trainer_state.json", entries)
    write_state(tmp_path / "trainer_state.json", [*second, *branch(90, 200, 2.0)])
    run = load(tmp_path)
    live = run.series("loss", split="train")
    assert live["step"].to_list() == list(range(10, 201, 10))
    assert live["attempt"].to_list() == [0] * 6 + [1] * 3 + [2] * 11
    every = run.series("loss", split="train", live=False)
    assert [every.filter(attempt=k)["step"].max() for k in range(3)] == [100, 140, 200]
    assert every.filter(attempt=0, step=100)["value"][0] == 0.5 + 1 / 100
    assert run.rejects.is_empty()
    notes = [json.loads(text)["text"] for text in run.events_of("note")["payload"]]
    assert len(notes) == 2 and "after step 60 " in notes[0] and "after step 90 " in notes[1]


def test_a_checkpoint_whose_evaluation_only_took_another_time_says_nothing(tmp_path: Path) -> None:
    entries = branch(0, 200, 0.0)
    again = [{**e, "eval_runtime": 9.0} if "eval_runtime" in e else e for e in entries if e["step"] <= 100]
    write_state(tmp_path / "checkpoint-100" / "trainer_state.json", again)
    write_state(tmp_path / "trainer_state.json", entries)
    run = load(tmp_path)
    assert run.rejects.is_empty() and run.last_attempt == 0 and run.events_of("note").is_empty()


def test_entries_that_the_newest_state_lacks_are_noted(tmp_path: Path) -> None:
    write_state(tmp_path / "checkpoint-50" / "trainer_state.json", history(5))
    write_state(tmp_path / "checkpoint-300" / "trainer_state.json", [e for e in history(30) if e["step"] > 50])
    assert "23 of 23 numbers differ" in load(tmp_path).rejects["reason"][0]


def test_null_is_missing_and_nan_and_infinity_are_numbers(tmp_path: Path) -> None:
    entries = [{"loss": v, "step": i, "epoch": 0.0} for i, v in enumerate([None, math.nan, math.inf, 0.0])]
    run = load(write_state(tmp_path / "trainer_state.json", entries))
    rows = run.series("loss")
    assert rows["step"].to_list() == [1, 2, 3]
    assert math.isnan(rows["value"][0]) and rows["value"].to_list()[1:] == [math.inf, 0.0]


def test_facts_of_the_state_are_the_configuration(tmp_path: Path) -> None:
    best = "out/checkpoint-50"
    facts = {"best_metric": 0.5, "best_model_checkpoint": best, "best_global_step": 50, "num_train_epochs": 3}
    run = load(write_state(tmp_path / "trainer_state.json", history(5), **facts))
    assert run.config["max_steps"] == 1000 and run.config["best_metric"] == 0.5
    event = run.events_of("checkpoint").row(0, named=True)
    assert event["step"] == 50 and json.loads(event["payload"]) == {"path": "checkpoint-50", "best_metric": 0.5}


@pytest.mark.parametrize("odd", [True, "warm", [1.0], {"a": 1.0}], ids=str)
def test_values_that_are_no_numbers_are_kept_as_events_and_the_numbers_are_read(tmp_path: Path, odd: Any) -> None:
    entries = [*history(3), {"loss": 0.5, "extra": odd, "step": 40, "epoch": 0.4}]
    run = load(write_state(tmp_path / "trainer_state.json", entries))
    assert run.series("loss", split="train")["step"].to_list() == [10, 20, 30, 40]
    kept = [json.loads(p) for p in run.events_of("record")["payload"]]
    assert kept == ([] if isinstance(odd, dict) else [{"extra": odd}])


def test_odd_names_are_names(tmp_path: Path) -> None:
    names = ['a"b', "a\nb", "a/b", "<script>alert(1)</script>", "eval_ö"]
    run = load(write_state(tmp_path / "trainer_state.json", [{"step": 1, **dict.fromkeys(names, 1.0)}]))
    assert set(run.scalars["tag"]) == set(names)


def test_columns_and_records_read_alike(tmp_path: Path) -> None:
    plain, odd = history(40), [*history(40), {"step": 401, "word": "x"}]
    fast = load(write_state(tmp_path / "a" / "trainer_state.json", plain)).scalars
    slow = load(write_state(tmp_path / "b" / "trainer_state.json", odd)).scalars
    columns = ["step", "epoch", "split", "metric", "tag", "value"]
    assert fast.select(columns).sort(columns).equals(slow.select(columns).sort(columns))


def test_a_damaged_entry_is_one_reject_and_all_others_are_read(tmp_path: Path) -> None:
    path = write_state(tmp_path / "trainer_state.json", history(20))
    text = path.read_text()
    path.write_text(text.replace('"loss": 0.3,', '"loss": 0.3;', 1))
    run = load(path)
    assert run.rejects.height == 1 and "is damaged" in run.rejects["reason"][0]
    assert text.splitlines()[run.rejects["line"][0] - 1].strip() == "{"
    assert set(run.series("loss", split="train")["step"]) == {s * 10 for s in range(1, 21)} - {100}
    assert run.config["max_steps"] == 1000


def test_a_state_cut_anywhere_gives_a_prefix_of_its_numbers(tmp_path: Path) -> None:
    data = write_state(tmp_path / "trainer_state.json", history(8)).read_bytes()
    begin = data.index(b"log_history")
    for size in range(begin + 20, len(data) - 2):
        state = parse_state(data[:size], "a.json")
        assert state.rejects, size
        found = [dict(e) for e in state.entries]
        assert found == history(8)[: len(found)], size


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_flipped_byte_costs_little_and_raises_nothing(data: st.DataObject) -> None:
    entries = history(12)
    raw = bytearray(json.dumps({"global_step": 1, "log_history": entries, "max_steps": 9}, indent=2).encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    state = parse_state(bytes(raw), "a.json")
    kept = sum(entry in entries for entry in state.entries)
    damaged_key = "log_history" not in raw.decode("utf-8", "replace")
    opened = raw.find(b"log_history")
    assert damaged_key or kept >= len(entries) - 3 or place < opened + 20
    assert kept == len(entries) or state.rejects or len(state.entries) == len(entries)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_the_opening_of_a_history_raise_nothing(tail: bytes) -> None:
    state = parse_state(b'{"max_steps": 1, "log_history": [{"step": 1, "loss": 2.0}, ' + tail, "a.json")
    assert state.entries[0] == {"step": 1, "loss": 2.0} or state.rejects


@pytest.mark.parametrize("tail", ["{" * 200_000, '{"a":' * 100_000, "[" * 200_000, '"' * 100_001], ids=len)
def test_deep_or_endless_nonsense_ends_soon(tail: str) -> None:
    state = parse_state(b'{"log_history": [{"step": 1, "loss": 2.0},' + tail.encode(), "a.json")
    assert state.entries == [{"step": 1, "loss": 2.0}] and 0 < len(state.rejects) <= 201


def write_log(path: Path, count: int = 10) -> Path:
    rows = [
        {"current_steps": 5 * i, "total_steps": 50, "loss": 3.0 / i, "lr": 1e-4, "epoch": i / 10,
         "percentage": 10.0 * i, "elapsed_time": f"{i}:00:30", "remaining_time": "1 day, 0:00:01"}
        for i in range(1, count + 1)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_log_of_llama_factory_tells_time_in_seconds(tmp_path: Path) -> None:
    run = load(write_log(tmp_path / "trainer_log.jsonl"))
    assert run.name == tmp_path.name and run.config == {"max_steps": 50} and run.rejects.is_empty()
    assert run.series("elapsed_time")["value"].to_list()[:2] == [3630.0, 7230.0]
    assert run.series("remaining_time")["value"][0] == 86401.0
    assert run.series("loss", split="train")["step"].to_list() == list(range(5, 51, 5))
    assert run.events.is_empty()


def test_a_log_that_differs_from_the_state_beside_it_is_noted(tmp_path: Path) -> None:
    entries = [{"loss": 3.0 / i, "learning_rate": 1e-4, "step": 5 * i, "epoch": i / 10} for i in range(1, 11)]
    entries[4]["loss"] = 9.0
    write_state(tmp_path / "checkpoint-50" / "trainer_state.json", entries)
    write_log(tmp_path / "trainer_log.jsonl")
    run = load(tmp_path)
    assert run.rejects.height == 1 and "step 25: loss is 0.6 here and 9 there" in run.rejects["reason"][0]


def test_a_cut_line_of_the_log_is_a_reject(tmp_path: Path) -> None:
    path = write_log(tmp_path / "trainer_log.jsonl")
    path.write_bytes(path.read_bytes()[:-30])
    run = load(path)
    assert run.rejects["line"].to_list() == [10] and run.series("loss").height == 9


def test_other_json_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"log_history": "none", "a": 1}')
    (tmp_path / "package.json").write_text('{"max_steps": 3, "name": "x"}')
    with pytest.raises(InputError, match="no run below"):
        load(tmp_path)


@pytest.mark.parametrize(("path", "facts"), wild("hf_trainer_state", "trainer_state.json"))
def test_states_of_other_people_hold_what_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.rejects.is_empty()
    assert [d for tag, known in facts.items() if (d := disagreement(run, tag, known))] == []
    assert set(run.scalars["tag"]) == set(facts)


@pytest.mark.parametrize(("path", "facts"), wild("llamafactory_jsonl"))
def test_logs_of_llama_factory_of_other_people_hold_what_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert [d for tag, known in facts.items() if (d := disagreement(run, tag, known))] == []
