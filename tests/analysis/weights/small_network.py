"""A small network that is really trained: two rings told apart, so that losses between saves mean something."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch.nn.functional import cross_entropy

State = dict[str, torch.Tensor]


@cache
def data() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(5)
    label = torch.arange(200) % 2
    angle = 2 * torch.pi * torch.rand(200, generator=made)
    radius = 1 + 1.2 * label + 0.15 * torch.randn(200, generator=made)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), label


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))


@cache
def trained(seed: int, *, steps: int = 200) -> tuple[State, State]:
    """The states after a tenth of the steps and at their end."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs, labels = data()
    early: State = {}
    for step in range(steps):
        optimiser.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimiser.step()
        if step == steps // 10:
            early = copied(model)
    return early, copied(model)


def loss_of(state: Mapping[str, torch.Tensor]) -> float:
    """The mean loss over the data of the network in this state."""
    model = network()
    model.load_state_dict(dict(state))
    with torch.no_grad():
        return cross_entropy(model(data()[0]), data()[1]).item()


def copied(model: torch.nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
