"""What the numbers of the last step mean: the findings, with their evidence, and what could not be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.embeddings.mislabelled import Suspects
from analysis.findings import Finding, NotApplicable, Severity
from analysis.limits import Gauge, Limits

__all__ = ["KINDS", "Thresholds", "judge"]

KINDS = ("embedding-collapse", "low-separation", "mislabelled-sample")
#: Vectors below which nothing is said.
_FEWEST = 10
#: A narrow cone whose speakers are still told apart this well is a warning: centring the vectors may be enough.
_STILL_TOLD_APART = 0.1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a good embedding reaches: cosine of same and of different speakers, and their difference."""

    same: float = 0.7
    different: float = 0.3
    good: float = 0.4
    excellent: float = 0.6

    def moved(self, limits: Limits) -> Thresholds:
        """The same where a limit for low-separation is set: all four move with it, kept between -1 and 1."""
        scale = limits.scale("low-separation")
        if scale == 1.0:
            return self
        good = min(self.good * scale, 2.0)
        different = max(1 - (1 - self.different) * scale, -1.0)
        return Thresholds(min(self.same * scale, 1.0), different, good, min(max(good, self.excellent * scale), 2.0))

    def __post_init__(self) -> None:
        for name in ("same", "different", "good", "excellent"):
            value = getattr(self, name)
            if not -1 <= value <= 2:
                raise ValueError(f"{name}={value!r} is no cosine or difference of cosines; give one between -1 and 2")
        if self.excellent < self.good:
            raise ValueError(f"excellent={self.excellent} is below good={self.good}")


def judge(
    run: str, row: Mapping[str, Any], floor: float, suspects: Suspects | None, limits: Thresholds, gauge: Gauge
) -> tuple[tuple[Finding, ...], tuple[NotApplicable, ...]]:
    """Findings of one row of the frame (the last step), `floor` being the least effective rank that is no collapse."""
    findings: list[Finding] = []
    skipped: list[NotApplicable] = []
    judged = (
        _collapse(run, row, floor, gauge),
        _separation(run, row, limits, gauge),
        _mislabelled(run, row, suspects, gauge),
    )
    for found in judged:
        if isinstance(found, Finding):
            findings.append(found)
        elif found is not None:
            skipped.append(found)
    return tuple(findings), tuple(skipped)


def _collapse(run: str, row: Mapping[str, Any], floor: float, gauge: Gauge) -> Finding | NotApplicable | None:
    kind = "embedding-collapse"
    cosine, rank, eer = row["mean_cosine"], row["effective_rank"], row["eer"]
    if row["n"] < _FEWEST or cosine is None:
        return NotApplicable(kind, f"{row['n']} usable vectors; at least {_FEWEST} are needed to speak of collapse")
    gauge.keep(kind, cosine)
    limit = gauge.limits.of(kind)
    one_way, flat = cosine > limit, rank < floor
    if not one_way and not flat:
        return None
    apart = one_way and not flat and eer is not None and eer < _STILL_TOLD_APART
    what = []
    if one_way:
        what.append(f"any two vectors have a cosine of {cosine:.3f} on average")
    if flat:
        what.append(f"they fill {rank:.1f} of {row['dim']} dimensions (at least {floor:.1f} expected)")
    message = f"embeddings have collapsed{_at(row)}: {' and '.join(what)}"
    if apart:
        message = (
            f"embeddings lie in a narrow cone{_at(row)}: {what[0]}, though speakers are told apart (EER {eer:.1%})"
        )
    causes = [f"mean pairwise cosine {cosine:.3f}: the loss is met by one constant vector (loss = margin)"] * one_way
    causes += [f"effective rank {rank:.1f}: few directions carry everything, as with too high a learning rate"] * flat
    return Finding(
        kind,
        "warning" if apart else "critical",
        run,
        message,
        **_steps(row),
        evidence={**_evidence(row, "mean_cosine", "effective_rank", "eer"), "rank_floor": floor, "limit": limit},
        causes=tuple(causes),
        suggestions=(
            ("subtract the mean vector before comparing, and look at the bias of the last layer",)
            if apart
            else (
                "go back to the last step before the collapse and lower the learning rate",
                "check that the loss sees negatives: hard-negative mining from scratch collapses often",
                "add a variance or uniformity term, or a classification head, until it holds",
            )
        ),
    )


