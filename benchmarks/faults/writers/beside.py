"""The configuration that stands beside a log, in the file that its framework or its users have for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

__all__ = ["flat_name", "write_json", "write_yaml"]


def write_json(path: Path, config: dict[str, Any], plan: dict[str, Any]) -> None:
    """`config` as JSON, with what the plan knows besides (curriculum, inputs)."""
    path.write_text(json.dumps(_with_plan(config, plan), indent=2))


def write_yaml(path: Path, config: dict[str, Any], plan: dict[str, Any]) -> None:
    """The same as YAML."""
    path.write_text(yaml.safe_dump(_with_plan(config, plan), sort_keys=False))


def _with_plan(config: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    return config | {key: plan[key] for key in ("curriculum", "loss_weights") if key in plan}


def flat_name(split: str, metric: str, *, joint: str = "_", others: str = "val") -> str:
    """`train_loss` or `val_loss`: the split before the name, with what people call the held-out split."""
    known = {"train": "train", "eval": others}.get(split, split)
    return f"{known}{joint}{metric}" if known else metric
