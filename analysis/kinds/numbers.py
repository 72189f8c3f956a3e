"""Kinds of the family numbers: values that do not fit their series."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "non-finite": Kind("numbers", "a metric is NaN or infinite"),
    "outlier": Kind("numbers", "a value lies outside what its neighbours allow"),
    "level-shift": Kind(
        "numbers",
        "a metric jumps to another level and stays there",
        needs="a training loss of 30 rows or more, or a score of 16 (accuracy, BLEU, error rate, reward)",
        statistic="the running median of 4 to 50 rows rises above its best by 4 + sqrt(2 ln(independent levels)) of "
        "its own noise and by the limit, and most of it at one row; or drops at once. Scores: half of what was gained "
        "is lost",
        severity="critical from twice the level on; a warning below; info where the learning rate or a weight changes "
        "there, for a component beside a total, and for drops",
        limit=Limit(
            "times",
            1.3,
            "times the better level",
            "calibrated: the levels of healthy runs of every noise stay below (tests/analysis/test_anomalies_rates.py)",
            lowest=1.0,
        ),
        causes=(
            "the run was resumed, and state was not restored",
            "a learning rate or a loss weight changed there",
            "the data changed, or labels are wrong from there on",
        ),
        suggestions=(
            "resume from a checkpoint before the first step named",
            "compare configuration and data on both sides of it",
            "lower the learning rate",
        ),
        reference="E. S. Page, 'Continuous inspection schemes', Biometrika 41 (1954)",
    ),
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
