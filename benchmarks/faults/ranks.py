"""Data-parallel training in one process: replicas with batches of their own and averaged gradients, one log each."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.faults.loop import State, config_of, norm_of, plan_of, weight_norm
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.tasks import task_of
from benchmarks.faults.trace import Row, Trace

__all__ = ["Parting", "train_ranks"]


class Parting:
    """How one rank leaves the others at a step: its weights are off by a share, or its gradients are its own."""

    def __init__(self, rank: int, at: int, share: float, *, own_gradients: bool) -> None:
        self.rank, self.at, self.share, self.own_gradients = rank, at, share, own_gradients

    def own(self, rank: int, step: int) -> bool:
        """Whether a rank's gradient is left out of the mean and used by itself."""
        return self.own_gradients and rank == self.rank and step >= self.at


def train_ranks(recipe: Recipe, world: int, parting: Parting | None = None) -> Trace:
    """Trains `world` replicas; every rank logs its own loss, and the norms and the rate that all should share."""
    torch.set_num_threads(1)
    states = [State(recipe, task_of(recipe)) for _ in range(world)]
    first = states[0]
    config = {**config_of(recipe, first.task, first.schedule), "world_size": world}
    trace = Trace([], config, plan_of(recipe, first.task, first.schedule), recipe.steps, recipe.every, world=world)
    for step in range(1, recipe.steps + 1):
        losses = [_backward(state, world * (step - 1) + rank + 1) for rank, state in enumerate(states)]
        if parting is not None and step == parting.at:
            _push(states[parting.rank], parting.share)
        norms = _average(states, step, parting)
        for state in states:
            for group in state.optimizer.param_groups:
                group["lr"] = state.schedule.at(step)
            state.optimizer.step()
        if step % recipe.every == 0:
            for rank, state in enumerate(states):
                values = {"loss": losses[rank], "lr": state.schedule.at(step), "grad_norm": norms[rank]}
                values["param_norm"] = weight_norm(state.parameters)
                trace.rows.append(Row(step, values, "train", rank=rank))
    return trace


def _backward(state: State, place: int) -> float:
    state.optimizer.zero_grad(set_to_none=True)
    loss, _ = state.task.loss(state.task.batch(place), place)
    loss.backward()
    return loss.item()


@torch.no_grad()
def _push(state: State, share: float) -> None:
    for parameter in state.parameters:
        parameter.mul_(1 + share)


@torch.no_grad()
def _average(states: list[State], step: int, parting: Parting | None) -> list[float]:
    """Gives all ranks the mean gradient, but for one that keeps its own; the norm that each rank then sees."""
    apart = [parting is not None and parting.own(rank, step) for rank in range(len(states))]
    joint = [rank for rank, own in enumerate(apart) if not own]
    for place, parameter in enumerate(states[0].parameters):
        assert parameter.grad is not None
        gradients = [states[rank].parameters[place].grad for rank in joint]
        mean = torch.stack([g for g in gradients if g is not None]).mean(0)
        for rank in joint:
            states[rank].parameters[place].grad = mean.clone()
    return [norm_of(state.parameters) for state in states]


def spread(trace: Trace, metric: str, row: int = -1) -> float:
    """Largest relative difference between ranks of a metric in a row (the last)."""
    ranks = sorted({one.rank for one in trace.rows})
    last = np.array([[r.values[metric] for r in trace.rows if r.rank == rank][row] for rank in ranks])
    return float((last.max() - last.min()) / np.median(last))
