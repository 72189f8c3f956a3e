"""`inject`: a fault of known kind, place and size, planted into the numbers of a run that is there."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.injection import accounting, adversarial, contracts, evaluations, gradients, losses, processes, stream
from analysis.injection.draft import Draft
from analysis.injection.fault import Fault
from analysis.kinds import KINDS
from eventstream.errors import unknown_name
from parsers.run import Run

__all__ = ["FAULTS", "fault_of", "faults_table", "inject"]

#: Every fault that can be planted, by the kind of finding that should name it.
FAULTS: dict[str, Fault] = {
    fault.kind: fault
    for family in (stream, losses, gradients, evaluations, accounting, contracts, processes, adversarial)
    for fault in family.FAULTS
}


def inject(
    run: Run,
    kind: str,
    *,
    at: float | np.integer[Any] = 0.6,
    size: float | None = None,
    metric: str | None = None,
    seed: int = 0,
    length: int | None = None,
    consequences: bool = True,
) -> Run:
    """A run like `run` with one fault in it; the old one is untouched, and everything else stays as it was.

    `kind` is one of `FAULTS`, which say what each does to the numbers (docs/selftest.md has the table). `at` is the
    place of the onset: a float is the share of the rows (0 up to 1, without 1), an int the step. `size` is in the unit
    of the kind; None takes a default that is clearly visible. `metric` chooses the series (default: what stands for the
    run, `run.roles`), `length` the rows that the fault takes, where its description names them. Values are those of the
    run, multiplied or moved: its noise is kept. With `consequences` what a real fault would move too is moved (a spike
    of the loss shows in its parts and in the gradient norm); without, one series changes. What is left to
    chance (the side of an outlier, the lines that cannot be read) is drawn from `seed`; a call repeated gives the same.

    Of a lazy run only the series that change are read. An event of kind `injected` says what was planted, with the step
    of its onset; name, path, configuration and plan stay. Payloads of events that repeat numbers of the scalars stay as
    recorded.

    Raises `ValueError` for an unknown kind (the nearest is named), a kind that no change of a log can make, and for a
    place, size or length that cannot be; `InputError` where the log lacks what the fault goes into, with what to
    record, and for an unknown metric. The idea is that of mutation testing, which measures tests by faults that one
    planted (of deep learning: Humbatova, Jahangirova and Tonella, "DeepCrime", ISSTA 2021, in code; here in the log).

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 10, "step": list(range(10)), "value": [1.0] * 10})
    >>> inject(finish("r", "r.csv", "csv", rows), "loss-spike", at=0.5, size=4.0, length=2).scalars["value"].to_list()
    [1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 1.6693904804452895, 1.0, 1.0, 1.0]
    """
    fault = fault_of(kind)
    chosen = fault.checked(size)
    onset = int(at) if isinstance(at, np.integer) else at
    _check_place(onset, length)
    draft = Draft(run, kind, onset, chosen, metric, length, consequences, seed)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what floats cannot hold becomes infinite
        fault.plant(draft)
    place = draft.place
    return draft.finished(
        {
            "kind": kind,
            "size": chosen if fault.sized else None,
            "unit": fault.unit,
            "step": place.step if place is not None and fault.placed else None,
            "at": onset,
            "metric": place.series.metric if place is not None and not draft.of_the_log else metric,
            "length": length,
            "consequences": consequences,
            "seed": seed,
        }
    )


def fault_of(kind: str) -> Fault:
    """The fault of a kind; `ValueError` with the nearest known kind, or with the reason why none can be planted."""
    if kind in FAULTS:
        return FAULTS[kind]
    if kind in KINDS:
        where = f"it is about {KINDS[kind].family}" if KINDS[kind].family != "stream" else "it is how a log is written"
        raise ValueError(f"{kind} cannot be planted into the numbers of a log: {where}; these can: {', '.join(FAULTS)}")
    raise ValueError(unknown_name("kind", kind, FAULTS))


def faults_table() -> str:
    """What every fault does, its unit, default and range, as a table in Markdown (docs/selftest.md)."""
    lines = ["| kind | what it does | size | default | from | to |", "|---|---|---|---|---|---|"]
    for fault in FAULTS.values():
        numbers = [f"{n:g}" for n in (fault.default, fault.lowest, fault.highest)] if fault.sized else ["", "", ""]
        lines.append(f"| {fault.kind} | {fault.does} | {fault.unit} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _check_place(at: float, length: int | None) -> None:
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError(f"at is a share of the run (0.6) or a step (4200), not {at!r}")
    if isinstance(at, float) and not 0 <= at < 1:
        raise ValueError(f"at={at!r} is no share of the run, from 0 up to 1: give a whole number for a step")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(f"length counts rows, 1 or more, not {length!r}")
