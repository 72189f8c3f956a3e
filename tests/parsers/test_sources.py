"""Several logs of one run: joined by layout and by numbers, compared value by value, and never joined across runs."""

from __future__ import annotations

import csv
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.collection.agreement import compare, is_same_run, tolerance
from parsers.finish import finish
from parsers.listing import list_runs
from parsers.loading import load, load_all
from parsers.run import Run
from parsers.tfevents.write import record, scalar_event

STEPS = range(10, 610, 10)


def curve(seed: int) -> list[float]:
    """A loss with noise, as single precision keeps it."""
    noise = np.random.default_rng(seed).normal(0, 0.05, len(STEPS))
    return [float(np.float32(v)) for v in 3 * np.exp(-np.array(STEPS) / 200) + 1 + noise]


def write_events(folder: Path, losses: list[float], *, steps: range = STEPS, name: str = "1700000000") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{name}.host.1.0"
    rows = [scalar_event("train/loss", v, s, 1.7e9 + s) for s, v in zip(steps, losses, strict=True)]
    rates = [scalar_event("train/learning_rate", 1e-4 * (1 - s / 1000), s, 1.7e9 + s) for s in steps]
    path.write_bytes(b"".join(map(record, [*rows, *rates])))
    return path


def write_csv(path: Path, losses: list[float], *, digits: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "train_loss"])
        for step, loss in zip(STEPS, losses, strict=False):
            rows.writerow([step, loss if digits is None else f"{loss:.{digits}f}"])
    return path


def write_state(folder: Path, losses: list[float]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    history = [{"step": s, "epoch": s / 600, "loss": round(v, 4)} for s, v in zip(STEPS, losses, strict=True)]
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"global_step": 600, "max_steps": 600, "log_history": history}))
    return path


def test_event_files_csv_and_trainer_state_of_a_folder_are_one_run_with_three_sources(tmp_path: Path) -> None:
    folder = tmp_path / "whisper"
    write_events(folder, curve(1))
    write_csv(folder / "metrics.csv", curve(1))
    write_state(folder, curve(1))
    run = load(folder)
    assert (run.name, run.path) == ("whisper", str(folder))
    assert [source.format for source in run.sources] == ["huggingface", "tensorboard", "lightning"]
    assert run.format == "huggingface+tensorboard+lightning"
    assert [s.against["differing"].sum() for s in run.sources[1:]] == [0, 0]
    assert [s.against["compared"].sum() for s in run.sources[1:]] == [len(STEPS), len(STEPS)]
    assert run.series("loss")["value"].to_list() == curve(1), "each number once, with the digits of the event files"
    assert run.series("loss").null_count().row(0) == (0,) * 10, "the epoch of one log, the time of another"
    assert list_runs(tmp_path, cache=False).frame.equals(load_all(tmp_path).frame)


def test_numbers_that_disagree_are_counted_with_the_first_place(tmp_path: Path) -> None:
    folder, other = tmp_path / "exp", curve(1)
    other[30], other[40] = 9.0, float("nan")
    write_events(folder, curve(1))
    write_csv(folder / "metrics.csv", other)
    run = load(folder)
    (row,) = run.sources[1].against.to_dicts()
    assert (row["compared"], row["differing"], row["first_step"]) == (60, 2, STEPS[30])
    assert (row["value"], row["other_value"]) == (curve(1)[30], 9.0)


def test_a_series_that_disagrees_throughout_stays_beside_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_events(folder, curve(1))
    write_csv(folder / "metrics.csv", [v * 8 for v in curve(1)])
    run = load(folder)
    assert run.metrics == ["learning_rate", "loss", "metrics.csv/loss"]
    assert run.series("metrics.csv/loss")["value"].to_list() == [v * 8 for v in curve(1)]


