"""`checkpoint-mismatch` between two saves: keys, shapes and types that changed, and saves of the same weights."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.saved import Saved, is_buffer

__all__ = ["same_weights", "structure"]

#: Share of the tensors that two saves of one model have in common at least; below, they are of two models.
_ONE_MODEL = 0.1


def structure(before: Saved, after: Saved, rows: pl.DataFrame, run_name: str) -> list[Finding]:
    """What changed in the list of tensors: a warning for lost or changed parameters, information for types and buffers.

    A change of type of all tensors is an export, and information; so are keys that hold what another key still holds
    (tied weights are stored once by some formats).
    """
    one, two = before.weights, after.weights
    common = [name for name in one if name in two]
    if not one or not two:
        return []
    whole = not _is_cut(before) and not _is_cut(after)
    if whole and len(common) < _ONE_MODEL * min(len(one), len(two)):
        said = f"{after.where} shares {len(common)} of {len(one)} tensors with {before.where}: it is another model"
        return [_finding(before, after, run_name, "warning", said, "another model", list(one))]
    found = []
    shaped = [name for name in common if one[name].shape != two[name].shape]
    if shaped:
        shapes = f"{_shape(one[shaped[0]].shape)} in {before.where} and {_shape(two[shaped[0]].shape)} in {after.where}"
        said = f"{shaped[0]} is {shapes}; {len(shaped)} tensors changed their shape"
        found.append(_finding(before, after, run_name, "warning", said, "shapes", shaped))
    if whole:  # what could not be read is told as damage, and is not gone
        found += _keys(before, after, rows, run_name)
    typed = [name for name in common if one[name].dtype != two[name].dtype]
    if typed:
        said = (
            f"{typed[0]} is {one[typed[0]].dtype} in {before.where} and {two[typed[0]].dtype} in {after.where}; "
            f"{len(typed)} of {len(common)} tensors changed their type"
        )
        found.append(_finding(before, after, run_name, "info", said, "types", typed))
    return found


def _is_cut(saved: Saved) -> bool:
    return any(not one.unsupported for one in saved.checkpoint.damage)


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _keys(before: Saved, after: Saved, rows: pl.DataFrame, run_name: str) -> list[Finding]:
    one, two = before.weights, after.weights
    found = []
    for what, names, here, there in (
        ("keys lost", [n for n in one if n not in two], before, after),
        ("keys new", [n for n in two if n not in one], after, before),
    ):
        if not names:
            continue
        stored_once = _held_elsewhere(here, names)
        grave = [name for name in names if not is_buffer(name) and name not in stored_once]
        severity: Severity = "warning" if grave else "info"
        said = f"{len(names)} tensors of {here.where} are not in {there.where}: {some(grave or names, 3)}"
        found.append(_finding(before, after, run_name, severity, said, what, grave or names))
    return found


def _held_elsewhere(saved: Saved, names: list[str]) -> set[str]:
    """Those of some tensors whose numbers another tensor of the same save has too, by shape and statistics."""
    rows = {row["parameter"]: row for row in saved.rows("weights")}
    held = {_print(row) for name, row in rows.items() if name not in names}
    return {name for name in names if name in rows and _print(rows[name]) in held}


def _print(row: dict[str, Any]) -> tuple[Any, ...]:
    """A fingerprint of a tensor: what two of the same numbers have in common."""
    keys = ("dtype", "elements", "mean", "std", "norm", "minimum", "maximum", "zeros", "kurtosis")
    return (*row["shape"], *(row[key] for key in keys))


def same_weights(before: Saved, after: Saved, rows: pl.DataFrame, run_name: str) -> list[Finding]:
    """Two saves of different steps with the same weights, bit by bit: a warning, for nothing was learned between."""
    if before.at is None or after.at is None or after.at <= before.at:
        return []
    judged = rows.filter(pl.col("status").is_in(["same", "changed"]))
    changed = judged.filter(pl.col("status") == "changed")["parameter"]
    if judged.height < rows.height or judged.is_empty() or not all(map(is_buffer, changed)):
        return []
    said = (
        f"{before.where} and {after.where} hold the same weights, bit by bit: {after.at - before.at:,} "
        f"{'step' if after.at - before.at == 1 else 'steps'} of training changed none of {judged.height} tensors"
    )
    return [_finding(before, after, run_name, "warning", said, "same weights", judged["parameter"].to_list())]


def _finding(
    before: Saved, after: Saved, run_name: str, severity: Severity, said: str, what: str, names: list[str]
) -> Finding:
    kind = KINDS["checkpoint-mismatch"]
    return Finding(
        "checkpoint-mismatch",
        severity,
        run_name,
        said,
        metric=names[0] if len(names) == 1 else None,
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": what,
            "save": after.name,
            "save_before": before.name,
            "steps_between": (after.at or 0) - (before.at or 0),
            "tensors": len(names),
            "tensor_names": some(names, 8),
        },
        causes=_CAUSES[what],
        suggestions=_SAME if what == "same weights" else kind.suggestions,
    )


_CAUSES = {
    "another model": (
        "the folder holds saves of two models or two runs",
        "the names were wrapped otherwise (DDP, compile)",
    ),
    "shapes": ("the model was changed between the saves: classes, vocabulary or width", "the saves are of two runs"),
    "keys lost": (
        "the model was changed between the saves",
        "only a part of it was saved",
        "the saves are of two runs",
    ),
    "keys new": (
        "the model was changed between the saves: a head or an adapter was added",
        "the saves are of two runs",
    ),
    "types": ("the save is an export in another type", "the precision of the training was changed"),
}
_CAUSES["same weights"] = (
    "the same state was saved twice: a copy of the weights that training does not touch",
    "the learning rate was 0, or every step was skipped, between the saves",
    "updates are below the resolution of the weights' type",
)
_SAME = (
    "see which object is saved: the model that is trained, or a copy made before",
    "look at the learning rate and at skipped steps between these saves",
)
