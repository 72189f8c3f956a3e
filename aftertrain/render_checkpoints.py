"""Checkpoints and differences of them as text: the saves, what is wrong with them, and what changed most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from aftertrain.fitted import fitted, terminal_width
from aftertrain.render import markdown_table, markdown_text, printable
from eventstream.records import encode_numbers

if TYPE_CHECKING:
    from analysis.checkpoints import Checkpoints
    from analysis.diff import Diff
    from analysis.findings import Finding
    from analysis.result import Result

__all__ = ["TOLD"]

#: Rows of a table in a terminal: a screen full. JSON has them all.
_ROWS = 40

#: Columns of all tables that a narrow terminal goes without, the least telling first.
_SPARE = (
    *("format", "parameters", "size", "lr", "norm", "loss", "eval"),  # of saves
    *("before", "after", "changed", "cosine", "largest change", "status"),  # of differences
    *("KS", "columns", "rows", "effective rank", "spectral norm"),  # of spectra
    *("mean", "zeros", "min", "max", "std", "dead rows"),  # of tensors
)

_Table = Callable[[Sequence[Sequence[str]], Sequence[str]], str]


def _grid(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Rows as a table for the terminal, no wider than it."""
    return fitted(rows, header, spare=[name for name in _SPARE if name in header], width=terminal_width())


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:.4g}"


