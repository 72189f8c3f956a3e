"""Facts that a log hides: NaN filtered out, eval values carried forward, samples, micro-batches, epochs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.figures import COLOURS, axes, draw_series, keep_extremes, style
from analysis.findings import NotApplicable
from analysis.hidden.carried import stale_values
from analysis.hidden.epochs import epoch_only
from analysis.hidden.facts import Drawn, Fact
from analysis.hidden.hidden_nan import hidden_nan
from analysis.hidden.micro_batches import micro_batches
from analysis.hidden.sampled import SIZES, sampled_series
from analysis.kinds import KINDS
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HiddenFacts", "hidden_facts"]

_FRAME = pl.Schema(
    {
        "kind": pl.String,
        "verdict": pl.String,
        "split": pl.String,
        "metric": pl.String,
        "points": pl.Int64,
        "count": pl.Int64,
        "every": pl.Float64,
        "detail": pl.String,
    }
)
#: A sample is told from a short log by its very length: below this, lengths agree by chance.
_SMALLEST_SAMPLE = 100


@dataclass(frozen=True, eq=False, repr=False)
class HiddenFacts(Result):
    """What the log hides. `frame` has one row a kind and series looked at: kind, verdict (found or clear), split,
    metric, points (rows of the series), count, every, detail (a sentence).

    `count` and `every` by kind: hidden-non-finite: rows that hide a NaN, steps a row stands for; stale-values: true
    evaluations, rows from one to the next; sampled-series: points that were logged, about, and steps from one to the
    next; micro-batch-steps: updates seen, steps an update takes; epoch-only: epochs with a row, epochs from one to the
    next. `every` is null where there is no period. `facts` are the same with the series behind.
    """

    facts: tuple[Fact, ...]

    def plot(self, ax: Axes | None = None, *, kind: str | None = None, **options: Any) -> Axes:
        """The series that shows a fact, with its telling rows marked; `options` go to the line.

        `kind` chooses the fact (default the first that was found); one that was not found raises `ValueError`.
        """
        shown = {fact.kind: fact for fact in reversed(self.facts) if fact.drawn is not None}
        if kind is not None and kind not in shown:
            raise ValueError(unknown_name("fact that was found", kind, [k for k in KINDS if k in shown]))
        drawn = axes(ax)
        fact = shown[kind] if kind is not None else next((f for f in self.facts if f.drawn is not None), None)
        if fact is None or fact.drawn is None:
            said = "nothing hidden was found" if self.facts else "nothing could be judged"
            drawn.set_xlabel("step")
        else:
            said = fact.detail
            with style():
                _draw(drawn, fact.drawn, options)
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn


def hidden_facts(run: Run, *, sample_sizes: Sequence[int] = tuple(SIZES)) -> HiddenFacts:
    """What a reader of this log would take for something else than it is.

    - `hidden-non-finite` (warning): the loss reads 0, or its last value, where it was NaN, as the filter of
      transformers' Trainer makes it; told from the gradient norm of the same rows. Where a row stands for several
      steps, only what lasts to its end is visible, and the row of `frame` says so.
    - `stale-values` (info; a warning below 5 evaluations): eval values repeat on every row until the next evaluation.
    - `sampled-series` (info): exactly as many points as a tool samples down to (`sample_sizes`, default 500, 1,000 and
      10,000), at steps like a random sample.
    - `micro-batch-steps` (info): the learning rate moves at every k-th row only, or the last step is accumulation times
      the updates configured.
    - `epoch-only` (info): one value an epoch, no steps, or steps that are epochs.

    The first rank is looked at, dead branches of resumed runs are left out. A kind whose series are missing is
    `not_applicable`; an empty run gives an empty frame. A sample size below 100 raises `ValueError`: short logs have
    such lengths by chance. Sources: the code of transformers' Trainer, TensorBoard's reservoir, wandb's public API.

    >>> from parsers.finish import finish
    >>> rows = {"tag": ["loss"] * 6 + ["grad_norm"] * 6, "step": [*range(6)] * 2}
    >>> values = [2.5, 2.4, 2.4, 2.2, 0.0, 0.0, 1.0, 1.1, 0.9, 1.0, float("nan"), float("nan")]
    >>> found = hidden_facts(finish("r", "r", "huggingface", pl.DataFrame({**rows, "value": values})))
    >>> [(f.kind, f.first_step, f.evidence["last_sound_step"]) for f in found.findings]
    [('hidden-non-finite', 4, 3)]
    """
    if not sample_sizes or any(size < _SMALLEST_SAMPLE for size in sample_sizes):
        raise ValueError(
            f"sample_sizes is {list(sample_sizes)}; give one or more numbers of {_SMALLEST_SAMPLE} points or more"
        )
    facts: list[Fact] = []
    reasons: list[NotApplicable] = []
    for kind, judge in _judges(sample_sizes):
        outcome = judge(run)
        if isinstance(outcome, str):
            reasons.append(NotApplicable(kind, outcome))
        else:
            facts += outcome
    return HiddenFacts(
        run=run.name,
        frame=_frame(facts),
        findings=tuple(fact.finding for fact in facts if fact.finding is not None),
        not_applicable=tuple(reasons),
        facts=tuple(facts),
    )


def _judges(sizes: Sequence[int]) -> list[tuple[str, Callable[[Run], list[Fact] | str]]]:
    return [
        ("hidden-non-finite", hidden_nan),
        ("stale-values", stale_values),
        ("sampled-series", lambda run: sampled_series(run, sizes)),
        ("micro-batch-steps", micro_batches),
        ("epoch-only", epoch_only),
    ]


def _frame(facts: list[Fact]) -> pl.DataFrame:
    rows = [(f.kind, f.verdict, f.split, f.metric, f.points, f.count, f.every, f.detail) for f in facts]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def _draw(ax: Axes, drawn: Drawn, options: dict[str, Any]) -> None:
    draw_series(ax, drawn.x, drawn.y, **{"color": COLOURS["blue"], "lw": 0.9, "label": drawn.label[:60], **options})
    x, y = keep_extremes(drawn.x[drawn.marked], drawn.y[drawn.marked], points=400)
    ax.plot(x, y, "o", ms=3, color=COLOURS["vermilion"], label=drawn.marks)
    ax.set_xlabel(drawn.axis)
    ax.set_ylabel(drawn.label[:60], parse_math=False)
    ax.legend()
