"""Small models that are really trained, and their saves as torch writes them, read as the package reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from analysis.findings import Finding
from analysis.limits import Gauge
from analysis.weights.between_saves import findings_between
from analysis.weights.differences import differences
from analysis.weights.one_save import findings_of_save
from analysis.weights.saved import Saved, told_once
from analysis.weights.statistics import statistics
from parsers.checkpoints.opening import open_checkpoint
from parsers.plan import Plan

__all__ = ["MODELS", "OPTIMIZERS", "SCHEDULES", "Training", "loud", "read", "story"]


class Conv(nn.Module):
    """Two convolutions with batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention of one head and a small network behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.register_buffer("mask", torch.full((8, 8), -math.inf).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.ln1(x)).chunk(3, -1)
        attention = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + self.mask).softmax(-1)
        x = x + self.proj(attention @ v)
        return x + self.down(functional.gelu(self.up(self.ln2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Four blocks between an embedding and a head of the same weights; tokens 40 to 47 are never seen."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        width = 16
        self.wte, self.wpe = nn.Embedding(48, width, padding_idx=0), nn.Embedding(8, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(4))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, 48, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.ln_f(x))  # type: ignore[no-any-return]


class Lora(nn.Module):
    """A linear layer that stands still with a factor of rank 4 that trains, beginning at zero."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, 4, bias=False)
        self.lora_B = nn.Linear(4, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]


def mlp(width: int = 32) -> nn.Sequential:
    layers = [nn.Linear(8, width), nn.ReLU()]
    layers += [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def adapted() -> nn.Sequential:
    model = mlp()
    for n in (2, 4, 6):
        model[n] = Lora(model[n])  # type: ignore[arg-type]
    return model


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "conv": Conv,
    "transformer": Transformer,
    "lora": adapted,
}
OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=5e-4),
}
_Scheduler = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]
SCHEDULES: Mapping[str, _Scheduler] = {
    "constant": lambda o, n: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
    "cosine": lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n),
    "warm-up": lambda o, n: torch.optim.lr_scheduler.LambdaLR(o, lambda s: min((s + 1) / (0.3 * n), 1.0)),
    "steps": lambda o, n: torch.optim.lr_scheduler.StepLR(o, max(n // 3, 1), 0.1),
}


def _batch(model: nn.Module, made: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and classes that can be learned, as the model wants them."""
    if isinstance(model, Transformer):
        start = torch.randint(1, 40, (16, 1), generator=made)
        tokens = (start + torch.arange(9)) % 39 + 1
        return tokens[:, :-1], tokens[:, 1:]
    if isinstance(model, Conv):
        x = torch.randn(16, 2, 6, 6, generator=made)
        return x, (x[:, 0].mean((1, 2)) > 0).long() + 2 * (x[:, 1].mean((1, 2)) > 0).long()
    x = torch.randn(32, 8, generator=made)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


@dataclass
class Training:
    """A model in training that saves itself every `every` steps below `folder`; hooks of tests change what it does.

    `extra` are entries of each save, made anew for it; `before_step` may change gradients.
    """

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any = None
    every: int = 20
    seed: int = 0
    step: int = 0
    #: Type of the inputs that are no tokens.
    batches: torch.dtype = torch.float32
    extra: Callable[[Training], dict[str, Any]] = field(default=lambda _: {})
    after_step: Callable[[Training], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        self._made = torch.Generator().manual_seed(self.seed)

    @classmethod
    def of(
        cls,
        folder: Path,
        model: str,
        optimizer: str = "adamw",
        schedule: str | None = None,
        *,
        seed: int = 0,
        total: int = 100,
        **options: Any,
    ) -> Training:
        """A training of these names; only parameters that want a gradient are given to the optimizer."""
        torch.manual_seed(seed)
        module = MODELS[model]()
        made = OPTIMIZERS[optimizer]([p for p in module.parameters() if p.requires_grad])
        scheduler = None if schedule is None else SCHEDULES[schedule](made, total)
        return cls(folder, module, made, scheduler, seed=seed, **options)

    def run(self, saves: int = 5, *, at_start: bool = False) -> Training:
        """So many more saves, `every` steps apart; on one core, so that sums are added up in one order."""
        if at_start:
            self.save()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run(saves * self.every)
        finally:
            torch.set_num_threads(threads)

    def _run(self, steps: int) -> Training:
        for _ in range(steps):
            x, y = _batch(self.model, self._made)
            x = x.to(self.batches) if x.is_floating_point() else x
            self.optimizer.zero_grad()
            functional.cross_entropy(self.model(x).flatten(0, -2), y.flatten()).backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self.step += 1
            self.after_step(self)
            if self.step % self.every == 0:
                self.save()
        return self

    def save(self, name: str | None = None, **entries: Any) -> Path:
        """The state as it is; `entries` replace those of it."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.scheduler is not None:
            state["scheduler"] = {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"}
        state |= {"global_step": self.step, **self.extra(self), **entries}
        path = self.folder / (name or f"checkpoint-{self.step}.pt")
        torch.save({key: value for key, value in state.items() if value is not None}, path)
        return path


@contextmanager
def read(folder: Path) -> Iterator[list[Saved]]:
    """The saves below a folder by the number in their names, read."""
    with ExitStack() as stack:
        saves = []
        for path in sorted(folder.iterdir(), key=lambda p: int(p.stem.split("-")[-1])):
            checkpoint = stack.enter_context(open_checkpoint(path))
            saves.append(Saved(path.name, checkpoint, statistics(checkpoint), int(path.stem.split("-")[-1])))
        yield saves


def story(
    folder: Path,
    *,
    plan: Mapping[str, Any] | None = None,
    learning_rates: Mapping[int, float] | None = None,
    gauge: Gauge | None = None,
) -> list[Finding]:
    """All findings of the saves of a folder: of each by itself, and between them."""
    gauge = Gauge() if gauge is None else gauge
    planned = Plan.from_mapping(plan or {})
    with read(folder) as saves:
        alone = [f for saved in saves for f in findings_of_save(saved, run_name="r", plan=planned, gauge=gauge)]
        changes = [differences(a.checkpoint, b.checkpoint) for a, b in pairwise(saves)]
        between = findings_between(
            saves, changes, run_name="r", learning_rates=learning_rates, plan=planned, gauge=gauge
        )
    return [*told_once(alone), *between]


def loud(findings: list[Finding]) -> list[str]:
    """What is a warning or worse, in a line each."""
    return [f"{f.severity} {f.kind}: {f.message}" for f in findings if f.severity != "info"]
