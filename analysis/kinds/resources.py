"""Kinds of the family resources: memory and speed."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "memory-growth": Kind(
        "resources",
        "memory grows without end",
        needs="24 values or more of memory in use, in one attempt",
        statistic="the growth of the climb at the end of the series (slope of Theil and Sen over 24 blocks, "
        "Kendall's tau "
        "0.85 or more, no faster at first than later) as a share of the level where it begins; 16 MB at least",
        severity="info; a warning from twice the limit on, and where the climb meets its ceiling within the plan or "
        "within as many steps again",
        limit=Limit(
            "growth_share",
            0.05,
            "share of the level where the climb begins",
            "a definition: growth of less harms no run of the same length",
        ),
        causes=(
            "tensors kept over steps, as a loss that is added up without .item() keeps its graph (GPU)",
            "objects kept over steps (lists of results, caches), or workers of the data loader that grow (host)",
            "what evaluations collect is kept (growth that falls on their intervals)",
        ),
        suggestions=(
            "look for tensors kept over steps: sum losses with .item() or .detach(), empty lists of outputs",
            "compare two torch.cuda.memory or tracemalloc snapshots 100 steps apart",
            "run with num_workers=0: growth that vanishes is in the workers",
        ),
        reference="P. K. Sen, 'Estimates of the Regression Coefficient Based on Kendall's Tau', JASA 63 (1968)",
    ),
    "memory-overflow": Kind(
        "resources",
        "memory ran out, or is about to",
        needs="a message that memory ran out; or memory in use and its ceiling (a series, a setting, a percentage)",
        statistic="the peak of memory in use as a share of its ceiling; messages of allocators and of the system",
        severity="critical where a message ended the run; a warning for another message, for host memory that is "
        "full to "
        "a fifth of what the limit leaves, and for a peak that rises in the second half; else info",
        limit=Limit(
            "share",
            0.95,
            "share of the ceiling",
            "a definition: the longest batch of a run needs some per cent more than the usual one",
            highest=1.0,
        ),
        causes=(
            "memory leaks (a climb before)",
            "one batch or an evaluation asked for more than there was (a level until then)",
            "allocators keep what they once took (GPU, at rest)",
        ),
        suggestions=(
            "halve the batch and accumulate over two, or turn on activation checkpointing",
            "bound the longest sample (sort by length, cut, or count tokens instead of samples in a batch)",
            "evaluate with a smaller batch and under no_grad",
        ),
        reference="PyTorch, 'CUDA semantics', section on memory management",
    ),
    "throughput-drop": Kind(
        "resources",
        "training became slower and stayed so",
        needs="30 values or more of throughput or step time, or as many records with times",
        statistic="what is left of the speed, level against level (binary segmentation of a running median; levels "
        "differ "
        "by an eighth and by six standard errors), from some record to the end",
        severity="a warning; info where batches or sequences grew there, or a phase of the curriculum began",
        limit=Limit(
            "left",
            0.75,
            "share of the speed that is left",
            "a definition: a quarter of the time is worth looking for; levels must differ beyond their noise besides",
            above=False,
            highest=0.87,
        ),
        causes=(
            "the data come more slowly (the time of loading rose there)",
            "the machine changed: clock, temperature, memory, or another machine after a resume",
            "cannot tell from this log; record the time of loading data, GPU clock and temperature to know",
        ),
        suggestions=(
            "compare the time of loading data with that of the step: which of the two grew?",
            "look at clock, temperature and neighbours of the GPUs from that time on",
            "look for work that grows with the run: metrics over all past steps, logging, a disk that fills",
        ),
        reference="A. J. Scott, M. Knott, 'A Cluster Analysis Method for Grouping Means', Biometrics 30 (1974)",
    ),
}
