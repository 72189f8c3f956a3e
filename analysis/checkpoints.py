"""`checkpoints`: what the weights say, of one save, of a series of them, and beside the log of their run."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.figures import axes
from analysis.findings import SEVERITIES, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from analysis.weights.allowed_way import with_lr_steps
from analysis.weights.joined import join_log
from analysis.weights.kept import KINDS_OF_SAVES, NoSavesError, beside, saves_of
from analysis.weights.logged import unlike_the_log
from analysis.weights.ranks import apart, findings_of
from analysis.weights.reading import Reading, read_series
from eventstream.errors import InputError, unknown_name
from parsers.checkpoints.tensors import Role
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.weights.landscape import LandscapeResult
    from analysis.weights.line import LineResult
    from analysis.weights.weight_path import PathResult

__all__ = ["Checkpoints", "checkpoints"]

#: What `plot` can show.
VIEWS = ("updates", "norms", "spectra")
Loss = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoints(Result):
    """What a checkpoint, or a series of them, says.

    `frame` has one row a save and tensor: save, step, then the columns of `analysis.weights.statistics`. `saves` has
    one row a save: save, series, step, epoch, rank, label, format, path, bytes, tensors, parameters, norm (of all
    weights), update_ratio (||dW|| / ||W|| since the save before), and what the log says there (`in_log`, `loss`,
    `eval`, `eval_metric`, `eval_step`, `lr`, `best`; null without a log). `changes` has one row a tensor and pair of
    successive saves: before, save, step, then the columns of `analysis.weights.differences`, and `lr_steps`, the
    learning rate summed over the steps between (null without a log): `update_ratio / lr_steps` compares layers and
    stretches under any schedule. `spectra` has one row a save and matrix where spectra were asked for.
    """

    saves: pl.DataFrame
    changes: pl.DataFrame
    spectra: pl.DataFrame
    series: tuple[Reading, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """The status in words; `not judged` in place of healthy where no tensor could be read."""
        return self.status if self.frame.height or self.status != "healthy" else "not judged"

    @property
    def best_against_last(self) -> str:
        """The best of the saves beside the last one in a sentence; empty where the log does not tell."""
        judged = self.saves.filter(pl.col("eval" if self.saves["eval"].count() else "loss").is_not_null())
        best = judged.filter(pl.col("best"))
        if best.is_empty() or judged.height < 2:
            return ""
        one, last = best.row(0, named=True), judged.row(-1, named=True)
        metric, column = (one["eval_metric"], "eval") if one["eval"] is not None else ("loss", "loss")
        said = f"best of those kept: {one['save']} ({metric} {one[column]:.4g})"
        return said if one["save"] == last["save"] else f"{said}; the last, {last['save']}, has {last[column]:.4g}"

    @property
    def views(self) -> tuple[str, ...]:
        """What `plot` can show of these saves."""
        frame, changes, spectra, _ = self._of_one_series()
        matrices = frame.filter((pl.col("role") == "weights") & (pl.col("shape").list.len() >= 2))
        return tuple(name for name, table in zip(VIEWS, (changes, matrices, spectra), strict=True) if table.height)

    def plot(self, ax: Axes | None = None, *, view: str | None = None, **options: Any) -> Axes:
        """`view="updates"`: which layers moved between saves, as a heat map; `"norms"`: root mean square of the
        matrices by depth, of the first save and the last; `"spectra"`: the exponents of their tails.

        None takes the first of these that there is something to show of. Of several series the longest is shown, and
        named. `options` go to the mesh or the lines. Raises `ValueError` for another view.
        """
        from analysis.weights.drawing import draw_updates
        from analysis.weights.drawing_matrices import draw_norms, draw_spectra

        if view is not None and view not in VIEWS:
            raise ValueError(unknown_name("view", view, VIEWS))
        chosen = view or (self.views[0] if self.views else "norms")
        drawn = axes(ax, height=4.2)
        frame, changes, spectra, which = self._of_one_series()
        if chosen == "updates":
            seen = draw_updates(drawn, changes, frame, options)
        elif chosen == "norms":
            seen = draw_norms(drawn, frame, options)
        else:
            seen = draw_spectra(drawn, spectra, options)
        title = textwrap.fill(f"{self.run}: {which}{seen}", 95, max_lines=2, placeholder=" ...")
        drawn.set_title(title, parse_math=False, loc="left", fontsize=10)
        return drawn

    def _of_one_series(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, str]:
        """The tables of the longest series, and its name where there are others: two models have no common layers."""
        if len(self.series) < 2:
            return self.frame, self.changes, self.spectra, ""
        longest = max(self.series, key=lambda one: len(one.saves))
        names = pl.Series([kept.save.name for kept in longest.saves], dtype=pl.String).implode()
        frame, changes, spectra = (
            table.filter(pl.col("save").is_in(names)) for table in (self.frame, self.changes, self.spectra)
        )
        alone = len({one.series for one in self.series}) < 2
        return frame, changes, spectra, "" if alone else f"{longest.series}: "

    def with_spectra(self, *, most: float | None = None) -> Checkpoints:
        """The same with `spectra` of the last save, unless they take more than `most` multiplications (default: any).

        A core of a usual processor does some 2e10 of them a second.
        """
        from analysis.weights.matrices import work_of
        from analysis.weights.tables import spectra_of

        chosen = max(self.series, key=lambda one: len(one.saves), default=None)
        if self.spectra.height or chosen is None or not chosen.saves:
            return self
        weights = chosen.saves[-1].statistics.filter(pl.col("role") == "weights")
        if most is not None and work_of(weights.select("name", "dtype", "shape").rows()) > most:
            return self
        return replace(self, spectra=spectra_of([chosen.last_with_spectra()]))

    def path(self, *, progress: Callable[[int, int, str], None] | None = None) -> PathResult:
        """The way of the run through weight space: the saves in their principal plane (needs two saves or more)."""
        from analysis.weights.weight_path import weight_path

        reading = self._one_series("a path", least=2)
        names = [kept.save.name for kept in reading.saves]
        with ExitStack() as stack:
            opened = [stack.enter_context(reading.open(at)) for at in range(len(names))]
            return weight_path(
                opened, names=names, steps=[kept.step for kept in reading.saves], run=self.run, progress=progress
            )

    def line(
        self,
        loss: Loss,
        *,
        first: int | str = 0,
        last: int | str = -1,
        points: int = 11,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> LineResult:
        """The loss along the straight line between two saves, by their place in the series or their name.

        `loss(state_dict) -> float` is yours: it gets torch tensors under the model's own names
        (`analysis.weights.line.line`, which says what else it does).
        """
        from analysis.weights.line import line

        reading = self._one_series("a line", least=2)
        names = reading.name(first), reading.name(last)
        with reading.open(first) as one, reading.open(last) as two:
            return line(one, two, loss, points=points, names=names, run=self.run, progress=progress)

    def landscape(self, loss: Loss, *, save: int | str = -1, **options: Any) -> LandscapeResult:
        """The loss in a plane around a save; `options` (`points`, `span`, `seed`, `progress`) are those of
        `analysis.weights.landscape.landscape`.
        """
        from analysis.weights.landscape import landscape

        reading = self._one_series("a landscape", least=1)
        with reading.open(save) as one:
            return landscape(one, loss, name=reading.name(save), run=self.run, **options)

    def _one_series(self, what: str, *, least: int) -> Reading:
        """The series asked about: the longest of those that are no copies by other ranks."""
        found = max(self.series, key=lambda one: len(one.saves), default=None)
        if found is None or len(found.saves) < least:
            held = 0 if found is None else len(found.saves)
            raise InputError(f"{self.run}: {what} needs {least} saves that can be read; there are {held}")
        return found


def checkpoints(
    path: Path | str | Run,
    *,
    run: Run | Path | str | None = None,
    spectra: bool = False,
    verify: bool = False,
    roles: Iterable[Role] = ("weights", "ema", "optimizer"),
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int, int, str], None] | None = None,
) -> Checkpoints:
    """What the weights of a checkpoint, or of each of a folder of them, say; nothing of a file is executed.

    `path` is a checkpoint (safetensors, torch, Hugging Face, Lightning, distributed, `.npz`), a folder of saves, or a
    run, whose saves are looked for in its folder. `run` is the log to lay beside them, loaded or by its path; by
    default the only run in the folder of the saves, or in the one above a folder called `checkpoints` or alike. Every
    tensor is read once, mapped: memory stays below three times the largest. `roles` are what is read of weights, ema,
    optimizer and other. `spectra` asks for singular values and the exponents of their tails, which take longer;
    `verify` for the checksums of zip entries (torch, NumPy; a second read, one second a GB) and for the digests that
    the log recorded of the files, which show a flipped bit; what has neither is told in `not_applicable`. `progress` is
    called with (done, total, what).

    Findings: `checkpoint-corrupt`, `checkpoint-unsafe` (what a pickle would have called), `checkpoint-non-finite`,
    `checkpoint-mismatch` (shapes, types, keys, ties, counters of steps, copies of ranks), `dead-units`,
    `frozen-layer`, `weight-drift`. A run without saves, or with more bytes of them than a diagnosis should read,
    leaves these `not_applicable`. Raises `InputError` where `path` holds no checkpoint, `ValueError` for roles that
    are none.

    >>> import numpy as np, tempfile
    >>> place = Path(tempfile.mkdtemp()) / "model.npz"
    >>> np.savez(place, **{"fc.weight": np.eye(4, dtype=np.float32), "fc.bias": np.full(4, np.nan, np.float32)})
    >>> found = checkpoints(place)
    >>> [(f.kind, f.metric) for f in found.findings]
    [('checkpoint-non-finite', 'fc.bias')]
    """
    from analysis.weights.tables import changes_of, frame_of, saves_frame, spectra_of

    name, log = _log(path, run)
    try:
        series = saves_of(path)
    except NoSavesError as none:
        return _nothing(name, str(none))
    gauge = Gauge(limits)
    readings = [
        read_series(
            saves,
            run=name,
            log=log,
            roles=tuple(roles),
            spectra=spectra,
            verify=verify,
            strict=not isinstance(path, Run) and sum(map(len, series)) == 1,
            gauge=gauge,
            progress=progress,
        )
        for saves in series
    ]
    frame = frame_of(readings)
    saves = _with_log(saves_frame(readings), log, frame)
    found = [*findings_of(readings), *apart(readings, name, gauge), *unlike_the_log(log, saves, verify=verify)]
    found.sort(key=lambda one: -SEVERITIES.index(one.severity))
    skipped = [one for reading in readings for one in reading.not_applicable]
    return Checkpoints(
        run=name,
        frame=frame,
        findings=tuple(found),
        not_applicable=(*skipped, *(_not_verified(readings) if verify else ())),
        measures=gauge.measures,
        saves=saves,
        changes=with_lr_steps(changes_of(readings), saves, log),
        spectra=spectra_of(readings),
        series=tuple(readings),
    )


def _not_verified(readings: Iterable[Reading]) -> Iterator[NotApplicable]:
    """What `verify` could not look at: saves whose format has no checksums, told once a format."""
    without: dict[str, list[str]] = {}
    for kept in (kept for reading in readings for kept in reading.saves):
        if kept.checksums is False:
            without.setdefault(kept.format, []).append(kept.save.name)
    for format_name, names in without.items():
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        why = "has no checksums, so that a flipped bit does not show, but by a digest that the log recorded"
        yield NotApplicable("checkpoint-corrupt", f"{names[0]}{more}: {format_name} {why}")


def _log(path: Path | str | Run, run: Run | Path | str | None) -> tuple[str, Run | None]:
    """How the result is called, and the log that is laid beside the saves."""
    from parsers.loading import load

    if isinstance(path, Run):
        return path.name, path
    log = beside(Path(path)) if run is None else run if isinstance(run, Run) else load(run)
    # `Path.resolve` raises on a link that leads to itself; `realpath` gives the path back.
    return (log.name if log is not None else Path(os.path.realpath(path)).name), log


def _with_log(saves: pl.DataFrame, log: Run | None, frame: pl.DataFrame) -> pl.DataFrame:
    """The saves with what the log says at each; of one alone nothing is the best, and none that holds NaN is."""
    holds_nan = frame.filter((pl.col("role") == "weights") & (pl.col("nan") > 0))["save"].implode()
    sound = (~saves["save"].is_in(holds_nan)).to_list()
    joined = join_log(log, saves["step"].to_list(), sound=sound).drop("step")
    if saves.height < 2:
        joined = joined.with_columns(best=pl.lit(None, pl.Boolean))
    return pl.concat([saves, joined], how="horizontal")


def _nothing(name: str, reason: str) -> Checkpoints:
    """The result of a run whose weights could not be looked at."""
    frame, saves, changes, spectra = (table.clone() for table in _empty())
    return Checkpoints(
        run=name,
        frame=frame,
        not_applicable=tuple(NotApplicable(kind, reason) for kind in KINDS_OF_SAVES),
        saves=saves,
        changes=changes,
        spectra=spectra,
    )


@functools.cache
def _empty() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The tables of no saves, made once: most runs that are diagnosed have none."""
    from analysis.weights.tables import changes_of, frame_of, saves_frame, spectra_of

    frame, saves = frame_of([]), saves_frame([])
    changes = with_lr_steps(changes_of([]), saves, None)
    return frame, _with_log(saves, None, frame), changes, spectra_of([])
