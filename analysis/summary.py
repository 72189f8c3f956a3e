"""A diagnosis in one sentence: what was found, and what of the log could and could not be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.diagnose import Diagnosis

__all__ = ["summary_of"]

#: Roles of series whose course tells whether a model learns.
_LOSSES = ("train_loss", "eval_loss", "generator_loss", "discriminator_loss")


def summary_of(diagnosis: Diagnosis) -> str:
    """What was found, whether the loss could be judged, and how many kinds could not.

    >>> import polars as pl
    >>> from analysis.diagnose import diagnose
    >>> from parsers.finish import finish
    >>> rates = pl.DataFrame({"tag": ["lr"] * 50, "step": range(50), "value": [0.1] * 50})
    >>> summary_of(diagnose(finish("a", "a", "jsonl", rates))).split(":")[0]
    'nothing wrong found; no loss in this log'
    """
    judged, left = len(diagnosis.judged), len(diagnosis.not_applicable)
    parts = [_found(diagnosis), *_loss(diagnosis)]
    return f"{'; '.join(parts)}: {left} of {judged + left} kinds could not be judged" if left else "; ".join(parts)


def _found(diagnosis: Diagnosis) -> str:
    worse = sum(f.severity != "info" for f in diagnosis.findings)
    if worse:
        return f"{worse} {'finding' if worse == 1 else 'findings'} worse than a note"
    if diagnosis.verdict == "not judged":
        return "nothing could be judged"
    return "nothing worse than a note found" if diagnosis.findings else "nothing wrong found"


def _loss(diagnosis: Diagnosis) -> list[str]:
    """Why no loss could be judged, where none was; nothing where some check judged one, or none was asked to."""
    reason = next((n.reason for n in diagnosis.not_applicable if n.kind == "loss-spike"), None)
    if reason is None or "non-finite" in {f.kind for f in diagnosis.findings}:
        return []
    if not any(diagnosis.source.roles[role].metric for role in _LOSSES):
        return ["no loss in this log"]
    return [f"its loss was not judged ({reason})"]
