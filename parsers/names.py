"""Splits and metrics out of the names that people log under: `eval_loss`, `train/loss_epoch`, `val/acc`."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["split_tag"]

_SPLITS = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "evaluation": "eval",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "dev": "eval",
    "test": "test",
}
_WORDS = "|".join(sorted(_SPLITS, key=len, reverse=True))
_PREFIX = re.compile(rf"^({_WORDS})[/._:\- ](.+)$", re.IGNORECASE)
_SUFFIX = re.compile(rf"^(.+)[/._:\- ]({_WORDS})$", re.IGNORECASE)
# `train_runtime` and the like describe the whole job, not the training split of a metric.
_WHOLE_JOB = re.compile(r"^(runtime|samples_per_second|steps_per_second)$")


@lru_cache(maxsize=65536)
def split_tag(tag: str) -> tuple[str, str]:
    """Split (`train`, `eval`, `test` or empty) and metric name of a tag, as the log has it.

    >>> split_tag("eval_loss"), split_tag("train/loss_epoch"), split_tag("loss")
    (('eval', 'loss'), ('train', 'loss_epoch'), ('', 'loss'))
    >>> split_tag("loss/val"), split_tag("train_runtime"), split_tag("training")
    (('eval', 'loss'), ('', 'train_runtime'), ('', 'training'))
    """
    match = _PREFIX.match(tag)
    if match and not _WHOLE_JOB.match(match[2]):
        return _SPLITS[match[1].lower()], match[2]
    match = _SUFFIX.match(tag)
    if match:
        return _SPLITS[match[2].lower()], match[1]
    return "", tag
