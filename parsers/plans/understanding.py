"""The plan of a run, understood: what the user declares, then what the configurations of the run say besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eventstream.errors import PlanError
from parsers.plan import PLAN_KEYS, Plan, is_other, nearest_key
from parsers.plans.entries import entries_of
from parsers.plans.epochs import steps_between_epochs
from parsers.plans.lr import Lr, read_lr
from parsers.plans.names import NAMES
from parsers.plans.parts import (
    components_of,
    read_contract,
    read_curriculum,
    read_early_stop,
    read_names,
    read_weights,
)
from parsers.plans.schedule_names import schedule_named
from parsers.plans.units import Lengths
from parsers.plans.values import Found, Reader

if TYPE_CHECKING:
    from parsers.run import Run

__all__ = ["LR_KEYS", "Declared", "read_plan", "understood"]

#: The keys of `Plan.lr`.
LR_KEYS = (
    "schedule", "peak", "warmup_steps", "total_steps", "min", "milestones", "gamma", "step_size", "cycles",
    "first_cycle", "cycle_mult", "pct_start", "start", "power", "decay_steps", "unit", "steps_per_epoch",
)  # fmt: skip
#: Objects that hold the weights of components, and nothing else.
_WEIGHTS = frozenset(NAMES["loss_weights"])


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user declares, and where: by its first key, else `where`."""

    content: Mapping[str, Any]
    where: str = "plan"
    keys: Mapping[str, str] = field(default_factory=dict)

    def of(self, key: str) -> str:
        """Where a key was declared."""
        return self.keys.get(key, self.where)


def understood(run: Run) -> Plan:
    """What `run` was meant to do: `run.plan`, then `run.config`, then the configurations beside the log.

    Never raises: what cannot be used is in `Plan.not_understood`.
    """
    where = "manifest.json" if run.format.startswith("aftertrain") else "plan"
    declared = Declared(run.plan, where, run.plan_sources)
    own = {run.config_source: run.config} if run.config else {}
    plan = read_plan(declared, {**own, **run.beside}, components_of(run.metrics))
    if plan.lr.get("unit") == "epoch" and "steps_per_epoch" not in plan.lr:
        length = steps_between_epochs(run)
        if length is not None:
            sources = {**plan.sources, "lr.steps_per_epoch": "the log: steps from one epoch to the next"}
            plan = replace(plan, lr={**plan.lr, "steps_per_epoch": length}, sources=sources)
    return replace(plan, not_understood=(*plan.not_understood, *run.beside_unread))


def read_plan(
    declared: Declared, configurations: Mapping[str, Mapping[str, Any]], components: Mapping[str, str] | None = None
) -> Plan:
    """The plan out of what is declared and of configurations by their file, the most authoritative first.

    `components` are those of the loss that the log has (`parts.components_of`): only these can have weights.

    >>> plan = read_plan(Declared({}), {"args.json": {"learning_rate": "1e-3", "lr_scheduler_type": "cosine",
    ...     "warmup_ratio": 0.1, "max_steps": 500}})
    >>> plan.lr, plan.sources["lr.peak"]
    ({'schedule': 'cosine', 'peak': 0.001, 'total_steps': 500, 'warmup_steps': 50}, 'args.json: learning_rate')
    """
    plan, odd = _declared(declared)
    rest = {key: value for key, value in declared.content.items() if key not in PLAN_KEYS or is_other(key, value)}
    files = [(declared.of(key), {key: value}) for key, value in rest.items()]
    reader = Reader([e for file, content in (*files, *configurations.items()) for e in entries_of(file, content)])
    plan = _with_fields(plan, reader)
    plan = _with_lr(plan, reader, declared)
    plan = _with_weights(plan, reader, components or {}, {file for file, _ in files})
    plan = _with_contract(plan, reader)
    stop = read_early_stop(reader)
    odd += [f"plan.{key}: {nearest_key(key)}" for key in rest if (declared.of(key), key) not in reader.used]
    return replace(
        plan,
        early_stop=stop.where if stop is not None else "",
        not_understood=tuple(dict.fromkeys([*plan.not_understood, *odd, *reader.odd])),
    )


def _declared(declared: Declared) -> tuple[Plan, list[str]]:
    """The canonical part of what is declared; a key that cannot be used is left out and said."""
    content = {k: v for k, v in declared.content.items() if k in PLAN_KEYS and not is_other(k, v)}
    odd: list[str] = []
    for key in list(content):
        try:
            Plan.from_mapping({key: content[key]})
        except PlanError as error:
            odd.append(str(error))
            del content[key]
    plan = Plan.from_mapping(content)
    told = {key: f"{declared.of(key)}: {key}" for key in content if key not in ("lr", "loss_weights")}
    told |= {f"lr.{key}": f"{declared.of('lr')}: lr.{key}" for key in plan.lr}
    told |= {
        f"loss_weights.{name}": f"{declared.of('loss_weights')}: loss_weights.{name}" for name in plan.loss_weights
    }
    return replace(plan, sources=told), odd


def _with_fields(plan: Plan, reader: Reader) -> Plan:
    """Lengths, accumulation, the clipped norm, and what trains."""
    found: dict[str, Found | None] = {
        "max_steps": reader.whole("max_steps", scheduler=False),
        "epochs": reader.number("epochs", scheduler=False),
        "steps_per_epoch": reader.whole("steps_per_epoch"),
        "accumulation": reader.whole("accumulation"),
        "clip_norm": reader.number("clip_norm"),
        "trainable": read_names(reader, "trainable"),
        "freeze": read_names(reader, "freeze"),
        "unfreeze_step": reader.number("unfreeze_step", least=0),
    }
    if plan.trainable or plan.freeze:
        found |= {"trainable": None, "freeze": None, "unfreeze_step": None}
    plan = _filled(plan, found)
    epoch = reader.number("unfreeze_epoch", least=0)
    if epoch is not None and plan.unfreeze_step is None and plan.freeze:
        if plan.steps_per_epoch is None:
            reader.say(epoch.entry, "epochs, and nothing says how many steps one has; add steps_per_epoch")
        else:
            plan = _filled(plan, {"unfreeze_step": Found(epoch.value * plan.steps_per_epoch, epoch.entry)})
    return plan


