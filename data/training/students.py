"""Teacher and student of the distillation: small vision transformers on 16 patches, the student with routed experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Seen", "Transformer"]

PATCHES = 16
STEM_CHANNELS = 8


@dataclass(frozen=True)
class Seen:
    """What a forward pass leaves for the losses to look at."""

    logits: torch.Tensor  # (batch, classes)
    pooled: torch.Tensor  # (batch, width): the mean token after the last layer
    hidden: list[torch.Tensor]  # per layer (batch, patches, width)
    attention: list[torch.Tensor]  # per layer (batch, patches, patches), mean over heads
    routed: list[torch.Tensor]  # per layer with experts: their mixed output (batch, patches, width)
    gates: list[torch.Tensor]  # per layer with experts: probabilities (batch, patches, experts)


class Attention(nn.Module):
    """Multi-head self-attention that also returns its map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        return self.out(mixed), weights.mean(1)


class Experts(nn.Module):
    """Softly routed mixture of small feed-forward experts: every token mixes all experts by its gate."""

    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.into = nn.Parameter(torch.randn(experts, width, inner) / width**0.5)
        self.back = nn.Parameter(torch.randn(experts, inner, width) / inner**0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gates = self.router(x).softmax(-1)
        inner = functional.gelu(torch.einsum("btw,ewi->btei", x, self.into))
        return torch.einsum("btei,eiw,bte->btw", inner, self.back, gates), gates


class Layer(nn.Module):
    """Pre-norm transformer layer; with `experts` its feed-forward part is routed."""

    def __init__(self, width: int, heads: int, experts: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.experts = Experts(width, width, experts) if experts else None
        self.mlp = (
            None if experts else nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attention(self.before_attention(x))
        x = x + attended
        gates = None
        if self.experts is not None:
            update, gates = self.experts(self.before_mlp(x))
        else:
            assert self.mlp is not None
            update = self.mlp(self.before_mlp(x))
        return x + update, weights, update, gates


class Transformer(nn.Module):
    """Images of 8 x 8 in, ten logits out: a convolution, patches of 2 x 2, layers; `experts=0` has no routing."""

    def __init__(self, width: int, heads: int, layers: int, experts: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM_CHANNELS, kernel_size=3, padding=1)
        self.embed = nn.Linear(4 * STEM_CHANNELS, width)
        self.place = nn.Parameter(0.1 * torch.randn(PATCHES, width))
        self.layers = nn.ModuleList(Layer(width, heads, experts) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> Seen:
        count = images.shape[0]
        pixels = functional.gelu(self.stem(images[:, None])).reshape(count, STEM_CHANNELS, 4, 2, 4, 2)
        patches = pixels.permute(0, 2, 4, 1, 3, 5).reshape(count, PATCHES, 4 * STEM_CHANNELS)
        x = self.embed(patches) + self.place
        hidden, attention, routed, gates = [], [], [], []
        for layer in self.layers:
            x, weights, update, gate = layer(x)
            hidden.append(x)
            attention.append(weights)
            if gate is not None:
                routed.append(update)
                gates.append(gate)
        pooled = self.norm(x).mean(1)
        return Seen(self.head(pooled), pooled, hidden, attention, routed, gates)
