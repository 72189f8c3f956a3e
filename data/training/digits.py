"""scikit-learn's handwritten digits (UCI Optical Recognition, test part): 1797 images of 8 x 8, split once for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Digits", "augment", "load_digits"]

EVAL_IMAGES = 450
MOVES = (0.15, 0.7, 0.15)  # chance of one pixel back, none, one on; per axis


@dataclass(frozen=True)
class Digits:
    """Images as float32 of (n, 8, 8) in 0..1 and labels as int64, for training and held out."""

    train: torch.Tensor
    train_labels: torch.Tensor
    eval: torch.Tensor
    eval_labels: torch.Tensor


def load_digits() -> Digits:
    """The images in an order that does not depend on any run's seed, so that all runs hold out the same ones."""
    from sklearn import datasets

    raw = datasets.load_digits()
    order = np.random.default_rng(20240101).permutation(len(raw.target))
    images = torch.from_numpy((raw.images[order] / 16.0).astype(np.float32))
    labels = torch.from_numpy(raw.target[order].astype(np.int64))
    return Digits(images[EVAL_IMAGES:], labels[EVAL_IMAGES:], images[:EVAL_IMAGES], labels[:EVAL_IMAGES])


def augment(images: torch.Tensor, rng: np.random.Generator, noise: float = 0.1) -> torch.Tensor:
    """The images, about half of them moved by one pixel, all with Gaussian noise added."""
    count = images.shape[0]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    down, right = rng.choice(3, (2, count), p=MOVES)
    rows = torch.from_numpy(down[:, None] + np.arange(8)[None, :])
    columns = torch.from_numpy(right[:, None] + np.arange(8)[None, :])
    moved = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved + noise * torch.from_numpy(rng.standard_normal(images.shape).astype(np.float32))
