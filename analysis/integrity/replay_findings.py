"""Findings about data that came again after a resume, in words and numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.findings import Finding
from analysis.integrity.data_position import Rewind
from analysis.integrity.replay_verdict import Verdict
from parsers.run import Run

__all__ = ["finding_of", "findings_without_losses"]

_KIND = "repeated-data"
_SKIP = "ignore_data_skip"
_SUGGESTIONS = (
    "save the state of the data loader and its sampler with every checkpoint and restore it (torchdata's "
    "StatefulDataLoader has state_dict and load_state_dict; accelerate has skip_first_batches)",
    "in the Hugging Face Trainer leave ignore_data_skip=False; in Megatron-LM resume consumed_train_samples from the "
    "checkpoint; with DistributedSampler call set_epoch and skip the batches already seen",
    "resume once more from the checkpoint with the data position restored where the repeated share matters, and judge "
    "the run by its eval loss until then: the train loss is too good on data seen twice",
)
_COUNT_SUGGESTIONS = ("save the count of data consumed with the checkpoint and restore it", *_SUGGESTIONS[:2])
Evidence = dict[str, float | int | str | bool | None]


def finding_of(run: Run, metric: str, verdict: Verdict, counts: Sequence[Rewind]) -> Finding | None:
    """What one resume gives cause to say about the loss `metric` and the counts; None where there is nothing."""
    mine = [count for count in counts if count.attempt == verdict.resume.attempt]
    if verdict.name in ("repeated", "unclear") and verdict.match is not None:
        return _repeated(run, metric, verdict, mine)
    if mine:
        return _rewound(run, mine, sure=verdict.name not in ("restored", "identical"))
    if verdict.name == "identical":
        return _identical(run, metric, verdict)
    return _skipped(run, verdict.resume.step) if verdict.name != "restored" and ignores_data_skip(run.config) else None


def findings_without_losses(run: Run, judged: Collection[int], counts: Sequence[Rewind]) -> Iterator[Finding]:
    """Counts that go back at resumes at which no loss could be looked at, a finding for each resume."""
    for attempt in sorted({count.attempt for count in counts} - set(judged)):
        yield _rewound(run, [count for count in counts if count.attempt == attempt], sure=True)


def _repeated(run: Run, metric: str, verdict: Verdict, counts: Sequence[Rewind]) -> Finding:
    resume, match = verdict.resume, verdict.match
    assert match is not None
    start, every = resume.step_at(match.lag), resume.every
    fed = min(match.lag, len(resume.after))
    last = start + (fed - 1) * every
    unclear = verdict.name == "unclear"
    doubt = ", or the order is the same in every epoch" if unclear else ""
    message = (
        f"after the resume at step {resume.step:,} the losses go up and down as from step {start:,} to {last:,} "
        f"(correlation {match.correlation:.2f} over {match.pairs:,} records; chance stays below "
        f"{match.by_chance:.2f}): this data was fed again{doubt}"
    )
    evidence: Evidence = {
        "resumed_at": resume.step,
        "repeats_from": start,
        "repeats_to": last,
        "lag_steps": match.lag * every,
        "correlation": round(match.correlation, 4),
        "correlation_by_chance": round(match.by_chance, 4),
        "records_compared": match.pairs,
        "lags_tried": match.lags,
        **_levels(verdict),
        **_of_counts(counts),
    }
    return Finding(
        _KIND,
        "info" if unclear else "warning",
        run.name,
        message,
        metric=metric,
        first_step=resume.step,
        last_step=resume.step + (fed - 1) * every,
        evidence=evidence,
        causes=tuple(_causes(run, verdict, start, counts)),
        suggestions=_SUGGESTIONS,
    )


def _causes(run: Run, verdict: Verdict, start: int, counts: Sequence[Rewind]) -> Iterator[str]:
    resume, match = verdict.resume, verdict.match
    assert match is not None
    if ignores_data_skip(run.config):
        yield f"{_SKIP} is on in the configuration: the Trainer does not skip the batches already seen"
    if match.lag >= len(resume.before) - 1:
        yield (
            f"the order of the data began anew: the match begins at step {start:,}, the first logged "
            "(sampler and shuffling not restored, or seeded alike at every start)"
        )
    elif resume.epoch_records and verdict.name == "repeated":
        yield (
            f"the epoch began anew: the match begins at step {start:,}, {match.lag / resume.epoch_records:.2f} epochs "
            "before the resume (the position within the epoch was not restored)"
        )
    else:
        back = match.lag * resume.every
        yield f"the position in the data was restored as that of step {start:,}, {back:,} steps back"
    yield from (f"{count} at the resume" for count in counts)
    if verdict.name == "unclear":
        yield "the data is not shuffled, and the resume fell on the first records of an epoch: then nothing is wrong"


def _rewound(run: Run, counts: Sequence[Rewind], *, sure: bool) -> Finding:
    first = counts[0]
    which = "; ".join(map(str, counts))
    told = "" if sure else "; the losses show that the data itself went on as before"
    return Finding(
        _KIND,
        "warning" if sure else "info",
        run.name,
        f"at the resume at step {first.step:,} the step goes on but {which}{told}",
        metric=first.metric,
        first_step=first.step,
        last_step=first.step,
        evidence={"resumed_at": first.step, **_of_counts(counts)},
        causes=(("the position in the data was not restored, and data already seen is fed again",) if sure else ())
        + ("only the count began anew, and the data went on",),
        suggestions=_COUNT_SUGGESTIONS,
    )


def _identical(run: Run, metric: str, verdict: Verdict) -> Finding:
    resume = verdict.resume
    both = min(len(resume.after), len(resume.dead))
    same = resume.after[:both] == resume.dead[:both]
    count = both if same.all() else int(np.argmin(same))
    return Finding(
        _KIND,
        "info",
        run.name,
        f"the resume at step {resume.step:,} gives the same losses to the last bit as the branch it left, "
        f"for {count:,} records: data, weights and random numbers were restored exactly",
        metric=metric,
        first_step=resume.step,
        last_step=resume.step + (count - 1) * resume.every,
        evidence={"resumed_at": resume.step, "identical_records": count, "records_of_both": both},
        causes=("a deterministic replay: the steps that were lost were trained again as they had been",),
        suggestions=("nothing to do: the dead branch holds nothing that the live one does not",),
    )


def _skipped(run: Run, step: int) -> Finding:
    return Finding(
        _KIND,
        "info",
        run.name,
        f"the run was resumed at step {step:,} with {_SKIP} on: within an epoch the Trainer then feeds it anew",
        first_step=step,
        last_step=step,
        evidence={"resumed_at": step, _SKIP: True},
        causes=(f"{_SKIP} is on in the configuration",),
        suggestions=(_SUGGESTIONS[1],),
    )


def ignores_data_skip(config: Mapping[str, Any]) -> bool:
    """Whether a configuration switches the Trainer's skipping of batches off, at any depth.

    >>> ignores_data_skip({"trainer": {"ignore_data_skip": True}}), ignores_data_skip({"ignore_data_skip": False})
    (True, False)
    """
    if config.get(_SKIP) in (True, 1, "true", "True"):
        return True
    return any(isinstance(value, Mapping) and ignores_data_skip(value) for value in config.values())


def _levels(verdict: Verdict) -> Evidence:
    before, after = verdict.resume.before[-31:], verdict.resume.after[:31]
    if not (np.isfinite(before).any() and np.isfinite(after).any()):
        return {}
    return {"loss_before": float(np.nanmedian(before)), "loss_after": float(np.nanmedian(after))}


def _of_counts(counts: Sequence[Rewind]) -> Evidence:
    return {f"{count.metric} {side}": getattr(count, side) for count in counts for side in ("before", "after")}
