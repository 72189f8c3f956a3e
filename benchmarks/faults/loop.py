"""The training loop: real optimiser steps on a small model, with places where a fault may reach in."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import Schedule, draw_schedule
from benchmarks.faults.tasks import Task, task_of
from benchmarks.faults.tasks.base import Batch
from benchmarks.faults.trace import Event, Row, Trace

__all__ = ["Hook", "State", "schedule_of", "train"]


class State:
    """Where a training stands. `noise` is for faults; `values` are the numbers of the row that is being logged."""

    def __init__(self, recipe: Recipe, task: Task) -> None:
        self.recipe, self.task, self.model = recipe, task, task.model
        self.schedule = schedule_of(recipe, task.peaks)
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(recipe.optimizer, self.parameters)
        self.noise = np.random.default_rng([recipe.seed, 4242])
        self.step, self.lr, self.norm, self.clipped = 0, 0.0, 0.0, 0.0
        self.losses: list[float] = []
        self.others: dict[str, float] = {}
        self.layer_norms: dict[str, float] = {}
        self.updates: dict[str, float] = {}

    def snapshot(self) -> tuple[Any, Any]:
        """Weights and optimiser as they are now."""
        return copy.deepcopy(self.model.state_dict()), copy.deepcopy(self.optimizer.state_dict())

    def restore(self, taken: tuple[Any, Any]) -> None:
        """Back to a snapshot, which may be used again."""
        self.model.load_state_dict(taken[0])
        self.optimizer.load_state_dict(copy.deepcopy(taken[1]))

    @torch.no_grad()
    def loss_on(self, batch: Batch) -> float:
        """The loss of the model as it is on a batch."""
        return float(self.task.loss(batch, self.step)[0])


class Hook:
    """A fault that reaches into a training; each method leaves things as they are unless it is overridden."""

    def before(self, state: State) -> None:
        """At the beginning of a step."""

    def lr(self, state: State, lr: float) -> float:
        """The learning rate that is applied and logged."""
        return lr

    def batch(self, state: State, batch: Batch) -> Batch:
        """The batch that is trained on."""
        return batch

    def gradients(self, state: State) -> None:
        """After the backward pass, before clipping and before the norm is taken."""

    def skip(self, state: State) -> bool:
        """Whether the optimiser leaves this step out."""
        return False

    def after(self, state: State) -> None:
        """After the optimiser's step."""

    def row(self, state: State, values: dict[str, float]) -> None:
        """The numbers of a row, just before it is logged."""


def optimizer_of(name: str, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum, Adam or AdamW; the rate is set at every step."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, momentum=0.9)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=0.0, fused=True)
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.01, fused=True)


def schedule_of(recipe: Recipe, peaks: dict[str, float]) -> Schedule:
    """The schedule that the recipe means: what the plan and the configuration say."""
    rng = np.random.default_rng([recipe.seed, 5])
    # a small batch has noisy gradients and wants a smaller rate
    peak = peaks[recipe.optimizer] * min(1.0, math.sqrt(recipe.batch / 32)) * float(recipe.get("lr_factor", 1.0))
    drawn = draw_schedule(recipe.schedule, float(f"{peak:.2g}"), recipe.steps, rng)
    return drawn.with_(**recipe.get("schedule_changes", {}))


def norm_of(parameters: Sequence[torch.nn.Parameter]) -> float:
    """2-norm of the gradients."""
    found = [p.grad for p in parameters if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))) if found else 0.0


def weight_norm(parameters: Sequence[torch.nn.Parameter]) -> float:
    """2-norm of parameters."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([p.detach() for p in parameters]))).item()


def train(recipe: Recipe, hooks: Sequence[Hook] = ()) -> Trace:
    """Trains the recipe's model and gives back what it logged. The times are not set yet (see `clock`)."""
    torch.set_num_threads(1)
    task = task_of(recipe)
    state = State(recipe, task)
    trace = Trace([], config_of(recipe, task, state.schedule), plan_of(recipe, task, state.schedule),
                  recipe.steps, recipe.every)  # fmt: skip
    eval_every = int(recipe.get("eval_rows", max(1, recipe.points // 15))) * recipe.every
    for step in range(1, recipe.steps + 1):
        state.step = step
        one_step(state, hooks)
        epoch = round(step / task.steps_per_epoch, 4)
        if step % recipe.every == 0:
            trace.rows.append(Row(step, row_of(state, hooks), "train", epoch))
            if recipe.family == "distillation":
                trace.events += account_events(state)
        if eval_every and (step % eval_every == 0 or step == recipe.steps):
            trace.rows.append(Row(step, task.evaluate(step), "eval", epoch))
    return trace


def one_step(state: State, hooks: Sequence[Hook]) -> None:
    """Forward, backward, clipping, step; each hook in turn at each place."""
    for hook in hooks:
        hook.before(state)
    lr = state.schedule.at(state.step)
    batch = state.task.batch(state.step)
    for hook in hooks:
        lr, batch = hook.lr(state, lr), hook.batch(state, batch)
    state.lr = lr
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    loss, state.others = state.task.loss(batch, state.step)
    loss.backward()
    state.losses.append(loss.item())
    logged = state.step % state.recipe.every == 0
    for hook in hooks:
        hook.gradients(state)
    clip(state)
    updates = logged and state.recipe.get("updates", False)
    before = {n: [p.detach().clone() for p in ps] for n, ps in state.task.layers().items()} if updates else {}
    skipped = [hook.skip(state) for hook in hooks]  # all are asked: each may count
    if not any(skipped):
        state.optimizer.step()
    for hook in hooks:
        hook.after(state)
    state.updates = {f"update_ratio/{name}": _moved(state, name, old) for name, old in before.items()}


def _moved(state: State, name: str, before: list[torch.Tensor]) -> float:
    """Norm of the change of a layer over its norm before."""
    changes = [p.detach() - old for p, old in zip(state.task.layers()[name], before, strict=True)]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(changes)))) / max(
        float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(before)))), 1e-12
    )


