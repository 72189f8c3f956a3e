"""Kinds of the family checkpoints: what the files of weights say."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "checkpoint-corrupt": Kind("checkpoints", "a checkpoint is damaged or incomplete"),
    "checkpoint-unsafe": Kind("checkpoints", "a checkpoint would run code when opened"),
    "checkpoint-non-finite": Kind("checkpoints", "weights are NaN or infinite"),
    "checkpoint-mismatch": Kind(
        "checkpoints",
        "a checkpoint does not fit its run or its neighbour",
        needs="recorded checkpoints with steps; names that tell a step, or a log with steps",
        statistic="the step in the name of a checkpoint (`checkpoint-1200`, `step=1200`) against the one recorded with "
        "it, to one step; the recorded one against the end of the log, and against logged steps where four of five "
        "saves stand at one",
        severity="a warning where name and record differ, and where a save lies beyond the end of the log; info where "
        "all names differ by one factor (another unit), and for saves between logged steps",
        causes=(
            "the name is made of another counter than the step that is recorded",
            "the checkpoint is of another run in the same folder, or of an attempt whose log is gone",
            "the checkpoint was copied, or renamed, after it was saved",
        ),
        suggestions=(
            "compare the step inside the checkpoint with both",
            "make the name of the step that is logged",
            "do not resume from it before its origin is known",
        ),
        reference="the event-stream contract (docs/event-stream.md), record `checkpoint` in section Kinds",
    ),
    "weight-drift": Kind("checkpoints", "weights moved further than they should"),
}
