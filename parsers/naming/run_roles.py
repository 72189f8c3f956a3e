"""`run.roles`: what every series of a run is and why, and which of them stand for the run."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from functools import cached_property

import polars as pl

from eventstream.errors import unknown_name
from parsers.naming.primary_roles import PRIMARY, Primary, choose
from parsers.naming.role_layout import SeriesRole, by_layout
from parsers.naming.role_overrides import Override, overridden
from parsers.naming.roles import LOSSES, ROLES, alias_of

__all__ = ["Roles", "decide"]

#: Series that a repr lists; the frame has them all.
_SHOWN, _SHOWN_HTML = 20, 200
_FRAME: dict[str, type[pl.DataType]] = {
    "split": pl.String,
    "metric": pl.String,
    "tag": pl.String,
    "role": pl.String,
    "side": pl.String,
    "primary": pl.String,
    "why": pl.String,
    "by": pl.String,
}


class Roles:
    """What the series of a run are: one decision for every analysis, open to view and to change.

    Iterates over `parsers.naming.role_layout.SeriesRole`, one a series (ranks together). `roles["train_loss"]` is the
    series that stands for the run (`parsers.naming.primary_roles.PRIMARY`, or any role) and why; `roles.of(metric)`
    what one metric is; `frame` has a row a series: split, metric, tag, role, side, primary, why, by. Changed by
    `run.with_roles`.

    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss", "kd_loss", "lr"] * 9, "step": list(range(27)), "value": [1.0] * 27})
    >>> roles = finish("demo", "demo", "jsonl", rows).roles
    >>> roles["train_loss"].metric, roles.of("kd_loss").role, roles["grad_norm"].metric
    ('loss', 'component_loss', None)
    >>> roles.of("lr").why
    'named like a learning rate: "lr"'
    """

    def __init__(self, run: str, series: Sequence[SeriesRole]) -> None:
        self._run = run
        self._series = tuple(series)
        self._primary: dict[str, Primary] = {}

    def __iter__(self) -> Iterator[SeriesRole]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def __getitem__(self, name: str) -> Primary:
        """The series that stands for the run as `name`; `KeyError` with the known names for another."""
        if name not in self._primary:
            if name not in PRIMARY and name not in ROLES:
                raise KeyError(unknown_name("role", name, dict.fromkeys([*PRIMARY, *ROLES])))
            self._primary[name] = choose(name, self._series)
        return self._primary[name]

    @cached_property
    def _found(self) -> dict[tuple[str, ...], SeriesRole]:
        found: dict[tuple[str, ...], SeriesRole] = {}
        for one in sorted(self._series, key=lambda one: (one.side != "train", -one.count)):
            for key in ((one.metric, one.split, one.tag), (one.metric, one.split), (one.metric,)):
                found.setdefault(key, one)
        return found

    def of(self, metric: str, split: str | None = None, tag: str | None = None) -> SeriesRole:
        """What a metric is; with `split`, and `tag`, of that series alone. A name that the run has not goes by itself.

        Of several series of a metric that of training counts, of those the longest.
        """
        keys: list[tuple[str, ...]] = [(metric,)]
        if split is not None:
            keys = [(metric, split)] if tag is None else [(metric, split, tag), (metric, split)]
        named = (self._found[key] for key in keys if key in self._found)
        return next(named, None) or _by_name(split or "", metric, tag or metric, 0)

    def is_loss(self, metric: str, split: str | None = None, tag: str | None = None) -> bool:
        """Whether a metric is a loss, a part of one, or a perplexity."""
        return self.of(metric, split, tag).role in LOSSES

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row a series: split, metric, tag, role, side, primary (what it stands for), why, by."""
        chosen = {(p.split, p.metric, p.tag): name for name in PRIMARY if (p := self[name])}
        rows = [
            (
                one.split,
                one.metric,
                one.tag,
                one.role,
                one.side,
                chosen.get((one.split, one.metric, one.tag), ""),
                one.why,
                one.by,
            )
            for one in self._series
        ]
        return pl.DataFrame(rows, schema=_FRAME, orient="row")

    def __repr__(self) -> str:
        known = sum(1 for one in self._series if one.role)
        lines = [f"<Roles of {self._run}: {len(self)} series, {known} known>"]
        for name in PRIMARY:
            primary = self[name]
            lines.append(f"  {name:18} {primary.series if primary else 'none'} ({primary.why})")
        lines += [f"  {one}: {one.role or 'other'} ({one.why})" for one in self._series[:_SHOWN]]
        more = len(self) - _SHOWN
        return "\n".join([*lines, f"  and {more} more: see .frame"] if more > 0 else lines)

    def _repr_html_(self) -> str:
        chosen = [(name, str(self[name].series or "none"), self[name].why) for name in PRIMARY]
        every = [(str(one), one.tag, one.role or "other", one.why, one.by) for one in self._series[:_SHOWN_HTML]]
        return (
            f"<p><b>Roles of {html.escape(self._run)}</b></p>{_table(('for the run', 'series', 'why'), chosen)}"
            f"<details><summary>{len(self)} series</summary>"
            f"{_table(('series', 'tag', 'role', 'why', 'by'), every)}</details>"
        )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def decide(run: str, catalogue: pl.DataFrame, overrides: Sequence[Override] = ()) -> Roles:
    """The roles of the series in a run's catalogue: by name, by what stands beside, and as the user says.

    What the user says goes before both, and counts for what follows from it.
    """
    table = catalogue.group_by("split", "metric", "tag", maintain_order=True).agg(pl.col("count").max())
    named = [_by_name(*row) for row in table.iter_rows()]
    return Roles(run, by_layout(overridden(named, overrides)))


def _by_name(split: str, metric: str, tag: str, count: int) -> SeriesRole:
    role, said = alias_of(metric)
    side = split if split not in ("", "train") else "train"
    if not role:
        return SeriesRole(split, metric, tag, "", side, "its name says nothing", "", count)
    return SeriesRole(split, metric, tag, role, side, f'named like {ROLES[role]}: "{said}"', "name", count)
