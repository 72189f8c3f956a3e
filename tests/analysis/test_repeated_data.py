"""Data fed again after a resume: found in real training, silent where the position was restored."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from analysis.integrity.replay import best_match, correlations, fingerprint
from analysis.repeated_data import RepeatedData, repeated_data
from parsers.finish import finish
from parsers.loading import load_all
from parsers.run import Run
from tests.parsers.wild import WILD

EPOCH, CHECKPOINT, CRASH, END = 150, 260, 320, 420


def run_of(attempts: Sequence[tuple[Sequence[int], Sequence[float]]], **columns: object) -> Run:
    """A run of attempts, each steps and losses; `columns` are lists over all rows, or configuration."""
    steps = [step for one, _ in attempts for step in one]
    rows = {
        "tag": ["train/loss"] * len(steps),
        "step": steps,
        "attempt": [i for i, (one, _) in enumerate(attempts) for _ in one],
        "value": [float(value) for _, values in attempts for value in values],
    }
    config = columns.pop("config", None)
    return finish("r", "r", "jsonl", pl.DataFrame({**rows, **columns}), config=config)  # type: ignore[arg-type]


def order_of(seed: int, epoch: int, batch: int) -> list[torch.Tensor]:
    """The batches of one epoch: a permutation of its own, as `set_epoch` gives."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    return list(torch.randperm(EPOCH * batch, generator=generator).split(batch))


class Training:
    """A small network trained by SGD with dropout on data with label noise, with a checkpoint at `CHECKPOINT`."""

    def __init__(self, seed: int, batch: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.batch = seed, batch
        self.inputs = torch.randn(EPOCH * batch, 8)
        noise = 0.7 * torch.randn(EPOCH * batch, 1)
        self.labels = self.inputs[:, :1] * self.inputs[:, 1:2] + noise
        parts = torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1)
        self.model = torch.nn.Sequential(*parts)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.5)
        batches = self.epochs(range(9))
        self.before = self.steps(CHECKPOINT, batches)
        self.kept = copy.deepcopy((self.model.state_dict(), self.optimiser.state_dict()))
        self.before += self.steps(CRASH - CHECKPOINT, batches)

    def epochs(self, epochs: Iterable[int]) -> Iterator[torch.Tensor]:
        return (batch for epoch in epochs for batch in order_of(self.seed, epoch, self.batch))

    def steps(self, count: int, batches: Iterator[torch.Tensor]) -> list[float]:
        losses = []
        for chosen in itertools.islice(batches, count):
            loss = torch.nn.functional.mse_loss(self.model(self.inputs[chosen]), self.labels[chosen])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            losses.append(loss.item())
        return losses

    def resumed(self, epochs: Iterable[int], skipped: int = 0) -> list[float]:
        """The losses after a resume from the checkpoint that is fed these epochs without the first batches."""
        model, optimiser = copy.deepcopy(self.kept)
        self.model.load_state_dict(model)
        self.optimiser.load_state_dict(optimiser)
        torch.manual_seed(self.seed + 77)
        return self.steps(END - CHECKPOINT, itertools.islice(self.epochs(epochs), skipped, None))


@cache
def training(seed: int, batch: int) -> Training:
    torch.set_num_threads(1)
    return Training(seed, batch)


