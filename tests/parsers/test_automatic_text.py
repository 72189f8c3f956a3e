"""The automatic mode of text logs: forms that no dialect of the table has, and prose that only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parsers.loading import load
from parsers.registry import detect
from parsers.run import Run


def read_lines(folder: Path, line: Callable[[int], str], count: int = 4) -> Run:
    path = folder / "odd.log"
    path.write_text("starting\n" + "".join(line(k) + "\n" for k in range(1, count + 1)))
    return load(path)


def series(run: Run, tag: str) -> list[tuple[int | None, float]]:
    rows = run.scalars.filter(run.scalars["tag"] == tag)
    return rows.select("step", "value").rows()


@pytest.mark.parametrize(
    "line",
    [
        "step {}/600 | loss 2.345 | lr 1e-4",
        "step {} | loss 2.345 | lr 1e-4 | eta 01:23:45 | 12 tok/s",
        "| step {} | loss 2.345 (2.501) | lr 1e-4 |",
        "2024-01-02 03:04:05 INFO step {} | loss 2.345 | lr: 1e-4",
        "step {}, loss 2.345, lr 1e-4",
        "step {}: loss 2.345, lr 1e-4",
        "step {} loss 2.345 lr 1e-4",
        "[2024-01-02 03:04:05,123][INFO] - step {} - loss 2.345 - lr 1e-4",
        "2024-01-02 03:04:05,123 INFO iter {} loss 2.345 lr 1e-4",
    ],
)
def test_names_and_numbers_between_bars_or_alone_in_a_line_are_read(line: str, tmp_path: Path) -> None:
    run = read_lines(tmp_path, lambda k: line.format(10 * k))
    assert series(run, "loss") == [(10 * k, 2.345) for k in range(1, 5)]
    assert series(run, "lr") == [(10 * k, 1e-4) for k in range(1, 5)]
    assert set(run.scalars["tag"]) == {"loss", "lr"}
    assert run.rejects.is_empty()


@pytest.mark.parametrize(
    "line",
    [
        "Step {} of 10",
        "Epoch {} finished in 3.5 min",
        "epoch {} took 12.5 s",
        "In step {} we saw 2.5 errors",
        "step {} version 1.3 is out",
        "step {} part 2 page 3",
        "step {} | saved at 3.5 | done in 2.5s | see the 5 notes",
        "step {} | 2024-01-02 | 01:02:03 | data 3/5 | page 5 of 7",
        "| step {} | costs 3 dollars a day |",
        "The best epoch {} was 3.5 points over the last",
    ],
)
def test_prose_with_a_step_and_numbers_is_no_log(line: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.log"
    path.write_text("".join(line.format(k) + "\n" for k in range(1, 9)))
    assert detect(path) is None


def test_thousands_and_millions_behind_a_number_are_of_its_series(tmp_path: Path) -> None:
    written = {1: "950", 2: "1.2k", 3: "12.5K", 4: "1.5M"}
    run = read_lines(tmp_path, lambda k: f"step: {k} loss: 0.5 tok/s: {written[k]} mem: 3.1GB")
    assert [value for _, value in series(run, "tok/s")] == [950, 1200, 12500, 1.5e6]
    assert [value for _, value in series(run, "mem")] == [3.1] * 4


@pytest.mark.parametrize("form", ["{} | epoch {} | loss {}", "{}: epoch={} loss={}", "[{}] epoch: {}, loss: {}"])
def test_a_line_that_begins_with_its_split_is_of_that_split(form: str, tmp_path: Path) -> None:
    run = read_lines(tmp_path, lambda k: form.format("Train", k, 0.5) + "\n" + form.format("Val", k, 0.75))
    for split, value in [("train", 0.5), ("eval", 0.75)]:
        assert run.series("loss", split=split).select("epoch", "value").rows() == [(k, value) for k in range(1, 5)]


def test_a_name_that_says_its_split_counts_more_than_the_line(tmp_path: Path) -> None:
    run = read_lines(tmp_path, lambda k: f"Train | epoch {k} | loss 0.5 | val_loss 0.75")
    assert run.series("loss", split="eval")["value"].to_list() == [0.75] * 4


@pytest.mark.parametrize(
    "form", ["Epoch [{}/3], Batch [{}/50], Loss: 0.5", "Epoch: [{}][ {}/50] Loss: 0.5", "Epoch {} batch {}/50 loss=0.5"]
)
def test_batches_of_an_epoch_are_counted_on_by_how_many_it_has(form: str, tmp_path: Path) -> None:
    run = read_lines(tmp_path, lambda k: form.format((k + 1) // 2, 20 if k % 2 else 40))
    assert run.scalars["step"].to_list() == [20, 40, 70, 90]
    assert run.scalars["epoch"].to_list() == [1, 1, 2, 2]


def test_the_lines_of_the_imagenet_example_give_values_and_not_their_averages(tmp_path: Path) -> None:
    def line(k: int) -> str:
        epoch, batch = divmod(10 * (k - 1), 20)
        loss = f"Loss 6.9{k}e+00 (7.00e+00)\tAcc@1   0.{k} (  0.50)"
        return f"Epoch: [{epoch}][{batch:5d}/20]\tTime  0.504 (  1.200)\t{loss}"

    run = read_lines(tmp_path, line)
    assert series(run, "Loss") == [(0, 6.91), (10, 6.92), (20, 6.93), (30, 6.94)]
    assert series(run, "Acc@1") == [(0, 0.1), (10, 0.2), (20, 0.3), (30, 0.4)]
    assert run.scalars["epoch"].unique().sort().to_list() == [0, 1]


def test_arguments_printed_one_a_line_are_no_measurements_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "mine.log"
    path.write_text("train(\n    lr=0.1\n    max_steps=600\n    see https://host.org/bug?id=7\n)\n")
    assert detect(path) is None
    path.write_text(path.read_text() + "".join(f"step: {k} loss: 0.5\n" for k in range(1, 5)))
    assert set(load(path).scalars["tag"]) == {"loss"}


def test_an_epoch_of_so_many_is_no_batch(tmp_path: Path) -> None:
    run = read_lines(tmp_path, lambda k: f"Epoch {k + 10}/20 - loss: 0.5")
    assert run.scalars["step"].to_list() == [None] * 4
    assert run.scalars["epoch"].to_list() == [11, 12, 13, 14]
