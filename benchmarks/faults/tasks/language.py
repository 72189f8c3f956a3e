"""A character language model: one transformer block on sentences of a small grammar."""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task
from data.training.grammar import characters, write

__all__ = ["Language"]

WINDOW, WIDTH = 16, 24


@functools.cache
def _text(length: int, seed: int) -> torch.Tensor:
    index = {symbol: i for i, symbol in enumerate(characters())}
    return torch.tensor([index[symbol] for symbol in write(length, seed)])


class _Block(nn.Module):
    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(WINDOW, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Linear(WIDTH, 2 * WIDTH)
        self.outer = nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, symbols)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(text) + self.place
        query, key, value = self.attend(self.norm(hidden)).chunk(3, -1)
        hidden = hidden + self.mix(functional.scaled_dot_product_attention(query, key, value, is_causal=True))
        hidden = hidden + self.outer(functional.relu(self.inner(hidden)))
        return self.head(hidden)  # type: ignore[no-any-return]


class Language(Task):
    """Windows of 16 characters, the next character each."""

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.2, "adam": 3e-3, "adamw": 3e-3}
    examples = 24000
    eval_examples = 160

    def build(self) -> None:
        text, held_out = _text(self.count + WINDOW + 1, 101), _text(self.eval_examples * 4 + WINDOW + 1, 202)
        windows, far = text.unfold(0, WINDOW + 1, 1), held_out.unfold(0, WINDOW + 1, 4)
        self.x, self.y = windows[: self.count, :-1], windows[: self.count, 1:]
        self.eval_x, self.eval_y = far[: self.eval_examples, :-1], far[: self.eval_examples, 1:]
        self.model = _Block(len(characters()))

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy in nats a character."""
        logits = self.model(batch[0])
        return functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten()), {}