@cache
def trained(seed: int, batch: int, fault: str) -> tuple[list[int], list[float], list[int], list[float]]:
    """Steps and losses before and after a resume.

    `fault` is "" (the batches already seen are skipped), "epoch" (the epoch begins anew), "seed" (so do all epochs),
    or "shuffled" (another order).
    """
    one = training(seed, batch)
    epochs = {"": range(9), "epoch": range(CHECKPOINT // EPOCH, 9), "seed": range(9), "shuffled": range(50, 59)}
    after = one.resumed(epochs[fault], CHECKPOINT if not fault else 0)
    return list(range(CRASH)), one.before, list(range(CHECKPOINT, END)), after


def result_of(seed: int, batch: int, fault: str) -> RepeatedData:
    first, before, second, after = trained(seed, batch, fault)
    return repeated_data(run_of([(first, before), (second, after)]))


@pytest.mark.parametrize(("fault", "starts"), [("epoch", EPOCH), ("seed", 0)])
@pytest.mark.parametrize("batch", [2, 8, 32])
def test_data_fed_again_is_found_in_real_training(
    batch: int, fault: str, starts: int, record_property: Callable[[str, object], None]
) -> None:
    results = [result_of(seed, batch, fault) for seed in range(6)]
    places = [r.findings[0].evidence["repeats_from"] if r.findings else None for r in results]
    found = sum(place == starts for place in places)
    record_property("recall", f"{found} of {len(places)}")
    assert found >= 5
    assert {place for place in places if place is not None} == {starts}


@pytest.mark.parametrize("batch", [2, 8, 32])
def test_training_with_its_position_restored_or_shuffled_anew_is_silent(batch: int) -> None:
    results = [result_of(seed, batch, fault) for seed in range(6) for fault in ("", "shuffled")]
    assert sum(len(result.findings) for result in results) == 0
    assert [result_of(seed, batch, "").frame["verdict"][0] for seed in range(6)] == ["restored"] * 6


def noisy(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """A healthy loss: a falling trend with noise that is white, heavy-tailed, or smooth as a running mean."""
    noise = rng.standard_t(2, size=count) if kind == "heavy" else rng.normal(size=count + 49)
    if kind == "mean":
        noise = 7 * np.convolve(noise, np.ones(50) / 50, "valid")
    return (1 + 4 / np.sqrt(1 + np.arange(count))) * np.exp(0.06 * noise[:count])


@pytest.mark.parametrize("kind", ["white", "heavy", "mean"])
@pytest.mark.parametrize(("before", "after"), [(80, 60), (1500, 400)])
def test_healthy_resumes_of_any_length_and_smoothness_are_silent(kind: str, before: int, after: int) -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(60):
        loss = noisy(rng, kind, before + after)
        run = run_of([(range(before), loss[:before]), (range(before, before + after), loss[before:])])
        alarms += len(repeated_data(run).findings)
    assert alarms == 0


def batches_of(rng: np.random.Generator, order: Sequence[int] | np.ndarray, snr: float = 3.0) -> np.ndarray:
    """The loss of batches in this order, each with a difficulty of its own."""
    difficulty = np.random.default_rng(3).normal(size=10_000)
    return np.exp(0.05 * (difficulty[np.asarray(order)] + rng.normal(size=len(order)) / snr))


@pytest.mark.parametrize("told", ["nothing", "whole epochs", "fractions"])
@pytest.mark.parametrize("resume", [260, 300])
def test_data_that_is_never_shuffled_is_no_repetition(told: str, resume: int) -> None:
    rng = np.random.default_rng(5)
    steps = np.arange(560)
    epochs = {"nothing": [None] * 560, "whole epochs": steps // 100, "fractions": steps / 100}[told]
    loss = batches_of(rng, steps % 100)
    parts = [(steps[:resume].tolist(), loss[:resume]), (steps[resume:].tolist(), loss[resume:])]
    result = repeated_data(run_of(parts, epoch=[None if e is None else float(e) for e in epochs]))
    assert (result.frame["verdict"].to_list(), result.findings) == (["same order"], ())


def test_an_unshuffled_epoch_that_begins_anew_within_itself_is_found() -> None:
    rng = np.random.default_rng(6)
    order = np.concatenate([np.arange(260) % 100, np.arange(200) % 100])
    loss = batches_of(rng, order)
    result = repeated_data(run_of([(list(range(260)), loss[:260]), (list(range(260, 460)), loss[260:])]))
    finding = result.findings[0]
    assert (result.frame["verdict"][0], finding.severity, finding.kind) == ("repeated", "warning", "repeated-data")
    assert finding.evidence["repeats_from"] in (0, 100, 200) and finding.first_step == 260


def test_each_of_several_resumes_is_judged_for_itself() -> None:
    rng = np.random.default_rng(7)
    orders = [np.arange(300), np.arange(200, 400), np.arange(0, 150)]  # the second goes on, the third begins anew
    firsts = [0, 200, 350]
    parts = [(range(f, f + len(o)), batches_of(rng, o)) for f, o in zip(firsts, orders, strict=True)]
    result = repeated_data(run_of(parts))
    assert result.frame.select("attempt", "step", "verdict").rows() == [(1, 200, "restored"), (2, 350, "repeated")]
    assert [(f.first_step, f.evidence["repeats_from"]) for f in result.findings] == [(350, 0)]


def test_a_log_of_every_tenth_step_with_a_first_record_out_of_rhythm_is_compared() -> None:
    rng = np.random.default_rng(8)
    loss = batches_of(rng, [*range(200), *range(120)])
    steps = list(range(10, 2010, 10))
    parts = [([1, *steps], [3.0, *loss[:200]]), ([2001, *range(2010, 3210, 10)], [3.0, *loss[200:]])]
    result = repeated_data(run_of(parts))
    assert result.frame.select("step", "every", "verdict", "lag", "repeats_from").row(0) == (
        2010, 10, "repeated", 2000, 10,
    )  # fmt: skip


def test_losses_that_are_not_finite_and_steps_that_were_not_logged_are_left_out() -> None:
    rng = np.random.default_rng(9)
    loss = batches_of(rng, [*range(300), *range(200)])
    loss[[5, 40, 310]], loss[41] = np.nan, np.inf
    kept = [i for i in range(300) if i % 7]
    parts = [(kept, loss[kept]), (list(range(300, 500)), loss[300:])]
    assert repeated_data(run_of(parts)).frame.select("verdict", "repeats_from").row(0) == ("repeated", 0)


def test_a_replay_to_the_last_bit_is_said_as_info() -> None:
    loss = noisy(np.random.default_rng(1), "white", 300)
    result = repeated_data(run_of([(range(200), loss[:200]), (range(150, 300), loss[150:])]))
    finding = result.findings[0]
    assert (result.frame["verdict"][0], finding.severity, result.status) == ("identical", "info", "healthy")
    assert finding.evidence == {"resumed_at": 150, "identical_records": 50, "records_of_both": 50}


def with_count(counts: Sequence[float], tag: str, losses: np.ndarray | None = None) -> Run:
    """A run of 100 steps resumed at step 50 with a count of data beside its loss."""
    steps, attempts = list(range(100)), [0] * 50 + [1] * 50
    loss = noisy(np.random.default_rng(2), "white", 100) if losses is None else losses
    rows = {
        "tag": [tag] * 100 + ["loss"] * 100,
        "step": steps * 2,
        "attempt": attempts * 2,
        "value": [*map(float, counts), *loss.tolist()],
    }
    return finish("r", "r", "jsonl", pl.DataFrame(rows))


@pytest.mark.parametrize(
    "tag", ["consumed_train_samples", "train/tokens_seen", "throughput/total_tokens", "data/files"]
)
def test_a_count_of_data_that_goes_back_while_the_step_goes_on_is_found(tag: str) -> None:
    finding = repeated_data(with_count([8 * i for i in range(50)] * 2, tag)).findings[0]
    assert (finding.severity, finding.first_step, finding.metric is None) == ("warning", 50, False)
    assert {k.rsplit(" ", 1)[-1]: v for k, v in finding.evidence.items() if " " in k} == {"before": 392.0, "after": 0.0}
    assert "goes back from 392 to 0" in finding.message


@pytest.mark.parametrize(
    "counts",
    [
        [8 * i for i in range(100)],  # goes on
        [8 * i for i in range(50)] + [8 * i - 4 for i in range(50, 100)],  # is rounded another way
        [32] * 100,  # is no count since the beginning
        [i % 10 for i in range(100)],  # begins again and again
    ],
)
def test_counts_that_go_on_are_silent(counts: list[float]) -> None:
    assert repeated_data(with_count(counts, "consumed_samples")).findings == ()


def test_an_epoch_that_goes_back_is_found_and_one_that_goes_on_is_not() -> None:
    loss = noisy(np.random.default_rng(4), "white", 100)
    parts = [(range(50), loss[:50]), (range(50, 100), loss[50:])]
    back = [i / 20 for i in range(50)] + [2 + i / 20 for i in range(50)]
    finding = repeated_data(run_of(parts, epoch=back)).findings[0]
    assert "epoch goes back from 2.45 to 2" in finding.message
    assert repeated_data(run_of(parts, epoch=[i / 20 for i in range(100)])).findings == ()


def test_ignore_data_skip_is_named_first_where_data_came_again_and_is_info_where_nothing_shows() -> None:
    rng = np.random.default_rng(10)
    config = {"args": {"ignore_data_skip": True}}
    loss = batches_of(rng, [*range(200), *range(100)])
    parts = [(range(200), loss[:200]), (range(200, 300), loss[200:])]
    assert repeated_data(run_of(parts, config=config)).findings[0].causes[0].startswith("ignore_data_skip is on")
    loss = noisy(rng, "white", 300)
    parts = [(range(200), loss[:200]), (range(200, 300), loss[200:])]
    findings = repeated_data(run_of(parts, config=config)).findings
    assert [f.severity for f in findings] == ["info"] and "ignore_data_skip" in findings[0].message


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([(range(50), [1.0] * 50)], "no resume"),
        (
            [(range(50), np.arange(50.0)), (range(50, 60), np.arange(10.0))],
            "50 regular records of the training loss on the live branch before the resume and 10 after",
        ),
        ([([1, 2, 4, 8, 16], [1.0] * 5), ([20, 40, 80], [1.0] * 3)], "0 after"),
        ([(range(50), [2.0] * 50), (range(50, 100), [2.0] * 50)], "hardly moves"),
    ],
)
def test_what_cannot_be_judged_is_said_with_the_reason(parts: list[tuple[list[int], list[float]]], reason: str) -> None:
    result = repeated_data(run_of(parts))
    assert result.findings == () and reason in result.not_applicable[0].reason
    assert result.frame.schema == repeated_data(run_of([])).frame.schema
    assert result.plot().get_ylabel() == "loss less its trend (SD)"


def test_the_figure_lays_the_stretch_that_came_again_under_the_one_after_the_resume() -> None:
    result = result_of(0, 8, "seed")
    drawn = result.plot()
    earlier, after = (line.get_xydata() for line in drawn.get_lines())
    assert len(earlier) == len(after) == 120 and earlier[0][0] == after[0][0] == CHECKPOINT
    assert "after the resume at step 260" in drawn.get_title(loc="left")


def test_a_resume_that_the_log_does_not_show_can_be_told() -> None:
    first, before, second, after = trained(1, 8, "epoch")
    spliced = run_of([([*first[:CHECKPOINT], *second], [*before[:CHECKPOINT], *after])])
    assert "no resume" in repeated_data(spliced).not_applicable[0].reason
    finding = repeated_data(spliced, resumed_at=[CHECKPOINT]).findings[0]
    assert (finding.evidence["resumed_at"], finding.evidence["repeats_from"]) == (CHECKPOINT, EPOCH)
    assert spliced.last_attempt == 0


@pytest.mark.parametrize(
    ("steps", "message"),
    [([2.5], "resumed_at holds 2.5; it must hold whole steps"), ([True], "resumed_at holds True"), ([4], "itself")],
)
def test_resumes_that_cannot_be_are_refused(steps: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        repeated_data(run_of([([1, 2], [1.0, 1.0]), ([2, 3], [1.0, 1.0])]), resumed_at=steps)


def slow_correlations(after: np.ndarray, before: np.ndarray) -> list[tuple[float, int]]:
    found = []
    for place in range(len(before)):
        there = before[place : place + len(after)]
        here = after[: len(there)]
        both = np.isfinite(here) & np.isfinite(there)
        spread = both.sum() >= 3 and np.ptp(here[both]) > 0 and np.ptp(there[both]) > 0
        found.append((np.corrcoef(here[both], there[both])[0, 1] if spread else np.nan, int(both.sum())))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_correlations_by_fft_are_those_of_each_place_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    after, before = rng.normal(size=int(rng.integers(1, 60))), rng.normal(size=int(rng.integers(1, 200)))
    after[rng.random(len(after)) < 0.2], before[rng.random(len(before)) < 0.2] = np.nan, np.nan
    r, pairs = correlations(after, before)
    slow, counted = zip(*slow_correlations(after, before), strict=True)
    assert pairs.tolist() == list(counted)
    np.testing.assert_allclose(r, slow, atol=1e-9)


def test_a_constant_or_unknown_loss_has_no_fingerprint() -> None:
    for values in (np.full(50, 2.0), np.full(50, np.nan), np.empty(0)):
        assert not np.isfinite(fingerprint(values)).any()
    assert best_match(np.full(50, np.nan), np.full(50, np.nan)) is None


#: Logs of strangers that show restarts, and the samples of this project, which show none.
RECORDED = [
    *(WILD / name for name in ("marian_text", "gan_text", "tensorboard/tbreducer-multirun") if (WILD / name).exists()),
    Path(__file__).parents[2] / "data" / "samples",
]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
def test_recorded_runs_are_silent(folder: Path) -> None:
    runs = load_all(folder, cache=False)
    resumed = sum(run.last_attempt > 0 for run in runs)
    assert [finding.message for run in runs for finding in repeated_data(run).findings] == []
    assert len(runs) > 0 and (folder.name == "samples") == (resumed == 0)
