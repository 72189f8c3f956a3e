"""Resumes in every format that can carry one, planted with known truth: the live branch, the dead one, attempts."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.loggers.csv_logs import CSVLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from eventstream.recorder import Recorder
from parsers.listing import list_runs
from parsers.loading import load, load_all
from parsers.run import Run
from parsers.tables.branches import attempts_of, live_branch
from parsers.tfevents.write import record, scalar_event
from tests.parsers.mlflow_stores import mlflow_stores

#: Steps of each attempt: killed at 100, begun again after 60, killed at 140, begun again after 90, killed at 110, and
#: begun again from before that branch began. Records every tenth step.
ATTEMPTS = [range(10, 101, 10), range(70, 141, 10), range(100, 111, 10), range(90, 161, 10)]
LIVE = [(s, 0) for s in range(10, 61, 10)] + [(s, 1) for s in range(70, 81, 10)] + [(s, 3) for s in range(90, 161, 10)]


def loss_at(step: int, attempt: int) -> float:
    """A number that tells where it comes from."""
    return attempt + step / 1000


def line_attempts() -> list[tuple[int, int]]:
    return [(step, attempt) for attempt, steps in enumerate(ATTEMPTS) for step in steps]


def write_event_stream(folder: Path) -> Path:
    for attempt, steps in enumerate(ATTEMPTS):
        with Recorder(folder / "run") as recorder:
            for step in steps:
                recorder.log(step, {"loss": loss_at(step, attempt)}, split="train")
    return folder / "run"


def write_tensorboard(folder: Path) -> Path:
    for attempt, steps in enumerate(ATTEMPTS):
        with SummaryWriter(folder / "run", filename_suffix=f".{attempt}") as writer:
            for step in steps:
                writer.add_scalar("train/loss", loss_at(step, attempt), step)
    return folder / "run"


def write_one_tensorboard_file(folder: Path) -> Path:
    started = Event(wall_time=1.7e9, session_log=SessionLog(status=SessionLog.START)).SerializeToString()
    rows = [record(Event(wall_time=1.7e9, file_version="brain.Event:2").SerializeToString())]
    for attempt, steps in enumerate(ATTEMPTS):
        rows += [record(started)] if attempt else []
        rows += [record(scalar_event("train/loss", loss_at(s, attempt), s, 1.7e9 + 1000 * attempt + s)) for s in steps]
    path = folder / "events.out.tfevents.1"
    path.write_bytes(b"".join(rows))
    return path


def write_jsonl(folder: Path) -> Path:
    path = folder / "log.jsonl"
    rows = [json.dumps({"step": step, "train/loss": loss_at(step, attempt)}) for step, attempt in line_attempts()]
    path.write_text("\n".join(rows) + "\n")
    return path


def write_csv(folder: Path) -> Path:
    path = folder / "log.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "train/loss", "lr"])
        table.writerows([step, loss_at(step, attempt), 0.1] for step, attempt in line_attempts())
    return path


def write_trainer_state(folder: Path) -> Path:
    path = folder / "trainer_state.json"
    history = [{"step": s, "epoch": s / 100, "loss": loss_at(s, attempt)} for s, attempt in line_attempts()]
    path.write_text(json.dumps({"max_steps": 500, "global_step": 160, "log_history": history}))
    return path


def write_trainer_log(folder: Path) -> Path:
    path = folder / "trainer_log.jsonl"
    rows = [
        {"current_steps": s, "total_steps": 500, "loss": loss_at(s, attempt), "epoch": s / 100, "percentage": s / 5}
        for s, attempt in line_attempts()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(folder: Path) -> Path:
    path = folder / "log.parquet"
    rows = [(step, loss_at(step, attempt)) for step, attempt in line_attempts()]
    pl.DataFrame(rows, schema=["step", "train/loss"], orient="row").write_parquet(path)
    return path


def write_megatron(folder: Path) -> Path:
    path = folder / "train.log"
    path.write_text(
        "".join(
            f" iteration {step:8d}/     500 | consumed samples: {step * 8:12d} | "
            f"elapsed time per iteration (ms): 900.0 | learning rate: 1.000E-04 | "
            f"global batch size:     8 | lm loss: {loss_at(step, attempt):.6E} | "
            f"grad norm: 1.000 | number of skipped iterations:   0 | number of nan iterations:   0 |\n"
            for step, attempt in line_attempts()
        )
    )
    return path


def write_fairseq(folder: Path) -> Path:
    path = folder / "train.log"
    path.write_text(
        "".join(
            f'2024-01-01 00:00:00 | INFO | train_inner | {{"epoch": 1, "update": 0.1, '
            f'"loss": "{loss_at(step, attempt)}", "num_updates": "{step}", "lr": "0.1"}}\n'
            for step, attempt in line_attempts()
        )
    )
    return path


def write_mlflow(folder: Path) -> Path:
    stores = mlflow_stores("attempts")
    return next(path.parent for path in (stores / "mlruns").rglob("meta.yaml") if (path.parent / "metrics").is_dir())


def write_mlflow_database(folder: Path) -> Path:
    return mlflow_stores("attempts") / "mlflow.db"


WRITERS: list[Callable[[Path], Path]] = [
    write_trainer_state, write_trainer_log, write_parquet, write_event_stream, write_tensorboard,
    write_one_tensorboard_file, write_jsonl, write_csv, write_megatron,
    write_fairseq, write_mlflow, write_mlflow_database,
]  # fmt: skip


def loss_of(run: Run) -> str:
    return next(metric for metric in ("loss", "lm_loss") if metric in run.metrics)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_three_resumes_one_inside_another_leave_one_live_branch(write: Callable[[Path], Path], tmp_path: Path) -> None:
    run = load(write(tmp_path))
    live = run.series(loss_of(run))
    assert live.select("step", "attempt").rows() == LIVE
    assert live["value"].to_list() == pytest.approx([loss_at(*row) for row in LIVE])
    every = run.series(loss_of(run), live=False)
    assert sorted(every.select("attempt", "step").rows()) == sorted((a, s) for s, a in line_attempts())
    assert run.attempts.select("attempt", "begin", "cut", "last_step").rows() == [
        (0, 10, 70, 100), (1, 70, 90, 140), (2, 100, 90, 110), (3, 90, None, 160),
    ]  # fmt: skip


def test_a_lightning_log_that_was_begun_anew_holds_the_last_attempt_and_claims_no_other(tmp_path: Path) -> None:
    with warnings.catch_warnings():  # it warns that it deletes the log of the attempt before, and does
        warnings.simplefilter("ignore", UserWarning)
        for steps in (range(10, 101, 10), range(70, 141, 10)):
            logger = CSVLogger(tmp_path, name="exp", version=0)
            for step in steps:
                logger.log_metrics({"train/loss": loss_at(step, 0)}, step=step)
            logger.save()
    run = load(tmp_path / "exp" / "version_0")
    assert run.series("loss", live=False)["step"].to_list() == list(range(70, 141, 10)) and run.last_attempt == 0


def stream(folder: Path, rank: int, *attempts: Sequence[int], metric: str = "loss", split: str = "train") -> None:
    for attempt, steps in enumerate(attempts):
        with Recorder(folder, rank=rank) as recorder:
            for step in steps:
                recorder.log(step, {metric: loss_at(step, attempt)}, split=split)


def test_ranks_that_begin_again_at_different_steps_are_cut_each_at_its_own(tmp_path: Path) -> None:
    stream(tmp_path / "run", 0, range(1, 11), range(6, 16))
    stream(tmp_path / "run", 1, range(1, 13), range(8, 16))
    run = load(tmp_path / "run")
    assert run.attempts.select("rank", "attempt", "begin", "cut").rows() == [
        (0, 0, 1, 6), (0, 1, 6, None), (1, 0, 1, 8), (1, 1, 8, None),
    ]  # fmt: skip
    assert [run.series("loss", rank=r)["step"].to_list() for r in (0, 1)] == [list(range(1, 16))] * 2


@pytest.mark.parametrize(
    ("second", "live"),
    [
        (range(15, 21), [(s, 0) for s in range(1, 11)] + [(s, 1) for s in range(15, 21)]),  # beyond the last step
        (range(10, 21), [(s, 0) for s in range(1, 10)] + [(s, 1) for s in range(10, 21)]),  # at the last step
        (range(11, 21), [(s, 0) for s in range(1, 11)] + [(s, 1) for s in range(11, 21)]),  # without loss
        (range(1, 21), [(s, 1) for s in range(1, 21)]),  # from the beginning
    ],
)
def test_where_a_resume_begins_is_where_the_former_attempt_ends(
    second: range, live: list[tuple[int, int]], tmp_path: Path
) -> None:
    stream(tmp_path / "run", 0, range(1, 11), second)
    assert load(tmp_path / "run").series("loss").select("step", "attempt").rows() == live


def log(folder: Path, *records: tuple[int, dict[str, float], str]) -> None:
    with Recorder(folder) as recorder:
        for step, values, split in records:
            recorder.log(step, values, split=split)


def test_an_evaluation_on_a_dead_branch_is_dead_though_no_evaluation_came_after_it(tmp_path: Path) -> None:
    train = [(step, {"loss": 1.0}, "train") for step in range(1, 101)]
    evals = [(step, {"loss": 2.0}, "eval") for step in (25, 50, 75, 100)]
    log(tmp_path / "run", *train, *evals)
    log(tmp_path / "run", *((step, {"loss": 1.5}, "train") for step in range(61, 70)))
    run = load(tmp_path / "run")
    assert run.series("loss", split="eval")["step"].to_list() == [25, 50]
    assert run.series("loss", split="eval", live=False)["step"].to_list() == [25, 50, 75, 100]


def test_an_evaluation_right_after_a_resume_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    log(tmp_path / "run", *((s, {"loss": 1.0}, "train") for s in range(1, 61)), (60, {"loss": 2.0}, "eval"))
    log(tmp_path / "run", (60, {"loss": 2.5}, "eval"), *((s, {"loss": 1.5}, "train") for s in range(61, 70)))
    rows = load(tmp_path / "run").series("loss", split="eval")
    assert rows.select("attempt", "step", "value").rows() == [(1, 60, 2.5)]
    assert load(tmp_path / "run").series("loss", split="train").height == 69


@pytest.mark.parametrize("at", [60, 30])
def test_an_evaluation_by_another_process_cuts_nothing_out_of_a_finished_run(at: int, tmp_path: Path) -> None:
    evals = [(s, {"loss": 2.0, "accuracy": 0.5}, "eval") for s in (20, 40, 60)]
    log(tmp_path / "run", *((s, {"loss": 1.0}, "train") for s in range(1, 61)), *evals)
    log(tmp_path / "run", (at, {"resources/gpu": 9.0, "epoch": 1.0}, ""), (at, {"loss": 2.5}, "eval"))
    run = load(tmp_path / "run")
    assert run.attempts.select("begin", "cut").rows() == [(1, None), (None, None)]
    assert run.series("loss", split="train")["step"].to_list() == list(range(1, 61))
    rows = run.series("loss", split="eval").select("attempt", "step", "value").rows()
    assert rows == [(0, 20, 2.0), (0, 40, 2.0), (0, 60, 2.0), (1, at, 2.5)]
    # a resume after it cuts both as ever
    log(tmp_path / "run", *((s, {"loss": 1.5}, "train") for s in range(26, 71)))
    again = load(tmp_path / "run")
    assert again.series("loss", split="train").group_by("attempt").len().sort("attempt").rows() == [(0, 25), (2, 45)]
    assert again.series("loss", split="eval")["step"].to_list() == [20]


def test_a_run_that_only_ever_evaluated_is_spliced_as_ever(tmp_path: Path) -> None:
    stream(tmp_path / "run", 0, range(1, 11), range(6, 16), split="eval")
    run = load(tmp_path / "run")
    assert run.attempts["begin"].to_list() == [1, 6]
    assert run.series("loss")["step"].to_list() == list(range(1, 16))


def test_ranks_that_a_restart_goes_without_are_dead_from_where_it_began(tmp_path: Path) -> None:
    for rank in range(4):
        stream(tmp_path / "run", rank, range(1, 21))
    for rank in range(2):
        stream(tmp_path / "run", rank, range(11, 31))
    run = load(tmp_path / "run")
    assert run.attempts.filter(pl.col("attempt") == 0)["cut"].to_list() == [11] * 4
    assert [run.series("loss", rank=r)["step"].max() for r in range(4)] == [30, 30, 10, 10]
    assert run.series("loss", rank=3, live=False).height == 20


def test_ranks_that_come_late_or_still_write_are_not_taken_for_left_out(tmp_path: Path) -> None:
    stream(tmp_path / "run", 0, range(1, 21), range(11, 21))
    stream(tmp_path / "run", 1, range(1, 31))  # its first attempt wrote on after the other rank began again
    run = load(tmp_path / "run")
    assert run.series("loss", rank=1)["step"].to_list() == list(range(1, 31))
    rows = [(r, a, s) for r, a, steps in ((0, 0, range(1, 9)), (0, 1, range(5, 9)), (1, 0, range(1, 9))) for s in steps]
    table = pl.DataFrame(rows, schema={"rank": pl.Int32, "attempt": pl.Int32, "step": pl.Int64}, orient="row")
    table = table.with_columns(split=pl.lit("train"), tag=pl.lit("loss"), time=pl.lit(None, pl.Datetime("us", "UTC")))
    # without times, and in formats that say nothing of ranks, it cannot be known
    for together in (True, False):
        assert attempts_of(table.lazy(), together=together)["cut"].to_list() == [5, None, None]


def test_a_number_that_every_start_logs_at_step_0_does_not_kill_the_attempt_before(tmp_path: Path) -> None:
    for steps in (range(1, 51), range(31, 91)):
        log(tmp_path / "run", (0, {"hp_metric": -1.0}, ""), *((s, {"loss": 1.0, "lr": 0.1}, "train") for s in steps))
    run = load(tmp_path / "run")
    assert run.attempts["begin"].to_list() == [1, 31]
    assert run.series("loss").group_by("attempt").len().sort("attempt").rows() == [(0, 30), (1, 60)]
    assert run.series("hp_metric")["attempt"].to_list() == [1]


def test_a_series_that_counts_epochs_is_cut_where_itself_begins_again(tmp_path: Path) -> None:
    for steps, epochs in ((range(1, 51), range(5)), (range(31, 91), range(3, 9))):
        train = [(step, {"loss": 1.0, "lr": 0.1}, "train") for step in steps]
        log(tmp_path / "run", *train, *((epoch, {"epoch_loss": 1.0}, "train") for epoch in epochs))
    rows = load(tmp_path / "run").series("epoch_loss")
    assert rows.select("attempt", "step").rows() == [(0, 0), (0, 1), (0, 2), *((1, e) for e in range(3, 9))]


def obvious_live(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Attempt and step of what no later attempt trained again."""
    begins = {attempt: min(s for a, s in rows if a == attempt) for attempt, _ in rows}
    return [(a, s) for a, s in rows if all(s < begin for later, begin in begins.items() if later > a)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=6))