def _filled(plan: Plan, found: Mapping[str, Found | None]) -> Plan:
    new = {key: one for key, one in found.items() if one is not None and not getattr(plan, key)}
    sources = {**plan.sources, **{key: one.where for key, one in new.items()}}
    values: dict[str, Any] = {key: one.value for key, one in new.items()}
    return replace(plan, **values, sources=sources)


def _with_lr(plan: Plan, reader: Reader, declared: Declared) -> Plan:
    """The declared schedule whole, or that of the configurations: two schedules are never mixed.

    Where the user declares a schedule without its peak, the peak may still be that of a configuration.
    """
    where = plan.sources.get("max_steps") or plan.sources.get("epochs", "")
    lengths = Lengths(plan.max_steps, plan.epochs, plan.steps_per_epoch, where)
    lr = Lr(dict(plan.lr), {key: plan.sources[f"lr.{key}"] for key in plan.lr})
    named = lr.values.get("schedule")
    if isinstance(named, str):
        lr.values["schedule"] = schedule_named(named) or named  # a name that nobody knows is said where it is used
    if named is None:
        lr = read_lr(reader, lengths, lr)
    else:
        other = {key: value for key, value in lr.values.items() if key not in LR_KEYS}
        if other:
            inner = Reader(entries_of(declared.of("lr"), {"lr_scheduler": other}), reader.odd)
            lr = _other_names(inner, lr, lengths, other)
        lr = _with_peak(reader, lr)
    sources = {key: where for key, where in plan.sources.items() if not key.startswith("lr.")}
    sources |= {f"lr.{key}": lr.sources[key] for key in lr.values}
    return replace(plan, lr=lr.values, sources=sources)


def _other_names(inner: Reader, lr: Lr, lengths: Lengths, other: Mapping[str, Any]) -> Lr:
    """Keys of a declared schedule that are not canonical, read as those of a scheduler (`warmup_ratio`)."""
    known = {key: value for key, value in lr.values.items() if key in LR_KEYS}
    unit = str(known.get("unit", "step"))  # as the event stream's plan has it
    made = read_lr(inner, lengths, Lr(known, {key: lr.sources[key] for key in known}), unit)
    used = {entry.path[1] for entry in inner.entries if len(entry.path) > 1 and _was_used(made, entry.where)}
    for key in other:
        if key not in used:
            made.values[key], made.sources[key] = other[key], lr.sources[key]  # kept, for others to name
    made.sources = {key: where.replace(": lr_scheduler.", ": lr.") for key, where in made.sources.items()}
    return made


def _was_used(lr: Lr, where: str) -> bool:
    return where in lr.sources.values()


def _with_peak(reader: Reader, lr: Lr) -> Lr:
    if "peak" not in lr.values:
        made = read_lr(reader, Lengths())
        if "peak" in made.values:
            lr.put("peak", made.values["peak"], made.sources["peak"])
    return lr


def _with_weights(plan: Plan, reader: Reader, components: Mapping[str, str], declared: set[str]) -> Plan:
    """Phases where none are declared, and weights of components that have none yet."""
    curriculum = None if plan.phases else read_curriculum(reader)
    if curriculum is not None:
        made, entry = curriculum
        reader.use(entry)
        plan = replace(plan, phases=made.phases, axis=made.axis, sources={**plan.sources, "curriculum": entry.where},
                       not_understood=(*plan.not_understood, *made.not_understood))  # fmt: skip
    named = {name.lower().removesuffix("_loss") for name in plan.components}
    weights = {
        k: w for k, w in read_weights(reader, components).items() if k.lower().removesuffix("_loss") not in named
    }
    told = {name for name, weight in weights.items() if weight.entry.file in declared or weight.entry.below(_WEIGHTS)}
    hints = frozenset(weights) - told
    return replace(
        plan,
        loss_weights={**plan.loss_weights, **{name: weight.value for name, weight in weights.items()}},
        hints=hints,
        sources={**plan.sources, **{f"loss_weights.{name}": weight.where for name, weight in weights.items()}},
    )


def _with_contract(plan: Plan, reader: Reader) -> Plan:
    """What each stage must and must not be given, added to what is declared."""
    inputs, outputs = _copied(plan.inputs), _copied(plan.outputs)
    sources = dict(plan.sources)
    for key, place, rule in (
        ("required_inputs", inputs, "require"),
        ("forbidden_inputs", inputs, "forbid"),
        ("required_outputs", outputs, "require"),
    ):
        found = read_contract(reader, key)
        if found is None:
            continue
        sources.setdefault("outputs" if key.endswith("outputs") else "inputs", found.where)
        for stage, names in found.value.items():
            rules = place.setdefault(stage, {})
            rules[rule] = list(dict.fromkeys([*_listed(rules.get(rule)), *names]))
    return replace(plan, inputs=inputs, outputs=outputs, sources=sources)


def _copied(rules: Mapping[str, Any]) -> dict[str, Any]:
    return {stage: dict(rule) if isinstance(rule, Mapping) else rule for stage, rule in rules.items()}


def _listed(names: object) -> Iterable[str]:
    return [names] if isinstance(names, str) else [str(n) for n in names] if isinstance(names, list | tuple) else []
