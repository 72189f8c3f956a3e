"""Breaches of an input contract, as the recorder's `inputs` events show them, beside a really trained run."""

from __future__ import annotations

from typing import Any

from benchmarks.faults.planting import STREAM, Draw, Planted, plants
from benchmarks.faults.trace import Event, Trace

__all__ = ["add_inputs", "device_mismatch", "disabled_conditioning", "forbidden_input", "missing_input"]

FAMILIES = ("classifier", "language", "autoencoder", "regression", "speaker")
REQUIRED = ("input_ids", "attention_mask", "speaker_embedding")
CONTRACT = {
    "forward": {"require": list(REQUIRED), "forbid": ["labels"]},
    "loss": {"require": ["labels"]},
}
_SHAPES = {"input_ids": [16, 48], "attention_mask": [16, 48], "speaker_embedding": [16, 192], "labels": [16, 48]}


def add_inputs(trace: Trace) -> list[Event]:
    """Adds the contract to the plan, and what the stages were given at some sixty rows; gives those of `forward`."""
    trace.plan["inputs"] = CONTRACT
    steps = [row.step for row in trace.where("train")]
    every = max(1, len(steps) // 60)
    forward = []
    for step in steps[::every]:
        for stage, names in (("forward", REQUIRED), ("loss", ("labels",))):
            event = Event("inputs", step, {"stage": stage, "tensors": {name: _tensor(name) for name in names}})
            trace.events.append(event)
            if stage == "forward":
                forward.append(event)
    times = {row.step: row.time for row in trace.where("train")}
    for event in trace.events:
        if event.kind == "inputs" and event.step is not None:
            event.time = times[event.step]
    return forward


def _tensor(name: str) -> dict[str, Any]:
    kind = "float32" if name == "speaker_embedding" else "int64"
    return {"shape": _SHAPES[name], "dtype": f"torch.{kind}", "device": "cuda:0"}


def _hit(draw: Draw, events: list[Event]) -> list[Event]:
    """The events of a breach: a share of them in one stretch to the end (all, for 1); of 0 the very last alone."""
    count = max(1, round(draw.size * len(events)))
    return events[len(events) - count :]


def _planted(trace: Trace, events: list[Event], hit: list[Event], metric: str) -> Planted:
    onset = hit[0].step
    assert onset is not None
    return Planted(trace, len(hit) / len(events), onset, None, metric)


@plants("missing-input", families=FAMILIES, formats=STREAM, points=(60, 120), pooled=True)
def missing_input(draw: Draw) -> Planted:
    """1: none of the required inputs but one is ever given; 2: one never is; 3 to 6: one is lacking from a batch on."""
    trace = draw.base()
    events = add_inputs(trace)
    hit = _hit(draw, events)
    names = REQUIRED[1:] if draw.magnitude == 1 else (str(draw.rng.choice(REQUIRED[1:])),)
    for event in hit:
        for name in names:
            del event.payload["tensors"][name]
    return _planted(trace, events, hit, names[0])


@plants("forbidden-input", families=FAMILIES, formats=STREAM, points=(60, 120), pooled=True)
def forbidden_input(draw: Draw) -> Planted:
    """The labels reach the forward pass."""
    trace = draw.base()
    events = add_inputs(trace)
    hit = _hit(draw, events)
    for event in hit:
        event.payload["tensors"]["labels"] = _tensor("labels")
    return _planted(trace, events, hit, "labels")


@plants("device-mismatch", families=FAMILIES, formats=STREAM, points=(60, 120), pooled=True)
def device_mismatch(draw: Draw) -> Planted:
    """One tensor of a batch lies on another device than the others."""
    trace = draw.base()
    events = add_inputs(trace)
    hit, device = _hit(draw, events), str(draw.rng.choice(["cpu", "cuda:1"]))
    for event in hit:
        event.payload["tensors"]["attention_mask"]["device"] = device
    return _planted(trace, events, hit, "attention_mask")


@plants("disabled-conditioning", families=FAMILIES, formats=STREAM, points=(60, 120), pooled=True)
def disabled_conditioning(draw: Draw) -> Planted:
    """The conditioning is there and its status says that it is switched off."""
    trace = draw.base()
    events = add_inputs(trace)
    for event in events:
        event.payload["status"] = {"speaker_embedding": "active"}
    hit = _hit(draw, events)
    for event in hit:
        event.payload["status"] = {"speaker_embedding": "disabled"}
    return _planted(trace, events, hit, "speaker_embedding")
