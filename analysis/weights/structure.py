"""`checkpoint-mismatch` between two saves: keys, shapes and types that changed, and saves of the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.renamed import Renaming, renamings
from analysis.weights.saved import Saved, is_buffer
from parsers.checkpoints.tensors import Tensor

__all__ = ["same_weights", "structure"]

#: Share of the tensors that two saves of one model have in common at least; below, they are of two models.
_ONE_MODEL = 0.1


def structure(before: Saved, after: Saved, run_name: str, *, renamed: Severity = "info") -> list[Finding]:
    """What changed in the list of tensors: a warning for lost or changed parameters, information for types and buffers.

    A change of type of all tensors is an export, and information; so are keys that hold what another key still holds
    (tied weights are stored once by some formats). Names that changed while the weights did not are no lost weights,
    and deserve the severity `renamed`: a load that asks for all names fails on them, and one that does not skips them.
    """
    one, two = before.weights, after.weights
    common = [name for name in one if name in two]
    if not one or not two:
        return []
    whole = not _is_cut(before) and not _is_cut(after)
    names = renamings(before, after, *_alone(one, two)) if whole else []
    smaller = min(len(one), len(two))
    if whole and len(common) + _kept(names, smaller) < _ONE_MODEL * smaller:
        said = f"{after.where} shares {len(common)} of {len(one)} tensors with {before.where}: it is another model"
        return [_finding(before, after, run_name, "warning", said, "another model", list(one))]
    found = []
    shaped = [name for name in common if one[name].shape != two[name].shape]
    if shaped:
        shapes = f"{_shape(one[shaped[0]].shape)} in {before.where} and {_shape(two[shaped[0]].shape)} in {after.where}"
        said = f"{shaped[0]} is {shapes}; {len(shaped)} tensors changed their shape"
        found.append(_finding(before, after, run_name, "warning", said, "shapes", shaped))
    if whole:  # what could not be read is told as damage, and is not gone
        found += [_renamed(before, after, run_name, one, renamed) for one in names]
        found += _keys(before, after, run_name, names)
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


def _alone(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names that only the first has, and those that only the second has."""
    return [name for name in one if name not in two], [name for name in two if name not in one]


def _kept(renamed: Sequence[Renaming], of: int) -> int:
    """How many of so many tensors are there under another name: by their values, or by rules that explain a half."""
    pairs = sum(len(one.pairs) for one in renamed)
    return pairs if pairs >= of / 2 else sum(len(one.pairs) for one in renamed if one.cosine is not None and one.close)


def _renamed(before: Saved, after: Saved, run_name: str, told: Renaming, severity: Severity) -> Finding:
    """Names that changed: what they hold is the same, or was made anew, which is a warning."""
    rules, count = _rules(told), len(told.pairs)
    many = "1 tensor is" if count == 1 else f"{count} tensors are"
    held = (
        "and hold the same weights, bit by bit"
        if told.same
        else "with values that tell nothing"
        if told.cosine is None
        else f"and hold the same weights, trained on (cosine {told.cosine:.3g})"
        if told.close
        else f"and hold other weights (cosine {told.cosine:.2g}): nothing was carried over"
    )
    old, new = told.pairs[0]
    said = f"{many} called otherwise in {after.where} than in {before.where} ({rules}: {old} is {new}), {held}"
    judged = severity if told.close else "warning"
    if all(is_buffer(name) for name, _ in told.pairs):
        judged = "info"
    what = "keys renamed" if told.close else "keys renamed, other weights"
    found = _finding(before, after, run_name, judged, said, what, [name for name, _ in told.pairs])
    evidence = {**found.evidence, "rules": rules, "cosine": told.cosine, "same_bits": told.same}
    return replace(found, evidence=evidence, suggestions=_how_to_load(before, told))


def _rules(told: Renaming) -> str:
    return some(map(str, told.rules), 3) if told.rules else "by their order"


def _how_to_load(before: Saved, told: Renaming) -> tuple[str, ...]:
    """How to read the one state into the model of the other."""
    made = _expression(list(before.weights), told)
    how = f"state = {{{made}: value for name, value in state.items()}}" if made else f"by the rules {_rules(told)}"
    return (
        f"rename the keys before the older state is loaded into the newer model: {how}",
        "load with strict=True, which names every key that does not fit: strict=False skips them without a word",
        "where the weights were made anew, load those of the save before under their new names and train on from there",
    )[: 2 if told.close else 3]


def _expression(names: Sequence[str], told: Renaming) -> str:
    """Python that makes each new name of `name`; empty where one replacement does not do it for the whole state."""
    if len(told.rules) != 1 or len(told.rules[0].edits) != 1:
        return ""
    old, new = (f"{'.'.join(part)}." if part else "" for part in told.rules[0].edits[0])
    pairs = dict(told.pairs)
    if any(name.replace(old, new, 1) != pairs.get(name, name) for name in names):
        return ""
    return f"name.replace('{old}', '{new}', 1)" if old else f"'{new}' + name"


def _keys(before: Saved, after: Saved, run_name: str, renamed: Sequence[Renaming]) -> list[Finding]:
    told = {name for one in renamed for pair in one.pairs for name in pair}
    lost, new = _alone(before.weights, after.weights)
    found = []
    for what, names, here, there in (
        ("keys lost", [name for name in lost if name not in told], before, after),
        ("keys new", [name for name in new if name not in told], after, before),
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
    # Plain lists: a query for each of thousands of pairs takes longer than the few rows that it is about.
    statuses, names = rows["status"].to_list(), rows["parameter"].to_list()
    changed = (name for name, status in zip(names, statuses, strict=True) if status == "changed")
    if not names or not all(one in ("same", "changed") for one in statuses) or not all(map(is_buffer, changed)):
        return []
    said = (
        f"{before.where} and {after.where} hold the same weights, bit by bit: {after.at - before.at:,} "
        f"{'step' if after.at - before.at == 1 else 'steps'} of training changed none of {len(names)} tensors"
    )
    return [_finding(before, after, run_name, "warning", said, "same weights", names)]


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
    "keys renamed": (
        "the module was renamed, or moved, in the code between the saves",
        "one of the two is an export, or wraps the model otherwise",
    ),
    "keys renamed, other weights": (
        "a load with strict=False skipped the old names, and the layers began anew",
        "the layers were replaced by new ones of the same shapes",
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
