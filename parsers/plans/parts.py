"""What a configuration says besides lengths and rates: curriculum, weights, what trains, contracts, early stopping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from eventstream.errors import PlanError
from parsers.plan import Plan
from parsers.plans.entries import Entry, number_of
from parsers.plans.names import FOREIGN, SCHEDULER
from parsers.plans.values import Found, Reader

__all__ = ["components_of", "read_contract", "read_curriculum", "read_early_stop", "read_names", "read_weights"]

#: A weight of one component, by its name.
_HINTS = re.compile(r"(?:lambda|weight|lam)_(?P<after>\w+?)(?:_loss)?|(?P<before>\w+?)(?:_loss)?_(?:lambda|weight)")
#: Metrics that are a component of the loss by their name.
_PART = re.compile(r"(?:losses/(?P<own>[^/]+)/\w+|curriculum/weight/(?P<weight>.+)|loss[_/.](?P<after>\w+)"
                   r"|(?P<before>\w+)[_/.]loss)")  # fmt: skip
_STARTS = {
    "start": None,
    "start_step": "step",
    "from_step": "step",
    "start_progress": "progress",
    "progress": "progress",
}
_STOPS = re.compile(
    r"(?:.*_)?early_?stop(?:ping)?(?:_\w+)?|es_patience|patience|load_best_model_at_end"
    r"|max_time|stop_early|time_limit\w*|max_train_time\w*"
)


def components_of(metrics: Iterable[str]) -> dict[str, str]:
    """Component of the loss -> the name that the log gives it, from the names of its metrics.

    >>> components_of(["losses/kd/raw", "adv_loss", "loss", "accuracy"])
    {'kd': 'kd', 'adv': 'adv'}
    """
    found: dict[str, str] = {}
    for metric in metrics:
        match = _PART.fullmatch(metric)
        if match is not None:
            name = match["own"] or match["weight"] or match["after"] or match["before"]
            found.setdefault(name.lower().removesuffix("_loss"), name)
    return found


def read_weights(reader: Reader, components: Mapping[str, str]) -> dict[str, Found]:
    """Constant weights of components that the log has: `loss_weights`, else `lambda_<name>` or `<name>_weight`."""
    found: dict[str, Found] = {}
    for entry in reader.named("loss_weights"):
        if isinstance(entry.value, Mapping):
            for name, given in entry.value.items():
                inner = Entry(entry.file, (*entry.path, str(name)), (*entry.keys, str(name)), given)
                _weigh(reader, found, components, str(name), inner)
    for entry in reader.entries:
        match = _HINTS.fullmatch(entry.name)
        name = (match["after"] or match["before"]) if match else ""
        if name in components and components[name] not in found and not entry.below(FOREIGN):
            weight = number_of(entry.value)
            if weight is not None:
                reader.use(entry)
                found[components[name]] = Found(weight, entry)
    return found


def _weigh(reader: Reader, found: dict[str, Found], components: Mapping[str, str], name: str, entry: Entry) -> None:
    weight, logged = number_of(entry.value), components.get(name.lower().removesuffix("_loss"))
    if weight is None:
        reader.say(entry, f"expected a number, found {entry.value!r:.60}")
    elif logged is None:
        reader.say(entry, "the log has no component of this name")
    else:
        reader.use(entry)
        found.setdefault(logged, Found(weight, entry))


def read_curriculum(reader: Reader) -> tuple[Plan, Entry] | None:
    """The phases of the first object `curriculum` that has some, as a plan of nothing else."""
    for entry in reader.named("curriculum"):
        phases = entry.value.get("phases") if isinstance(entry.value, Mapping) else None
        if not phases:
            continue
        try:
            return Plan.from_mapping({"curriculum": _curriculum(entry.value, phases)}), entry
        except PlanError as error:
            reader.say(entry, str(error).removeprefix("plan.curriculum."))
    return None


def _curriculum(given: Mapping[str, Any], phases: Any) -> dict[str, Any]:
    """A curriculum in the form of the event stream; raises `PlanError` where its axis is open."""
    if isinstance(phases, Mapping):
        phases = [{"name": name, **phase} if isinstance(phase, Mapping) else phase for name, phase in phases.items()]
    axes: set[str] = set()
    made = []
    for place, phase in enumerate(phases if isinstance(phases, list | tuple) else [phases]):
        if not isinstance(phase, Mapping):
            raise PlanError(f"phases[{place}]: expected an object, found {phase!r:.60}")
        key = next((name for name in _STARTS if name in phase), None)
        if key is None:
            raise PlanError(f"phases[{place}].start: missing; say where the phase begins")
        start = number_of(phase[key])
        if start is None:
            raise PlanError(f"phases[{place}].{key}: expected a number, found {phase[key]!r:.60}")
        axes |= {_STARTS[key] or ""}
        rest = {name: phase[name] for name in ("name", "weights", "ramp", "ramp_length") if name in phase}
        made.append({"start": start, **rest})
    axis = given.get("axis") or _axis(axes - {""}, [float(phase["start"]) for phase in made])
    return {"axis": axis, "phases": made}


def _axis(named: set[str], starts: list[float]) -> str:
    if len(named) == 1:
        return named.pop()
    if not named and any(start > 1 for start in starts) and all(start == int(start) for start in starts):
        return "step"
    if not named and all(0 <= start <= 1 for start in starts) and any(start != int(start) for start in starts):
        return "progress"
    raise PlanError("phases: whether their starts are steps or progress is not said; add `axis: step` or `progress`")


def read_names(reader: Reader, key: str) -> Found | None:
    """Names of layers under `trainable` or `freeze`; `freeze_encoder: true` freezes `encoder`."""
    for entry in reader.named(key):
        value = entry.value
        if isinstance(value, str) and value.strip() and value.lower() not in ("none", "null", "true", "false"):
            value = [value]
        if isinstance(value, list | tuple) and value and all(isinstance(one, str) and one for one in value):
            reader.use(entry)
            return Found(tuple(value), entry)
    if key != "freeze":
        return None
    flags = [e for e in reader.entries if e.name.startswith("freeze_") and e.value is True and not e.below(FOREIGN)]
    names = tuple(dict.fromkeys(e.name.removeprefix("freeze_") for e in flags))
    if not names:
        return None
    for entry in flags:
        reader.use(entry)
    return Found(names, flags[0])


def read_contract(reader: Reader, key: str) -> Found | None:
    """Names of tensors by stage: a list is for the stage `forward`."""
    for entry in reader.named(key):
        stages = entry.value if isinstance(entry.value, Mapping) else {"forward": entry.value}
        made: dict[str, list[str]] = {}
        for stage, names in stages.items():
            names = [names] if isinstance(names, str) else names
            if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
                made[str(stage)] = list(names)
            elif names is not None:
                reader.say(entry, f"expected a list of names for the stage {stage!r:.40}, found {names!r:.60}")
        if made:
            reader.use(entry)
            return Found(made, entry)
    return None


def read_early_stop(reader: Reader) -> Found | None:
    """What says that the run may end before its plan on purpose: early stopping, loading the best, a time limit."""
    for entry in reader.entries:
        value = entry.value
        named = isinstance(value, str) and "earlystopping" in value.lower().replace("_", "")
        by_key = _STOPS.fullmatch(entry.name) and not entry.below(SCHEDULER) and _is_on(value)
        if named or by_key:
            return Found(True, entry)
    return None


def _is_on(value: object) -> bool:
    number = number_of(value)
    if number is not None:
        return number > 0
    return value is True or (isinstance(value, Mapping | list) and bool(value)) or _says_yes(value)


def _says_yes(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() not in (
        "",
        "false",
        "no",
        "off",
        "none",
        "null",
        "0",
        "never",
    )
