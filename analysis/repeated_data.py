"""`repeated_data`: whether a resumed run was fed data again that it had already been trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import NotApplicable
from analysis.integrity.data_position import rewinds
from analysis.integrity.replay import LEAST_PAIRS
from analysis.integrity.replay_findings import finding_of, findings_without_losses
from analysis.integrity.replay_verdict import Verdict, judge
from analysis.integrity.resumes import loss_rows, resumes_of
from analysis.result import Result
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RepeatedData", "repeated_data"]

_KIND = "repeated-data"
#: Records in the figure: with more, lines that agree cannot be told from lines that do not.
_DRAWN = 120
_FRAME = pl.Schema(
    {
        "rank": pl.Int32,
        "attempt": pl.Int32,
        "metric": pl.String,
        "step": pl.Int64,
        "every": pl.Int64,
        "verdict": pl.String,
        "lag": pl.Int64,
        "repeats_from": pl.Int64,
        "pairs": pl.Int64,
        "correlation": pl.Float64,
        "by_chance": pl.Float64,
        "lags": pl.Int64,
        "dead_pairs": pl.Int64,
        "dead_correlation": pl.Float64,
        "dead_identical": pl.Boolean,
        "loss_before": pl.Float64,
        "loss_after": pl.Float64,
    }
)


@dataclass(frozen=True, eq=False, repr=False)
class RepeatedData(Result):
    """What was fed after each resume. `frame` has one row a resume: rank, attempt, metric, step (the first after it),
    every (steps between records), verdict, lag (steps to the best match; null where none could be looked for),
    repeats_from (the step at which the matching stretch begins), pairs (records compared), correlation, by_chance (the
    correlation that the best of the lags reaches by chance), lags (how many were tried), dead_pairs, dead_correlation
    and dead_identical (the same steps of the branch that the resume left), loss_before and loss_after (medians of the
    31 records on either side).

    Verdicts: `repeated`, `same order` (the order comes again every epoch, also without a resume), `unclear` (one of
    these), `identical` (the same steps gave the same losses: the resume replayed the dead branch exactly), `restored`
    (the same steps saw the same data), `new` (nothing comes again), `too short`.
    """

    verdicts: tuple[Verdict, ...]

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The loss after the resume with the best match, and the stretch that it matches, both less their trend.

        The first 120 records are drawn, where single batches can be told apart. `options` go to the line of the loss
        after the resume.
        """
        drawn = axes(ax)
        shown = max(self.verdicts, key=_strength, default=None)
        with style():
            if shown is not None and shown.match is not None:
                earlier = shown.matched[: min(_DRAWN, len(shown.after))]
                after = shown.after[: len(earlier)]
                steps = shown.resume.step + np.arange(float(len(after))) * shown.resume.every
                label = f"from step {shown.resume.step_at(shown.match.lag):,} on"
                draw_series(drawn, steps, earlier, color=COLOURS["orange"], lw=2.4, label=label)
                line = {"color": COLOURS["blue"], "lw": 1.0, "label": f"after the resume at step {shown.resume.step:,}"}
                draw_series(drawn, steps, after, **{**line, **options})
                drawn.legend(loc="upper right")
        drawn.set_xlabel("step")
        drawn.set_ylabel("loss less its trend (SD)")
        nothing = "no data was repeated" if self.verdicts else "no resume to look at"
        said = self.findings[0].message.split(" (")[0] if self.findings else nothing
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn


def _strength(verdict: Verdict) -> float:
    return -2.0 if verdict.match is None else verdict.match.correlation - verdict.match.by_chance


