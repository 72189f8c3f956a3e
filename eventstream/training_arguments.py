"""What a run of the Trainer was configured to do, from its TrainingArguments and its model, with secrets left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eventstream.layers import bare_module

__all__ = ["lr_plan", "settings", "without_secrets"]

#: Names of values that open doors; the special tokens of a vocabulary are none.
_SECRET = re.compile(
    r"(^|_)(token|secret|secrets|password|passwd|credentials?|api_?key|access_?key|private_?key)$", re.IGNORECASE
)
_VOCABULARY = re.compile(
    r"^(bos|eos|pad|unk|sep|cls|mask|image|audio|video|text|start|end|stop|special)_", re.IGNORECASE
)
#: Values that open doors whatever their name: access tokens of known makes, and addresses with a password in them.
_SECRET_VALUE = re.compile(r"\b(hf_|gh[pousr]_|sk-(?:proj-|ant-)?|xox[abp]-)[A-Za-z0-9]{20,}|://[^/\s:@]+:[^/\s@]+@")
#: Names that hold the host and the moment, not what was configured.
_ENVIRONMENT = ("logging_dir", "_n_gpu", "local_rank", "local_process_index")
#: Tables of class names of a model's configuration beyond this size say nothing about a training.
_MOST_NAMES = 64


def settings(args: Any, model: Any = None) -> dict[str, Any]:
    """TrainingArguments by their own names, and under `model` its class, size and configuration.

    Left out: what is None, secrets (`without_secrets`), host names and places of the environment.

    >>> from types import SimpleNamespace
    >>> settings(SimpleNamespace(learning_rate=0.1, hub_token="hf_x", seed=None))
    {'learning_rate': 0.1}
    """
    made = args.to_dict() if callable(getattr(args, "to_dict", None)) else dict(vars(args))
    kept = {key: value for key, value in made.items() if value is not None and key not in _ENVIRONMENT}
    found: dict[str, Any] = without_secrets(kept)
    if model is not None:
        found["model"] = _model(bare_module(model))
    return found


def _model(model: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"class": type(model).__name__}
    if callable(getattr(model, "parameters", None)):
        sizes = [(int(p.numel()), bool(p.requires_grad)) for p in model.parameters()]
        about["parameters"] = sum(size for size, _ in sizes)
        about["trainable"] = sum(size for size, trains in sizes if trains)
    opened = getattr(getattr(model, "config", None), "to_dict", None)
    if callable(opened):
        made = opened()
        big = [key for key, value in made.items() if isinstance(value, (dict, list)) and len(value) > _MOST_NAMES]
        about["config"] = without_secrets({k: v for k, v in made.items() if v is not None and k not in big})
    return about


def without_secrets(value: Any) -> Any:
    """The value with every entry taken out, however deep, whose name or text is one of a secret.

    >>> without_secrets({"lr": 0.1, "hub_token": "x", "eos_token": "</s>", "url": "https://me:pw@host"})
    {'lr': 0.1, 'eos_token': '</s>'}
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(inner) for key, inner in value.items() if not _is_secret(str(key), inner)}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value if not _is_secret("", inner)]
    return value


def _is_secret(name: str, value: object) -> bool:
    if _SECRET.search(name) and not _VOCABULARY.match(name):
        return True
    return isinstance(value, str) and _SECRET_VALUE.search(value) is not None


def lr_plan(args: Any, max_steps: int) -> dict[str, Any]:
    """The schedule of the learning rate as a plan has it: name, peak, warm-up and length in steps.

    >>> from types import SimpleNamespace
    >>> lr_plan(SimpleNamespace(lr_scheduler_type="linear", learning_rate=0.1, warmup_steps=5), 100)
    {'schedule': 'linear', 'peak': 0.1, 'warmup_steps': 5, 'total_steps': 100}
    """
    name = getattr(args, "lr_scheduler_type", None)
    warm = getattr(args, "get_warmup_steps", None)
    found = {
        "schedule": getattr(name, "value", name),
        "peak": getattr(args, "learning_rate", None),
        "warmup_steps": warm(max_steps) if callable(warm) else getattr(args, "warmup_steps", None),
        "total_steps": max_steps,
    }
    return {key: value for key, value in found.items() if value is not None}