def test_what_one_log_lost_the_other_gives(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_events(folder, curve(1)[:40], steps=STEPS[:40])
    write_csv(folder / "metrics.csv", curve(1))
    rows = load(folder).series("loss")
    assert rows["step"].to_list() == list(STEPS)
    assert rows["value"].to_list() == pytest.approx(curve(1))


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_a_printed_number_agrees_with_the_whole_one(tmp_path: Path, digits: int) -> None:
    folder = tmp_path / "exp"
    write_events(folder, curve(1))
    lines = [f"step: {s} loss: {v:.{digits}f}\n" for s, v in zip(STEPS, curve(1), strict=True)]
    (folder / "train.log").write_text("".join(lines))
    run = load(folder)
    assert run.sources[1].against.select("compared", "differing").row(0) == (60, 0)
    assert run.metrics == ["learning_rate", "loss"]


def test_another_log_below_is_joined_only_where_its_numbers_are_the_same(tmp_path: Path) -> None:
    write_state(tmp_path / "out", curve(1))
    write_events(tmp_path / "out" / "runs" / "Nov21_host", curve(1))
    write_events(tmp_path / "out" / "runs" / "other", curve(2))
    runs = load_all(tmp_path)
    assert [(run.name, run.format) for run in runs] == [
        ("other", "tensorboard"), ("out", "huggingface+tensorboard"),
    ] or [(run.name, run.format) for run in runs] == [
        ("out", "huggingface+tensorboard"), ("other", "tensorboard"),
    ]  # fmt: skip
    assert list_runs(tmp_path, cache=False).frame.equals(runs.frame)


def test_an_evaluation_that_took_another_time_when_done_again_does_not_part_two_logs(tmp_path: Path) -> None:
    def log(speeds: list[float], losses: list[float]) -> Run:
        rows = {"tag": ["eval/samples_per_second"] * 4 + ["eval/loss"] * 4, "step": [5, 10, 15, 20] * 2}
        return finish("a", "a.csv", "csv", pl.DataFrame({**rows, "value": speeds + losses}))

    first = log([410.5, 420.1, 400.7, 40.25], [3.1, 2.2, 1.9, 1.7])
    assert is_same_run(first, log([410.5, 420.1, 400.7, 655.5], [3.1, 2.2, 1.9, 1.7]))
    assert not is_same_run(first, log([410.5, 420.1, 400.7, 655.5], [3.1, 2.2, 1.9, 1.2]))
    assert not is_same_run(first, log([1.5, 2.5, 3.7, 5.5], [3.1, 2.2, 1.9, 1.7]))


def test_each_start_of_a_resumed_trainer_joins_its_own_attempt(tmp_path: Path) -> None:
    killed, live = curve(1), curve(2)
    steps, out = list(STEPS), tmp_path / "out"
    cut, back = len(steps) // 2, len(steps) // 3
    last = [*killed[:back], *live[back:]]
    history = [{"step": s, "epoch": s / 600, "loss": round(v, 2)} for s, v in zip(steps, killed, strict=True)]
    (out / f"checkpoint-{steps[cut - 1]}").mkdir(parents=True)
    state = {"global_step": steps[cut - 1], "max_steps": 600, "log_history": history[:cut]}
    (out / f"checkpoint-{steps[cut - 1]}" / "trainer_state.json").write_text(json.dumps(state))
    history = [{**row, "loss": round(v, 2)} for row, v in zip(history, last, strict=True)]
    state = {"global_step": steps[-1], "max_steps": 600, "log_history": history}
    (out / "trainer_state.json").write_text(json.dumps(state))
    write_events(out / "runs" / "a", killed[:cut], steps=STEPS[:cut])
    write_events(out / "runs" / "b", live[back:], steps=STEPS[back:])
    run = load(out)
    assert (run.format, len(run.sources), run.last_attempt) == ("huggingface+tensorboard", 3, 1)
    assert run.series("loss", split="train")["value"].to_list() == last  # all digits, each from its own start
    every = run.series("loss", split="train", live=False)
    assert every.filter(attempt=0)["value"].to_list() == killed[:cut]


def test_a_number_logged_twice_at_one_step_agrees_with_a_log_that_has_it_once(tmp_path: Path) -> None:
    def log(steps: list[int], values: list[float]) -> pl.DataFrame:
        return finish("a", "a.csv", "csv", pl.DataFrame({"tag": "eval/loss", "step": steps, "value": values})).scalars

    once, twice = log([5, 10, 20], [3.1, 2.2, 1.7]), log([5, 10, 20, 20], [3.1, 2.2, 1.7, 1.9])
    assert compare(once, twice).select("compared", "differing").row(0) == (3, 0)
    assert compare(twice, once).select("compared", "differing").row(0) == (3, 0)
    assert compare(twice, log([5, 10, 20], [3.1, 2.2, 1.8])).select("differing", "other_value").row(0) == (1, 1.8)


def test_a_sweep_that_shares_its_learning_rate_stays_many_runs(tmp_path: Path) -> None:
    write_events(tmp_path / "sweep", curve(0))
    for seed in range(1, 6):
        write_events(tmp_path / "sweep" / f"seed{seed}", curve(seed))
        write_csv(tmp_path / "sweep" / f"seed{seed}" / "metrics.csv", curve(seed))
    runs = load_all(tmp_path)
    assert [len(run.sources) for run in runs] == [0, 2, 2, 2, 2, 2]


def test_logs_with_names_of_their_own_are_runs_of_their_own(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", curve(1))
    write_events(tmp_path, curve(2))
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in zip(STEPS, curve(3), strict=True))
    )
    assert len(load_all(tmp_path)) == 3


