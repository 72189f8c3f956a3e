"""What every analysis returns: a frozen object that holds a frame and findings, and knows how to show itself."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.findings import Finding, NotApplicable, Status, status_of
from analysis.limits import Measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Result"]


@dataclass(frozen=True, eq=False, repr=False)
class Result(ABC):
    """Base of all results: `frame` (tidy, the same columns whatever was found), `findings`, `not_applicable`.

    A subclass adds its own fields, documents the columns of `frame`, and draws itself in `plot`. `measures` say how
    near the run came to the limits of the kinds that have one, reported or not.
    """

    run: str
    frame: pl.DataFrame
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    not_applicable: tuple[NotApplicable, ...] = field(default=(), kw_only=True)
    measures: tuple[Measure, ...] = field(default=(), kw_only=True)

    @property
    def status(self) -> Status:
        """healthy, warning or critical: the worst finding decides."""
        return status_of(self.findings)

    def to_pandas(self) -> pd.DataFrame:
        """`frame` as pandas (needs pandas)."""
        return self.frame.to_pandas()

    @abstractmethod
    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw on `ax` (a new figure when None) and return the Axes; never shows, never changes global style."""

    def __repr__(self) -> str:
        lines = [f"<{type(self).__name__} of {self.run}: {self.status}, {len(self.findings)} findings>"]
        lines += [f"  {f.severity:8} {f.kind}: {f.message}" for f in self.findings[:10]]
        lines += [f"  (not judged) {n.kind}: {n.reason}" for n in self.not_applicable[:5]]
        return _printable("\n".join(line.replace("\n", "?") for line in lines))

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li><b>{html.escape(f.severity)} {html.escape(f.kind)}</b>: {html.escape(f.message)}</li>"
            for f in self.findings[:50]
        )
        skipped = "".join(f"<li>{html.escape(n.kind)}: {html.escape(n.reason)}</li>" for n in self.not_applicable[:50])
        return _printable(
            f"<div><p><b>{html.escape(type(self).__name__)} of {html.escape(self.run)}: {self.status}</b></p>"
            + (f"<ul>{items}</ul>" if items else "<p>no findings</p>")
            + (f"<details><summary>not judged</summary><ul>{skipped}</ul></details>" if skipped else "")
            + f"{self.frame.head(20)._repr_html_()}</div>"
        )


def _printable(text: str) -> str:
    """Lines without what would steer a terminal or turn a page's text around: names come from files of strangers."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
