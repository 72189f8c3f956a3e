"""A GAN on a ring of eight Gaussians: two players, three families of losses, and how many modes are still drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.faults.loop import norm_of
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.tasks.base import stack
from benchmarks.faults.trace import Row, Trace

__all__ = ["GAN_LOSSES", "Bend", "train_gan"]

MODES, LATENT, SPREAD = 8, 8, 0.05
#: The discriminator learns at so many times the generator's rate (Heusel et al. 2017).
CRITIC = 3.0
#: A discriminator that is to lose has so much of its rate left.
SLOW = 0.2
Tensor = torch.Tensor


def _bce(real: Tensor, fake: Tensor) -> Tensor:
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def _lsgan(real: Tensor, fake: Tensor) -> Tensor:
    return ((real - 1) ** 2).mean() + (fake**2).mean()


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


#: Discriminator's loss, generator's loss, and how the discriminator's output is logged.
GAN_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor], Any]] = {
    "bce": (_bce, lambda fake: functional.softplus(-fake).mean(), torch.sigmoid),
    "lsgan": (_lsgan, lambda fake: ((fake - 1) ** 2).mean(), lambda out: out),
    "hinge": (_hinge, lambda fake: -fake.mean(), lambda out: out),
}


@dataclass
class Bend:
    """What a fault changes from step `onset` on, held at its size by a controller that looks at the last rows.

    `thin`: the generator's noise narrows until the diversity is that share of what it was. `gap`: the discriminator is
    trained slowly, and on swapped labels while D(fake) - D(real) is below this. `won`: the generator is trained only
    while D's loss is below this, and D sees neither instance noise nor its penalty.
    """

    onset: int = 10**9
    thin: float | None = None
    gap: float | None = None
    won: float | None = None
    narrow: float = 0.0
    usual: float = 1.0
    seen: dict[str, float] = field(default_factory=dict)

    def look(self, values: dict[str, float], on: bool) -> None:
        """Takes note of a step's numbers, as running means over ten steps."""
        for name, value in values.items():
            self.seen[name] = 0.9 * self.seen.get(name, value) + 0.1 * value
        if "diversity" in values and not on:
            self.usual = self.seen["diversity"]
        if "diversity" in values and on and self.thin is not None:
            ratio = values["diversity"] / self.usual
            self.narrow = min(0.9999, max(0.0, self.narrow + 0.5 * (1 - self.narrow) * (1 - self.thin / ratio)))

    @property
    def trains_d(self) -> bool:
        """Whether the discriminator is trained as it should be in this step, where the fault is on."""
        return self.gap is None or self.seen["d_fake"] - self.seen["d_real"] > self.gap

    @property
    def trains_g(self) -> bool:
        """Whether the generator is."""
        return self.won is None or self.seen["d_loss"] < self.won


