"""What counters and running statistics of normalisation do from save to save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.saved import Saved, layer_of

__all__ = ["running_statistics"]

_COUNT = "num_batches_tracked"
_SUGGESTIONS = (
    "call model.train() before each epoch: an evaluation leaves the model in eval mode",
    "save the state of the module that is trained, with its buffers",
)


def running_statistics(before: Saved, after: Saved, moved: bool, run_name: str) -> list[Finding]:
    """Counts of batches that go back, or statistics that never left their first values while the weights `moved`.

    Frozen normalisation, with statistics of an earlier training, is common in fine-tuning and stays untold.
    """
    one, two = _counts(before), _counts(after)
    names = [name for name in one if name in two]
    if not names:
        return []
    back = [name for name in names if two[name] < one[name]]
    if back:
        said = (
            f"the count of batches of {layer_of(back[0])} goes back from {one[back[0]]:,.0f} in {before.where} to "
            f"{two[back[0]]:,.0f} in {after.where}; so do {len(back)} of {len(names)}"
        )
        causes = ("the later save is of an earlier state, or of a run that was begun anew", "the buffers were reset")
        return [
            _finding(before, after, run_name, "warning", said, "checkpoint-mismatch", "count goes back", back, causes)
        ]
    rows = {row["parameter"]: row for row in after.rows("weights")}
    never = [name for name in names if two[name] == 0 and one[name] == 0 and _untouched(rows, layer_of(name))]
    if not moved or not never:
        return []
    severity: Severity = "warning" if len(never) == len(names) else "info"
    said = (
        f"the running statistics of {some(map(layer_of, never), 3)} are still those of the beginning in {after.where} "
        f"({len(never)} of {len(names)}), while the weights train: an evaluation normalises by mean 0 and variance 1"
    )
    causes = (
        "the model trains in eval mode: no batch was counted",
        "the layers are not used in forward, or the save is of another copy of the model",
    )
    return [_finding(before, after, run_name, severity, said, "frozen-layer", "running statistics", never, causes)]


def _counts(saved: Saved) -> dict[str, float]:
    return {
        row["parameter"]: float(row["maximum"])
        for row in saved.rows("weights")
        if row["parameter"].endswith(_COUNT) and row["elements"] == 1 and row["maximum"] is not None
    }


def _untouched(rows: Mapping[str, dict[str, Any]], layer: str) -> bool:
    """Whether mean and variance are exactly 0 and 1, as they are made."""
    mean, variance = rows.get(f"{layer}.running_mean"), rows.get(f"{layer}.running_var")
    if mean is None or variance is None:
        return False
    return bool(mean["zeros"] == 1 and variance["minimum"] == variance["maximum"] == 1)


def _finding(
    before: Saved,
    after: Saved,
    run_name: str,
    severity: Severity,
    said: str,
    kind: str,
    what: str,
    names: list[str],
    causes: tuple[str, ...],
) -> Finding:
    return Finding(
        kind,
        severity,
        run_name,
        said,
        metric=names[0],
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": what,
            "layer": layer_of(names[0]),
            "layers": some(map(layer_of, names), 50),
            "count": len(names),
            "save": after.name,
        },
        causes=causes,
        suggestions=(*_SUGGESTIONS, *KINDS[kind].suggestions[:1]),
    )
