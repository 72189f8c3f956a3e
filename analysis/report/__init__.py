"""Reports: one self-contained page, one Markdown summary or one JSON object for any number of judged runs."""

from __future__ import annotations

from analysis.report.build import Report, report
from analysis.report.json import diagnosis_json

__all__ = ["Report", "diagnosis_json", "report"]
