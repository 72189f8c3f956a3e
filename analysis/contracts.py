"""What each stage of the model was given and gave back, against the plan: missing, forbidden, disabled, misplaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.figures import COLOURS, axes, style
from analysis.findings import NotApplicable
from analysis.integrity.contract_findings import Mixed, Reports, TensorUse, judge_contract, kept_out
from analysis.integrity.contract_flow import Flow
from analysis.integrity.lacking_inputs import Attendance
from analysis.result import Result
from parsers.run import Run
from parsers.tables.events import payload_object

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Contracts", "contracts"]

_KINDS = ("missing-input", "missing-output", "forbidden-input", "device-mismatch", "disabled-conditioning")
_FRAME = pl.Schema(
    {
        "direction": pl.String,
        "stage": pl.String,
        "name": pl.String,
        "planned": pl.String,
        "seen": pl.Int64,
        "first_step": pl.Int64,
        "last_step": pl.Int64,
        "dtypes": pl.String,
        "devices": pl.String,
        "status": pl.String,
    }
)


@dataclass(frozen=True, eq=False, repr=False)
class Contracts(Result):
    """Tensors by stage. `frame` has one row a direction (inputs, outputs), stage and name: planned (require, forbid or
    empty), seen (events that hold the tensor), first_step and last_step of these, dtypes and devices (those seen,
    comma-separated), status (statuses logged, comma-separated; empty for none).
    """

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """One line a tensor from its first to its last step, red where forbidden; never seen ones have no line.

        `options` go to the lines. The first 40 rows are drawn.
        """
        rows = self.frame.head(40)
        drawn = axes(ax, height=max(2.0, 0.22 * rows.height + 1.2))
        with style():
            for place, row in enumerate(rows.iter_rows(named=True)):
                if row["first_step"] is None:
                    continue
                colour = COLOURS["vermilion" if row["planned"] == "forbid" else "blue"]
                line = {"color": colour, "marker": "|", "lw": 3, **options}
                drawn.plot([row["first_step"], row["last_step"]], [place, place], **line)
        names = [f"{row['stage']}: {row['name']}"[:50] for row in rows.iter_rows(named=True)]
        drawn.set_yticks(range(len(names)), names, parse_math=False)
        drawn.set_xlabel("step")
        drawn.set_ylabel("tensor")
        said = self.findings[0].message if self.findings else "no breach of the input contract was seen"
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn


@dataclass
class _Seen:
    """What is gathered about one tensor while the events go by."""

    seen: int = 0
    first: int | None = None
    last: int | None = None
    dtypes: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    statuses: dict[str, Reports] = field(default_factory=dict)


def contracts(run: Run) -> Contracts:
    """What the recorded `inputs` and `outputs` events say against the plan's `inputs` (and `outputs`).

    The plan names per stage what it must `require` and `forbid` (shell patterns such as `*_labels` are allowed), and
    so do `contract` events, as `watch_inputs` records them. A required tensor that no event of its stage holds is
    missing, and so is an input that some events of one split hold and others lack; a forbidden one is reported with
    its first step and the stage where it came in; one that an earlier stage held and that was taken out on the way is
    told as info, with the stage that was the first without it. A tensor that one stage reports as not found and
    another holds points to a blind stage (a callback). Without a plan, statuses (`DISABLED`, `NOT FOUND`) and devices
    are judged all the same; a status that turns to these at one step and stays counts however late that is. A stage
    that the plan names and no event shows cannot be judged, and is said to be missing only by `not_applicable`.

    Events whose payload is no object are passed over. Events alike in all but step and time are read once, so that a
    million of them take a second. Without any event every kind is `not_applicable`. Source of the contract's form: the
    section "Plan" of the event-stream contract.

    >>> from parsers.finish import finish
    >>> payload = '{"stage": "forward", "tensors": {"labels": {"device": "cpu"}}}'
    >>> events = pl.DataFrame({"kind": ["inputs"], "step": [7], "payload": [payload]})
    >>> plan = {"inputs": {"forward": {"require": ["input_ids"], "forbid": ["labels"]}}}
    >>> [f.kind for f in contracts(finish("r", "r", "aftertrain", events=events, plan=plan)).findings]
    ['forbidden-input', 'missing-input']
    """
    uses, mixed, flow, attendance = _gather(run)
    if not uses:
        reason = _nothing_held(flow)
        return Contracts(run.name, _FRAME.to_frame(), not_applicable=_unjudged(dict.fromkeys(_KINDS, reason)))
    rules = _all_rules(run)
    table = _with_plan(uses, rules)
    forbidden = {stage: names for stage, (_, names) in rules["inputs"].items() if names}
    findings = judge_contract(run.name, table, mixed, flow) + attendance.findings(run.name, rules["inputs"])
    findings += kept_out(run.name, table, forbidden, flow)
    told = {f.kind for f in findings}
    return Contracts(
        run=run.name,
        frame=_frame(table),
        findings=tuple(findings),
        not_applicable=_unjudged({k: v for k, v in _gaps(table, rules).items() if k not in told}),
    )


def _unjudged(reasons: Mapping[str, str]) -> tuple[NotApplicable, ...]:
    return tuple(NotApplicable(kind, reason) for kind, reason in reasons.items())


def _nothing_held(flow: Flow) -> str:
    """Why there is nothing to judge."""
    stages = dict.fromkeys(stage for held in flow.stages.values() for stage in held if stage)
    if not stages:
        return "no inputs or outputs events were recorded"
    return (
        f"the only stage recorded ({', '.join(stages)}) was handed no inputs and no outputs: callbacks of a Trainer "
        "see none; derive the trainer from RecordingTrainer, or use watch_inputs"
    )


def _gather(run: Run) -> tuple[dict[tuple[str, str, str], _Seen], list[Mixed], Flow, Attendance]:
    """Every (direction, stage, name) with what was seen of it, the batches whose tensors lie on several devices, the
    way of the inputs through the stages, and which of them the events of each stage held.
    """
    uses: dict[tuple[str, str, str], _Seen] = {}
    mixed: list[Mixed] = []
    flow, attendance = Flow(), Attendance()
    alike = (
        run.events.filter(pl.col("kind").is_in(["inputs", "outputs"]))
        .group_by("kind", "split", "payload", maintain_order=True)
        .agg(first=pl.col("step").min(), last=pl.col("step").max(), count=pl.len())
    )
    for direction, split, payload, first, last, count in alike.iter_rows():
        stage, tensors, statuses = _parse(payload)
        if direction == "inputs":
            flow.add(split or "", stage, tensors, first)
            attendance.add(split or "", stage, (*tensors, *statuses), first, last, count)
        devices: set[str] = set()
        for name, about in tensors.items():
            use = _mark(uses.setdefault((direction, stage, name), _Seen()), first, last, count)
            described = about if isinstance(about, dict) else {}
            use.dtypes |= {str(described["dtype"])} if described.get("dtype") else set()
            devices |= {str(described["device"])} if described.get("device") else set()
            use.devices |= {str(described["device"])} if described.get("device") else set()
        for name, status in statuses.items():
            use = uses.setdefault((direction, stage, name), _Seen())
            use.statuses[str(status)] = use.statuses.get(str(status), Reports()).with_more(count, first, last)
            use.first = first if use.first is None else use.first
        if direction == "inputs" and len(devices) > 1:
            mixed.append(Mixed(stage, ", ".join(sorted(devices)), first, last, count))
    for counted in map(payload_object, run.events_of("watched")["payload"]):
        stages = counted.get("stages")
        flow.count(stages if isinstance(stages, dict) else {})
    return uses, mixed, flow, attendance


def _parse(payload: str | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    record = payload_object(payload)
    tensors, status = record.get("tensors"), record.get("status")
    return (
        str(record.get("stage") or ""),
        tensors if isinstance(tensors, dict) else {},
        status if isinstance(status, dict) else {},
    )


def _mark(use: _Seen, first: int | None, last: int | None, count: int) -> _Seen:
    use.seen += count
    if first is not None and last is not None:
        use.first = first if use.first is None else min(use.first, first)
        use.last = last if use.last is None else max(use.last, last)
    return use


def _all_rules(run: Run) -> dict[str, dict[str, tuple[list[str], list[str]]]]:
    """The plan's rules with those of every `contract` event, by direction and stage."""
    plan = {"inputs": run.planned.inputs, "outputs": run.planned.outputs}
    agreed: list[Mapping[str, Any]] = [plan, *map(payload_object, run.events_of("contract")["payload"])]
    rules: dict[str, dict[str, tuple[list[str], list[str]]]] = {"inputs": {}, "outputs": {}}
    for direction, by_stage in rules.items():
        for said in agreed:
            for stage, (require, forbid) in _rules(said.get(direction)).items():
                known = by_stage.get(stage, ([], []))
                by_stage[stage] = (
                    list(dict.fromkeys([*known[0], *require])),
                    list(dict.fromkeys([*known[1], *forbid])),
                )
    return rules