def repeated_data(run: Run, *, resumed_at: Iterable[int] = ()) -> RepeatedData:
    """Whether data came again after a resume, from the fingerprint of the batches in the loss and from data counts.

    A resume that does not restore the position in the data feeds the beginning of the epoch, or of all data, again.
    Hard batches then come again in the same order, and the loss less its trend after the resume correlates with the
    loss at an earlier stretch, at one lag. The longest training loss of the lowest rank is compared with all that it
    was before, from 32 records on; a lag counts where its correlation is at least 0.3 and beyond what the best of all
    lags tried reaches by chance in one of 1,000 resumes, the smoothness of the series allowed for. An order that
    comes again every epoch without a resume is none; neither is the dead branch's same steps coming again on the live
    branch, which is what a resume should do (identical losses are said as info). Counts of data consumed, and epochs,
    that go back while the step goes on are findings by themselves.

    `resumed_at` are the first steps after each resume where the log shows none itself (the Hugging Face Trainer's
    trainer_state.json goes on as if nothing had been). `ValueError` for a step that is no whole number, and where the
    log shows its resumes (`run.attempts`).

    The log must show each batch: a loss that is a mean over many batches, or logged every so many steps, shows only
    repetitions that its rhythm meets. Without a resume (`attempt` 0 alone), a training loss with steps and a rhythm,
    or enough records, the kind is `not_applicable`; NaN are left out of the comparison; a constant loss tells nothing.

    The symptom (the loss dips after a resume, then steps to a higher plateau) is described in S. Bekman, Machine
    Learning Engineering, "Understanding Training Loss Patterns", resume-related spikes.

    >>> from parsers.finish import finish
    >>> batches = np.random.default_rng(0).normal(size=300)
    >>> fed = np.concatenate([batches, batches[:200]])  # resumed at step 300 with the data of step 0
    >>> loss = 2 + 0.1 * fed + 0.02 * np.random.default_rng(1).normal(size=500)
    >>> columns = {"tag": ["loss"] * 500, "step": list(range(500)), "attempt": [0] * 300 + [1] * 200, "value": loss}
    >>> result = repeated_data(finish("r", "r", "jsonl", pl.DataFrame(columns)))
    >>> result.frame.select("step", "verdict", "lag", "repeats_from").row(0)
    (300, 'repeated', 300, 0)
    """
    if steps := _steps(run, resumed_at):
        after = pl.sum_horizontal([(pl.col("step") >= step).fill_null(False) for step in steps])
        run = replace(run, source=run.lazy().with_columns(attempt=after.cast(pl.Int32)), whole=None)
    if run.last_attempt == 0:
        return _nothing(run, "the log shows no resume (there is one attempt); resumed_at tells of one")
    rows = loss_rows(run)
    resumes = list(resumes_of(rows))
    verdicts = tuple(judge(resume, len(resumes)) for resume in resumes)
    counts = rewinds(run, rows)
    metric = str(rows["metric"][0]) if rows.height else ""
    findings = [f for verdict in verdicts if (f := finding_of(run, metric, verdict, counts)) is not None]
    findings += findings_without_losses(run, {v.resume.attempt for v in verdicts}, counts)
    reasons = () if findings else tuple(_reasons(rows, verdicts))
    return RepeatedData(
        run=run.name,
        frame=pl.DataFrame([_row(v, metric) for v in verdicts], schema=_FRAME, orient="row"),
        findings=tuple(findings),
        not_applicable=reasons,
        verdicts=verdicts,
    )


def _steps(run: Run, resumed_at: Iterable[int]) -> list[int]:
    """The steps at which the user says that the run was resumed, checked."""
    steps = list(resumed_at)
    wrong = [step for step in steps if isinstance(step, bool) or not isinstance(step, int | np.integer)]
    if wrong:
        raise ValueError(f"resumed_at holds {wrong[0]!r}; it must hold whole steps, the first after each resume")
    if steps and run.last_attempt:
        known = ", ".join(map(str, run.attempts["begin"].to_list()[1:6]))
        raise ValueError(f"resumed_at is {steps}, but the log of {run.name} shows its resumes itself (at {known})")
    return sorted({int(step) for step in steps})


def _nothing(run: Run, reason: str) -> RepeatedData:
    entry = (NotApplicable(_KIND, reason),)
    return RepeatedData(run=run.name, frame=_FRAME.to_frame(), not_applicable=entry, verdicts=())


def _reasons(rows: pl.DataFrame, verdicts: tuple[Verdict, ...]) -> Iterator[NotApplicable]:
    if rows.is_empty():
        yield NotApplicable(_KIND, "no training loss with steps, and no count of data that goes back")
    elif not verdicts:
        yield NotApplicable(_KIND, "no resume with a training loss on both sides")
    elif all(verdict.name == "too short" for verdict in verdicts):
        yield NotApplicable(_KIND, _too_short(verdicts))


def _too_short(verdicts: tuple[Verdict, ...]) -> str:
    """Why no resume could be judged, of the one with most records."""
    sides = [(int(np.isfinite(v.resume.before).sum()), int(np.isfinite(v.resume.after).sum())) for v in verdicts]
    before, after = max(sides, key=min)
    if min(before, after) >= LEAST_PAIRS:
        return "the training loss hardly moves from record to record: it tells no batch from another"
    return (
        f"{before} regular records of the training loss on the live branch before the resume and {after} after it; "
        f"{LEAST_PAIRS} on either side are needed to tell the order of the data"
    )


def _row(verdict: Verdict, metric: str) -> tuple[Any, ...]:
    resume, match = verdict.resume, verdict.match
    of_match: tuple[Any, ...] = (None,) * 6
    if match is not None:
        lag = match.lag * resume.every
        of_match = (lag, resume.step - lag, match.pairs, match.correlation, match.by_chance, match.lags)
    dead = None if np.isnan(verdict.dead_correlation) else verdict.dead_correlation
    where = (resume.rank, resume.attempt, metric, resume.step, resume.every, verdict.name)
    levels = (_median(resume.before[-31:]), _median(resume.after[:31]))
    return (*where, *of_match, verdict.dead_pairs, dead, verdict.identical, *levels)


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
