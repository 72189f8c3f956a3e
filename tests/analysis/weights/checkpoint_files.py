"""Small checkpoints written by the safetensors library, opened as the package opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.roles import with_roles
from parsers.checkpoints.safetensors_file import read


def saved(folder: Path, tensors: Mapping[str, torch.Tensor], *, name: str = "model") -> Path:
    """A safetensors file of these tensors."""
    file = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    return file


def opened(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, name: str = "model", step: int | None = None
) -> Checkpoint:
    """The checkpoint of these tensors; `step` as a name or a state file would have told it."""
    found = with_roles(read(saved(folder, tensors, name=name)))
    return found if step is None else found.but(step=step)


def heavy_tailed(rows: int, columns: int, seed: int, *, exponent: float = 0.4, rank: int = 0) -> torch.Tensor:
    """A random matrix whose singular values fall as a power of their place, with the noise of training below them."""
    made = torch.Generator().manual_seed(seed)
    side = min(rows, columns) if rank == 0 else rank
    left = torch.linalg.qr(torch.randn(rows, side, generator=made))[0]
    right = torch.linalg.qr(torch.randn(columns, side, generator=made))[0]
    values = torch.arange(1, side + 1, dtype=torch.float32) ** -exponent * 5
    return (left * values) @ right.T
