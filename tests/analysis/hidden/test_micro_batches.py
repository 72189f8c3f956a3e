"""Steps that count micro-batches are told by a learning rate that waits for the update, and by the configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.hidden.micro_batches import accumulation, stairs_of
from analysis.hidden_facts import hidden_facts
from tests.analysis.hidden.build import decay, found, run_of

KIND = "micro-batch-steps"


def scheduled(updates: int, every: int) -> np.ndarray:
    """The learning rates that PyTorch's cosine schedule with warm-up gives, one a micro-batch."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=3e-4)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, total_iters=max(updates // 10, 1))
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, down], [max(updates // 10, 1)])
    rates = []
    for batch in range(updates * every):
        rates.append(optimizer.param_groups[0]["lr"])
        if (batch + 1) % every == 0:
            optimizer.step()
            schedule.step()
    return np.array(rates)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("every", [2, 4, 16])
def test_the_learning_rate_of_a_real_loop_tells_how_many_batches_make_an_update(every: int):
    rates = scheduled(60, every)
    loss = decay(len(rates), np.random.default_rng(0))
    config = {"train": {"gradient_accumulation_steps": every}}
    finding = found(run_of({"loss": loss, "lr": rates}, config=config), KIND)
    assert finding is not None and finding.severity == "info"
    assert finding.evidence["steps_per_update"] == every and finding.evidence["accumulation_configured"] == every
    assert f"{every} of them make one update" in finding.message
    alone = found(run_of({"loss": loss, "lr": rates}), KIND)
    assert alone is not None and "or the schedule goes by epochs" in alone.message, "without a witness both are named"


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_epochs_that_hold_many_changes_rule_a_schedule_of_epochs_out():
    rates = scheduled(100, 4)
    epochs = np.arange(400) / 100
    finding = found(run_of({"loss": decay(400, np.random.default_rng(1)), "lr": rates}, epochs=epochs), KIND)
    assert finding is not None and "probably count micro-batches" in finding.message
    assert finding.evidence["changes_at_epochs"] < 0.1


def test_a_gradient_norm_at_the_same_rhythm_is_a_second_witness():
    rates = np.repeat(1e-3 * 0.98 ** np.arange(50), 8)
    columns = {"loss": decay(400, np.random.default_rng(2)), "lr": rates, "grad_norm": (range(7, 400, 8), np.ones(50))}
    finding = found(run_of(columns), KIND)
    assert finding is not None and "the gradient norm comes every 8 steps too" in finding.message
    assert "probably count micro-batches" in finding.message


def test_rows_at_every_fifth_batch_are_counted_in_steps():
    at = np.arange(0, 2000, 5)
    rates = 1e-3 * 0.98 ** (at // 20)
    finding = found(run_of({"lr": (at, rates)}, config={"accumulate_grad_batches": 20}), KIND)
    assert finding is not None and finding.evidence["steps_per_update"] == 20
    assert finding.evidence["rows_per_update"] == 4


def test_schedules_of_other_kinds_are_silent():
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(200, 2000))
        t = np.arange(n)
        length = int(rng.integers(20, 200))
        schedules = {
            "cosine at every step": 1e-3 * (1 + np.cos(np.pi * t / n)) / 2,
            "linear, printed with few digits": np.round(1e-3 * (1 - t / n), 6),
            "cosine, printed with few digits": np.array(
                [float(f"{v:.2e}") for v in 1e-3 * (1 + np.cos(np.pi * t / n)) / 2]
            ),
            "step decay": 1e-3 * 0.1 ** (t // (n // 3)),
            "constant": np.full(n, 3e-4),
            "warm-up, then constant": np.minimum(t / 100, 1.0) * 3e-4,
            "reduced on plateaus": 1e-3 * 0.5 ** np.searchsorted(np.sort(rng.integers(0, n, 20)), t),
        }
        for values in schedules.values():
            alarms += found(run_of({"lr": values}), KIND) is not None
        by_epoch = run_of({"lr": 1e-3 * 0.97 ** (t // length)}, epochs=t / length)
        counted = run_of({"lr": 1e-3 * 0.97 ** (t // length)}, epochs=t // length)
        alarms += (found(by_epoch, KIND) is not None) + (found(counted, KIND) is not None)
    assert alarms == 0


def test_a_configuration_that_accumulates_nothing_or_otherwise_is_believed():
    rates = np.repeat(1e-3 * 0.98 ** np.arange(50), 8)
    assert found(run_of({"lr": rates}, config={"gradient_accumulation_steps": 1}), KIND) is None
    assert found(run_of({"lr": rates}, config={"gradient_accumulation_steps": 3}), KIND) is None


def test_the_planned_updates_times_the_accumulation_tell_it_without_a_learning_rate():
    config = {"gradient_accumulation_steps": 4, "max_steps": 500}
    loss = decay(2000, np.random.default_rng(3))
    finding = found(run_of({"loss": loss}, config=config), KIND)
    assert finding is not None and "4 times the 500 updates that are configured" in finding.message
    result = hidden_facts(run_of({"loss": loss}, config=config))
    assert [line.get_xdata().tolist() for line in result.plot().lines][1] == [500.0]
    assert found(run_of({"loss": loss[:500]}, config=config), KIND) is None, "these steps are updates"
    assert found(run_of({"loss": loss[:900]}, config=config), KIND) is None, "a run that was stopped may be either"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"gradient_accumulation_steps": 8}, ("gradient_accumulation_steps", 8)),
        ({"trainer": {"accumulate_grad_batches": 4}}, ("accumulate_grad_batches", 4)),
        ({"optim/accum_iter": 2}, ("accum_iter", 2)),
        ({"grad_accum_steps": {"value": 16, "desc": None}}, ("grad_accum_steps", 16)),
        ({"gradient_accumulation_steps": "auto"}, None),
        ({"gradient_accumulation_steps": True}, None),
        ({"accumulation_steps": 4, "model": {"accum_steps": 2}}, None),
        ({}, None),
    ],
)
def test_the_accumulation_is_read_from_the_configurations_that_people_write(config: dict, said: tuple | None):
    assert accumulation(config) == said


def test_stairs_are_the_same_as_a_plain_walk_finds():
    for width in (2, 3, 7):
        values = np.repeat(np.random.default_rng(width).random(40), width)
        stairs = stairs_of(values)
        assert stairs is not None and stairs.width == width
        assert stairs.starts.tolist() == [i for i in range(1, len(values)) if values[i] != values[i - 1]]


def test_a_log_without_a_learning_rate_says_so():
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"loss": [1.0] * 50})).not_applicable}
    assert reasons[KIND] == "no learning rate was logged"
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"lr": [1.0] * 10})).not_applicable}
    assert reasons[KIND] == "the learning rate has 10 rows; 24 are needed to see a rhythm"
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"lr": [1.0] * 50}, steps=False)).not_applicable}
    assert reasons[KIND] == "the learning rate has no steps"
