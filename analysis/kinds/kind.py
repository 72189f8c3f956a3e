"""What is known of a kind of finding: what it means, what it needs, how it is measured, and its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Kind", "Limit"]


@dataclass(frozen=True, slots=True)
class Limit:
    """From where on a kind is reported: `measure` is the evidence key of its findings that holds the number judged.

    `default` is in `unit`; `above` says that a number at or above it is reported (else at or below). `source` says
    where the default comes from: a publication, a calibration that anyone can repeat, or a definition. Projects and
    archives may set others: see `analysis.limits`. What they set lies above `lowest`, and not above `highest`: a share
    is at most 1, and a number of times that was 1 would report every series.
    """

    measure: str
    default: float
    unit: str
    source: str
    above: bool = True
    lowest: float = 0.0
    highest: float = math.inf


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: its family and what it means in one sentence; the rest is what docs/findings.md tells of it.

    `needs`: what a log must hold for it to be judged. `statistic`: what is computed, and when it is a finding.
    `severity`: which it gets when. `causes` and `suggestions`: as its findings give them, most likely and most useful
    first. `limit` is None where a kind is a matter of fact (a NaN is one), and no number decides. `reference`:
    where the statistic or the failure is described.
    """

    family: str
    meaning: str
    needs: str = ""
    statistic: str = ""
    severity: str = ""
    limit: Limit | None = None
    causes: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    reference: str = ""
