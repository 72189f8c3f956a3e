"""Columns of text as numbers and as times: thousands separators, decimal commas, the ways a logger writes dates."""

from __future__ import annotations

import re

import polars as pl

__all__ = ["counts", "numbers", "plain_commas", "times"]

_THOUSANDS = r"^[-+]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?$"
_SHORTENED = r"^(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[kMGTPEZY]?)$"
_POWERS = {unit: 1000.0**power for power, unit in enumerate(["", "k", "M", "G", "T", "P", "E", "Z", "Y"])}
_DECIMAL_COMMA = r"^[-+]?[0-9]*,[0-9]+(?:[eE][-+]?[0-9]+)?$"


def numbers(column: pl.Series) -> pl.Series:
    """The column as floats, null where a text is no number.

    Commas between groups of three digits separate thousands; a comma elsewhere is a decimal comma, and then all
    commas of the column are.

    >>> numbers(pl.Series(["1.5", "nan", "12,345", "1.2.3"])).to_list()
    [1.5, nan, 12345.0, None]
    >>> numbers(pl.Series(["0,5", "1,250"])).to_list()
    [0.5, 1.25]
    """
    if column.dtype != pl.String:
        return column.cast(pl.Float64, strict=False)
    read = column.cast(pl.Float64, strict=False)
    if read.null_count() == column.null_count():  # asked first: most columns hold plain numbers only
        return read
    left = column.is_not_null() & read.is_null()
    if not column.filter(left).str.contains(",", literal=True).any():
        return read
    decimal = (column.str.contains(_DECIMAL_COMMA) & ~column.str.contains(_THOUSANDS)).fill_null(False).any()
    if decimal:
        plain = column.set(~column.str.contains(_DECIMAL_COMMA).fill_null(False), None).str.replace(",", ".")
    else:
        plain = column.set(~column.str.contains(_THOUSANDS).fill_null(False), None).str.replace_all(",", "")
    return read.zip_with(~left, plain.cast(pl.Float64, strict=False))


def plain_commas(text: str) -> str:
    """One number without its commas, as `numbers` takes those of a column; empty where they stand as in no number.

    >>> plain_commas("1,024,001"), plain_commas("0,25"), plain_commas("1,2,3")
    ('1024001', '0.25', '')
    """
    if re.search(_THOUSANDS, text):
        return text.replace(",", "")
    return text.replace(",", ".") if re.search(_DECIMAL_COMMA, text) else ""


def counts(column: pl.Series) -> pl.Series:
    """The column as whole numbers, null where a text is none: `12,345`, and `1.20k` as progress bars shorten it.

    >>> counts(pl.Series(["12,345", "50.0", "1.20k", "2.05M", "x"])).to_list()
    [12345, 50, 1200, 2050000, None]
    """
    read = column.str.replace_all(",", "").cast(pl.Int64, strict=False)
    if read.null_count() == column.null_count():
        return read
    left = column.is_not_null() & read.is_null()
    parts = column.str.extract_groups(_SHORTENED).struct.unnest()
    power = parts["unit"].replace_strict(_POWERS, default=None, return_dtype=pl.Float64)
    value = (parts["number"].cast(pl.Float64, strict=False) * power).round()
    whole = value.set(~(value.abs() < 2.0**63).fill_null(False), None).cast(pl.Int64)
    return read.zip_with(~left, whole)


def times(column: pl.Series) -> pl.Series:
    """The column as times, taken as UTC where no zone is named (loggers name none); null where it is no time.

    >>> times(pl.Series(["2024/01-02 03:04:05,5", "2024-01-02T03:04:05", "x"])).dt.second().to_list()
    [5, 5, None]
    """
    plain = column.str.replace(",", ".", literal=True).str.replace("T", " ", literal=True).str.replace_all("/", "-")
    return plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us", time_zone="UTC")