def test_a_copy_in_the_same_format_is_a_run_of_its_own(tmp_path: Path) -> None:
    write_csv(tmp_path / "first.csv", curve(1))
    write_csv(tmp_path / "again.csv", curve(1))
    assert len(load_all(tmp_path)) == 2


def test_logs_that_share_nothing_and_count_steps_differently_stay_apart(tmp_path: Path) -> None:
    write_events(tmp_path / "exp", curve(1))
    (tmp_path / "exp" / "results.csv").write_text("step,reward\n" + "".join(f"{s * 16},{s}\n" for s in STEPS))
    assert len(load_all(tmp_path)) == 2


def test_a_log_that_knows_of_no_restart_takes_the_attempts_of_one_that_does(tmp_path: Path) -> None:
    folder, losses = tmp_path / "exp", curve(1)
    write_events(folder, [v + 1 for v in losses[:40]], steps=STEPS[:40], name="1700000000")
    write_events(folder, losses[20:], steps=STEPS[20:], name="1700009000")
    write_csv(folder / "metrics.csv", losses)
    (folder / "metrics.csv").write_text(
        (folder / "metrics.csv").read_text().replace("train_loss", "accuracy"), newline=""
    )
    run = load(folder)
    assert run.series("accuracy")["value"].to_list() == pytest.approx(losses)
    live = run.series("accuracy").join(run.series("loss"), on="step")
    assert (live["attempt"] == live["attempt_right"]).all()


def test_a_source_that_cannot_be_read_is_a_reject_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_csv(folder / "metrics.csv", curve(1))
    (folder / "trainer_state.json").write_text('{"max_steps": 5, "log_history": ' + "[" * 5)
    run = load(folder)
    assert run.scalars.height == 60
    assert any("trainer_state.json" in file for file in run.rejects["file"])


def test_a_folder_with_one_log_and_very_many_below_is_no_run_with_many_sources(tmp_path: Path) -> None:
    write_csv(tmp_path / "summary.csv", curve(0))
    for number in range(60):
        write_csv(tmp_path / f"r{number:02}" / "metrics.csv", curve(number))
    runs = load_all(tmp_path)
    assert len(runs) == 61 and not any(run.sources for run in runs)
    assert list_runs(tmp_path, cache=False).frame.equals(runs.frame)


