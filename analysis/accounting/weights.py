"""The weights of loss components as the run logged them."""

from __future__ import annotations

import polars as pl

from analysis.accounting.loss_table import loss_table
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["OBSERVED", "observed_phases", "observed_weights"]

#: Columns of `observed_weights`.
OBSERVED = pl.Schema(
    {
        "step": pl.Int64,
        "component": pl.String,
        "observed": pl.Float64,
        "half": pl.Float64,
        "epoch": pl.Float64,
        "phase": pl.String,
    }
)


def observed_weights(run: Run) -> pl.DataFrame:
    """One row per logged weight (`OBSERVED`): what the loss record used, else what the curriculum declared.

    `half` is the largest printing error, `phase` the phase that the curriculum logged at that step or null. Sorted by
    component and step; weights that are not finite are left out.
    """
    table = loss_table(run).stated
    weights = table.filter(pl.col("value").is_finite())
    # the loss record's weight is the one that was applied: it goes before the declared one at the same step
    weights = weights.sort("component", "step", "occurrence", "used", descending=[False, False, False, True])
    weights = weights.unique(["component", "step", "occurrence"], keep="first", maintain_order=True)
    if weights["used"].n_unique() > 1:
        used = pl.col("used")
        weights = weights.filter(used | ~used.any().over("component", "step"))
    phases = observed_phases(run).unique("step", keep="last")
    weights = weights.join(phases, on="step", how="left", maintain_order="left")
    return weights.select("step", "component", pl.col("value").alias("observed"), "half", "epoch", "phase")


def observed_phases(run: Run) -> pl.DataFrame:
    """Step and phase of every curriculum event that names one, in the order logged, lowest rank."""
    events = run.live(run.events_of("curriculum").filter(pl.col("payload").str.contains('"phase"', literal=True)))
    events = events.filter((pl.col("rank") == pl.col("rank").min()) & pl.col("step").is_not_null())
    found = []
    for step, payload in events.select("step", "payload").iter_rows():
        phase = payload_object(payload).get("phase")
        if isinstance(phase, str):
            found.append((step, phase))
    return pl.DataFrame(found, schema={"step": pl.Int64, "phase": pl.String}, orient="row")