class _Players:
    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.of_d, self.of_g, self.shown = GAN_LOSSES[recipe.get("gan", "bce")]
        self.generator, self.critic = stack([LATENT, 48, 48, 2]), stack([2, 48, 48, 1])
        betas = (0.5, 0.99)
        self.g_opt = torch.optim.Adam(self.generator.parameters(), betas=betas, fused=True)
        self.d_opt = torch.optim.Adam(self.critic.parameters(), betas=betas, fused=True)
        angles = 2 * math.pi * torch.arange(MODES) / MODES
        self.centres = torch.stack([angles.cos(), angles.sin()], dim=1)
        self.probes = torch.randn(256, LATENT)

    def real(self) -> Tensor:
        chosen = self.centres[torch.randint(0, MODES, (self.recipe.batch,))]
        return chosen + SPREAD * torch.randn_like(chosen)

    def latent(self, bend: Bend, on: bool) -> Tensor:
        drawn = torch.randn(self.recipe.batch, LATENT)
        return drawn * (1 - bend.narrow) if on else drawn

    def noise(self, bend: Bend, on: bool) -> float:
        """Spread of the instance noise (Sonderby et al. 2017), which keeps the game balanced."""
        return float(self.recipe.get("instance_noise", 0.25)) * (0.0 if on and bend.won is not None else 1.0)

    def step_d(self, lr: float, bend: Bend, on: bool) -> dict[str, float]:
        """One step of the discriminator; where the fault forbids it, its numbers alone."""
        with torch.no_grad():
            fake = self.generator(self.latent(bend, on))
        noise = self.noise(bend, on)
        real = self.real()
        on_real, on_fake = (self.critic(x + noise * torch.randn_like(x)) for x in (real, fake))
        loss = self.of_d(on_real, on_fake)
        # a small drift penalty (Karras et al. 2018, appendix A.1) keeps D's outputs near 0; it is not logged
        drift = 0.0 if on and bend.won is not None else 0.2
        swapped = on and not bend.trains_d
        taught = self.of_d(on_fake, on_real) if swapped else loss
        taught = taught + drift * ((on_real**2).mean() + (on_fake**2).mean())
        norm = _descend(taught, self.d_opt, lr, self.critic, trained=True)
        shown = {"d_real": self.shown(on_real).mean().item(), "d_fake": self.shown(on_fake).mean().item()}
        return {"d_loss": loss.item(), **shown, "d_grad_norm": norm}

    def step_g(self, lr: float, bend: Bend, on: bool) -> dict[str, float]:
        """One step of the generator, likewise."""
        noise = self.noise(bend, on)
        fake = self.generator(self.latent(bend, on))
        loss = self.of_g(self.critic(fake + noise * torch.randn_like(fake)))
        norm = _descend(loss, self.g_opt, lr, self.generator, not on or bend.trains_g)
        return {"g_loss": loss.item(), "g_grad_norm": norm}

    @torch.no_grad()
    def drawn(self, bend: Bend, on: bool) -> dict[str, float]:
        """Mean distance of samples over that of the data, and modes that at least 1 % of the samples are near to."""
        samples = self.generator(self.probes * (1 - bend.narrow) if on else self.probes)
        of_data = torch.pdist(self.centres.repeat(8, 1)).mean().item()
        nearest = torch.cdist(samples, self.centres).min(1)
        near = nearest.indices[nearest.values < 6 * SPREAD]
        counts = torch.bincount(near, minlength=MODES)
        covered = float((counts >= 0.01 * len(samples)).sum())
        return {"diversity": torch.pdist(samples).mean().item() / of_data, "modes_covered": covered}


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float, model: nn.Module, trained: bool) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = norm_of(list(model.parameters()))
    if trained:
        optimizer.step()
    return norm


def train_gan(recipe: Recipe, bend: Bend | None = None) -> Trace:
    """Trains the two players; `bend` unbalances them from its onset on."""
    torch.set_num_threads(1)
    bend, players = bend or Bend(), _Players(recipe)
    rate = 2e-3 * float(recipe.get("lr_factor", 1.0))
    trace = Trace([], _config(recipe, rate), {"max_steps": recipe.steps}, recipe.steps, recipe.every)
    for step in range(1, recipe.steps + 1):
        on = step >= bend.onset
        d_rate = CRITIC * rate * (SLOW if on and bend.gap is not None else 1.0)
        values = players.step_d(d_rate, bend, on) | players.step_g(rate, bend, on)
        if step % recipe.every == 0:
            values |= players.drawn(bend, on)
            trace.rows.append(Row(step, {**values, "lr_g": rate, "lr_d": d_rate}, "train"))
        bend.look(values, on)
    return trace


def _config(recipe: Recipe, rate: float) -> dict[str, Any]:
    said = {"task": "gan", "gan_loss": recipe.get("gan", "bce"), "seed": recipe.seed % 1000, "optimizer": "adam"}
    said |= {"batch_size": recipe.batch, "max_steps": recipe.steps, "generator_lr": rate}
    said["discriminator_lr"] = CRITIC * rate
    return said | recipe.get("config", {})
