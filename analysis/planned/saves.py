"""Whether checkpoints were saved at the steps that their names and the log say."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.findings import Finding, NotApplicable
from analysis.planned.log_end import BY_ONE, log_end
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["MISMATCH", "Save", "counts_steps_alike", "judge_saves", "saves_of"]

MISMATCH = "checkpoint-mismatch"
#: A word for steps before the number says what it counts; after `checkpoint` alone it may be an epoch.
_STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|steps?|iter(?:ation)?s?)[-_=]?0*(\d+)(?!\d|\.\d)", re.IGNORECASE)
_PLAIN = re.compile(r"(?:^|[^a-z])(?:checkpoint|ckpt)[-_]?0*(\d+)(?!\d|\.\d)", re.IGNORECASE)
#: A number so near the recorded step is meant as one.
_NEAR = 0.1
#: From so many saves, of which all but a fifth are at logged steps, the others are told.
_ENOUGH, _USUALLY = 5, 0.8


@dataclass(frozen=True, slots=True)
class Save:
    """A recorded checkpoint: its step, its path, and the step that its name tells (None where it tells none)."""

    step: int
    path: str
    named: int | None

    @property
    def off(self) -> bool:
        """Whether name and record differ by more than the counting of one step."""
        return self.named is not None and abs(self.named - self.step) > BY_ONE


def saves_of(run: Run) -> list[Save]:
    """Checkpoints whose step was recorded, with the step in their names where it is one."""
    found: list[tuple[int, str, int | None, bool]] = []
    for step, payload in run.events_of("checkpoint").select("step", "payload").iter_rows():
        path = payload_object(payload).get("path")
        if step is None or not isinstance(path, str) or not path:
            continue
        name = path.replace("\\", "/").rstrip("/")
        sure, plain = _STEP.findall(name), _PLAIN.findall(name)
        number = int((sure or plain)[-1]) if sure or plain else None
        found.append((int(step), path, number, bool(sure)))
    agree = sum(1 for step, _, number, _ in found if number is not None and abs(number - step) <= BY_ONE)
    return [
        Save(step, path, number if number is not None and (sure or _is_step(number, step, agree)) else None)
        for step, path, number, sure in found
    ]


def counts_steps_alike(run: Run) -> bool:
    """Whether the records of a log count the same steps as the names of its saves; of other formats it is unknown."""
    return run.format.split("+")[0] in ("aftertrain", "huggingface")


def _is_step(number: int, step: int, agree: int) -> bool:
    """Whether the number after `checkpoint-` counts steps: others do, or it is near the recorded step."""
    return agree > 0 or abs(number - step) <= _NEAR * max(step, 1)


def judge_saves(run: Run) -> tuple[list[Finding], list[NotApplicable]]:
    """Findings about saves whose name, record and log disagree."""
    saves = saves_of(run)
    if not saves:
        reason = "checkpoints have no steps" if run.events_of("checkpoint").height else "no checkpoints are recorded"
        return [], [NotApplicable(MISMATCH, reason)]
    found = [*_misnamed(run, saves), *_beyond(run, saves), *_between(run, saves)]
    return found, []


def _misnamed(run: Run, saves: list[Save]) -> list[Finding]:
    off = [save for save in saves if save.off]
    if not off:
        return []
    ratios = {round(save.named / save.step, 3) for save in off if save.named and save.step}
    other_unit = len(off) > 1 and len(off) == len([s for s in saves if s.named is not None]) and len(ratios) == 1
    first = off[0]
    unit = f", always by the factor {ratios.pop():g}: the names count another unit" if other_unit else ""
    return [
        Finding(
            MISMATCH,
            "info" if other_unit else "warning",
            run.name,
            f"{first.path} was saved at step {first.step:,}, and its name says {first.named:,}"
            + (f"; {len(off)} of {len(saves)} checkpoints differ{unit}" if len(off) > 1 else ""),
            first_step=first.step,
            last_step=off[-1].step,
            evidence={
                "differing": len(off),
                "checkpoints": len(saves),
                "named_step": first.named,
                "saved_step": first.step,
                "path": first.path,
            },
            causes=(
                "names and log count different things (epochs, batches, samples)"
                if other_unit
                else "the name is made of another counter than the step that is recorded",
                "the checkpoint was copied, or renamed, after it was saved",
            ),
            suggestions=(
                "compare the step inside the checkpoint with both",
                "make the name of the step that is logged",
            ),
        )
    ]


def _beyond(run: Run, saves: list[Save]) -> list[Finding]:
    """Saves after the last number of the log."""
    end = log_end(run)
    late = [] if end is None else [save for save in saves if not end.reaches(save.step)]
    if end is None or not late:
        return []
    counted = counts_steps_alike(run)
    return [
        Finding(
            MISMATCH,
            "warning" if counted else "info",
            run.name,
            f"{late[-1].path} was saved at step {late[-1].step:,}, and the log ends at step {end.last:,}",
            first_step=late[0].step,
            last_step=late[-1].step,
            evidence={
                "late": len(late),
                "checkpoints": len(saves),
                "last_logged_step": end.last,
                "record_every": end.every,
            },
            causes=(
                "the checkpoint is of another run in the same folder, or of an attempt whose log is gone",
                "the end of the log was lost",
                *(() if counted else ("the log counts something else than the names of the checkpoints",)),
            ),
            suggestions=("do not resume from it as the end of this run before its origin is known",),
        )
    ]


def _between(run: Run, saves: list[Save]) -> list[Finding]:
    """Saves at steps that were not logged, where most are."""
    steps = np.unique([save.step for save in saves])
    if len(steps) < _ENOUGH:
        return []
    logged = run.lazy().filter(pl.col("step").is_in(steps.tolist())).select(pl.col("step").unique()).collect()["step"]
    absent = np.setdiff1d(steps, logged.to_numpy())
    first, last = run.catalogue["first_step"].min() or 0, run.catalogue["last_step"].max() or 0
    absent = absent[(absent >= first) & (absent <= last)]  # what was saved before the first step trained is in no log
    if not len(absent) or len(absent) > (1 - _USUALLY) * len(steps):
        return []
    shown = ", ".join(f"{step:,}" for step in absent[:4])
    return [
        Finding(
            MISMATCH,
            "info",
            run.name,
            f"{len(absent)} of {len(steps)} checkpoints were saved at steps that the log does not have: {shown}",
            first_step=int(absent[0]),
            last_step=int(absent[-1]),
            evidence={"absent": len(absent), "checkpoints": len(steps)},
            causes=(
                "they were saved on a signal or at the end, and not by the rhythm",
                "records at these steps are lost",
            ),
            suggestions=("log at every step at which a checkpoint is saved",),
        )
    ]
