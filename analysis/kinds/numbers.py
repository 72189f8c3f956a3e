"""Kinds of the family numbers: values that do not fit their series."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "non-finite": Kind("numbers", "a metric is NaN or infinite"),
    "outlier": Kind("numbers", "a value lies outside what its neighbours allow"),
    "level-shift": Kind("numbers", "a metric jumps to another level and stays there"),
    "variance-shift": Kind(
        "numbers",
        "a metric becomes much noisier, or much quieter, and stays so",
        needs="a training loss of 120 rows or more, all positive",
        statistic="the logarithm of the spread of 40 blocks (or fewer, of 12 rows at least), by how far rows lie "
        "from the middle of their neighbours. It has one step of six standard errors, there in full within three "
        "blocks and kept, which explains it far better than age, level and learning rate do",
        severity="a warning; info where batch size, learning rate, attempt or logging interval change beside it, and "
        "in GANs",
        limit=Limit(
            "factor",
            2.0,
            "times the spread on the other side",
            "definition: a batch four times smaller doubles the noise of a mean",
            lowest=1.0,
        ),
        causes=(
            "the batch became smaller or larger, or fewer or more batches are averaged",
            "a source of data joined or ended",
        ),
        suggestions=(
            "compare batch size, accumulation and number of processes on both sides of that step",
            "compare the data sources on both sides of it: one may have ended, or joined",
            "look at what was logged: single batches, or means over several",
        ),
        reference="R. L. Brown, J. Durbin and J. M. Evans, 'Techniques for testing the constancy of regression "
        "relationships over time', JRSS B 37 (1975), on logarithms of spreads",
    ),
}
