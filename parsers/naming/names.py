"""Splits and metrics out of the names that people log under: `eval_loss`, `train/loss_epoch`, `val/acc`."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["resolve", "split_tag"]

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
#: Coqui's trainer names its tables in TensorBoard so; its text log has the same numbers without them.
_COQUI = re.compile(r"^(Train|Eval|Test)(Iter|Epoch)?Stats/(.+)$")
# `train_runtime` and the like describe the whole job, not the training split of a metric.
_WHOLE_JOB = re.compile(r"^(runtime|samples_per_second|steps_per_second)$")


@lru_cache(maxsize=65536)
def split_tag(tag: str) -> tuple[str, str]:
    """Split (`train`, `eval`, `test` or empty) and metric name of a tag, as the log has it.

    >>> split_tag("eval_loss"), split_tag("train/loss_epoch"), split_tag("loss")
    (('eval', 'loss'), ('train', 'loss_epoch'), ('', 'loss'))
    >>> split_tag("loss/val"), split_tag("train_runtime"), split_tag("training")
    (('eval', 'loss'), ('', 'train_runtime'), ('', 'training'))
    >>> split_tag("TrainIterStats/current_lr"), split_tag("TrainEpochStats/avg_loss"), split_tag("EvalStats/avg_loss")
    (('train', 'lr'), ('train', 'avg_loss'), ('eval', 'loss'))
    """
    match = _COQUI.match(tag)
    if match:
        return _SPLITS[match[1].lower()], _coqui(match[2] or "", match[3])
    match = _PREFIX.match(tag)
    if match and not _WHOLE_JOB.match(match[2]):
        return _SPLITS[match[1].lower()], match[2]
    match = _SUFFIX.match(tag)
    if match:
        return _SPLITS[match[2].lower()], match[1]
    return "", tag


def _coqui(table: str, name: str) -> str:
    """The name that Coqui's text log has: an evaluation is an average, and says so in one of the logs only."""
    if name.startswith("current_lr"):
        return name.removeprefix("current_")
    return name if table == "Epoch" else name.removeprefix("avg_")


@lru_cache(maxsize=65536)
def resolve(tag: str, split: str | None) -> tuple[str, str]:
    """Split and metric of a tag whose record names a split of its own (empty or None where it does not).

    The record's split counts; the tag gives up its own word only where both say the same.

    >>> resolve("loss", "val"), resolve("eval_loss", "eval"), resolve("eval_loss", ""), resolve("train_loss", "eval")
    (('eval', 'loss'), ('eval', 'loss'), ('eval', 'loss'), ('eval', 'train_loss'))
    """
    named, metric = split_tag(tag)
    if not split:
        return named, metric
    own = _SPLITS.get(split.lower(), split)
    return own, metric if named == own else tag
