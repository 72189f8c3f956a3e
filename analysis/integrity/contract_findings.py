"""Breaches of an input contract, as findings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from analysis.findings import Finding
from analysis.integrity.contract_flow import Flow

__all__ = ["Mixed", "Reports", "TensorUse", "judge_contract", "kept_out"]

_DISABLED = re.compile(r"\b(disabled|switched off|inactive)\b", re.IGNORECASE)
#: So many reports at the end, with none before, are no chance batch.
_LASTING = 2
_ABSENT = re.compile(r"\b(not[ _-]?found|missing|absent)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reports:
    """How often one status was reported, and its first and last step."""

    count: int = 0
    first: int | None = None
    last: int | None = None

    def with_more(self, count: int, first: int | None, last: int | None) -> Reports:
        """With so many further reports, between two steps."""
        firsts = [step for step in (self.first, first) if step is not None]
        lasts = [step for step in (self.last, last) if step is not None]
        return Reports(self.count + count, min(firsts, default=None), max(lasts, default=None))


@dataclass(frozen=True, slots=True)
class TensorUse:
    """One tensor of one stage: what the plan says of it, how often it was seen, when, where, and its statuses."""

    direction: str
    stage: str
    name: str
    planned: str
    seen: int = 0
    first: int | None = None
    last: int | None = None
    dtypes: Set[str] = frozenset()
    devices: Set[str] = frozenset()
    statuses: Mapping[str, Reports] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Stage and name, as a message says them."""
        return f"{self.name!r} of stage {self.stage!r}" if self.stage else repr(self.name)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Batches of one stage, alike in content, whose tensors lie on several devices."""

    stage: str
    devices: str
    first: int | None
    last: int | None
    count: int


def judge_contract(run: str, table: Sequence[TensorUse], mixed: Sequence[Mixed], flow: Flow) -> list[Finding]:
    """Findings of all tensors; `mixed` are the batches on several devices, `flow` the way through the stages."""
    found: list[Finding | None] = []
    for use in table:
        found += [_missing(run, use), _forbidden(run, use, flow), _status(run, use, table)]
    return [finding for finding in found if finding is not None] + _mixed_devices(run, mixed)


def _missing(run: str, use: TensorUse) -> Finding | None:
    if use.planned != "require" or use.seen or use.statuses:
        return None
    what = use.direction.removesuffix("s")
    return Finding(
        f"missing-{what}",
        "critical",
        run,
        f"required {what} {use.label} was never seen in any recorded event of that stage",
        metric=use.name,
        evidence={"stage": use.stage, "seen": 0},
        causes=(
            "the key is dropped on the way (collate function, unused-column removal, a renamed argument)",
            "the stage records only a part of its tensors",
        ),
        suggestions=(
            f"print the keys right before stage {use.stage!r} and follow {use.name!r} back to the data set",
            "check the spelling in the plan against the model's forward signature",
        ),
    )


def _at(step: int | None, word: str = "") -> str:
    """Where the log tells steps, which step."""
    return "" if step is None else f"{word} at step {step}"


def _forbidden(run: str, use: TensorUse, flow: Flow) -> Finding | None:
    if use.planned != "forbid" or not use.seen or use.direction != "inputs":
        return None
    way = flow.way(use.name, use.stage)
    splits = flow.splits_of(use.name, use.stage)
    without = f"; stage {way.clean!r} right before was without it" if way.clean else ""
    maker = way.clean or way.entered
    only = " in evaluation alone" if splits == ["eval"] and "train" in flow.stages else ""
    return Finding(
        "forbidden-input",
        "critical",
        run,
        f"forbidden input {use.label} was seen in {_seen(use, flow)}{only}"
        f"{_at(use.first, ', first')}; "
        f"it first appeared in stage {way.entered!r}{_at(way.step)}{without}",
        metric=use.name,
        first_step=use.first,
        last_step=use.last,
        evidence={
            "stage": use.stage,
            "seen": use.seen,
            "entered_stage": way.entered,
            "entered_step": way.step,
            "way": " > ".join(way.held),
            "last_clean_stage": way.clean or None,
            "removed_stage": way.removed or None,
            "splits": ", ".join(split or "none" for split in splits),
            "calls": flow.calls.get(use.stage),
            "calls_with_it": flow.held.get((use.stage, use.name)),
        },
        causes=(
            f"stage {way.clean!r} puts {use.name!r} in{' again' if way.removed else ''} on its way to {way.entered!r}"
            if way.clean
            else f"stage {way.entered!r} lets {use.name!r} through (first seen there)",
            "the whole batch is passed on instead of the keys that the stage needs",
        ),
        suggestions=(
            f"pass stage {use.stage!r} its own keys by name instead of the whole batch",
            f"remove {use.name!r} where stage {maker!r} hands on; scores so far may owe to it",
        ),
    )


def _seen(use: TensorUse, flow: Flow) -> str:
    """In how many calls, where they were counted, else in how many recorded events."""
    times = flow.held.get((use.stage, use.name))
    return f"{times} of {flow.calls[use.stage]} calls" if times else _events(use.seen)


def _events(count: int) -> str:
    return f"{count} event{'s' if count != 1 else ''}"


def kept_out(run: str, table: Sequence[TensorUse], forbidden: Mapping[str, Sequence[str]], flow: Flow) -> list[Finding]:
    """For each forbidden input that was in the batch and never reached its stage: where it was taken out, as info."""
    return [
        finding
        for stage, patterns in forbidden.items()
        for name in flow.names_before(stage)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        for finding in _kept_out(run, table, stage, name, flow)
    ]


def _kept_out(run: str, table: Sequence[TensorUse], stage: str, name: str, flow: Flow) -> list[Finding]:
    way = flow.taken_out(name, stage)
    if way is None:
        return []
    clean = max(use.seen for use in table if (use.direction, use.stage) == ("inputs", stage))
    calls = flow.calls.get(stage)
    looked = f"{calls} calls, all clean" if calls else f"clean in {_events(clean)}"
    where = " and ".join(map(repr, way.held))
    said = f"it stood in stage{'s' if len(way.held) > 1 else ''} {where}, and was taken out before {way.removed!r}"
    return [
        Finding(
            "forbidden-input",
            "info",
            run,
            f"forbidden input {name!r} never reached stage {stage!r} ({looked}): {said}",
            metric=name,
            first_step=way.step,
            evidence={
                "stage": stage,
                "seen": 0,
                "clean": clean,
                "calls": calls,
                "held": ", ".join(way.held),
                "removed": way.removed,
            },
            causes=(f"what stands between stage {way.held[-1]!r} and stage {way.removed!r} takes it out",),
            suggestions=("nothing to do; look again when the collate function or the trainer changes",),
        )
    ]


def _status(run: str, use: TensorUse, table: Sequence[TensorUse]) -> Finding | None:
    off_ones = [reports for status, reports in use.statuses.items() if _DISABLED.search(status)]
    none_there = [
        reports for status, reports in use.statuses.items() if _ABSENT.search(status) and not _DISABLED.search(status)
    ]
    disabled, absent = (sum(one.count for one in reports) for reports in (off_ones, none_there))
    total = sum(one.count for one in use.statuses.values())
    if not disabled and not absent:
        return None
    off = disabled >= absent
    hit = off_ones if off else none_there
    since = _since(hit, [one for one in use.statuses.values() if one not in hit])
    kind = "disabled-conditioning" if off else "missing-input" if use.direction == "inputs" else "missing-output"
    count, said = (disabled, "disabled") if off else (absent, "not found")
    elsewhere = _elsewhere(use, table)
    evidence: dict[str, float | int | str | bool | None] = {
        "stage": use.stage,
        "reports": total,
        "affected": count,
        "statuses": "; ".join(use.statuses),
        "to_the_end_from": since,
    }
    if elsewhere is not None:
        evidence |= {"held_by": elsewhere.stage, "held": elsewhere.seen}
    return Finding(
        kind,
        "info" if count <= total / 2 and since is None else "critical" if use.planned == "require" else "warning",
        run,
        f"{use.direction.removesuffix('s')} {use.label} is {said} in {count} of {total} status reports"
        + (f", all from step {since} to the end" if since is not None else "")
        + (f", while stage {elsewhere.stage!r} held it in {_events(elsewhere.seen)}" if elsewhere else ""),
        metric=use.name,
        first_step=min((one.first for one in hit if one.first is not None), default=use.first),
        last_step=max((one.last for one in hit if one.last is not None), default=use.last),
        evidence=evidence,
        causes=(
            *_blind(use, elsewhere),
            f"the input is computed but switched off by configuration ({said})"
            if off
            else f"an earlier stage does not hand {use.name!r} on ({said})",
            "a flag or a module that makes it was not loaded",
        ),
        suggestions=(
            *_look(elsewhere),
            f"check the flag that switches {use.name!r} on, and that its encoder is loaded",
            f"follow {use.name!r} from where it is made to {f'stage {use.stage!r}' if use.stage else 'the model'}",
        ),
    )


def _since(hit: Sequence[Reports], others: Sequence[Reports]) -> int | None:
    """The step from which every report, two or more of them, is of the one sort, after others before; else None.

    Conditioning that is dropped at random (for guidance without a classifier) comes back: that is none of this.
    """
    if not others or sum(one.count for one in hit) < _LASTING:
        return None
    starts, ends = [one.first for one in hit], [one.last for one in others]
    known = [step for step in (*starts, *ends) if step is not None]
    if len(known) < len(starts) + len(ends):
        return None
    first = min(step for step in starts if step is not None)
    return first if first > max(step for step in ends if step is not None) else None


def _elsewhere(use: TensorUse, table: Sequence[TensorUse]) -> TensorUse | None:
    """Another stage that held the tensor which this one reports as missing; people write its name in their own way."""
    name = _plain(use.name)
    return next((u for u in table if u.seen and u.stage != use.stage and _plain(u.name) == name), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def _blind(use: TensorUse, elsewhere: TensorUse | None) -> tuple[str, ...]:
    if elsewhere is None:
        return ()
    return (
        f"stage {use.stage!r} is blind: it is not handed {elsewhere.name!r}, which stage {elsewhere.stage!r} held "
        f"in {_events(elsewhere.seen)} (a Trainer callback's on_log carries metrics, neither inputs nor outputs)",
    )


def _look(elsewhere: TensorUse | None) -> tuple[str, ...]:
    if elsewhere is None:
        return ()
    return (f"report from stage {elsewhere.stage!r}, or derive the trainer from RecordingTrainer; the tensor is there",)


def _mixed_devices(run: str, mixed: Sequence[Mixed]) -> list[Finding]:
    findings = []
    for stage in dict.fromkeys(entry.stage for entry in mixed):
        batches = [entry for entry in mixed if entry.stage == stage]
        steps = [step for entry in batches for step in (entry.first, entry.last) if step is not None]
        count, devices = sum(entry.count for entry in batches), batches[0].devices
        findings.append(
            Finding(
                "device-mismatch",
                "warning",
                run,
                f"tensors of one batch of stage {stage!r} lie on {devices}, in {count} events",
                first_step=min(steps, default=None),
                last_step=max(steps, default=None),
                evidence={"stage": stage, "devices": devices, "events": count},
                causes=(
                    "a tensor made inside the step stays on the CPU",
                    "part of the batch is not moved to the device",
                ),
                suggestions=(
                    "move the whole batch with one call right after loading",
                    "make new tensors with the device of an input tensor",
                ),
            )
        )
    return findings
