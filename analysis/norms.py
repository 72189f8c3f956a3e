"""`norms`: limits learned from a project's own healthy runs, beside the built-in ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.archive_norms.healthy import Teacher, refusals
from analysis.archive_norms.learned import Norm, level_norms, norms_of
from analysis.archive_norms.norm_file import MOST, norms_in, norms_text
from analysis.archive_norms.tolerance import FEWEST
from analysis.figures import COLOURS, axes, style
from analysis.limits import Learned
from analysis.result import Result
from parsers.run import Run, RunSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Norms", "norms", "read_norms"]

_FRAME = pl.Schema(
    {
        "kind": pl.String,
        "metric": pl.String,
        "role": pl.String,
        "n": pl.Int64,
        "healthy_low": pl.Float64,
        "healthy_median": pl.Float64,
        "healthy_high": pl.Float64,
        "default": pl.Float64,
        "norm": pl.Float64,
        "why": pl.String,
    }
)
#: Series of a run whose level is told, and of which rows: the last tenth, or all.
_LEVELS = (("train_loss", True), ("eval_loss", True), ("grad_norm", False), ("step_time", False), ("throughput", False))
#: Names of runs that a file keeps.
_MOST_NAMES = 500


@dataclass(frozen=True, eq=False, repr=False)
class Norms(Result):
    """What is normal in a project. `frame` has one row a kind, metric and role: kind (`level` for a band that is
    information only), metric (empty for all), role (of the metrics that are taken together; empty for all), n (runs),
    healthy_low (of levels), healthy_median and healthy_high (what the runs measured, the worst of each), default, norm
    (the limit in force with these norms), why.

    `taught` are the runs that were learned from, `refused` those that were not and why; `origin` is what the file
    keeps of where the norms come from.
    """

    norms: tuple[Norm, ...]
    taught: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def learned_for(self, run: Run) -> tuple[Learned, ...]:
        """The limits that hold in a run: those of a metric before those of its role, and these before those of all."""
        roles = _roles(run)
        found: dict[tuple[str, str | None], Learned] = {}
        for norm in sorted(self.norms, key=lambda norm: (bool(norm.metric), bool(norm.role))):
            if norm.kind == "level" or norm.norm is None:
                continue
            metrics: list[str | None] = [norm.metric or None]
            if norm.role:
                metrics = [metric for metric, role in roles.items() if role == norm.role]
            if norm.n < FEWEST:
                continue  # too few runs know this metric or role: the wider norm stays
            told = f"limit {norm.norm:.3g} learned from {norm.n} healthy runs, default {norm.default:.3g}"
            for metric in metrics:
                found[norm.kind, metric] = Learned(norm.kind, metric, norm.norm, told if norm.learned else "")
        return tuple(found.values())

    def save(self, path: Path | str) -> Path:
        """Write the norms to a JSON file (`read_norms` and `check --norms` take it), and return its path."""
        place = Path(path)
        place.write_text(norms_text(self.norms, self.origin), encoding="utf-8")
        return place

    def plot(self, ax: Axes | None = None, *, most: int = 20, **options: Any) -> Axes:
        """Norms against defaults, one row a kind (all metrics together), the most changed first, at most `most`;
        what the runs measured is a line from median to highest. `options` go to the points of the norms.
        """
        drawn = axes(ax)
        shown = self.frame.filter((pl.col("metric") == "") & (pl.col("role") == "") & (pl.col("norm") > 0))
        change = (pl.col("norm") / pl.col("default")).log().abs()
        shown = shown.sort(change, descending=True, maintain_order=True).head(most).reverse()
        with style():
            places = np.arange(shown.height)
            default = shown["default"].to_numpy()
            floor = 1e-3
            for place, row in zip(places, shown.iter_rows(named=True), strict=True):
                ends = [max(row[name] / row["default"], floor) for name in ("healthy_median", "healthy_high")]
                drawn.plot(ends, [place, place], color=COLOURS["blue"], lw=2)
            look = {"marker": "o", "ls": "", "color": COLOURS["vermilion"], "label": "norm", **options}
            drawn.plot(shown["norm"].to_numpy() / default, places, **look)
            drawn.axvline(1.0, color="black", ls="--", lw=0.8, label="default")
            drawn.set_xscale("log")
            drawn.set_yticks(places, shown["kind"].to_list(), parse_math=False)
            drawn.legend()
        drawn.set_xlabel("times the default limit (line: healthy runs, median to highest)")
        moved = sum(1 for norm in self.norms if norm.learned and not norm.metric and not norm.role)
        drawn.set_title(
            f"{moved} kinds with a limit of their own, from {len(self.taught)} healthy runs",
            parse_math=False,
            loc="left",
            fontsize=11,
        )
        return drawn


def norms(
    runs: RunSet | Iterable[Run] | Path | str,
    *,
    path: Path | str | None = None,
    margin: float = 1.25,
    coverage: float = 0.99,
    confidence: float = 0.95,
    progress: Callable[[int, int, str], None] | None = None,
) -> Norms:
    """The limits that healthy runs of a project keep, for `diagnose(run, norms=...)` and `check --norms FILE`.

    `runs` (or a path to load) are runs that are known to be sound, all with the same settings or all that a project
    calls normal. Each is diagnosed with the built-in limits; every kind with a limit tells how near each metric came to
    it (`Result.measures`). The norm is an upper tolerance bound of that, the worst of each run: `coverage` of all such
    runs stay below it at `confidence` (Hahn and Meeker 1991 for the lognormal bound of 8 runs or more; Wilks 1941 for
    the one without a form, from 299 on), times `margin`. It holds for a metric, for the metrics of one role together,
    and for all, the narrowest of which 8 runs tell. It lies between a quarter of the default and four times it, and is
    milder than the default only where a sound run was reported at that.

    A run must not teach its fault: one with a warning of a kind that has no limit, beyond four times a default, or by
    which it stands out from the others (4 robust standard deviations on the logarithm) is refused and listed, and
    teaches nothing at all. Fewer than 8 sound runs change nothing, and the frame says so. Runs much longer than those
    that taught reach further by chance, where a measure is a maximum over rows: learn from runs of the same length.

    `path` writes the file as well. `progress` is called with (runs done, runs in all, name) before each. Raises
    `ValueError` for a margin below 1, and for shares that do not lie between 0.5 and 1.

    >>> from parsers.finish import finish
    >>> rng = np.random.default_rng(0)
    >>> def healthy(name):
    ...     train = 2.0 / (1 + 0.05 * np.arange(100))
    ...     values = [*train, *(train[::10] * rng.uniform(1.6, 1.8))]
    ...     rows = {"tag": ["loss"] * 100 + ["eval_loss"] * 10, "step": [*range(100), *range(0, 100, 10)]}
    ...     return finish(name, name, "jsonl", pl.DataFrame({**rows, "value": values}))
    >>> learned = norms([healthy(f"run-{i}") for i in range(8)])
    >>> wanted = (pl.col("kind") == "train-eval-gap") & (pl.col("metric") == "loss")
    >>> gap = learned.frame.row(by_predicate=wanted, named=True)
    >>> len(learned.taught), gap["default"], gap["norm"] > 2
    (8, 1.5, True)
    """
    if not margin >= 1 or not np.isfinite(margin):
        raise ValueError(f"margin is {margin!r}; it must be 1 or more (default 1.25)")
    for name, share in (("coverage", coverage), ("confidence", confidence)):
        if not 0.5 <= share < 1:
            raise ValueError(f"{name} is {share!r}; it must be at least 0.5 and below 1")
    if isinstance(runs, str | os.PathLike):
        from parsers.loading import load_all

        runs = load_all(runs)
    teachers = list(_teachers(list(runs), progress))
    refused = refusals(teachers)
    sound = [one for place, one in enumerate(teachers) if place not in refused]
    learned = (*norms_of(sound, margin, coverage, confidence), *level_norms(sound))
    if len(learned) > MOST:  # thousands of layers: what they share is kept, by their role and for all
        learned = tuple(norm for norm in learned if not norm.metric)
    told = tuple((teachers[place].name, why) for place, why in refused.items())
    settings = {"margin": margin, "coverage": coverage, "confidence": confidence}
    made = _made(learned, tuple(one.name for one in sound), told, _origin(sound, told, settings))
    if path is not None:
        made.save(path)
    return made


def read_norms(path: Path | str) -> Norms:
    """The norms that a file keeps. Raises `InputError` for one that is none (`analysis.archive_norms.norm_file`)."""
    found, origin = norms_in(path)
    names = tuple(str(name) for name in origin.get("runs", ()) if isinstance(name, str))
    return _made(found, names, (), origin)


def _made(
    learned: tuple[Norm, ...], taught: tuple[str, ...], refused: tuple[tuple[str, str], ...], origin: Mapping[str, Any]
) -> Norms:
    rows = [(n.kind, n.metric, n.role, n.n, n.low, n.median, n.high, n.default, n.norm, n.why) for n in learned]
    frame = pl.DataFrame(rows, schema=_FRAME, orient="row")
    return Norms(f"{len(taught)} healthy runs", frame, norms=learned, taught=taught, refused=refused, origin=origin)


def _teachers(runs: list[Run], progress: Callable[[int, int, str], None] | None) -> Iterator[Teacher]:
    from analysis.diagnose import diagnose

    for done, run in enumerate(runs):
        if progress is not None:
            progress(done, len(runs), run.name)
        judged = diagnose(run)
        measures = tuple(one for result in judged.results.values() for one in result.measures)
        points = int(run.catalogue["count"].max() or 0) if run.catalogue.height else 0  # type: ignore[arg-type]
        yield Teacher(run.name, judged.findings, measures, _roles(run), dict(_levels(run)), points)


def _roles(run: Run) -> dict[str, str]:
    """Metric -> role, of those that have one; of several series of a metric that of training counts."""
    return {one.metric: role for one in run.roles if (role := run.roles.of(one.metric).role)}


def _levels(run: Run) -> Iterator[tuple[str, float]]:
    for name, last in _LEVELS:
        chosen = run.roles[name].series
        if chosen is None:
            continue
        values = run.series(chosen.metric, split=chosen.split)["value"].to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            level = float(np.median(values[-max(len(values) // 10, 1) :] if last else values))
            yield f"final {name}" if last else name, level


def _origin(
    sound: list[Teacher], refused: tuple[tuple[str, str], ...], settings: Mapping[str, float]
) -> dict[str, Any]:
    lengths = [one.points for one in sound]
    return {
        "aftertrain": version("aftertrain"),
        "made": datetime.now(UTC).date().isoformat(),
        "healthy_runs": len(sound),
        "points": [min(lengths), max(lengths)] if lengths else [],
        **settings,
        "runs": [one.name for one in sound][:_MOST_NAMES],
        "refused": [{"run": name, "why": why[:300]} for name, why in refused][:_MOST_NAMES],
    }
