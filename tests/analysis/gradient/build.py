"""Runs of columns, simulated healthy norms and losses, and tiny real trainings that are watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

import aftertrain as at
from parsers.finish import finish
from parsers.run import Run

Column = Sequence[float] | np.ndarray[Any, Any]


def run_of(columns: Mapping[str, Column], *, steps: bool = True, every: int = 1, **more: Any) -> Run:
    """A run with one series a column at steps 0, `every`, ..."""
    parts = []
    for tag, column in columns.items():
        values = np.asarray(column, dtype=np.float64)
        at_steps = pl.Series(np.arange(len(values)) * every if steps else [None] * len(values), dtype=pl.Int64)
        tags = pl.Series([tag], dtype=pl.String).new_from_index(0, len(values))
        parts.append(pl.DataFrame({"tag": tags, "step": at_steps, "value": values}))
    return finish(
        "r", "r", "jsonl", pl.concat(parts) if parts else pl.DataFrame({"tag": [], "step": [], "value": []}), **more
    )


def told(result: Any, *, least: str = "warning") -> list[tuple[str, str]]:
    """Kinds and severities of the findings from one severity on."""
    order = ["info", "warning", "critical", "fatal"]
    return [(f.kind, f.severity) for f in result.findings if order.index(f.severity) >= order.index(least)]


def healthy(seed: int) -> Run:
    """A healthy run by simulation: any length, noise, schedule and shape of the norm that healthy runs have."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([30, 60, 200, 1000, 3000]))
    x = np.arange(n) / n
    noise, heavy = rng.choice([0.05, 0.2, 0.5]), rng.choice([3, 30])
    wobble = noise * rng.standard_t(heavy, size=n)
    shape = seed % 8
    level = {
        0: np.zeros(n),  # level
        1: 1.5 * x,  # rises several times over while the loss falls
        2: -2.0 * x,
        3: np.log(30.0) * np.exp(-20 * x),  # high at the start
        4: np.log(1e-3) * np.exp(-30 * x),  # begins next to nothing: branches initialised at zero
        5: np.log(3.0) * (x > 0.5),  # another phase of the curriculum
        6: -np.log(1e4) * x,  # fits its data, and so does the loss fall to nothing
        7: 0.5 * np.sin(40 * x),
    }[shape]
    norm = np.exp(level + wobble)
    loss = (2 * np.exp(-4 * x) + 0.5) * np.exp(0.03 * rng.normal(size=n))
    if shape == 6:
        loss = np.exp(-np.log(1e4) * x + 0.1 * rng.normal(size=n))
    spikes = rng.integers(n, size=max(n // 100, 1))
    norm[spikes] *= rng.choice([5, 50, 500])
    columns = {"loss": loss, "grad_norm": norm}
    if seed % 3 == 0:
        limit = float(rng.choice([0.5, 1.0, 5.0])) * float(np.median(norm))
        columns |= {"clip_rate": norm > limit, "grad_norm_after_clip": np.minimum(norm, limit)}
    if seed % 3 == 1:
        norm[rng.random(n) < 0.01] = np.inf
        scale = 65536.0 / 2.0 ** np.minimum(np.arange(n), 6)
        columns |= {"amp_scale": scale, "amp_skipped_count": np.minimum(np.arange(n), 6)}
    for i in range(int(rng.choice([0, 4]))):
        share = np.exp(0.7 * rng.normal() + 0.2 * rng.normal(size=n))
        columns |= {f"grad_norm/blocks.{i}.fc": norm * share, f"update_ratio/blocks.{i}.fc": 1e-3 * share}
        columns |= {f"dead_units/blocks.{i}.fc": np.clip(0.1 + 0.05 * rng.normal(size=n), 0, 1)}
    return run_of(columns, every=int(rng.choice([1, 10])))


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, hidden: int = 2, width: int = 16) -> nn.Sequential:
    """Linear layers with an activation between."""
    layers: list[nn.Module] = [nn.Linear(8, width), activation()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


class LSTM(nn.Module):
    """A recurrent classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x.reshape(len(x), 4, 2))[0][:, -1])


class Transformer(nn.Module):
    """Two layers of attention over four tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.head = nn.Linear(2, 16), nn.Linear(16, 4)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.inputs(x.reshape(len(x), 4, 2))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "tanh": lambda: mlp(nn.Tanh, 3),
    "lstm": LSTM,
    "transformer": Transformer,
}


def train(
    folder: Path,
    model: Callable[[], nn.Module],
    *,
    seed: int = 0,
    steps: int = 260,
    optimizer: str = "adam",
    lr: float = 3e-3,
    schedule: str = "constant",
    clip: float | None = None,
    batch: int = 16,
    plan: Mapping[str, Any] | None = None,
    groups: Callable[[nn.Module], Any] = lambda m: m.parameters(),
    before: Callable[[int, nn.Module, torch.optim.Optimizer], None] = lambda i, m, o: None,
) -> Run:
    """A real training of a classifier, watched at every step; `before` plants faults."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net, truth = model(), torch.randn(8, 4)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    opt = kinds[optimizer](groups(net), lr=lr)
    shapes: dict[str, Callable[[int], float]] = {
        "constant": lambda i: 1.0,
        "warmup": lambda i: min(1.0, (i + 1) / (0.1 * steps)),
        "cosine": lambda i: 0.5 * (1 + math.cos(math.pi * i / steps)),
    }
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, shapes[schedule])
    with at.Recorder(folder, seal=False, plan=plan) as rec, at.watch(net, opt, every=1):
        for i in range(steps):
            before(i, net, opt)
            x = torch.randn(batch, 8)
            loss = nn.functional.cross_entropy(net(x), (x @ truth + 0.5 * torch.randn(batch, 4)).argmax(1))
            opt.zero_grad()
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            opt.step()
            scheduler.step()
            rec.log(i, {"loss": loss.item()}, split="train")
    return at.load(rec.path)
