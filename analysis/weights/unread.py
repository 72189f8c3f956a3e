"""Saves whose bytes could not be had when their values were read: gone or written to meanwhile, or a failing disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import polars as pl

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.weights.differences import differences
from analysis.weights.saved import Saved
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.file_bytes import CHANGED, DELETED

__all__ = ["GONE", "changed_meanwhile", "judged_while_there", "lost_meanwhile", "with_unread"]

#: Format of a save that was deleted between being listed and being opened.
GONE = "gone"


def with_unread(checkpoint: Checkpoint, table: pl.DataFrame) -> Checkpoint:
    """The checkpoint with damage for tensors whose bytes could not be read, as their statistics say.

    What was written to meanwhile is no damage (`changed_meanwhile`).

    >>> table = pl.DataFrame({"name": ["w"], "error": ["tensor 'w' of a.pt: [Errno 5] Input/output error"]})
    >>> from pathlib import Path
    >>> [(one.where, one.reason) for one in with_unread(Checkpoint(Path("a.pt"), "torch", ()), table).damage]
    [('tensor w', "tensor 'w' of a.pt: [Errno 5] Input/output error")]
    """
    reasons = [(name, reason) for name, reason in _errors(table) if CHANGED not in reason]
    if not reasons:
        return checkpoint
    where = f"tensor {reasons[0][0]}" if len(reasons) == 1 else f"{len(reasons):,} tensors, first {reasons[0][0]}"
    return checkpoint.but(damage=(*checkpoint.damage, Damage(checkpoint.path, where, reasons[0][1])))


def changed_meanwhile(saved: Saved, run_name: str) -> list[Finding]:
    """A save that was written to while it was read (a warning), or deleted before it was (information)."""
    if saved.checkpoint.format == GONE:
        said = f"{saved.where} was deleted before it could be read"
        return [_finding(saved, run_name, "info", said, [])]
    changed = [(name, reason) for name, reason in _errors(saved.statistics) if CHANGED in reason]
    if not changed:
        return []
    names = [name for name, _ in changed]
    reason = changed[0][1].partition(f"the file {CHANGED}")[2]
    said = f"{saved.where} {CHANGED}{reason}; not read: {len(names):,} of {_counted(saved.statistics.height)}"
    return [_finding(saved, run_name, "info" if DELETED in reason else "warning", said, names)]


def lost_meanwhile(saved: Saved, run_name: str) -> list[Finding]:
    """A save whose values were read, and that was written to or deleted before it was judged: information."""
    said = f"{saved.where} was written to or deleted while it was judged; what is told of it is not all"
    return [_finding(saved, run_name, "info", said, [])]


def judged_while_there(
    saves: Sequence[Saved],
    changes: Sequence[pl.DataFrame],
    run_name: str,
    judge: Callable[[Sequence[Saved], Sequence[pl.DataFrame]], list[Finding]],
) -> list[Finding]:
    """What `judge` says of saves and the changes between them, left to those that stay as they were meanwhile.

    Judges look again into tensors that the statistics point at. A save that a running training wrote anew or deleted
    by then is told, and the story goes on between its neighbours. Raises `InputError` where bytes cannot be read
    although nothing changed.
    """
    left, told = list(range(len(saves))), list[Finding]()
    while True:
        kept = [saves[n] for n in left]
        try:
            between = [
                changes[n] if m == n + 1 else differences(saves[n].checkpoint, saves[m].checkpoint)
                for n, m in pairwise(left)
            ]
            return [*told, *judge(kept, between)]
        except InputError:
            lost = [n for n in left if saves[n].checkpoint.mapped.changed()]
            if not lost:
                raise
            told += [finding for n in lost for finding in lost_meanwhile(saves[n], run_name)]
            left = [n for n in left if n not in lost]


def _finding(saved: Saved, run_name: str, severity: Severity, said: str, names: list[str]) -> Finding:
    return Finding(
        "checkpoint-corrupt",
        severity,
        run_name,
        said,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": "deleted" if saved.checkpoint.format == GONE else "changed while it was read",
            "save": saved.name,
            "file": saved.checkpoint.path.name,
            "place": "the whole" if not names else some(names, 8),
            "reason": said,
            "damaged_places": len(names),
            "damaged_files": saved.checkpoint.path.name,
            "tensors_read": saved.statistics.height - len(names),
        },
        causes=("the training still runs: it writes its last save anew, or deletes the oldest",),
        suggestions=("read the saves again when nothing writes to them", "read a copy of the folder"),
    )


def _counted(tensors: int) -> str:
    return f"{tensors:,} tensor{'' if tensors == 1 else 's'}"


def _errors(table: pl.DataFrame) -> list[tuple[str, str]]:
    if table["error"].null_count() == table.height:
        return []
    return list(table.filter(pl.col("error").is_not_null()).select("name", "error").iter_rows())
