"""What a log says about why it ends where it does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from analysis.planned.reached import Reached, last_time
from parsers.plans.entries import number_of
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["Ending", "ending_of"]

_STOPPED = re.compile(r"early.?stop|stopp(?:ed|ing) early|stopped by (?:the )?user|patience", re.IGNORECASE)
#: Epochs that a Trainer prints are whole to so much.
_WHOLE = 0.005
#: A run still goes on while less time than so many rhythms has passed, at least a minute and at most an hour.
_RHYTHMS, _LEAST_S, _MOST_S = 20.0, 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Ending:
    """`status` of the last end record (empty without one), `error` with it, and the `excuse` in words, if there is one.

    An excuse is what the log itself says for having ended before its plan: stopped on purpose, or not at its end.
    """

    status: str = ""
    error: str = ""
    excuse: str = ""
    last: datetime | None = None
    silent_s: float | None = None


def ending_of(run: Run, length: Reached, now: datetime) -> Ending:
    """How the log of `run` ends, `length` being the planned one that it did not reach, looked at `now`."""
    status, error = _end(run)
    last, usual = last_time(run)
    silent = None if last is None else (now - last).total_seconds()
    if status in ("failed", "interrupted"):
        return Ending(status, error, "", last, silent)
    excuse = _purpose(run) or _state(run, length) or ("" if length.sure else length.why)
    if not excuse and status == "finished":
        excuse = "the run says that it finished"
    if not excuse and silent is not None and usual is not None:
        wait = min(max(_RHYTHMS * usual, _LEAST_S), _MOST_S)
        if 0 <= silent <= wait:
            excuse = f"its last record is {silent:.0f} s old, and one comes every {usual:.3g} s: it is still running"
    return Ending(status, error, excuse, last, silent)


def _end(run: Run) -> tuple[str, str]:
    """Status and error of the last end record, of the last attempt."""
    ends = run.events_of("end")
    if run.format == "aftertrain" and ends.height:
        ends = ends.filter(pl.col("attempt") >= run.last_attempt)
    told = payload_object(ends["payload"][-1]) if ends.height else {}
    return str(told.get("status") or ""), str(told.get("error") or "")[:200]


def _purpose(run: Run) -> str:
    """What says that it may have been stopped on purpose."""
    for payload in run.events_of("note")["payload"]:
        text = str(payload_object(payload).get("text") or "")
        if _STOPPED.search(text):
            return f"the run notes {text[:80]!r}"
    stop = run.planned.early_stop
    return f"{stop} lets it stop early" if stop else ""


def _state(run: Run, length: Reached) -> str:
    """A `trainer_state.json` without an end is that of a checkpoint: it cannot show what came after it.

    A checkpoint stands at a multiple of `save_steps`, or at the end of an epoch. A state that was written elsewhere is
    that of the end of the training, which may have come early by the metric that the Trainer watched.
    """
    if not run.format.startswith("huggingface") or length.unit != "steps" or run.events_of("end").height:
        return ""
    every = _save_every(run)
    if every is not None and not _at_a_save(run, length, every):
        watched = run.config.get("best_metric") is not None
        return "the Trainer kept its best checkpoint by a metric, and may have stopped early on it" if watched else ""
    after = f"the log is the state that was saved at step {length.reached:,.0f}"
    if every is None:
        return f"{after}; what came after it does not show"
    following = length.reached + every
    return f"{after}, and the next would be saved at {following:,.0f}" if following > length.planned else ""


def _at_a_save(run: Run, length: Reached, every: float) -> bool:
    """Whether a state may be one of those saved every so many steps, or one an epoch; its last record may be older."""
    told = number_of(run.config.get("global_step"))
    step = length.reached if told is None else max(told, length.reached)
    later = 0.0 if told is not None else length.every - 1
    epoch = number_of(run.config.get("epoch"))
    whole = epoch is not None and abs(epoch - round(epoch)) <= _WHOLE
    return whole or (step + later) // every * every >= step


def _save_every(run: Run) -> float | None:
    """Steps between checkpoints: as configured, else as they stand."""
    configured = number_of(run.config.get("save_steps"))
    if configured is not None and configured > 1:
        return configured
    steps = run.events_of("checkpoint")["step"].drop_nulls().unique().sort()
    usual = steps.diff().drop_nulls().median()
    return float(usual) if isinstance(usual, int | float) and usual > 0 else None