def test_two_loggers_of_lightning_give_one_run(tmp_path: Path) -> None:
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Net(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            loss = self.layer(batch[0]).square().mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(3)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 4)), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [CSVLogger(tmp_path, version=0), TensorBoardLogger(tmp_path, version=0)]
        trainer = Trainer(
            max_epochs=3, logger=loggers, log_every_n_steps=2, accelerator="cpu", enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Net(), data)
    run = load(tmp_path)
    assert sorted(source.format for source in run.sources) == ["lightning", "tensorboard"]
    against = run.sources[1].against
    assert against["compared"].sum() >= 24 and against["differing"].sum() == 0


@pytest.mark.parametrize("places", [("version_0", "version_1"), ("tb/version_0", "csv/version_0")])
def test_two_loggers_in_folders_of_their_own_give_one_run(tmp_path: Path, places: tuple[str, str]) -> None:
    for seed in (1, 2):
        write_events(tmp_path / f"exp{seed}" / places[0], curve(seed))
        write_csv(tmp_path / f"exp{seed}" / places[1] / "metrics.csv", curve(seed))
    runs = load_all(tmp_path, cache=False)
    assert [[source.format for source in run.sources] for run in runs] == [["tensorboard", "lightning"]] * 2
    assert [run.series("loss")["value"].to_list() for run in runs] == [curve(1), curve(2)]
    assert list_runs(tmp_path, cache=False).frame.equals(runs.frame)


def test_folders_beside_one_another_are_other_runs_where_numbers_differ(tmp_path: Path) -> None:
    write_events(tmp_path / "exp" / "version_0", curve(1))
    write_csv(tmp_path / "exp" / "version_1" / "metrics.csv", curve(2))
    write_events(tmp_path / "short" / "version_0", curve(1)[:10], steps=STEPS[:10])
    write_csv(tmp_path / "short" / "version_1" / "metrics.csv", curve(1)[:10])
    assert [run.sources for run in load_all(tmp_path, cache=False)] == [()] * 4


@settings(max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 5))
def test_a_rounded_series_always_lies_within_its_tolerance(values: list[float], digits: int) -> None:
    printed = np.array([round(v, digits) for v in values])
    assert (np.abs(printed - np.array(values)) <= np.maximum(tolerance(printed), 0.5 * 10.0**-digits) * 1.0001).all()


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_tolerance_is_half_of_the_last_printed_digit(seed: int, digits: int) -> None:
    values = np.random.default_rng(seed).uniform(0.1, 9.9, 50).round(digits)
    assert tolerance(values).max() <= 0.5 * 10.0**-digits + 3e-6 * 9.9


def test_runs_that_differ_by_chance_are_never_taken_for_one(tmp_path: Path) -> None:
    """Two seeds of one training, printed with two decimals, share many values by chance."""
    wrong = 0
    for seed in range(0, 200, 2):
        a, b = (
            finish("r", "r", kind, pl.DataFrame({"tag": "loss", "step": STEPS, "value": np.round(curve(s), 2)}))
            for s, kind in ((seed, "csv"), (seed + 1, "jsonl"))
        )
        wrong += is_same_run(a, b)
    assert wrong == 0


def frame(tags: list[str]) -> Run:
    rows = [(tag, step, float(step) ** 0.5 + len(tag)) for tag in tags for step in range(8)]
    return finish("r", "r", "csv", pl.DataFrame(rows, schema=["tag", "step", "value"], orient="row"))


@pytest.mark.parametrize(
    ("mine", "theirs", "pairs"),
    [
        (["train/Loss"], ["loss"], [("train/Loss", "loss")]),
        (["eval_loss", "train_loss"], ["loss/val", "loss/train"],
         [("eval_loss", "loss/val"), ("train_loss", "loss/train")]),
        (["metrics/mAP50(B)"], ["metrics/mAP50B"], []),
        (["a.b", "a/b"], ["a b"], []),
        (["grad norm"], ["grad_norm"], [("grad norm", "grad_norm")]),
    ],
)  # fmt: skip
def test_series_match_by_name_and_never_by_guess(
    mine: list[str], theirs: list[str], pairs: list[tuple[str, str]]
) -> None:
    found = compare(frame(mine).scalars, frame(theirs).scalars)
    assert sorted(found.select("tag", "other_tag").rows()) == pairs
