"""`dead-units` in checkpoints: layers with many rows of weights that do nothing, and how bad that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.dead_rows import TABLE, DeadRows, dead_rows_between, dead_rows_of, has_units
from analysis.weights.saved import Saved, layer_of

__all__ = ["dead_units", "dead_units_between"]

#: As for the shares that a log tells (`analysis.gradient.standing_still`): a warning, and critical.
_MANY, _NEARLY_ALL = 0.375, 0.9
#: Rows of these are classes, speakers or tokens, wherever they stand: one that is never believed in has no gradient.
_CLASSES = re.compile(
    r"(^|[._])(lm_head|head|classifiers?|logits|prototypes?|cent(er|re)s?|arcface|cosface|output_projection|fc_out)"
    r"([._]\d+)*\.(weight|kernel|w)$",
    re.IGNORECASE,
)
#: Taller matrices without a bias are tables under a name that does not say so: of items, users, categories.
_TALL = 8
#: What the number of a sign is called in the evidence.
_NUMBER: dict[str, str] = {"faded": "steps_without_gradient", "decayed": "factor"}


def dead_units(saved: Saved, run_name: str, gauge: Gauge) -> list[Finding]:
    """Layers of one save with units whose weights and bias are 0, or that had no gradient for hundreds of steps.

    A row of an embedding is no unit, a tensor that is wholly 0 was never begun (`analysis.weights.odd_layers`), and of
    a pruned layer, or of the last one, whose rows are classes, it is information.
    """
    return _findings(dead_rows_of(saved), saved, saved, run_name, gauge)


def dead_units_between(
    before: Saved,
    after: Saved,
    in_the_last: Sequence[DeadRows],
    rows: list[dict[str, Any]],
    run_name: str,
    gauge: Gauge,
) -> list[Finding]:
    """Layers of which whole rows stand still, or shrink by one factor, while most weights of the others change.

    Layers of which the later save tells by itself, or the last one of the series (whose `dead_rows_of` these are), are
    left to it.
    """
    # A tensor may have an empty name, by which no weights are known.
    known = before.weights.keys() & after.weights.keys()
    layers = {row["parameter"] for row in after.rows("weights") if has_units(row)} & known
    dead: list[tuple[DeadRows, float]] = []
    for row in rows:
        name = row["parameter"]
        if name in layers and row["status"] == "changed":
            least = gauge.limits.of("dead-units", name, layer_of(name))
            found = dead_rows_between(before, after, row, least)
            dead += [] if found is None else [(found, least)]
    if not dead:  # as a rule, and what the later save tells by itself need not be asked
        return []
    alone: dict[str, float] = {}
    for one in (*in_the_last, *dead_rows_of(after)):
        alone[one.parameter] = max(one.share, alone.get(one.parameter, 0.0))
    untold = [one for one, least in dead if alone.get(one.parameter, 0.0) < least]
    return _findings(untold, before, after, run_name, gauge)


def _is_table(saved: Saved, name: str) -> bool:
    """Whether rows of a matrix are classes, or entries that are used where they occur, by its name or its form."""
    if name not in saved.weights:  # the file of an optimizer alone
        return _CLASSES.search(name) is not None
    shape = saved.weights[name].shape
    tall = shape[0] >= _TALL * (saved.weights[name].elements // shape[0])
    return _CLASSES.search(name) is not None or (tall and f"{layer_of(name)}.bias" not in saved.weights)


def _last_layer(saved: Saved) -> str:
    """The last matrix of the model, whose rows are classes; none of so few that the last may be any layer."""
    names = [name for name, tensor in saved.weights.items() if len(tensor.shape) >= 2 and not TABLE.search(name)]
    return names[-1] if len(names) > 2 else ""


def _findings(dead: list[DeadRows], before: Saved, after: Saved, run_name: str, gauge: Gauge) -> list[Finding]:
    """One finding for the units that died and one for those that were pruned, each about its worst layer."""
    over = [one for one in dead if gauge.reaches("dead-units", one.share, one.parameter, layer_of(one.parameter))]
    # Rows of an output layer have no gradient where their class is neither seen nor believed in.
    last = _last_layer(after)
    over = [one for one in over if one.how == "zero" or not (one.parameter == last or _is_table(after, one.parameter))]
    groups = ([one for one in over if not one.pruned], [one for one in over if one.pruned])
    return [_finding(group, before, after, run_name, gauge) for group in groups if group]


def _finding(dead: list[DeadRows], before: Saved, after: Saved, run_name: str, gauge: Gauge) -> Finding:
    worst = max(dead, key=lambda one: one.share)
    layer = layer_of(worst.parameter)
    severity = "info" if worst.pruned else _severity(worst, gauge)
    others = [layer_of(one.parameter) for one in dead if one is not worst]
    also = f"; so are units of {some(others)}" if others else ""
    since = f"from {before.where} to {after.where}" if before is not after else f"in {after.where}"
    said = "are pruned" if worst.pruned else "are dead"
    return Finding(
        "dead-units",
        severity,
        run_name,
        f"{worst.share:.0%} of the units of {layer} {said} {since} ({worst.dead:,} of {worst.units:,}): "
        f"{worst.said}{also}",
        metric=worst.parameter,
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": f"units of {layer}",
            "layer": layer,
            "share": worst.share,
            "limit": gauge.limits.of("dead-units", worst.parameter, layer),
            "dead": worst.dead,
            "units": worst.units,
            "sign": worst.how,
            **({} if worst.number is None else {_NUMBER[worst.how]: worst.number}),
            "layers": len(dead),
            "save": after.name,
        },
        causes=_causes(worst),
        suggestions=KINDS["dead-units"].suggestions,
    )


def _severity(one: DeadRows, gauge: Gauge) -> Severity:
    scale = gauge.limits.scale("dead-units", one.parameter, layer_of(one.parameter))
    many, nearly_all = (min(bar * scale, 0.999) for bar in (_MANY, _NEARLY_ALL))
    return "critical" if one.share >= nearly_all else "warning" if one.share >= many else "info"


def _causes(one: DeadRows) -> tuple[str, ...]:
    if one.pruned:
        return ("the layer was pruned: zeros are the rule in it",)
    counted = f"{one.dead:,} of {one.units:,} rows: {one.said}"
    relu, start, behind = KINDS["dead-units"].causes[:3]
    if one.how == "zero":
        decay = "weight decay took the weights of units without a gradient to 0"
        return (f"{counted}; {decay}", relu, "rows that were never begun: initialised with zeros")
    return (f"{counted}; {start}", behind) if one.how == "no gradient" else (f"{counted}; {relu}", behind)
