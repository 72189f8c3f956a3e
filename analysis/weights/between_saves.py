"""What successive saves of one run say together: frozen layers, drift, lost ties, averages, counters, keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from analysis.findings import Finding
from analysis.limits import Gauge
from analysis.weights.averages import averages_across, swapped_in
from analysis.weights.buffers import running_statistics
from analysis.weights.counters import counters_across
from analysis.weights.dead_rows import dead_rows_of
from analysis.weights.dead_units import dead_units_between
from analysis.weights.decayed_layers import decayed_layers
from analysis.weights.drift import weight_drift
from analysis.weights.frozen import frozen_layers
from analysis.weights.moves import moves_of
from analysis.weights.one_save import meant_by
from analysis.weights.saved import Saved, told_once
from analysis.weights.structure import same_weights, structure
from analysis.weights.ties import untied
from parsers.plan import Plan

__all__ = ["findings_between"]


def findings_between(
    saves: Sequence[Saved],
    differences: Sequence[pl.DataFrame],
    *,
    run_name: str,
    learning_rates: Mapping[int, float] | None = None,
    plan: Plan | None = None,
    decay: float | None = None,
    gauge: Gauge | None = None,
) -> list[Finding]:
    """The findings of a series of saves of one model in the order of training; none for fewer than two.

    `differences[n]` is the frame of what changed from `saves[n]` to `saves[n + 1]`. `learning_rates` maps logged steps
    to rates, `plan` (`run.planned`) says what stands still on purpose, and `decay` what an average keeps of itself a
    step where the saves do not say it. A checkpoint that was closed is mapped again where its values are needed, and
    closed afterwards. Raises `ValueError` where the two sequences do not belong together.
    """
    if len(differences) != max(len(saves) - 1, 0):
        due = max(len(saves) - 1, 0)
        raise ValueError(f"{len(saves)} saves have {due} differences between them, and {len(differences)} are given")
    if len(saves) < 2:
        return []
    # Averages are judged by what they average, and stand under the same names.
    differences = [_of_weights(frame) for frame in differences]
    gauge, meant = Gauge() if gauge is None else gauge, meant_by(plan)
    moves = moves_of(saves, differences)
    in_the_last = dead_rows_of(saves[-1])
    found: list[Finding] = []
    for n, frame in enumerate(differences):
        before, after = saves[n], saves[n + 1]
        moved = any(marks[n] for marks in moves.moved.values())
        same = same_weights(before, after, frame, run_name)
        found += [*structure(before, after, run_name), *same]
        found += dead_units_between(before, after, in_the_last, frame.to_dicts(), run_name, gauge)
        if not swapped_in(before, after):
            found += running_statistics(before, after, moved, run_name)
        before.checkpoint.close()
    found += frozen_layers(moves, run_name, meant, gauge)
    found += decayed_layers(saves, differences, run_name, meant, gauge)
    found += weight_drift(saves, differences, run_name, learning_rates, gauge)
    found += [
        *untied(saves, run_name),
        *averages_across(saves, run_name, decay=decay),
        *counters_across(saves, run_name),
    ]
    for saved in saves:
        saved.checkpoint.close()
    return told_once(found)


def _of_weights(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of weights; of most series all, and no query for each of thousands of pairs is needed."""
    chosen = frame["role"] == "weights"
    return frame if chosen.all() else frame.filter(chosen)