def _size(value: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000  # type: ignore[assignment]
    return f"{value:,.1f} TB"


def _counted(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


_SAVES = ("save", "step", "format", "size", "parameters", "norm", "||dW||/||W||", "loss", "eval", "lr", "")


def _save_rows(found: Checkpoints) -> list[list[str]]:
    rows = []
    for row in found.saves.iter_rows(named=True):
        marks = [
            row["label"],
            "best of those kept" if row["best"] else "",
            "" if row["in_log"] is not False else "in no log",
        ]
        rows.append(
            [
                printable(row["save"], 60),
                f"epoch {row['epoch']:g}" if row["step"] is None and row["epoch"] is not None else _number(row["step"]),
                row["format"],
                _size(row["bytes"]),
                _number(row["parameters"]),
                _number(row["norm"]),
                _number(row["update_ratio"]),
                _number(row["loss"]),
                _number(row["eval"]),
                _number(row["lr"]),
                ", ".join(mark for mark in marks if mark),
            ]
        )
    return rows


def _finding_lines(findings: Sequence[Finding], shown: Callable[[str], str]) -> Iterator[str]:
    from analysis.story.listing import SIGNS, located

    told: set[tuple[str, ...]] = set()
    for one in findings:
        item, part = ("- ", "  - ") if shown is markdown_text else (f"  {SIGNS[one.severity]} ", "      ")
        word = one.severity if shown is markdown_text else f"{one.severity:8}"
        yield f"{item}{word} {one.kind}{located(one)}: {shown(one.message)}"
        advice = (*one.causes[:3], "", *one.suggestions[:3])
        if one.severity != "info" and advice not in told:  # said once, below the first finding that it is about
            told.add(advice)
            yield from (f"{part}cause: {shown(cause)}" for cause in one.causes[:3])
            yield from (f"{part}try:   {shown(suggestion)}" for suggestion in one.suggestions[:3])


_TENSORS = ("tensor", "type", "mean", "std", "L2 norm", "min", "max", "zeros", "dead rows", "")


def _tensor_rows(frame: pl.DataFrame) -> list[list[str]]:
    """The tensors of the last save, in its order."""
    rows = []
    for row in frame.filter(pl.col("save") == frame["save"][-1]).iter_rows(named=True):
        marks = [
            f"{row['nan']:,} NaN" if row["nan"] else "",
            f"{row['inf']:,} infinite" if row["inf"] else "",
            "not read" if row["error"] else "",
        ]
        rows.append(
            [
                printable(row["name"], 60) + ("" if row["role"] == "weights" else f" ({row['role']})"),
                _described(row["dtype"], row["shape"]),
                *(_number(row[key]) for key in ("mean", "std", "norm", "minimum", "maximum")),
                "-" if not row["zeros"] else f"{row['zeros']:.2%}",
                _number(row["dead_rows"] or None),
                ", ".join(mark for mark in marks if mark),
            ]
        )
    return rows


def _left_out(found: Result, shown: Callable[[str], str]) -> list[str]:
    """Kinds that were not judged, by the reason."""
    kinds: dict[str, list[str]] = {}
    for one in found.not_applicable:
        kinds.setdefault(one.reason, []).append(one.kind)
    item = "- " if shown is markdown_text else "  "
    return [f"{item}not judged: {', '.join(names)} ({shown(reason)})" for reason, names in kinds.items()]


def _told(found: Checkpoints, table: _Table, shown: Callable[[str], str], tensors: bool) -> str:
    lines = [f"{found.verdict.upper()}  {shown(found.run)}: {_counted(found.saves.height, 'save')}", ""]
    rows = _save_rows(found)
    lines += [table(rows[-_ROWS:], _SAVES)] if rows else []
    left = len(rows) - _ROWS
    lines += [f"({_counted(left, 'earlier save')} not shown; --format json has all)"] if left > 0 else []
    if found.frame.height and (tensors or found.saves.height == 1):
        listed = _tensor_rows(found.frame)
        left = 0 if tensors else len(listed) - _ROWS
        lines += ["", table(listed if tensors else listed[:_ROWS], _TENSORS)]
        lines += [f"({_counted(left, 'more tensor')}; --tensors lists all)"] if left > 0 else []
    lines += ["", f"  {shown(found.best_against_last)}"] if found.best_against_last else []
    lines += (
        ["", *_finding_lines(found.findings, shown)]
        if found.findings
        else ["", "  nothing wrong found" if found.frame.height else "  no tensor could be read"]
    )
    if found.spectra.height:
        lines += ["", table(_spectrum_rows(found.spectra), _SPECTRA)]
    left_out = _left_out(found, shown)
    return "\n".join([*lines, *(["", *left_out] if left_out else [])])


_SPECTRA = ("matrix", "rows", "columns", "spectral norm", "stable rank", "effective rank", "alpha", "KS", "error")


def _spectrum_rows(spectra: pl.DataFrame) -> list[list[str]]:
    """Matrices of the last save, by what its exponent says: the least usual first."""
    last = spectra.filter(pl.col("save") == spectra["save"][-1])
    last = last.sort((pl.col("alpha") - 3.0).abs(), descending=True, nulls_last=True).head(_ROWS)
    return [
        [
            printable(row["parameter"], 60),
            _number(row["rows"]),
            _number(row["columns"]),
            *(_number(row[key]) for key in ("spectral_norm", "stable_rank", "effective_rank", "alpha", "ks_distance")),
            "-" if row["error"] is None else f"{row['error']:.1%}",
        ]
        for row in last.iter_rows(named=True)
    ]


_CHANGES = ("tensor", "status", "||b-a||/||a||", "cosine", "largest change", "changed", "before", "after")


def _change_rows(frame: pl.DataFrame) -> list[list[str]]:
    rows = []
    for row in frame.head(_ROWS).iter_rows(named=True):
        before, after = (_described(row[f"dtype_{side}"], row[f"shape_{side}"]) for side in "ab")
        share = row["share_changed"]
        rows.append(
            [
                printable(row["parameter"] or row["name"], 60)
                + ("" if row["role"] == "weights" else f" ({row['role']})"),
                row["status"],
                "from zero" if row["norm_a"] == 0 and row["update_norm"] else _number(row["update_ratio"]),
                _number(row["cosine"]),
                _number(row["max_change"]),
                "-" if share is None else f"{share:.1%}",
                before,
                after,
            ]
        )
    return rows


def _described(dtype: str | None, shape: Sequence[int] | None) -> str:
    return "-" if dtype is None or shape is None else f"{dtype} {'x'.join(map(str, shape)) or 'scalar'}"


def _diff_told(found: Diff, table: _Table, shown: Callable[[str], str]) -> str:
    lines = [f"{found.status.upper()}  {shown(found.run)}: {found.summary}", ""]
    lines += [table(_change_rows(found.frame), _CHANGES)] if found.frame.height else []
    left = found.frame.height - _ROWS
    lines += [f"({_counted(left, 'tensor')} that changed less not shown; --format json has all)"] if left > 0 else []
    lines += ["", *_finding_lines(found.findings, shown)] if found.findings else []
    return "\n".join(lines)


def _json(found: Result, tables: dict[str, pl.DataFrame], **more: Any) -> str:
    listed = {name: encode_numbers(table.to_dicts()) for name, table in tables.items()}
    told = {
        "version": 1,
        "status": found.status,
        "run": found.run,
        **more,
        "findings": [one.to_dict() for one in found.findings],
        "not_applicable": [one.to_dict() for one in found.not_applicable],
        **listed,
    }
    return json.dumps(told, indent=2, allow_nan=False)


def _table(found: Result, table: _Table, shown: Callable[[str], str], tensors: bool) -> str:
    from analysis.diff import Diff

    if isinstance(found, Diff):
        return _diff_told(found, table, shown)
    return _told(cast("Checkpoints", found), table, shown, tensors)


def _as_json(found: Result, tensors: bool) -> str:  # it has all tensors anyway
    from analysis.diff import Diff

    if isinstance(found, Diff):
        return _json(found, {"tensors": found.frame}, summary=found.summary)
    read = cast("Checkpoints", found)
    return _json(read, {"saves": read.saves, "tensors": read.frame, "changes": read.changes, "spectra": read.spectra})


#: A result in each format; the second argument says whether every tensor of the last save is listed.
TOLD: dict[str, Callable[[Result, bool], str]] = {
    "table": lambda found, tensors: _table(found, _grid, printable, tensors),
    "markdown": lambda found, tensors: _table(found, markdown_table, markdown_text, tensors),
    "json": _as_json,
}
