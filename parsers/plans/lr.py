"""The schedule of the learning rate in a configuration, under the canonical keys of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parsers.plans.entries import Entry, number_of
from parsers.plans.names import FOREIGN, NAMES, SCHEDULER
from parsers.plans.schedule_names import CARRIERS, schedule_named
from parsers.plans.units import Lengths, unit_of
from parsers.plans.values import Found, Reader, unset, whole_of

__all__ = ["Lr", "read_lr"]

#: Names of the key that holds the kind of a scheduler, directly or further below one.
_KINDS = frozenset({"type", "name", "_target_", "class_path", "class", "policy", "kind", "scheduler", "schedule",
                    "decay_style", "scheduler_type", "lr_scheduler_type"})  # fmt: skip
#: Schedules that end at a length.
_ENDING = frozenset({"linear", "cosine", "polynomial", "wsd", "onecycle", "cosine_with_restarts"})
#: Settings of a scheduler that leave its form as it is, or that only a plateau heeds.
_HARMLESS = (
    "last_epoch last_step verbose eps epsilon patience factor threshold cooldown frequency interval warmup_momentum "
    "base_momentum max_momentum momentum weight_decay betas num_train_timesteps lr_multiplier seed begin end"
)
_KNOWN = frozenset(_HARMLESS.split()).union(*NAMES.values())
#: Kinds of a warm-up or of annealing, and those that the formulas have.
_SHAPES = frozenset(("warmup_type", "warmup_method", "warmup_mode", "warmup_style", "anneal_strategy", "decay_type"))
_USUAL = frozenset(("linear", "cos", "cosine", ""))
_WARMUP = frozenset(("warmup", "warm_up", "lr_warmup"))
#: What OneCycleLR divides the peak by where nothing is said.
_ONECYCLE_DIVISOR = 25.0


@dataclass(slots=True)
class Lr:
    """Canonical key -> value, and canonical key -> where it was read."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: Any, where: str) -> None:
        """Set a key that is not set yet."""
        if key not in self.values:
            self.values[key] = value
            self.sources[key] = where


def read_lr(reader: Reader, lengths: Lengths, lr: Lr | None = None, unit: str | None = None) -> Lr:
    """What the settings say of the learning rate; `lr` holds what is said with more authority.

    `unit` is what lengths count, where that is known; else it is told by the scheduler (Lightning's `interval`), by
    names and by sizes. The key `unit` is set for epochs alone. Where it is open, no schedule is told, and said so.
    """
    lr = Lr() if lr is None else lr
    schedule = _schedule(reader)
    if schedule is not None:
        lr.put("schedule", schedule.value, schedule.where)
    name = lr.values.get("schedule")
    _peak(reader, lr, name)
    if name is None:
        return lr
    doubts = reader.doubts
    unit = unit or unit_of(reader, lengths, name)
    if unit == "epoch":
        lr.put("unit", "epoch", "the scheduler is stepped by epochs")
        if lengths.steps_per_epoch is not None:
            lr.put("steps_per_epoch", lengths.steps_per_epoch, "steps per epoch")
    if unit is not None:
        _extents(reader, lr, lengths, name, unit)
    _warmup(reader, lr, lengths, unit or "step")
    _rates(reader, lr, name)
    _others(reader, lr.sources["schedule"])
    if reader.doubts > doubts:
        _drop(reader, lr, name)
    return lr


def _others(reader: Reader, where: str) -> None:
    """Numbers and kinds of a scheduler that nobody here knows: its form may hang on them."""
    for entry in reader.entries:
        if not entry.below(SCHEDULER) or entry.below(FOREIGN) or not where.startswith(f"{entry.file}: "):
            continue
        shaped = entry.name in _SHAPES and isinstance(entry.value, str) and entry.value.lower() not in _USUAL
        number = number_of(entry.value)
        unknown = number is not None and number > 0 and entry.name not in _KNOWN and not entry.below(_WARMUP)
        unknown = unknown and not entry.name.startswith("_")  # Hydra's own: `_partial_`, which TensorBoard makes 1.0
        if shaped or unknown or (entry.name == "three_phase" and entry.value is True):
            reader.say(entry, "the form of the schedule may hang on it, and it is not known")


def _drop(reader: Reader, lr: Lr, schedule: str) -> None:
    """Keep of a schedule of which some number is in doubt the peak alone: half of it would be another schedule."""
    where = lr.sources["schedule"]
    lr.values, peak = {}, lr.values.get("peak")
    if peak is not None:
        lr.values["peak"] = peak
    reader.odd.append(f"{where}: the schedule {schedule!r} is not used, since a number of it is in doubt")