def clip(state: State) -> None:
    """Takes the norm, and scales the gradients down to `clip` where the recipe has one."""
    limit = state.recipe.get("clip", None)
    if limit is None and state.step % state.recipe.every:
        return
    state.norm = state.clipped = norm_of(state.parameters)
    state.layer_norms = layer_norms(state) if state.recipe.get("layers", False) else {}
    if limit is not None and state.norm > limit:
        torch._foreach_mul_([p.grad for p in state.parameters if p.grad is not None], limit / (state.norm + 1e-6))
        state.clipped = limit


def layer_norms(state: State) -> dict[str, float]:
    """Gradient and parameter norms by layer, as `watch` names them."""
    found: dict[str, float] = {}
    for name, parameters in state.task.layers().items():
        if any(p.requires_grad for p in parameters):
            found[f"grad_norm/{name}"] = norm_of(parameters)
        found[f"param_norm/{name}"] = weight_norm(parameters)
    return found


def row_of(state: State, hooks: Sequence[Hook]) -> dict[str, float]:
    """What is logged of this step: the loss of the step, or its mean since the last row where `mean` is set."""
    recipe = state.recipe
    last = state.losses[-recipe.every :]
    values = {"loss": float(np.mean(last)) if recipe.get("mean", False) else last[-1], "lr": state.lr}
    if recipe.get("log_norm", True):
        values["grad_norm"] = state.norm
    if recipe.get("clip", None) is not None and recipe.get("log_clipped", False):
        values["grad_norm_after_clip"] = state.clipped
    values |= {**state.others, **state.layer_norms, **state.updates}
    if recipe.get("param_norm", False):
        values["param_norm"] = weight_norm(state.parameters)
    if recipe.get("units", False):
        values |= dead_shares(state)
    if recipe.family == "distillation":
        values |= {f"{name}_loss": a["weighted"] for name, a in state.task.account_numbers().items()}  # type: ignore[attr-defined]
    for hook in hooks:
        hook.row(state, values)
    return values


@torch.no_grad()
def dead_shares(state: State) -> dict[str, float]:
    """Share of units by hidden layer that no example of a larger batch opens, as `dead_units/{layer}`."""
    hidden, found = state.task.x[:512], {}
    for name, part in state.model.named_children():
        hidden = part(hidden)
        if isinstance(part, torch.nn.ReLU):
            found[f"dead_units/{int(name) - 1}"] = float((hidden <= 0).all(0).to(torch.float32).mean())
    return found


def account_events(state: State) -> list[Event]:
    """The loss components and the curriculum of a distillation at this step."""
    task: Any = state.task
    total = float(task.accounts["total"].detach())
    said = {"components": task.account_numbers(), "total": total, "displayed": total}
    where = {"phase": task.phase(state.step), "weights": dict(task.accounts["weight"])}
    progress = state.step / state.recipe.steps
    return [Event("losses", state.step, said), Event("curriculum", state.step, {**where, "progress": progress})]


def config_of(recipe: Recipe, task: Task, schedule: Schedule) -> dict[str, Any]:
    """What a practitioner's configuration holds; the schedule only where `state_lr` says so (it does by default)."""
    said = {**task.config(), "seed": recipe.seed % 1000, "batch_size": recipe.batch, "optimizer": recipe.optimizer}
    said |= {"logging_steps": recipe.every, "max_steps": recipe.steps, "learning_rate": schedule.peak}
    if recipe.get("state_lr", True):
        said |= schedule.config()
    if recipe.get("clip", None) is not None:
        said["max_grad_norm"] = recipe.get("clip", None)
    return said | recipe.get("config", {})


def plan_of(recipe: Recipe, task: Task, schedule: Schedule) -> dict[str, Any]:
    """The plan of an event stream."""
    said: dict[str, Any] = {"max_steps": recipe.steps}
    if recipe.get("state_lr", True):
        said["lr"] = schedule.plan()
    if recipe.family == "distillation":
        said |= {"curriculum": copy.deepcopy(task.curriculum), "aggregation": "sum"}  # type: ignore[attr-defined]
    return said
