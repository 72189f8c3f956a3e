"""What the numbers and words in the evidence of a finding mean, by their keys."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.kinds.evidence_of_kinds import OF_KIND

__all__ = ["meaning_of"]


def meaning_of(kind: str, key: str) -> str | None:
    """The meaning of an evidence key in findings of a kind, in a few words; None where nobody has written it down.

    >>> meaning_of("stall", "times_usual"), meaning_of("stall", "no such key")
    ('the longest pause over the usual interval', None)
    """
    return OF_KIND.get(kind, {}).get(key) or _COMMON.get(key)


#: Keys that mean the same wherever they stand.
_COMMON: Mapping[str, str] = {
    # where
    "split": "split of the series",
    "rank": "process that it is about",
    "model": "model that it is about; empty where the log has one",
    "layer": "layer that it is about; empty for the model as a whole",
    "layers": "layers that it is about",
    "stage": "stage that it is about",
    "series": "series that it is about, or how many",
    "phase": "phase of the curriculum",
    "metrics": "series that show it",
    "parts": "parts of the log (attempts of a rank) that show it",
    "ranks": "processes compared",
    # how many
    "n": "finite values judged",
    "rows": "rows it lasts, or of the series",
    "records": "records of the series",
    "records_judged": "records judged",
    "records_off": "records that are off",
    "evals": "evaluations judged",
    "observations": "observations judged",
    "count": "how many there are",
    "times": "how many times as large, or how often",
    "world_size": "processes that the job has",
    # the judgement
    "limit": "limit in force; null where none applies",
    "share_limit": "limit in force, of the share",
    "value": "value found",
    "expected": "value that was due",
    "lower": "lower bound of what was due",
    "upper": "upper bound of what was due",
    "score": "distance from what was due, in spreads of the noise",
    "threshold": "score from which on it counts, set by the length and the tail of the series",
    "window": "rows of the neighbourhood",
    "method": "method of the score (mad, zscore or iqr)",
    "scale": "scale on which it was judged (log or linear)",
    "factor": "level afterwards over the level before",
    "tolerance": "what printing and float32 arithmetic explain",
    "relative_difference": "typical difference as a share",
    "largest_difference": "largest difference",
    "share": "share that is judged",
    "share_of_run": "share of the run during which it holds",
    "unit": "unit of the numbers",
    "loss_before": "level of the loss before",
    "loss_after": "level of the loss after",
    "explanation": "name of what explains it",
    "number": "number of the explanation; null where it has none",
    "source": "where the plan was read",
    "family": "family of the adversarial loss",
    "dim": "dimensions of a vector",
    "rejected": "vectors left out, as not finite or zero",
    "eer": "equal error rate",
    "records_compared": "records compared",
    "declared_weight": "weight that is logged or planned",
    "planned_weight": "weight of the plan",
    "recovery_steps": "steps until it was back; null where it never was",
    "recovery": "fast (5 rows at most), slow or never",
    "also_in": "other series that show it at the same time",
    "planned": "what was planned; null where nothing was",
}