def _schedule(reader: Reader) -> Found | None:
    """The kind of the schedule: a name under a key for it, or the kind of an object below one."""
    told: list[Found] = []
    unknown: list[Entry] = []
    for entry in reader.entries:
        direct = entry.name in NAMES["lr.schedule"] and not entry.below(FOREIGN)
        inside = entry.name in _KINDS and entry.below(SCHEDULER) and not entry.below(FOREIGN | _WARMUP)
        value = "constant" if direct and entry.value is False else entry.value
        if not (direct or inside) or not isinstance(value, str) or (unset(value) and value != "none"):
            continue
        form = schedule_named(value)
        if form is not None:
            told.append(Found(form, entry))
        elif value.strip().rpartition(".")[2].lower() not in CARRIERS:
            unknown.append(entry)
    told += _by_style(reader)
    if not told:
        for entry in unknown[:3]:
            reader.say(entry, f"{entry.value!r:.60} is no schedule of the learning rate that is known")
        return None
    first = [one for one in told if one.entry.file == told[0].entry.file]
    return reader.one("lr.schedule", first)


def _by_style(reader: Reader) -> list[Found]:
    """nanoGPT's way: `decay_lr: true` beside `lr_decay_iters` is a cosine."""
    flags = [e for e in reader.entries if e.name == "decay_lr" and e.value is True]
    ends = {e.file for e in reader.entries if e.name == "lr_decay_iters"}
    return [Found("cosine", e) for e in flags if e.file in ends]


def _peak(reader: Reader, lr: Lr, schedule: str | None) -> None:
    """The highest rate: `max_lr` of a one-cycle schedule, else the learning rate of the optimiser."""
    named = reader.named("lr.peak")
    top = [e for e in named if e.name == "max_lr"]
    plain = [e for e in named if e.name != "max_lr"]
    order = (top, plain) if schedule == "onecycle" else (plain, top)
    for candidates in order:
        found = reader.chosen("lr.peak", candidates, number_of, lambda value: value > 0)
        if found is not None:
            lr.put("peak", found.value, found.where)
            return


def _extents(reader: Reader, lr: Lr, lengths: Lengths, schedule: str, unit: str) -> None:
    """Where the decay ends, and the lengths between drops and restarts."""
    total = reader.whole("lr.total_steps", scheduler=True) or _outside(reader, "lr.total_steps", "lr_decay_")
    if schedule == "cosine_with_restarts":
        _take(lr, "first_cycle", reader.whole("lr.first_cycle"))
        _take(lr, "cycle_mult", reader.number("lr.cycle_mult"))
    if schedule == "exponential" or schedule == "step":
        every = reader.whole("lr.decay_steps") or _outside(reader, "lr.total_steps", "lr_decay_")
        _take(lr, "step_size", reader.whole("lr.step_size") or (every if schedule == "step" else None))
        _take(lr, "decay_steps", every if schedule == "exponential" else None)
    elif schedule in _ENDING:
        _take(lr, "total_steps", total)
        if schedule == "wsd":
            _take(lr, "decay_steps", reader.whole("lr.decay_steps"))
        _whole_training(lr, lengths, unit)
    marks = [e for e in reader.named("lr.milestones") if isinstance(e.value, list | tuple)]
    if schedule == "multistep" and marks:
        _milestones(reader, lr, marks[0])


def _outside(reader: Reader, key: str, prefix: str) -> Found | None:
    """A length named with `lr_` in front, which needs no scheduler around it."""
    named = [e for e in reader.named(key, scheduler=False) if e.name.startswith(prefix)]
    found = reader.chosen(key, named, number_of, lambda value: value >= 1)
    number = None if found is None else whole_of(found.value)
    return None if found is None or number is None else Found(number, found.entry)


def _whole_training(lr: Lr, lengths: Lengths, unit: str) -> None:
    """Without a length of its own, a schedule is as long as the training."""
    if lr.values.get("first_cycle") is not None:
        return
    if unit == "epoch" and lengths.epochs is not None:
        lr.put("total_steps", lengths.epochs, lengths.where)
    elif unit == "step" and lengths.total is not None:
        lr.put("total_steps", lengths.total, lengths.where)


def _milestones(reader: Reader, lr: Lr, entry: Entry) -> None:
    numbers = [number_of(one) for one in entry.value]
    if not numbers or any(number is None or number < 0 for number in numbers):
        reader.say(entry, f"expected a list of steps, found {entry.value!r:.60}")
        return
    reader.use(entry)
    lr.put("milestones", [int(n) if n == int(n) else n for n in numbers if n is not None], entry.where)


def _warmup(reader: Reader, lr: Lr, lengths: Lengths, unit: str) -> None:
    """The warm-up in the unit of the schedule, out of steps, a share of the training, or epochs."""
    if "warmup_steps" in lr.values:
        return
    if _nested(reader, lr, lengths, unit):
        return
    given = reader.number("lr.warmup_steps", least=0)
    ratio, epochs = reader.number("lr.warmup_ratio", least=0), reader.number("lr.warmup_epochs", least=0)
    if given is not None and given.value > 0:
        if given.value == 1 and given.entry.name == "warmup":
            reader.say(given.entry, "1 may be one step or the whole training; write warmup_steps or warmup_ratio")
        elif given.value < 1:
            _share(reader, lr, given, lengths, unit)
        else:
            _steps_of_warmup(reader, lr, given, lengths, unit)
    elif ratio is not None and ratio.value > 0:
        _share(reader, lr, ratio, lengths, unit)
    elif epochs is not None and epochs.value > 0:
        _epochs_of_warmup(reader, lr, epochs, lengths, unit)
    elif any(one is not None for one in (given, ratio, epochs)):
        none = next(one for one in (given, ratio, epochs) if one is not None)
        lr.put("warmup_steps", 0, none.where)


