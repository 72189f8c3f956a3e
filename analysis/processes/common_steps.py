"""Numbers of several processes laid side by side at the steps that all of them have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.processes.agreement import FEWEST
from parsers.naming.role_layout import SeriesRole
from parsers.naming.roles import words_of
from parsers.run import Run

__all__ = ["COMPARED", "PACED", "Common", "common_series"]

Floats = NDArray[np.float64]
#: Roles whose numbers processes share, or could: in the order in which they are told.
COMPARED = ("param_norm", "checksum", "learning_rate", "grad_norm", "loss", "component_loss")
#: Roles that tell how fast each process is.
PACED = ("step_time", "throughput")
_CHECKSUM = re.compile(r"\b(?:checksum|hash|fingerprint|crc|param sum|weight sum)\b")
#: Numbers that belong to a process by their name.
_OF_ONE = re.compile(r"\b(?:shard|local|per rank|rank)\b")
#: Series of one role that are compared: the layers of a large model have thousands.
_MOST = 24


@dataclass(frozen=True, eq=False)
class Common:
    """One series of several ranks: `values` has a row a step that all have, a column a rank.

    `time` is that of the first rank in microseconds since 1970, -1 where unknown.
    """

    role: str
    split: str
    metric: str
    ranks: tuple[int, ...]
    step: NDArray[np.int64]
    time: NDArray[np.int64]
    values: Floats

    @property
    def name(self) -> str:
        """Split and metric, as a message says them."""
        return f"{self.split} {self.metric}".strip()


def common_series(run: Run, roles: tuple[str, ...]) -> Iterator[Common]:
    """The training series of some roles that two ranks or more have at ten common steps or more, without dead branches.

    Ranks that have less than half the values of the longest are left out, as are series named as those of one process
    (`shard_grad_norm`, `local_loss`), and of each role all beyond the first 24, longest and shortest names first.
    """
    several = run.catalogue.group_by("split", "metric", "tag").agg(pl.col("rank").n_unique())
    shared = set(several.filter(pl.col("rank") > 1).select("split", "metric", "tag").rows())
    for role in roles:
        fit = [one for one in run.roles if _role(one) == role and one.side == "train" and not _own(one)]
        fit = [one for one in fit if (one.split, one.metric, one.tag) in shared]
        for one in sorted(fit, key=lambda one: (-one.count, len(one.metric), one.metric))[:_MOST]:
            found = _side_by_side(run, one, role)
            if found is not None:
                yield found


def _role(one: SeriesRole) -> str:
    return "checksum" if one.by != "user" and _CHECKSUM.search(words_of(one.metric)) else one.role


def _own(one: SeriesRole) -> bool:
    return _OF_ONE.search(words_of(one.metric)) is not None


def _side_by_side(run: Run, one: SeriesRole, role: str) -> Common | None:
    rows = run.series(one.metric, split=one.split).filter(pl.col("tag") == one.tag, pl.col("step").is_not_null())
    parts = {int(part["rank"][0]): part for part in rows.partition_by("rank", maintain_order=True)}
    longest = max((part.height for part in parts.values()), default=0)
    ranks = tuple(sorted(rank for rank, part in parts.items() if 2 * part.height >= longest))
    if len(ranks) < 2:
        return None
    ways = [_last_of_each_step(parts[rank]["step"].to_numpy()) for rank in ranks]
    common = ways[0][0]
    for steps, _ in ways[1:]:
        if not np.array_equal(common, steps):
            common = np.intersect1d(common, steps, assume_unique=True)
    if len(common) < FEWEST:
        return None
    places = [rows[np.searchsorted(steps, common)] for steps, rows in ways]
    values = np.stack([parts[rank]["value"].to_numpy()[at] for rank, at in zip(ranks, places, strict=True)], axis=1)
    time = parts[ranks[0]]["time"].dt.timestamp("us").fill_null(-1).to_numpy()[places[0]]
    return Common(role, one.split, one.metric, ranks, common, time, values)


def _last_of_each_step(steps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each step once, in order, and the row that has it last."""
    if (np.diff(steps) > 0).all():
        return steps, np.arange(len(steps))
    found, back = np.unique(steps[::-1], return_index=True)
    return found, len(steps) - 1 - back
