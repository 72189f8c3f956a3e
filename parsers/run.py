"""`Run`, what every parser returns, and `RunSet`, several of them: identity, configuration, plan and three tables."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from eventstream.errors import InputError, unknown_name
from parsers.naming.role_overrides import Override, overrides_of, unmatched
from parsers.naming.run_roles import Roles, decide
from parsers.plans.given import checked_plan
from parsers.plans.understanding import understood
from parsers.schema import EVENTS, REJECTS
from parsers.tables.branches import attempts_of, live_branch
from parsers.tables.catalogue import catalogue_of, short_catalogue

if TYPE_CHECKING:
    import pandas as pd

    from parsers.plan import Plan

__all__ = ["COMPARED", "ROWS", "Run", "RunSet", "Source", "live_branch"]


@dataclass(frozen=True, eq=False)
class Run:
    """One training run in tables: `scalars`, `events` and `rejects`, with its configuration and its declared plan.

    `source` holds the scalars, lazily where the format allows reading a part (Parquet); `scalars` collects all of
    them once, `series` and `lazy` read only what is asked for. Attributes are never changed after construction.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 2, "step": [1, 2], "value": [3.0, 2.0]})
    >>> run = finish("demo", "demo.jsonl", "jsonl", rows)
    >>> run.series("loss")["value"].to_list()
    [3.0, 2.0]
    >>> run
    <Run demo: 2 scalars in 1 series, steps 1 to 2, 0 events, 0 rejects (jsonl)>
    """

    name: str
    path: str
    format: str
    source: pl.LazyFrame = field(repr=False)
    events: pl.DataFrame = field(default_factory=lambda: EVENTS.to_frame(), repr=False)
    rejects: pl.DataFrame = field(default_factory=lambda: REJECTS.to_frame(), repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    plan: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: All of `source` at once, where the parser has a way that copies less than collecting it.
    whole: Callable[[], pl.DataFrame] | None = field(default=None, repr=False)
    #: The largest attempt of any number, where the parser knows it without reading the numbers.
    final_attempt: int | None = field(default=None, repr=False)
    #: The logs that tell of the run, where it was joined from several; empty where one log is all.
    sources: tuple[Source, ...] = field(default=(), repr=False)
    #: What the user says about roles, see `with_roles`.
    overrides: tuple[Override, ...] = field(default=(), repr=False)
    #: Key of `plan` -> where it was declared, where that is not the log itself (see `with_plan`).
    plan_sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: What `config` was read from, in words.
    config_source: str = field(default="configuration of the log", repr=False)
    #: Configurations that stand beside the log and are not in `config`, by file, and those that cannot be read.
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    beside_unread: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def scalars(self) -> pl.DataFrame:
        """Every number of the run (`parsers.schema.SCALARS`); collected from disk at the first use, then kept."""
        return self._collect(self.source) if self.whole is None else self.whole()

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """The rows; damage of the file that shows only now is an error of the input and no traceback of a library."""
        try:
            return rows.collect()
        except pl.exceptions.ComputeError as error:
            raise InputError(f"{self.path}: cannot be read to its end ({str(error)[:300]})") from error

    def lazy(self) -> pl.LazyFrame:
        """The scalars as a lazy frame: filters on it reach the file, unless all scalars are in memory already."""
        return self.scalars.lazy() if "scalars" in self.__dict__ else self.source

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """One row a series: rank, split, metric, tag, count, first_step, last_step, non_finite (NaN and infinities)."""
        short = short_catalogue(self.scalars) if "scalars" in self.__dict__ else None
        return self._collect(catalogue_of(self.lazy())) if short is None else short

    def series(
        self, metric: str, *, split: str | None = None, rank: int | None = None, live: bool = True
    ) -> pl.DataFrame:
        """Rows of one metric in the order logged; only these are read from a lazy source.

        `split=None` takes every split, `rank=None` every rank. `live=True` leaves out the dead branch of a resumed
        run: steps of an attempt that a later attempt of the same rank trained again. Raises `InputError` with the
        known names when the run has no such metric.
        """
        keep = pl.col("metric") == metric
        if split is not None:
            keep &= pl.col("split") == split
        if rank is not None:
            keep &= pl.col("rank") == rank
        rows = self._collect(self.lazy().filter(keep))
        if rows.is_empty() and metric not in self.metrics:
            raise InputError(f"{self.name}: {unknown_name('metric', metric, self.metrics)}")
        return self.live(rows) if live else rows

    def live(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of some rows of this run (scalars or events) that are on the live branch."""
        if self.final_attempt is None and self.whole is not None and "scalars" not in self.__dict__:
            return live_branch(rows)  # a large table in which steps alone tell of attempts: the others stay unread
        # A run of events alone has no scalars that could tell of its attempts.
        return live_branch(rows, self.attempts if self.last_attempt else None)

    @cached_property
    def last_attempt(self) -> int:
        """The largest attempt of any number: 0 for a run that was never resumed, or does not show it."""
        if self.final_attempt is not None:
            return self.final_attempt
        if "scalars" in self.__dict__:  # a column that is there is told a hundred times faster than by a query
            return _whole(self.scalars["attempt"].max()) or 0
        return _whole(self._collect(self.lazy().select(pl.col("attempt").max())).item()) or 0

    @cached_property
    def attempts(self) -> pl.DataFrame:
        """One row a rank and attempt: where it began, and from which step on it is dead (`branches.ATTEMPTS`).

        Read from all scalars at the first use, then kept.
        """
        # Only of the event stream is it known that a restart starts every rank that there is.
        return attempts_of(self.lazy(), together=self.format == "aftertrain")

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics, sorted."""
        return sorted(self.catalogue["metric"].unique().to_list())

    @cached_property
    def roles(self) -> Roles:
        """What every series is (a loss, a learning rate, ...) and why, and which of them stand for the run."""
        return decide(self.name, self.catalogue, self.overrides)

    def with_roles(self, roles: Mapping[str, str]) -> Run:
        """The same run, in which every analysis takes the series that `roles` names for what it says.

        Maps names of metrics or tags, `split/metric`, or globs over them, to a role (`parsers.naming.roles.ROLES`), to
        `train_loss` or `eval_loss` (the one that counts as such), or to `other` (nothing of all that). A name goes
        before a glob, what is said later before what was said earlier. Raises `ValueError` for an unknown role,
        `InputError` for a name that fits no series of the run, each with the nearest known.

        >>> from parsers.finish import finish
        >>> rows = pl.DataFrame({"tag": ["energy"] * 2, "step": [1, 2], "value": [3.0, 2.0]})
        >>> run = finish("demo", "demo.jsonl", "jsonl", rows).with_roles({"energy": "train_loss"})
        >>> run.roles["train_loss"]
        <train_loss: energy (set by the user: "energy" is train_loss)>
        """
        said = overrides_of(roles)
        wrong = unmatched(self.roles, said)
        if wrong:
            raise InputError(f"{self.name}: {wrong[0]}")
        return self.overridden(said)

    @cached_property
    def planned(self) -> Plan:
        """What the run was meant to do, understood: `plan`, else `config`, else the configurations beside the log."""
        return understood(self)

    def with_plan(self, plan: Mapping[str, Any], source: str = "plan") -> Run:
        """The same run with a plan, or with more of it: what `plan` says goes before all that was declared before.

        Keys are those of the event stream's plan, or the names that people give their settings (docs/plan.md);
        `source` is where they come from, in words. Raises `PlanError` for a value that cannot be meant.

        >>> from parsers.finish import finish
        >>> run = finish("demo", "demo.csv", "csv").with_plan({"max_steps": 500, "warmup_ratio": 0.1, "lr": 0.1})
        >>> run.planned.max_steps, run.planned.sources["max_steps"]
        (500, 'plan: max_steps')
        """
        checked_plan(plan, source)
        told = {**self.plan_sources, **dict.fromkeys(map(str, plan), source)}
        return self._but("planned", plan={**self.plan, **plan}, plan_sources=told)

    def overridden(self, said: Iterable[Override]) -> Run:
        """The same run with more decisions of the user; what was read of it already is not read again."""
        return self._but("roles", overrides=(*self.overrides, *said))

    def _but(self, stale: str, **changes: Any) -> Run:
        """The same run with other fields, and what was read of it already, except for what hangs on them."""
        made = replace(self, **changes)
        fresh = {one.name for one in fields(self)} | {stale}
        made.__dict__.update({name: value for name, value in self.__dict__.items() if name not in fresh})
        return made

    @cached_property
    def last_step(self) -> int | None:
        """Largest step of any scalar or event; None where the format has no steps."""
        steps = (_whole(self.catalogue["last_step"].max()), _whole(self.events["step"].max()))
        return max((s for s in steps if s is not None), default=None)

    def events_of(self, kind: str) -> pl.DataFrame:
        """Events of one kind, in the order logged; empty when there are none."""
        return self.events.filter(pl.col("kind") == kind)

    def to_pandas(self) -> pd.DataFrame:
        """The scalars as a pandas frame (needs pandas)."""
        return self.scalars.to_pandas()

    def renamed(self, name: str) -> Run:
        """The same run under another name, in its tables too."""
        return replace(
            self,
            name=name,
            source=self.source.with_columns(run=pl.lit(name)),
            whole=None,
            events=self.events.with_columns(run=pl.lit(name)),
        )

    def _summary(self) -> list[tuple[str, str]]:
        table = self.catalogue
        first, last = _whole(table["first_step"].min()), self.last_step
        return [
            ("format", self.format),
            ("path", self.path),
            ("scalars", f"{table['count'].sum():,} in {table.height:,} series"),
            ("steps", "none" if first is None else f"{first} to {last}"),
            ("events", f"{self.events.height:,}"),
            ("rejects", f"{self.rejects.height:,}"),
        ]

    def __repr__(self) -> str:
        s = dict(self._summary())
        return (
            f"<Run {self.name}: {s['scalars'].replace(' in ', ' scalars in ')}, steps {s['steps']}, "
            f"{s['events']} events, {s['rejects']} rejects ({self.format})>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in self._summary())
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


_COMPARED: dict[str, type[pl.DataType]] = {
    "split": pl.String,
    "metric": pl.String,
    "tag": pl.String,
    "other_tag": pl.String,
    "compared": pl.Int64,
    "differing": pl.Int64,
    "first_step": pl.Int64,
    "value": pl.Float64,
    "other_value": pl.Float64,
    "tells": pl.Boolean,
    "ratio": pl.Float64,
    "shift": pl.Int64,
    "hidden": pl.Int64,
    "finer": pl.Boolean,
}
#: One row a series that two logs of a run hold: how many of its numbers were compared, how many differ, and the first
#: that does. `ratio` is by what the other log's differ throughout, `shift` by how many records it is late where that
#: makes them agree (both null where there is no such thing), `hidden` how many are finite in one log only. `tells` says
#: that its values could tell two runs apart, `finer` that the other log has more digits.
COMPARED = pl.Schema(_COMPARED)


@dataclass(frozen=True, eq=False)
class Source:
    """One of the logs that a run was joined from; `against` compares it with those before it (`COMPARED`).

    >>> Source("a/metrics.csv", "csv", 200)
    Source(path='a/metrics.csv', format='csv', scalars=200)
    """

    path: str
    format: str
    scalars: int
    against: pl.DataFrame = field(default_factory=lambda: COMPARED.to_frame(), repr=False)


_ROWS: dict[str, type[pl.DataType]] = {
    "run": pl.String,
    "format": pl.String,
    "scalars": pl.Int64,
    "series": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "attempts": pl.Int64,
    "events": pl.Int64,
    "rejects": pl.Int64,
    "path": pl.String,
}
#: One row a run, as `RunSet.frame` has it.
ROWS = pl.Schema(_ROWS)


@dataclass(frozen=True, eq=False)
class RunSet(Sequence[Run]):
    """Several runs, in the order found; indexed by position or by name. `unread` says what was no run, and why.

    >>> RunSet(())
    <RunSet: 0 runs>
    """

    runs: tuple[Run, ...]
    unread: tuple[tuple[str, str], ...] = ()

    def with_roles(self, roles: Mapping[str, str]) -> RunSet:
        """The same runs, in which what `roles` names counts as it says (see `Run.with_roles`).

        A name needs to fit a series of one of the runs; one that fits none of them raises `InputError`.
        """
        said = overrides_of(roles)
        wrong = unmatched([one for run in self.runs for one in run.roles], said)
        if wrong and self.runs:
            where = self.runs[0].name if len(self.runs) == 1 else f"in none of {len(self.runs)} runs"
            raise InputError(f"{where}: {wrong[0]}")
        return replace(self, runs=tuple(run.overridden(said) for run in self.runs))

    def with_plan(self, plan: Mapping[str, Any], source: str = "plan") -> RunSet:
        """The same runs, each with this plan (see `Run.with_plan`)."""
        return replace(self, runs=tuple(run.with_plan(plan, source) for run in self.runs))

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, str):
            for run in self.runs:
                if run.name == key:
                    return run
            raise KeyError(unknown_name("run", key, [r.name for r in self.runs]))
        if isinstance(key, slice):
            return RunSet(self.runs[key], self.unread)
        return self.runs[key]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @property
    def frame(self) -> pl.DataFrame:
        """One row a run: run, format, scalars, series, first_step, last_step, attempts, events, rejects, path."""
        rows = [
            (
                r.name,
                r.format,
                int(r.catalogue["count"].sum()),
                r.catalogue.height,
                r.catalogue["first_step"].min(),
                r.last_step,
                r.last_attempt + 1,
                r.events.height,
                r.rejects.height,
                r.path,
            )
            for r in self.runs
        ]
        return pl.DataFrame(rows, schema=ROWS, orient="row")

    def __repr__(self) -> str:
        listed = "".join(f"\n  {run!r}" for run in self.runs[:20])
        more = f"\n  and {len(self.runs) - 20} more" if len(self.runs) > 20 else ""
        return f"<RunSet: {len(self.runs)} run{'s' if len(self.runs) != 1 else ''}{listed}{more}>"

    def _repr_html_(self) -> str:
        return str(self.frame._repr_html_())
