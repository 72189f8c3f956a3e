"""Faults of several processes: one that leaves the others, and ones whose log is missing or ends early."""

from __future__ import annotations

from benchmarks.faults.planting import STREAM, Ask, Draw, Planted, close_to, plants
from benchmarks.faults.ranks import Parting, spread, train_ranks
from benchmarks.faults.recipe import Recipe

__all__ = ["rank_divergence", "rank_missing"]


def _short(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(every=1, batch=max(8, min(32, recipe.batch))).opt(mean=False)


@plants("rank-divergence", variants=("weights", "gradients"), families=("classifier", "regression", "autoencoder"),
        formats=STREAM, points=(90, 150), demand=_short)  # fmt: skip
def rank_divergence(draw: Draw) -> Planted:
    """`weights`: one rank has loaded other weights at one step; `gradients`: from there on it also goes its own way."""
    world, row = int(draw.rng.choice([2, 4])), draw.place(0.3, 0.6)
    parting = Parting(int(draw.rng.integers(1, world)), row, draw.size, own_gradients=draw.variant == "gradients")
    trace = train_ranks(draw.recipe, world, parting)
    found = spread(trace, "param_norm")
    if draw.variant == "weights":
        close_to(found, draw.size, 3.0, "difference of the parameter norms")
    rank = parting.rank
    return Planted(trace, found, row, metric="param_norm", extra={"rank": rank, "world": world, "pushed": draw.size})


#: World size, ranks without a log, and the share of the run after which one more rank was killed.
_MISSING = {1: (8, 4, 1.0), 2: (4, 1, 1.0), 3: (4, 0, 0.28), 4: (4, 0, 0.6), 5: (4, 0, 0.84), 6: (4, 0, 0.95)}


@plants("rank-missing", families=("classifier", "regression", "autoencoder"), formats=STREAM, points=(90, 150),
        demand=_short)  # fmt: skip
def rank_missing(draw: Draw) -> Planted:
    """1: half of eight ranks left no log; 2: one of four; 3 to 6: one of four stops at 28, 60, 84 or 95 %."""
    world, gone, share = _MISSING[draw.magnitude]
    trace = train_ranks(draw.recipe, world)
    whole = len(trace.rows)
    chosen = [int(r) for r in draw.rng.permutation(range(1, world))[: max(1, gone)]]
    last = 0 if gone else round(share * draw.recipe.steps)
    trace.rows = [row for row in trace.rows if row.rank not in chosen or row.step <= last]
    trace.killed = () if gone else tuple(chosen)
    missing = 1 - len(trace.rows) / whole
    onset = last + 1 if last else draw.recipe.every
    return Planted(trace, missing, onset, metric=None, extra={"world": world, "ranks": chosen})
