"""One run out of several logs that tell of it: which logs belong together, how far they agree, what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import polars as pl

from parsers.collection.agreement import compare, is_same_run, tolerance
from parsers.places.beside import folder_name, run_name
from parsers.run import Run, Source
from parsers.schema import SCALARS

__all__ = ["merged"]

#: Runs and where they stand, as `parsers.tree.find_groups` puts them together.
Placed = tuple[Path, Run]
#: How many folders below the log of a run another log of it is looked for.
DEPTH = 3
#: Logs of a folder that share no number are of one run only where neither counts so many times the steps of the other.
LENGTHS = 2
#: Fewest shared numbers by which logs in folders beside one another are known to be of one run.
TWINS = 20
#: Share of the shared numbers of a series that must agree for the two to be one series.
ONE_SERIES = 0.9
#: A value is replaced by that of a log with more digits only where the two are as near as rounding can make them.
_DIGITS = 0.05


def merged(group: Sequence[Placed]) -> list[Placed]:
    """The runs of a group, those joined that are several logs of one run.

    Logs of one folder belong together where they are of different formats and their names do not tell them apart
    (`metrics.csv` beside event files and `trainer_state.json`), unless nothing in them can be compared and they count
    steps so differently that their axes cannot be the same. All other logs of the folder, and those up to `DEPTH`
    folders below it, belong to the run where they are of another format or not told apart by their names, and their
    numbers are the same (`parsers.collection.agreement.is_same_run`). In folders beside one another (two loggers of
    one training) logs of different formats and one length belong together where `TWINS` numbers or more are the same.
    Copies in one format stay runs of their own: a
    training that was repeated exactly has the same numbers.

    Of a joined run the first log, in the order of the registry, names it. Its series are taken first; each further log
    adds the series that are new, and to those that agree the other steps, times and digits. A series that disagrees
    stays beside the first under the name of its file (`metrics.csv/loss`). What was compared stands in `run.sources`.

    >>> merged([])
    []
    """
    if len(group) < 2:
        return list(group)
    clusters: list[list[_Log]] = []
    for one in sorted((_Log(*placed) for placed in group), key=lambda log: (len(log.above), _rank(log.run))):
        home = next((c for c in clusters if _belongs(one, c)), None)
        if home is None:
            clusters.append([one])
        else:
            home.append(one)
    logs = [[(log.where, log.run) for log in cluster] for cluster in clusters]
    joined = [cluster[0] if len(cluster) == 1 else _join(cluster) for cluster in logs]
    return sorted(joined, key=lambda placed: placed[0])


@dataclass(slots=True)
class _Log:
    """A log, with what is asked of its place once for every other log: a folder may hold a thousand."""

    where: Path
    run: Run
    #: The folder of the log as a name alone (on disk, behind a URL or in an archive), and those above it.
    folder: str = ""
    above: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        """Look at the place."""
        is_folder = self.where.is_dir()
        folder = PurePath(str(self.where if is_folder else self.where.parent))
        self.folder, self.above = str(folder), tuple(map(str, folder.parents))
        self.name = folder_name(self.where) if is_folder else run_name(self.where)


def _rank(run: Run) -> int:
    """Place of a run's format among all: the most telling comes first."""
    from parsers.registry import formats

    names = [format.name for format in formats()]
    return names.index(run.format) if run.format in names else len(names)


def _belongs(one: _Log, cluster: list[_Log]) -> bool:
    """Whether a log is another source of the run of a cluster."""
    home = cluster[0].folder
    beside = one.folder == home
    if not beside and home not in one.above[:DEPTH]:
        return _are_siblings(one, cluster[0]) and any(_is_twin(one, other) for other in cluster)
    if beside and all(_is_pair(one, other) for other in cluster):
        return True
    # several runs of one file (a database) are several by what the file says, however alike their numbers are
    others = [
        other.run
        for other in cluster
        if other.run.format != one.run.format or (beside and one.name == other.name and one.where != other.where)
    ]
    return any(is_same_run(other, one.run) for other in others)


def _are_siblings(one: _Log, other: _Log) -> bool:
    """Whether two folders stand beside one another, or have one name in folders that do (`tb/a7` and `csv/a7`)."""
    if one.above[:1] == other.above[:1]:
        return True
    return one.above[1:2] == other.above[1:2] and PurePath(one.folder).name == PurePath(other.folder).name


def _is_twin(one: _Log, other: _Log) -> bool:
    """Whether logs of different formats in folders apart tell of one run: as long, and many numbers the same."""
    run, known = one.run, other.run
    if run.format == known.format or not run.last_step or not known.last_step:
        return False
    longest, shortest = max(run.last_step, known.last_step), min(run.last_step, known.last_step)
    return shortest >= ONE_SERIES * longest and is_same_run(known, run, fewest=TWINS)


def _is_pair(one: _Log, other: _Log) -> bool:
    """Whether two logs of a folder are of different formats, not told apart by their names, and of the same length."""
    run, known = one.run, other.run
    if run.format == known.format or not (run.name == known.name or one.name == other.name):
        return False
    lengths = [r.last_step for r in (run, known) if r.last_step is not None]
    return (
        len(lengths) < 2 or max(lengths) <= LENGTHS * min(lengths) or not compare(run.scalars, known.scalars).is_empty()
    )