def _separation(run: str, row: Mapping[str, Any], limits: Thresholds, gauge: Gauge) -> Finding | NotApplicable | None:
    kind = "low-separation"
    if row["separation"] is None:
        return NotApplicable(kind, _no_pairs(row))
    if row["labelled"] < _FEWEST:
        return NotApplicable(kind, f"{row['labelled']} labelled vectors; at least {_FEWEST} are needed")
    same, different, separation = row["same_mean"], row["different_mean"], row["separation"]
    gauge.keep(kind, separation)
    failed = []
    if separation <= limits.good:
        failed.append(f"separation {separation:.3f} is not above {limits.good:g}")
    if same <= limits.same:
        failed.append(f"same-speaker similarity {same:.3f} is not above {limits.same:g}")
    if different >= limits.different:
        failed.append(f"different-speaker similarity {different:.3f} is not below {limits.different:g}")
    if not failed:
        return None
    severity: Severity = "warning" if separation <= limits.good else "info"
    grade = "excellent" if separation > limits.excellent else "good" if separation > limits.good else "low"
    eer = f", EER {row['eer']:.1%}" if row["eer"] is not None else ""
    return Finding(
        kind,
        severity,
        run,
        f"separation of speakers is {grade}{_at(row)} ({separation:.3f}{eer}): {'; '.join(failed)}",
        **_steps(row),
        evidence={
            **_evidence(row, "same_mean", "different_mean", "separation", "separation_low", "separation_high"),
            **{name: row[name] for name in ("eer", "d_prime", "speakers")},
            "same_limit": limits.same,
            "different_limit": limits.different,
            "limit": limits.good,
        },
        causes=_separation_causes(row, limits),
        suggestions=(
            "look at the per-speaker table: a few speakers, or all of them?",
            "train longer or with a larger margin; compare with the step before",
            "if the EER is fine, set the thresholds (same, different, good) to what this loss reaches",
        ),
    )


def _separation_causes(row: Mapping[str, Any], limits: Thresholds) -> tuple[str, ...]:
    causes = []
    if row["different_mean"] >= limits.different:
        causes.append(
            f"different speakers are alike ({row['different_mean']:.3f}): a common offset, or partial collapse"
        )
    if row["same_mean"] <= limits.same:
        causes.append(f"utterances of one speaker differ ({row['same_mean']:.3f}): content or channel leaks in")
    if row["singletons"] > row["speakers"] / 2:
        causes.append(f"{row['singletons']} of {row['speakers']} speakers have one utterance: few same-speaker pairs")
    return tuple(causes)


def _mislabelled(
    run: str, row: Mapping[str, Any], suspects: Suspects | None, gauge: Gauge
) -> Finding | NotApplicable | None:
    kind = "mislabelled-sample"
    if suspects is None:
        return NotApplicable(kind, _no_pairs(row))
    if suspects.reason is not None:
        return NotApplicable(kind, suspects.reason)
    found = suspects.frame.height
    share = found / suspects.judged if suspects.judged else 0.0
    gauge.keep(kind, share)
    if not found:
        return None
    limit = gauge.limits.of(kind)
    worst = suspects.frame.row(0, named=True)
    name = worst["path"] or f"row {worst['row']}"
    return Finding(
        kind,
        "warning" if found >= 3 and share >= limit else "info",
        run,
        f"{found} of {suspects.judged} utterances ({share:.1%}) lie among another speaker's{_at(row)}; first {name}, "
        f"labelled {worst['label']}, like {worst['suggested']} "
        f"({worst['other_similarity']:.2f} against {worst['own_similarity']:.2f})",
        **_steps(row),
        evidence={
            "utterances": found,
            "judged": suspects.judged,
            "share": share,
            "limit": limit,
            "bar": suspects.bar,
            "first": name,
            "label": worst["label"],
            "suggested": worst["suggested"],
            "score": worst["score"],
        },
        causes=(f"wrong labels: {found} utterances are typical of the other speaker and strangers at their own",),
        suggestions=(
            "listen to the utterances in the table `mislabelled`, worst first",
            "correct or drop their labels, then train and judge again",
        ),
    )


def _no_pairs(row: Mapping[str, Any]) -> str:
    if not row["labelled"]:
        return "the embeddings have no labels"
    if row["speakers"] < 2:
        return "all embeddings have the same label"
    return f"none of {row['speakers']} speakers has two utterances"


def _at(row: Mapping[str, Any]) -> str:
    split = f" of {row['split']}" if row["split"] else ""
    return f"{split} at step {row['step']}" if row["step"] is not None else split


def _steps(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"first_step": row["step"], "last_step": row["step"]}


def _evidence(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in ("n", "dim", "rejected", *names)}
