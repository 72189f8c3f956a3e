"""Kinds of the family numbers: values that do not fit their series."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "non-finite": Kind(
        "numbers",
        "a metric is NaN or infinite",
        needs="any number",
        statistic="values that are NaN or infinite, in each series; those of one severity are one finding, since NaN "
        "spreads from metric to metric, and the one that was first is named",
        severity="critical for a loss and for a gradient norm; info for a norm that is now and then infinite while "
        "every loss stays finite, as a loss scaler leaves it (up to a twentieth of the rows), a warning where three "
        "rows running are; a warning for other metrics, info where they never were finite, and for all but the main "
        "loss where only the first rows are not",
        causes=(
            "the metric that was not finite first, where one was",
            "a step too large: the learning rate, gradients that explode, overflow in float16",
            "a division by 0, a logarithm or a root of nothing in the loss, or a bad value in the batch",
        ),
        suggestions=(
            "resume from the last checkpoint before the first step named",
            "look at the batch of that step, and at divisions, logarithms and square roots in the loss",
            "lower the learning rate, clip gradients, or use bfloat16 instead of float16",
        ),
        reference="P. Micikevicius et al., 'Mixed Precision Training' (ICLR 2018)",
    ),
    "outlier": Kind(
        "numbers",
        "a value lies outside what its neighbours allow",
        needs="a noisy series of 12 finite values or more that follows no rule, as learning rates, weights and "
        "counters do; of a loss the values below their bounds (those above are `loss-spike`)",
        statistic="the distance from a running median of 101 rows, on the log scale for norms, times and other wide "
        "positive metrics, in spreads of its neighbours (1.4826 MAD; z-score and interquartile range on request). The "
        "bound is where Student's t, fitted to the series' own scores, leaves a healthy run 0.025 flagged values over "
        "all its series, so that it grows with the length as extremes do; and at least a tenth of the value due",
        severity="info: one finding for each metric and split",
        causes=(
            "one unusual batch, or a pause of the machine, of which the metric tells",
            "an event that other findings name at the same step (a resume, a change of the learning rate)",
        ),
        suggestions=(
            "look at the rows in the frame of `at.anomalies`, each with its value, its bounds and its score",
            "look at what else the log tells of that step",
        ),
        reference="F. R. Hampel, 'The influence curve and its role in robust estimation', JASA 69 (1974); A. Siffer et "
        "al., 'Anomaly Detection in Streams with Extreme Value Theory' (KDD 2017), for bounds out of a fitted tail",
    ),
    "level-shift": Kind(
        "numbers",
        "a metric jumps to another level and stays there",
        needs="a training loss of 30 rows or more, or a score of 16 (accuracy, BLEU, error rate, reward)",
        statistic="the running median of 4 to 50 rows rises above its best by 4 + sqrt(2 ln(independent levels)) of "
        "its own noise and by the limit, and most of it at one row; or the medians beside one row lie as far apart, by "
        "the noise there, and the rise is kept; or drops at once. Scores: half of what was gained is lost",
        severity="critical from twice the level on; a warning below; info where the learning rate or a weight changes "
        "there, for a component beside a total, and for drops",
        limit=Limit(
            "times",
            1.2,
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
        needs="a training loss of 200 rows or more, all positive",
        statistic="the logarithm of the spread of 40 blocks (or fewer, of 12 rows at least), by how far rows lie "
        "from the middle of their neighbours. It has one step of six standard errors, there in full within three "
        "blocks and kept; alone or beside age, level and a learning rate that grows with it, it explains the spread "
        "far better than these do; after the warm-up",
        severity="a warning; info where batch size, learning rate, attempt or logging interval change beside it, where "
        "regular swings set in, and in GANs",
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