def _join(cluster: list[Placed]) -> Placed:
    """One run of several logs."""
    (where, first), *others = cluster
    sources = [Source(first.path, first.format, first.scalars.height)]
    scalars, run, told = first.scalars, first, []
    for _, other in others:
        against = compare(scalars, other.scalars)
        sources.append(Source(other.path, other.format, other.scalars.height, against))
        scalars, same = _with_series(scalars, other, against)
        told.append(same)
        run = _with_rest(run, other)
    for same in told:  # at the end: what was filled in must not be compared with a third log
        scalars = _filled(scalars, same)
    where = where if where.is_dir() else where.parent
    joined = replace(
        run,
        path=str(where),
        format="+".join(dict.fromkeys(source.format for source in sources)),
        source=scalars.lazy(),
        whole=None,
        final_attempt=None,
        sources=tuple(sources),
    )
    return where, joined.renamed(first.name)


def _with_rest(run: Run, other: Run) -> Run:
    """Events, rejects, configuration and plan of both; where both name a setting the first counts."""
    return replace(
        run,
        events=pl.concat([run.events, other.events]),
        rejects=pl.concat([run.rejects, other.rejects]),
        config={**other.config, **run.config},
        config_source=" and ".join(dict.fromkeys(one.config_source for one in (run, other) if one.config)),
        beside={**other.beside, **run.beside},
        beside_unread=tuple(dict.fromkeys([*run.beside_unread, *other.beside_unread])),
        plan={**other.plan, **run.plan},
    )


def _with_series(scalars: pl.DataFrame, other: Run, against: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The series so far with those that another log adds; and the rows of that log that tell the same series."""
    scalars, rows = _attempts_of(other.scalars, scalars), _best_attempts(scalars, other.scalars, against)
    one = pl.col("differing") <= (1 - ONE_SERIES) * pl.col("compared")
    known = against.select("split", "metric", "tag", "finer", one.alias("one"), other="other_tag")
    told = rows.rename({"tag": "other"}).join(known, on="other", how="left", maintain_order="left", suffix="_known")
    new = told.filter(pl.col("one").is_null()).with_columns(tag="other")
    apart = told.filter(~pl.col("one")).with_columns(
        metric=pl.lit(f"{Path(other.path).name}/") + pl.col("metric"), tag="other"
    )
    same = told.filter(pl.col("one")).with_columns(split="split_known", metric="metric_known")
    beyond = same.join(scalars, on=["rank", "tag", "step"], how="anti", nulls_equal=True)
    parts = [scalars, *(part.select(SCALARS.names()) for part in (new, apart, beyond))]
    order = ["rank", "attempt", "split", "tag", *([] if beyond.is_empty() else ["step"])]
    return pl.concat(parts).sort(order, maintain_order=True), same


def _filled(scalars: pl.DataFrame, same: pl.DataFrame) -> pl.DataFrame:
    """The rows with the time and epoch that another log knows, and its value where that has more digits."""
    if same.is_empty():
        return scalars
    key = ["rank", "attempt", "tag", "step"]
    others = same.unique(key, keep="last").select(*key, "finer", "time", "epoch", "value")
    told = scalars.join(others, on=key, how="left", maintain_order="left", suffix="_other")
    value, other = pl.col("value"), pl.col("value_other")
    near = (value - other).abs() <= _DIGITS * value.abs()
    return told.with_columns(
        value=pl.when(pl.col("finer") & near).then(other).otherwise(value),
        time=pl.coalesce("time", "time_other"),
        epoch=pl.coalesce("epoch", "epoch_other"),
    ).select(SCALARS.names())


def _best_attempts(first: pl.DataFrame, rows: pl.DataFrame, against: pl.DataFrame) -> pl.DataFrame:
    """Rows of a log that knows of no restart, as the attempts of the first log with which most of them agree.

    These are the live ones, by the step at which each began, or a single one: a job that was killed and begun again
    often leaves a log for each of its starts (the Hugging Face Trainer a folder below `runs/`).
    """
    by_step = _attempts_of(first, rows)
    if by_step is rows:
        return rows
    numbers = first["attempt"].unique().sort().to_list()
    choices = [by_step, *(rows.with_columns(attempt=pl.lit(k, dtype=pl.Int32)) for k in numbers)]
    names = against.select("tag", other="other_tag")
    known = _rounded(first.join(names, on="tag").drop("tag").rename({"other": "tag"}))

    def agreeing(choice: pl.DataFrame) -> int:
        both = _rounded(choice).join(known, on=["rank", "attempt", "step", "tag"], suffix="_known")
        apart = (pl.col("value") - pl.col("value_known")).abs()
        return both.filter(apart <= pl.max_horizontal("near", "near_known")).height

    return max(choices, key=agreeing)  # the first of equals


def _rounded(rows: pl.DataFrame) -> pl.DataFrame:
    """Where each number stands, and how far from it the true one may lie (`agreement.tolerance`), series by series."""
    near = pl.col("value").map_batches(lambda v: pl.Series(tolerance(v.to_numpy())), return_dtype=pl.Float64)
    return rows.select("rank", "attempt", "step", "tag", "value", near=near.over("tag"))


def _attempts_of(first: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a log that knows of no restart, with the attempts of one that does: by the step at which each began."""
    if first["attempt"].n_unique() <= 1 or rows["attempt"].n_unique() > 1:
        return rows
    starts = first.group_by("attempt").agg(pl.col("step").min()).drop_nulls().sort("attempt")
    attempt = pl.col("attempt")
    for number, start in starts.iter_rows():
        attempt = pl.when(pl.col("step") >= start).then(pl.lit(number, dtype=pl.Int32)).otherwise(attempt)
    return rows.with_columns(attempt=attempt)