def _rules(planned: object) -> dict[str, tuple[list[str], list[str]]]:
    """Stage -> (required, forbidden) of the plan; what has another shape is the plan reader's to complain about."""
    if not isinstance(planned, Mapping):
        return {}
    return {
        str(stage): (_names(rule.get("require")), _names(rule.get("forbid")))
        for stage, rule in planned.items()
        if isinstance(rule, Mapping)
    }


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if isinstance(value, list | tuple) else []


def _with_plan(
    uses: Mapping[tuple[str, str, str], _Seen], rules: Mapping[str, Mapping[str, tuple[list[str], list[str]]]]
) -> list[TensorUse]:
    """One entry a tensor, seen or required, with what the plan says of it; stages stand as they first appeared."""
    stages = {(direction, stage) for direction, stage, _ in uses}
    table = [
        TensorUse(d, s, n, _planned(n, rules[d].get(s)), u.seen, u.first, u.last, u.dtypes, u.devices, u.statuses)
        for (d, s, n), u in uses.items()
    ]
    for direction, by_stage in rules.items():
        for stage, (required, _) in by_stage.items():
            held = [n for d, s, n in uses if (d, s) == (direction, stage)]
            missing = [n for n in required if not any(fnmatchcase(h, n) for h in held)]
            if (direction, stage) in stages:
                table += [TensorUse(direction, stage, name, "require") for name in missing]
    return table


