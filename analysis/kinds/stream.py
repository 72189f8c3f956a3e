"""Kinds of the family stream: what the log itself lacks, repeats or hides."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "truncated-stream": Kind(
        "stream",
        "the log ends inside a record, or parts of it cannot be read",
        needs="any log; of an event stream its manifest and its end record too",
        statistic="the share of records that could not be read, and whether an event stream of a finished run has "
        "its end",
        severity="info below 1 % of the records; a warning from there, where a record is cut or the end is missing; "
        "critical from 20 %, and where nothing at all was recorded",
        causes=(
            "the process was killed while it wrote (cut lines)",
            "the disk was full, or the file was copied while it was written",
            "several processes write into one file",
        ),
        suggestions=(
            "look at the rejects of the run: each names its line and reason",
            "copy the log again from where it was written",
            "let every process write its own file",
        ),
        reference="the event-stream contract (docs/event-stream.md), sections on segments and the end record",
    ),
    "missing-steps": Kind(
        "stream",
        "steps that the log's own rhythm promises are not there",
        needs="10 records or more with steps, of which four of five intervals are equal",
        statistic="holes: intervals of one and a half rhythms or more, filled by no other series, and neither regular "
        "nor a new rhythm; counted against the steps promised. Holes between two attempts count too",
        severity="info; a warning from the limit on, and where one hole is ten records wide (as much wider as the "
        "limit "
        "is larger than its default)",
        limit=Limit(
            "share_missing",
            0.01,
            "share of the steps promised",
            "a definition: below 1 % a mean over the series moves by less than its noise; smaller holes are "
            "information",
            highest=1.0,
        ),
        causes=(
            "records were lost (a full disk, a queue that dropped them)",
            "the run was resumed after later steps were lost",
        ),
        suggestions=(
            "compare with the scheduler's log at these steps",
            "do not average over the hole as if it were there",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Segments",
    ),
    "step-regression": Kind(
        "stream",
        "the step counter goes back without a restart",
        needs="a log with steps",
        statistic="records whose step is below that of the record before, within one attempt",
        severity="a warning; info where the counter begins again at the same step each time, as one within epochs does",
        causes=(
            "the run was resumed from a checkpoint without saying so (few times)",
            "several processes write into one log (many times)",
        ),
        suggestions=("log a global step that never falls", "give each process and each attempt its own file"),
        reference="W&B refuses steps that fall, too: documentation of wandb.Run.log, parameter step",
    ),
    "clock-skew": Kind(
        "stream",
        "the wall clock goes back or jumps",
        needs="a log with times",
        statistic="how far the clock falls from one record to the next; a leap of 30 days or more counts always",
        severity="a warning",
        limit=Limit(
            "back_s",
            1.0,
            "seconds",
            "clocks of several writers differ by milliseconds and are set back by as little (NTP); a second is no "
            "accident",
        ),
        causes=(
            "the machine's clock was set during the run, or local time was logged and summer time ended",
            "records of several machines stand in one series",
        ),
        suggestions=("log UTC, and durations from a monotonic clock", "synchronise the machines (NTP)"),
        reference="RFC 5905 (Network Time Protocol, version 4), on the step of a clock and its slew",
    ),
    "rank-missing": Kind(
        "stream",
        "a process of the job left no log, or stopped early",
        needs="logs of two ranks or more",
        statistic="ranks that the settings or the numbering promise and nobody wrote; last records that lie more than "
        "three records before the others'",
        severity="a warning; info where the count is doubtful, fewer than ten records are missing, or a job was "
        "resumed "
        "with fewer processes",
        causes=(
            "the process failed before its first record, or was killed",
            "its files were not copied with the others",
        ),
        suggestions=(
            "look for the files of these ranks on their nodes",
            "look at the scheduler's output for the first error",
            "set a timeout on collectives, so that the loss of one process ends the others with its name",
        ),
        reference="the event-stream contract (docs/event-stream.md), sections Manifest and Segments",
    ),
    "rank-divergence": Kind(
        "stream",
        "processes that should agree report different values",
        needs="two ranks with ten common steps (thirty for numbers that each has of its own); or their checkpoints",
        statistic="numbers that agreed to rounding (1e-5) and come apart for good; levels of a rank's own numbers that "
        "leave the others' by the limit, by six standard errors and by four times what the others differ. Copies of "
        "one model in checkpoints of several ranks are the same bit by bit",
        severity="critical for parameters, learning rates and gradient norms that were the same; a warning for reduced "
        "losses, NaN on some ranks and a level that parts in the course of the run; info for one that was off from the "
        "beginning, for noise, and for a rank that is slower",
        limit=Limit(
            "difference",
            0.2,
            "relative difference of the level of a rank's own numbers",
            "a definition: a fifth; what lies within chance, or within what the others differ, does not count",
            lowest=0.14,
        ),
        causes=(
            "the weights or the optimizer's states of the replicas are no longer the same",
            "the data of the rank differ (a shard of another source, a broken or repeated file)",
            "a faulty device of that process",
        ),
        suggestions=(
            "compare a checksum of the parameters over ranks, and broadcast them from rank 0 where it differs",
            "look for parameters outside DDP, for no_sync, and for branches that not every rank takes",
            "look at the batches of that rank from that step on",
        ),
        reference="PyTorch, DistributedDataParallel: parameters are the same on all processes after every step",
    ),
    "repeated-data": Kind(
        "stream",
        "after a resume the run is fed data again that it was trained on before",
        needs="a resume, and a training loss of 32 records or more on either side; or a count of data consumed",
        statistic="the correlation of the loss less its trend with the loss at an earlier stretch, at one lag: 0.3 at "
        "least, and beyond what the best of all lags tried reaches by chance in one of 1,000 resumes",
        severity="a warning; info where the order may be the same in every epoch, and for identical losses",
        causes=(
            "the position in the data was not restored at the resume",
            "the same seed draws the same order after each resume",
        ),
        suggestions=(
            "save the state of the data loader and its sampler with every checkpoint and restore it",
            "in the Hugging Face Trainer leave ignore_data_skip=False; call set_epoch with DistributedSampler",
            "judge the run by its eval loss until then: the train loss is too good on data seen twice",
        ),
        reference="S. Bekman, Machine Learning Engineering, 'Understanding Training Loss Patterns'",
    ),
    "source-disagreement": Kind(
        "stream",
        "logs of one run tell different numbers",
        needs="two logs of one run that share a series",
        statistic="the share of numbers at the same step that differ by more than half of the last digit printed, "
        "and by "
        "more than single precision",
        severity="info; a warning from the limit on, and for any number that is finite in one log and not in the other",
        limit=Limit(
            "share",
            0.01,
            "share of the numbers compared",
            "a definition: a value logged twice or a record written late is less",
            highest=1.0,
        ),
        causes=(
            "one log holds means over an interval, or a scaled loss, where the other holds single steps",
            "one writer replaces numbers that are not finite",
            "the logs belong to different trainings",
        ),
        suggestions=(
            "look at the first step that differs in both logs",
            "find out which of the two is the loss that is minimised, and log that one",
            "keep each training in a folder of its own",
        ),
    ),
    "stall": Kind(
        "stream",
        "the log stands still far longer than its rhythm",
        needs="10 records or more with times",
        statistic="the longest interval between two records with no evaluation or checkpoint in it, against the usual "
        "one, which counts as 2 s at least and as a fifteenth of what the slowest ordinary one of so many reaches; one "
        "with an evaluation or a checkpoint in it is held against five or more others with the same; the first "
        "interval and regular pauses are left out",
        severity="a warning; critical where such pauses take a quarter of the time and over an hour",
        limit=Limit(
            "times_usual",
            30.0,
            "times the usual interval between records",
            "a definition; twice the slowest of as many lognormal intervals stays below it in 99 of 100 logs",
            lowest=1.0,
        ),
        causes=(
            "waiting for data or a shared file system (no evaluation or checkpoint in the pause)",
            "the job was suspended, or a collective operation hung until its timeout",
        ),
        suggestions=(
            "look at the loader and the storage at that time",
            "log data time apart from step time",
        ),
        reference="Amazon SageMaker Debugger, rule StepOutlier, asks the same of steps by their standard deviation",
    ),
    "hidden-non-finite": Kind(
        "stream",
        "the logged loss looks finite where the loss itself was NaN or infinite",
        needs="a loss beside a gradient norm, or a log of transformers' Trainer",
        statistic="rows at which the loss reads 0, or its last value, while the gradient norm is not finite",
        severity="a warning",
        causes=(
            "transformers' Trainer writes 0 for a row whose losses were all NaN (logging_nan_inf_filter)",
            "the loop replaces a loss that is not finite before it logs it",
        ),
        suggestions=(
            "go back to the last checkpoint before the last sound step: later weights are probably not finite",
            "set logging_nan_inf_filter=False, so that the loss shows what happens",
            "look at the batches since the last sound step; lower the learning rate; use bfloat16, not float16",
        ),
        reference="transformers, TrainingArguments.logging_nan_inf_filter",
    ),
    "stale-values": Kind(
        "stream",
        "a metric repeats its last evaluation on rows where nothing was evaluated",
        needs="an eval series of several rows for each evaluation",
        statistic="blocks of equal neighbouring values, in a series whose grain is too fine to meet a value twice by "
        "chance",
        severity="info; a warning where fewer than 5 evaluations are behind many rows",
        causes=("the loop logs the last eval value with every row until the next evaluation",),
        suggestions=(
            "log eval metrics only on the rows where they were computed",
            "count evaluations and not rows where a patience, a smoothing or a test over eval values is set",
        ),
    ),
    "sampled-series": Kind(
        "stream",
        "a series is a random sample of what was logged, with the rest left out",
        needs="a series of exactly as many points as a tool samples down to (500, 1,000 or 10,000)",
        statistic="gaps between steps that fit the law of a random sample (Kolmogorov and Smirnov) and no rhythm",
        severity="info",
        causes=("the log was downloaded through an interface that samples (TensorBoard's reservoir, W&B's history)",),
        suggestions=(
            "judge the original: the event files themselves, or W&B's scan_history() or its run folder",
            "download again with a larger sample (--samples_per_plugin=scalars=0 keeps everything)",
        ),
        reference="J. S. Vitter, 'Random sampling with a reservoir', ACM TOMS 11 (1985)",
    ),
    "micro-batch-steps": Kind(
        "stream",
        "steps count micro-batches, of which several make one update",
        needs="a learning rate, or a configuration that names the accumulation and the number of updates",
        statistic="rows between two moves of the learning rate; the last step against the updates configured",
        severity="info",
        causes=("gradients are accumulated over several batches while the step counts batches",),
        suggestions=(
            "log the optimizer's step as well",
            "divide the step by the accumulation before comparing with a plan",
        ),
        reference="transformers, TrainingArguments.gradient_accumulation_steps",
    ),
    "epoch-only": Kind(
        "stream",
        "the log counts epochs and nothing finer",
        needs="three rows or more",
        statistic="one value an epoch, no steps, or steps that are epochs",
        severity="info",
        causes=("only means or ends of epochs are logged, as CSV loggers of epochs do",),
        suggestions=(
            "log the training loss every few steps, with the optimiser step",
            "mind that a training value of an epoch is often its mean, an eval value that of the weights at its end",
        ),
        reference="Keras FAQ, 'Why is my training loss much higher than my testing loss?'",
    ),
    "unfinished-run": Kind(
        "stream",
        "the run ends before the step that its plan names",
        needs="a plan or a configuration that names steps or epochs (docs/plan.md), and a log that counts them",
        statistic="the share of the planned length that the last record has reached; what lies between the last record "
        "and the next one counts as done. Of planned steps and epochs the one that was reached counts",
        severity="a warning at or below the limit; info above it, and where the log says why: early stopping, an end "
        "record without an error, a state saved before the end, a last record so recent that the run still goes on",
        limit=Limit(
            "share_done",
            0.95,
            "share of the plan",
            "a definition: what lacks more than a twentieth was not ended by its own schedule",
            above=False,
            highest=1.0,
        ),
        causes=(
            "the process was killed (memory, time limit, pre-emption), or failed: the end record says so where there "
            "is one",
            "it was stopped by hand, or still runs",
        ),
        suggestions=(
            "look at the scheduler's log and the system's for the last minute of the run",
            "resume from the last checkpoint",
            "if it was stopped on purpose, give the length that was meant with --plan",
        ),
        reference="MLPerf asks of every log that it ends with run_stop (compliance checker of mlcommons/logging)",
    ),
    "overlong-run": Kind(
        "stream",
        "the run goes on beyond the step that its plan names",
        needs="a plan or a configuration that names steps or epochs (docs/plan.md), and a log that counts them",
        statistic="the last step or epoch over the planned one, where it lies more than one record beyond; steps that "
        "are the batches of an update, at as many times the plan, are none",
        severity="a warning from the limit on where the plan was declared (a manifest, --plan); info below it, and "
        "where the length is that of a configuration, or another planned length is not reached",
        limit=Limit(
            "share_done",
            1.05,
            "times the plan",
            "a definition: the last evaluation may stand a little beyond the end, a twentieth is another length",
            lowest=1.0,
        ),
        causes=(
            "the log counts batches or samples, the plan updates",
            "the run was resumed with another length",
            "the plan is that of another run",
        ),
        suggestions=(
            "look at the learning rate beyond the planned end: a schedule that has ended is 0, or begins again",
            "say the length that was meant in the plan, or with --plan",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Plan",
    ),
}
