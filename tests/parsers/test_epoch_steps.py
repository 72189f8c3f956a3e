"""Iterations that begin again with every epoch: steps over the whole run, no attempts, the printed numbers kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.loading import load
from parsers.run import Run
from parsers.tables.epoch_steps import counted_over_epochs, steps_over_epochs


def read(folder: Path, name: str, lines: list[str]) -> Run:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return load(path)


def pix2pix(epoch: int, iteration: int) -> str:
    return (
        f"(epoch: {epoch}, iters: {iteration}, time: 0.012, data: 0.05) G_GAN: {1 + epoch / 10 + iteration / 1e5:.5f} "
        "D_real: 0.477 D_fake: 0.605 "
    )


def header(minute: int) -> str:
    return f"================ Training Loss (Thu Sep 25 11:{minute:02d}:15 2025) ================"


def printed(total: int, per_epoch: int, every: int) -> list[tuple[int, int]]:
    """Epoch and iteration of the lines that pix2pix prints: every so many iterations of all."""
    return [((s - 1) // per_epoch + 1, (s - 1) % per_epoch + 1) for s in range(every, total + 1, every)]


@pytest.mark.parametrize(("per_epoch", "every"), [(1096, 100), (1000, 100), (331, 50), (17328, 400)])
def test_the_step_of_pix2pix_is_exact_where_the_rhythm_goes_on_over_the_epoch(
    per_epoch: int, every: int, tmp_path: Path
) -> None:
    total = 4 * per_epoch
    run = read(tmp_path, "loss_log.txt", [header(1), *(pix2pix(*at) for at in printed(total, per_epoch, every))])
    rows = run.series("G_GAN")
    assert rows["step"].to_list() == list(range(every, total + 1, every))
    assert run.last_attempt == 0 and rows["epoch"].max() == 4
    note = json.loads(run.events_of("note")["payload"][0])
    assert note["iterations_per_epoch"] == per_epoch and "begin again with every epoch" in note["text"]


def test_a_program_that_says_when_it_starts_opens_an_attempt_even_where_no_step_goes_back(tmp_path: Path) -> None:
    lines = [header(1), header(2), pix2pix(1, 400), header(3), pix2pix(1, 400), pix2pix(1, 800), header(4)]
    run = read(tmp_path, "loss_log.txt", lines)
    assert run.series("G_GAN").select("step", "attempt").rows() == [(400, 1), (800, 1)]
    assert run.series("G_GAN", live=False).select("step", "attempt").rows() == [(400, 0), (400, 1), (800, 1)]
    assert run.events_of("start").height == 4 and run.rejects.is_empty()


def test_training_that_was_continued_at_an_earlier_epoch_leaves_a_dead_branch(tmp_path: Path) -> None:
    places = printed(3 * 1096, 1096, 100)
    again = [place for place in places if place[0] >= 2]
    lines = [header(1), *(pix2pix(*at) for at in places), header(2), *(pix2pix(*at) for at in again)]
    run = read(tmp_path, "loss_log.txt", lines)
    live = run.series("G_GAN")
    assert live["step"].to_list() == list(range(100, 3 * 1096 + 1, 100))
    assert live["attempt"].to_list() == [0] * 10 + [1] * (len(places) - 10)


@pytest.mark.parametrize("told", ["Epoch {epoch}: ", ""])
def test_a_progress_bar_for_each_epoch_is_one_attempt(told: str, tmp_path: Path) -> None:
    bars = [(epoch, step) for epoch in range(3) for step in range(10, 101, 10)]
    lines = [
        f"{told.format(epoch=epoch)}{step}%|# | {step}/100 [00:10<01:00,  3.2it/s, loss={2 - epoch / 2 - step / 1e3}]"
        for epoch, step in bars
    ]
    run = read(tmp_path, "bars.log", lines)
    assert run.last_attempt == 0
    assert run.series("loss")["step"].to_list() == list(range(10, 301, 10))


def test_a_bar_that_went_back_halfway_is_a_resume(tmp_path: Path) -> None:
    steps = [*range(10, 71, 10), *range(50, 101, 10)]
    lines = [f"{step}%|##   | {step}/100 [00:10<01:00,  3.2it/s, loss={2 - step / 1e3}]" for step in steps]
    run = read(tmp_path, "bars.log", lines)
    assert run.series("loss").select("step", "attempt").rows() == [
        *((s, 0) for s in range(10, 41, 10)), *((s, 1) for s in range(50, 101, 10)),
    ]  # fmt: skip


def test_batches_of_espnet_count_over_epochs(tmp_path: Path) -> None:
    lines = [
        f"[host] 2024-01-01 00:00:00,000 (trainer:779) INFO: {epoch}epoch:train:{step - 49}-{step}batch: "
        f"iter_time=0.1, forward_time=0.2, loss={3 - epoch / 10 - step / 1e4:.4f}, optim0_lr0=1e-4, train_time=1.0"
        for epoch in (1, 2, 3)
        for step in (50, 100, 150)
    ]
    run = read(tmp_path, "train.log", lines)
    assert run.series("loss", split="train")["step"].to_list() == list(range(50, 451, 50)) and run.last_attempt == 0


def test_key_and_value_lines_count_over_epochs_only_where_all_of_them_begin_again(tmp_path: Path) -> None:
    def lines(places: list[tuple[int, int]]) -> list[str]:
        return [f"Epoch [{e}/9], Step [{s}/60], Loss: {1 / (e + s):.4f}" for e, s in places]

    again = [(e, s) for e in (1, 2, 3) for s in (20, 40, 60)]
    assert read(tmp_path, "again.log", lines(again)).series("Loss")["step"].to_list() == list(range(20, 181, 20))
    mixed = [(1, 20), (1, 40), (2, 60), (2, 80), (3, 50), (3, 70)]
    assert read(tmp_path, "mixed.log", lines(mixed)).series("Loss", live=False)["step"].max() == 80


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 5), st.integers(20, 400), st.integers(1, 9))
def test_steps_are_those_of_the_run_that_logged_them(epochs: int, per_epoch: int, every: int) -> None:
    places = printed(epochs * per_epoch, per_epoch, every)
    steps, many = steps_over_epochs(places, base=1)
    told = counted_over_epochs(
        np.array([float(e) for e, _ in places]), np.array([i for _, i in places], np.int64), sure=True
    )
    assert many == per_epoch and steps == list(range(every, epochs * per_epoch + 1, every))
    assert told is not None and told[0].tolist() == steps


@pytest.mark.parametrize(
    ("epoch", "step"),
    [
        ([np.nan] * 6, [1, 2, 3, 1, 2, 3]),  # nobody says that these are epochs
        ([1.0, 1.5, 2.0, 2.5], [1, 2, 1, 2]),  # fractions
        ([1.0, np.nan, 2.0, 2.0], [1, 2, 1, 2]),  # not all say one
        ([1.0, 1.0, 2.0, 2.0], [1, 2, 3, 4]),  # goes on
        ([1.0, 2.0], [5, 1 << 40]),  # no iteration of an epoch
        ([], []),
    ],
)
def test_steps_that_may_count_over_the_run_are_left_alone(epoch: list[float], step: list[int]) -> None:
    assert counted_over_epochs(np.array(epoch, np.float64), np.array(step, np.int64), sure=False) is None