def _planned(name: str, rule: tuple[list[str], list[str]] | None) -> str:
    if rule is None:
        return ""
    required, forbidden = (any(fnmatchcase(name, pattern) for pattern in patterns) for patterns in rule)
    return "forbid" if forbidden else "require" if required else ""


def _gaps(table: list[TensorUse], rules: Mapping[str, Mapping[str, tuple[list[str], list[str]]]]) -> dict[str, str]:
    """Kinds that could not be judged, with the reason."""
    reasons: dict[str, str] = {}
    stages = {(use.direction, use.stage) for use in table}
    statuses = any(use.statuses for use in table)
    for direction, kind in (("inputs", "missing-input"), ("outputs", "missing-output")):
        planned = [stage for stage, (required, _) in rules[direction].items() if required]
        unseen = [stage for stage in planned if (direction, stage) not in stages]
        if unseen and len(unseen) == len(planned):
            reasons[kind] = f"the plan requires {direction} of {', '.join(unseen)}, and no event shows that stage"
        elif not planned and not statuses:
            reasons[kind] = f"the plan requires no {direction}, and no status was logged"
    if not any(forbidden for _, forbidden in rules["inputs"].values()):
        reasons["forbidden-input"] = "the plan forbids no input"
    if not any(use.devices for use in table):
        reasons["device-mismatch"] = "no devices were logged"
    if not statuses:
        reasons["disabled-conditioning"] = "no status was logged"
    return reasons


def _frame(table: list[TensorUse]) -> pl.DataFrame:
    rows = [
        (
            use.direction,
            use.stage,
            use.name,
            use.planned,
            use.seen,
            use.first,
            use.last,
            ", ".join(sorted(use.dtypes)),
            ", ".join(sorted(use.devices)),
            ", ".join(use.statuses),
        )
        for use in table
    ]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")