def test_the_live_branch_of_one_series_is_that_of_the_obvious_reading(attempts: list[tuple[int, int]]) -> None:
    rows = [(a, step) for a, (first, count) in enumerate(attempts) for step in range(first, first + count)]
    table = pl.DataFrame(rows, schema={"attempt": pl.Int32, "step": pl.Int64}, orient="row")
    table = table.with_columns(rank=pl.lit(0, pl.Int32), split=pl.lit("train"), tag=pl.lit("loss"))
    assert live_branch(table).select("attempt", "step").rows() == obvious_live(rows)
    known = attempts_of(table.lazy().with_columns(time=pl.lit(None, pl.Datetime("us", "UTC"))))
    assert live_branch(table, known).select("attempt", "step").rows() == obvious_live(rows)
    steps = live_branch(table)["step"].to_list()
    assert steps == sorted(set(steps))


def test_the_list_of_runs_tells_how_often_each_was_started(tmp_path: Path) -> None:
    write_event_stream(tmp_path / "three")
    stream(tmp_path / "one", 0, range(1, 11))
    assert dict(list_runs(tmp_path, cache=False).frame.select("run", "attempts").iter_rows()) == {"run": 4, "one": 1}


def test_the_logs_of_two_jobs_are_two_runs_though_the_second_goes_on_from_the_first(tmp_path: Path) -> None:
    whole = write_megatron(tmp_path).read_text().splitlines(keepends=True)
    (tmp_path / "train.log").unlink()
    for job, lines in (("slurm-101.out", whole[:10]), ("slurm-102.out", whole[10:18])):
        (tmp_path / job).write_text("".join(lines))
    runs = load_all(tmp_path, cache=False)
    assert [(run.name, run.last_attempt) for run in runs] == [("slurm-101", 0), ("slurm-102", 0)]
    assert [run.series("lm_loss")["step"].to_list() for run in runs] == [
        list(range(10, 101, 10)),
        list(range(70, 141, 10)),
    ]


def test_events_of_a_text_log_have_the_attempt_of_the_lines_around_them(tmp_path: Path) -> None:
    path = write_megatron(tmp_path)
    path.write_text(path.read_text() + "Traceback (most recent call last):\nRuntimeError: CUDA out of memory\n")
    run = load(path)
    assert run.events_of("end")["attempt"].to_list() == [3] and run.events_of("note")["attempt"].to_list() == [0]
