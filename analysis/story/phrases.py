"""A finding in a few words for a story: what it is, with its number, and when."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from analysis.findings import Finding

__all__ = ["phrase"]

#: Kinds that begin at a step and last, rather than happen at it.
_LASTING = {
    "plateau", "oscillation", "vanishing-gradient", "dead-units", "frozen-layer", "overfitting", "memory-growth",
    "throughput-drop", "mode-collapse", "discriminator-dominance", "generator-dominance", "divergence", "clipping",
    "curriculum-off-schedule", "curriculum-bypass", "loss-sum-mismatch", "variance-shift", "train-eval-gap",
    "discriminator-idle", "player-imbalance", "discriminator-overfitting", "lr-schedule", "weight-not-applied",
    "inactive-component", "rank-divergence", "repeated-data",
}  # fmt: skip
#: Kinds whose beginning is known to within some records only.
_ABOUT = {"level-shift", "variance-shift", "divergence", "plateau", "oscillation"}
#: A message is cut where its first statement ends, unless that has fewer words than this.
_HEAD, _LIMIT = 4, 100
_END = re.compile(r"; |, (?:and|while|in|by|where|[0-9])|: | \(")
_NUMBER = r"\d+(?:,\d{3})*+"
_STEP = re.compile(rf",? (?:at|from|after|since) steps? ({_NUMBER})(?: on\b| to {_NUMBER}(?! ?[\w%.]))?")


def phrase(finding: Finding) -> str:
    """What a finding says in a story.

    >>> evidence = {"split": "train", "value": 9.6, "expected": 3.0, "factor": 3.2}
    >>> phrase(Finding("loss-spike", "warning", "a", "...", "loss", 4210, 4216, evidence))
    'train loss spike x 3.2 at step 4,210'
    """
    told = _PHRASES.get(finding.kind, _head)(finding, finding.evidence)
    if finding.first_step is None:
        return told
    when = f"{'from' if finding.kind in _LASTING else 'at'}{' about' if finding.kind in _ABOUT else ''}"
    return f"{told} {when} step {finding.first_step:,}"


def _name(finding: Finding, default: str = "loss") -> str:
    split = finding.evidence.get("split")
    metric = (finding.metric or default)[:60]
    # Metrics such as train/loss_step carry their split in the name already.
    named = isinstance(split, str) and split and split not in metric
    return f"{split} {metric}" if named else metric


def _times(evidence: Mapping[str, Any], key: str = "factor") -> str:
    factor = evidence.get(key)
    return f" x {factor:,.3g}" if isinstance(factor, int | float) and math.isfinite(factor) and factor > 0 else ""


def _spike(finding: Finding, evidence: Mapping[str, Any]) -> str:
    count = evidence.get("count")
    if isinstance(count, int) and count > 1:
        return f"{count} spikes of {_name(finding)}"
    if evidence.get("recovery") == "never":
        return f"{_name(finding)} spike{_times(evidence)}, never over,"
    return f"{_name(finding)} spike{_times(evidence)}"


def _outlier(finding: Finding, evidence: Mapping[str, Any]) -> str:
    count = evidence.get("count")
    return f"{count} outliers of {_name(finding)}" if isinstance(count, int) and count > 1 else _head(finding, evidence)


def _shift(finding: Finding, evidence: Mapping[str, Any]) -> str:
    old, new = evidence.get("expected"), evidence.get("value")
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return _head(finding, evidence)
    return f"{_name(finding)} {'drops' if new < old else 'jumps'} from {old:.3g} to {new:.3g}"


def _divergence(finding: Finding, evidence: Mapping[str, Any]) -> str:
    return f"{_name(finding)} climbs away{_times(evidence)}" if _times(evidence) else _head(finding, evidence)


def _non_finite(finding: Finding, evidence: Mapping[str, Any]) -> str:
    listed = [name for name in str(evidence.get("metrics", "")).split(", ") if name] or [_name(finding)]
    first = evidence.get("first_metric")
    if isinstance(first, str) and first in listed:
        listed = [first, *(name for name in listed if name != first)]
    names = ", ".join(name[:40] for name in listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
    what = "infinite" if evidence.get("nan") == 0 and evidence.get("infinite") else "NaN"
    return f"{names} {what}"


def _exploding(finding: Finding, evidence: Mapping[str, Any]) -> str:
    low, high = evidence.get("low"), evidence.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low > 0:
        return _head(finding, evidence)
    return f"{_name(finding, 'gradient norm')} x {high / low:,.3g}"


def _collapse(finding: Finding, evidence: Mapping[str, Any]) -> str:
    old, new = evidence.get("held_level"), evidence.get("late_level")
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return _head(finding, evidence)
    return f"{_name(finding)} collapses from {old:.3g} to {new:.3g}"


def _dominance(finding: Finding, evidence: Mapping[str, Any]) -> str:
    level, balance = evidence.get("late_level"), evidence.get("nearest_equilibrium")
    if not isinstance(level, int | float) or not isinstance(balance, int | float):
        return _head(finding, evidence)
    return f"{_name(finding)} is won at {level:.3g} (balance {balance:.3g})"


def _slower(finding: Finding, evidence: Mapping[str, Any]) -> str:
    left = evidence.get("left")
    return f"speed down to {left:.0%}" if isinstance(left, int | float) else _head(finding, evidence)


def _stall(finding: Finding, evidence: Mapping[str, Any]) -> str:
    longest = evidence.get("longest_s")
    return f"no record for {longest:,.0f} s" if isinstance(longest, int | float) else _head(finding, evidence)


def _overfitting(finding: Finding, evidence: Mapping[str, Any]) -> str:
    rise = evidence.get("rise")
    if not isinstance(rise, int | float):
        return _head(finding, evidence)
    split = "" if finding.evidence.get("split") else "eval "
    return f"{split}{_name(finding)} turns and ends {rise:.0%} above its best"


def _gap(finding: Finding, evidence: Mapping[str, Any]) -> str:
    ratio = evidence.get("ratio")
    if not isinstance(ratio, int | float) or not math.isfinite(ratio):
        return _head(finding, evidence)
    return f"eval {finding.metric or 'loss'} {ratio:.3g} times that of train"


def _head(finding: Finding, _: Mapping[str, Any]) -> str:
    """The first statement of the message, without the step that is told after it."""

    def others(found: re.Match[str]) -> str:
        return "" if found[1].replace(",", "") == str(finding.first_step) else found[0]

    message = " ".join(_STEP.sub(others, finding.message).split())
    end = next(
        (m.start() for m in _END.finditer(message) if message.count(" ", 0, m.start()) >= _HEAD - 1), len(message)
    )
    return message[:end] if end <= _LIMIT else f"{message[: _LIMIT - 3]}..."


_PHRASES: Mapping[str, Callable[[Finding, Mapping[str, Any]], str]] = {
    "loss-spike": _spike,
    "outlier": _outlier,
    "level-shift": _shift,
    "divergence": _divergence,
    "non-finite": _non_finite,
    "exploding-gradient": _exploding,
    "mode-collapse": _collapse,
    "discriminator-dominance": _dominance,
    "throughput-drop": _slower,
    "stall": _stall,
    "overfitting": _overfitting,
    "train-eval-gap": _gap,
}
