"""What one save says by itself: the findings of a checkpoint and its statistics."""

from __future__ import annotations

from analysis.findings import Finding
from analysis.gradient.scene import Meant
from analysis.limits import Gauge
from analysis.weights.averages import averages_within
from analysis.weights.counters import counters_within
from analysis.weights.dead_units import dead_units
from analysis.weights.integrity import corrupt, unsafe
from analysis.weights.not_finite import near_the_edge, not_finite
from analysis.weights.odd_layers import all_zero, out_of_line
from analysis.weights.optimizer_states import never_had_a_gradient
from analysis.weights.saved import Saved
from parsers.plan import Plan

__all__ = ["findings_of_save", "meant_by"]


def findings_of_save(
    saved: Saved, *, run_name: str, plan: Plan | None = None, gauge: Gauge | None = None
) -> list[Finding]:
    """The findings of one save: damage, unsafe calls, NaN, dead units, counters that disagree, averages, moments.

    `plan` (that of the run, `run.planned`) says which layers are meant to stand still. `gauge` holds the limits and
    keeps what was measured; without one the defaults count. Tensors are read again only where the statistics ask for
    it. Of several saves, `told_once` joins what is the same.
    """
    gauge, meant = Gauge() if gauge is None else gauge, meant_by(plan)
    return [
        *corrupt(saved, run_name),
        *unsafe(saved, run_name),
        *not_finite(saved, run_name),
        *near_the_edge(saved, run_name),
        *dead_units(saved, run_name, gauge),
        *all_zero(saved, run_name),
        *out_of_line(saved, run_name, gauge),
        *never_had_a_gradient(saved, run_name, meant, gauge),
        *counters_within(saved, run_name),
        *averages_within(saved, run_name),
    ]


def meant_by(plan: Plan | None) -> Meant:
    """Which layers a plan trains and freezes; nothing is said without one."""
    return Meant() if plan is None else Meant(plan.trainable, plan.freeze, plan.unfreeze_step)
