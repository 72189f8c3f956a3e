"""A small GAN on the digits (Goodfellow et al. 2014, non-saturating loss), in balance or with a rushing generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .digits import Digits, load_digits
from .loop import Meter, descend, progress, seed_all
from .recording import Recording

__all__ = ["Options", "config", "plan", "prepare", "train"]

BATCH, LATENT = 64, 16
LOG_EVERY, GRID_EVERY, GRID_SIDE = 10, 1000, 8
PROBES = 256  # generated images that diversity is measured on


@dataclass(frozen=True)
class Options:
    """What a run may differ in: from `rush_from` on, `rush_steps` generator updates for each of the discriminator."""

    seed: int = 0
    steps: int = 3000
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    beta1: float = 0.5
    rush_from: int | None = None
    rush_steps: int = 10


def plan(options: Options) -> dict[str, Any]:
    """Length only: a GAN declares no schedule here."""
    return {"max_steps": options.steps}


def config(options: Options) -> dict[str, Any]:
    """Hyper-parameters. The rush is not among them: a run does not know its own faults."""
    return {
        "task": "GAN",
        "dataset": "scikit-learn digits, 8 x 8",
        "loss": "non-saturating BCE",
        "seed": options.seed,
        "steps": options.steps,
        "batch_size": BATCH,
        "latent": LATENT,
        "optimizer": "Adam",
        "beta1": options.beta1,
        "generator_lr": options.generator_lr,
        "discriminator_lr": options.discriminator_lr,
    }


def prepare(steps: int = 400) -> tuple[Digits, nn.Module]:
    """The digits, and a classifier trained on them that later names what the generator draws."""
    rng = seed_all(7)
    digits = load_digits()
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(classifier.parameters())
    for _ in range(steps):
        chosen = torch.from_numpy(rng.integers(0, digits.train.shape[0], BATCH))
        loss = functional.cross_entropy(classifier(digits.train[chosen]), digits.train_labels[chosen])
        descend(loss, optimizer, 3e-3, classifier.parameters(), clip=10.0)
    return digits, classifier.eval().requires_grad_(False)


def _generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 64),
        nn.Sigmoid(),
    )


def _discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(128, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )


class Pair:
    """Generator and discriminator with their optimisers."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.generator, self.discriminator = _generator(), _discriminator()
        betas = (options.beta1, 0.999)
        self.of_generator = torch.optim.Adam(self.generator.parameters(), betas=betas)
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), betas=betas)

    def train_discriminator(self, real: torch.Tensor) -> dict[str, float]:
        """One step; the loss is the sum over both halves, 2 ln 2 at balance."""
        with torch.no_grad():
            fake = self.generator(torch.randn(BATCH, LATENT))
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        loss = functional.softplus(-on_real).mean() + functional.softplus(on_fake).mean()
        norm = descend(
            loss, self.of_discriminator, self.options.discriminator_lr, self.discriminator.parameters(), clip=1e6
        )
        return {
            "d_loss": loss.item(),
            "d_real": on_real.sigmoid().mean().item(),
            "d_fake": on_fake.sigmoid().mean().item(),
            "d_grad_norm": norm,
        }

    def train_generator(self) -> dict[str, float]:
        """One step of the non-saturating loss, ln 2 at balance."""
        loss = functional.softplus(-self.discriminator(self.generator(torch.randn(BATCH, LATENT)))).mean()
        norm = descend(loss, self.of_generator, self.options.generator_lr, self.generator.parameters(), clip=1e6)
        return {"g_loss": loss.item(), "g_grad_norm": norm}


def train(rec: Recording, options: Options, prepared: tuple[Digits, nn.Module], folder: Path) -> float:
    """Trains one pair and records it, sample grids below `folder`/samples; returns the last diversity ratio."""
    digits, classifier = prepared
    rng, meter = seed_all(options.seed), Meter()
    pair = Pair(options)
    probes = torch.randn(PROBES, LATENT)
    of_data = _mean_distance(digits.train[:PROBES].flatten(1))
    diversity = float("nan")
    for step in range(1, options.steps + 1):
        real = digits.train[torch.from_numpy(rng.integers(0, digits.train.shape[0], BATCH))].flatten(1)
        values = pair.train_discriminator(real)
        rushing = options.rush_from is not None and step >= options.rush_from
        for _ in range(options.rush_steps if rushing else 1):
            values |= pair.train_generator()
        meter.count(BATCH)
        if step % LOG_EVERY == 0 or step == 1:
            with torch.no_grad():
                drawn = pair.generator(probes)
            diversity = _mean_distance(drawn) / of_data
            rec.log(step, values | {"diversity": diversity, "classes": _classes(drawn, classifier)}, split="train")
        if step % GRID_EVERY == 0 or step == options.steps // 10:
            _record_grid(rec, step, drawn, folder)
            rec.data(step, files=step * BATCH)
            meter.record(rec, step)
            progress("gan", step, options.steps, f"diversity {diversity:.2f}")
    return diversity


def _mean_distance(images: torch.Tensor) -> float:
    """Mean Euclidean distance over all pairs of different images."""
    return torch.pdist(images).mean().item()


def _classes(images: torch.Tensor, classifier: nn.Module) -> float:
    """How many of the ten digits make up at least one percent of the images."""
    found = torch.bincount(classifier(images).argmax(-1), minlength=10)
    return float((found >= 0.01 * images.shape[0]).sum())


def _record_grid(rec: Recording, step: int, drawn: torch.Tensor, folder: Path) -> None:
    """The first images as one greyscale PNG, three pixels a pixel."""
    from PIL import Image

    tiles = drawn[: GRID_SIDE**2].reshape(GRID_SIDE, GRID_SIDE, 8, 8).permute(0, 2, 1, 3).reshape(8 * GRID_SIDE, -1)
    pixels = (255 * tiles.numpy()).round().astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)
    path = folder / "samples" / f"step{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, optimize=True)
    rec.sample(step, "image", [path], {"images": GRID_SIDE**2})
