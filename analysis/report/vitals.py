"""The indicators of a run's health as rows of text, for the page and for Markdown."""

from __future__ import annotations

from analysis.diagnose import Diagnosis
from analysis.health import health_of
from analysis.report.text import clean, number

__all__ = ["health_rows"]


def health_rows(diagnosis: Diagnosis) -> tuple[tuple[str, str, str, str, str], ...]:
    """Indicator, status, number, healthy range and reason of each indicator that is known, or shows a number."""
    return tuple(
        (
            row["indicator"].replace("_", " "),
            row["status"],
            "" if row["value"] is None else f"{number(row['value'])} {row['unit']}",
            row["healthy"],
            clean(row["reason"], 160),
        )
        for row in health_of(diagnosis).frame.iter_rows(named=True)
        if row["status"] != "unknown" or row["value"] is not None
    )
