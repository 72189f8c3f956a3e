"""Kinds of the family stream: what the log itself lacks, repeats or hides."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "truncated-stream": Kind("stream", "the log ends inside a record, or parts of it cannot be read"),
    "missing-steps": Kind("stream", "steps that the log's own rhythm promises are not there"),
    "step-regression": Kind("stream", "the step counter goes back without a restart"),
    "clock-skew": Kind("stream", "the wall clock goes back or jumps"),
    "rank-missing": Kind("stream", "a process of the job left no log, or stopped early"),
    "rank-divergence": Kind("stream", "processes that should agree report different values"),
    "repeated-data": Kind("stream", "after a resume the run is fed data again that it was trained on before"),
    "source-disagreement": Kind("stream", "logs of one run tell different numbers"),
    "stall": Kind("stream", "the log stands still far longer than its rhythm"),
    "hidden-non-finite": Kind("stream", "the logged loss looks finite where the loss itself was NaN or infinite"),
    "stale-values": Kind("stream", "a metric repeats its last evaluation on rows where nothing was evaluated"),
    "sampled-series": Kind("stream", "a series is a random sample of what was logged, with the rest left out"),
    "micro-batch-steps": Kind("stream", "steps count micro-batches, of which several make one update"),
    "epoch-only": Kind("stream", "the log counts epochs and nothing finer"),
    "unfinished-run": Kind("stream", "the run ends before the step that its plan names"),
}