def _nested(reader: Reader, lr: Lr, lengths: Lengths, unit: str) -> bool:
    """Whether an object `warmup` says it (`warmup: {steps: 500}`), and then what."""
    inner = [e for e in reader.entries if e.keys[-2:-1] and e.keys[-2] in _WARMUP and not e.below(FOREIGN)]
    if any(e.name in ("enabled", "enable", "use") and e.value is False for e in inner):
        lr.put("warmup_steps", 0, inner[0].where)
        return True
    for names, take in _NESTED:
        found = reader.chosen("lr.warmup_steps", [e for e in inner if e.name in names], number_of, lambda v: v >= 0)
        if found is not None:
            take(reader, lr, found, lengths, unit)
            return True
    for entry in inner:
        reader.say(entry, "how long the warm-up is, is not understood")
    return bool(inner)


def _share(reader: Reader, lr: Lr, found: Found, lengths: Lengths, unit: str) -> None:
    total = lr.values.get("total_steps") or (lengths.epochs if unit == "epoch" else lengths.total)
    if found.value > 1:
        reader.say(found.entry, f"expected a share from 0 to 1, found {found.value:g}")
    elif total is None:
        reader.say(found.entry, "a share of a training whose number of steps is not said")
    else:
        # Transformers rounds up: get_warmup_steps takes the ceiling
        steps = found.value * total if unit == "epoch" else -(-round(found.value * total, 6) // 1)
        lr.put("warmup_steps", steps if unit == "epoch" else int(steps), found.where)


def _steps_of_warmup(reader: Reader, lr: Lr, found: Found, lengths: Lengths, unit: str) -> None:
    number = whole_of(found.value)
    if number is None:
        reader.say(found.entry, f"expected a whole number of steps or a share below 1, found {found.value:g}")
    elif unit == "step":
        lr.put("warmup_steps", number, found.where)
    elif lengths.steps_per_epoch:
        lr.put("warmup_steps", number / lengths.steps_per_epoch, found.where)
    else:
        reader.say(found.entry, "steps of a schedule in epochs, whose number of steps is not said")


def _epochs_of_warmup(reader: Reader, lr: Lr, found: Found, lengths: Lengths, unit: str) -> None:
    if unit == "epoch":
        lr.put("warmup_steps", found.value, found.where)
    elif lengths.steps_per_epoch:
        lr.put("warmup_steps", round(found.value * lengths.steps_per_epoch), found.where)
    else:
        reader.say(found.entry, "epochs, and nothing says how many steps one has; add steps_per_epoch")


_NESTED: tuple[tuple[tuple[str, ...], Callable[[Reader, Lr, Found, Lengths, str], None]], ...] = (
    (("steps", "num_steps", "iters", *NAMES["lr.warmup_steps"]), _steps_of_warmup),
    (("ratio", "fraction", "share", *NAMES["lr.warmup_ratio"]), _share),
    (("epochs", "num_epochs", *NAMES["lr.warmup_epochs"]), _epochs_of_warmup),
)


def _rates(reader: Reader, lr: Lr, schedule: str) -> None:
    """Numbers of the formula that are no lengths."""
    simple: dict[str, tuple[str, Callable[[float], bool]]] = {
        "gamma": ("step multistep exponential", lambda v: v > 0),
        "cycles": ("cosine cosine_with_restarts", lambda v: v > 0),
        "pct_start": ("onecycle", lambda v: 0 < v <= 1),
        "power": ("polynomial", lambda v: v > 0),
        "start": (schedule, lambda v: v >= 0),
    }
    for key, (schedules, fits) in simple.items():
        if schedule in schedules.split():
            near = reader.named(f"lr.{key}", scheduler=True) or reader.named(f"lr.{key}")
            _take(lr, key, reader.chosen(f"lr.{key}", near, number_of, fits))
    peak = lr.values.get("peak")
    if schedule == "onecycle" and peak is not None:
        _dividers(reader, lr, peak)
    if schedule in ("constant", "constant_with_warmup", "inverse_sqrt"):
        return
    ratio = reader.number("lr.min_ratio", least=0)
    _take(lr, "min", reader.chosen("lr.min", reader.named("lr.min"), number_of, lambda v: v >= 0))
    if ratio is not None and ratio.value <= 1 and peak is not None:
        lr.put("min", ratio.value * peak, ratio.where)


def _dividers(reader: Reader, lr: Lr, peak: float) -> None:
    first, last = reader.number("lr.div_factor"), reader.number("lr.final_div_factor")
    if first is not None:
        lr.put("start", peak / first.value, first.where)
    if last is not None:
        divisor = first.value if first is not None else _ONECYCLE_DIVISOR
        lr.put("min", peak / divisor / last.value, last.where)


def _take(lr: Lr, key: str, found: Found | None) -> None:
    if found is not None:
        lr.put(key, found.value, found.where)
