"""What the six magnitudes of every fault mean in numbers, and which other kinds are true beside it.

Written before any detector was run on a fault. 1 and 2 are what anyone sees who glances at the curve or at the numbers,
3 and 4 what an experienced person finds who looks for it, 5 and 6 what is hardly above the noise or hardly matters.

Where visibility depends on the noise of the run, a size is a factor *and* a multiple of that run's own noise (on the
logarithm, see `effects.log_noise`): whichever is larger is planted. The truth of a run holds the size that was
measured after planting, not the one that was aimed at. `accepted` are other kinds that are true where the fault is:
each with the reason why, and no kind merely because it is near.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LADDERS", "Ladder"]


@dataclass(frozen=True)
class Ladder:
    """Sizes of one fault from obvious to faint, in `unit`.

    `noise` is what the size must be at least in multiples of the run's noise, where that counts. `accepted` maps a kind
    to the reason why it is true beside this fault.
    """

    unit: str
    sizes: tuple[float, float, float, float, float, float]
    noise: tuple[float, float, float, float, float, float] | None = None
    accepted: Mapping[str, str] = field(default_factory=dict)


_BAD_BATCH = {
    "exploding-gradient": "the gradient norm of a batch that damages the weights is as far out as its loss",
    "outlier": "other metrics of the same rows (accuracy, gradient norm) are out by the same cause",
}
_STUCK = {
    "plateau": "steps that teach nothing leave the loss flat",
    "update-ratio": "the steps do not move the weights",
}
_SHARES = (0.9, 0.8, 0.7, 0.55, 0.4, 0.25)

#: `kind` or `kind:variant` -> its ladder; a variant without its own has that of its kind.
LADDERS: dict[str, Ladder] = {
    "loss-spike": Ladder(
        "times the level of the 15 rows before", (4.0, 2.5, 1.8, 1.4, 1.2, 1.08), (40, 20, 12, 8, 5, 3), _BAD_BATCH
    ),
    "loss-spike:never": Ladder(
        "times the level of the 15 rows before",
        (4.0, 2.5, 1.8, 1.4, 1.2, 1.08),
        (40, 20, 12, 8, 5, 3),
        _BAD_BATCH
        | {
            "level-shift": "a spike that never recovers is a shift of the level",
            "divergence": "the loss climbed away and did not come back",
            "plateau": "from the spike on the loss does not improve any more",
        },
    ),
    "divergence": Ladder(
        "times the level before the onset, at the end of the run",
        (20.0, 8.0, 4.0, 2.5, 1.6, 1.25),
        (40, 20, 12, 8, 5, 3),
        {
            "loss-spike": "the first leap of a divergence is one, and it never recovers",
            "level-shift": "the loss ends on another level",
            "exploding-gradient": "gradients grow with a loss that runs away",
            "non-finite": "a loss that runs away overflows",
            "variance-shift": "steps that are too large make the loss noisier",
            "lr-schedule": "the learning rate that causes it leaves its plan, where a plan was stated",
            "update-ratio": "the steps are too large for the weights",
        },
    ),
    "non-finite": Ladder("rows that are NaN or infinite", (0.5, 20, 5, 1, 3, 1)),
    "plateau": Ladder(
        "share of the run in which nothing is learned",
        _SHARES,
        None,
        {
            "lr-schedule": "the learning rate that stands still at nearly nothing is not the stated one",
            "update-ratio": "the steps do not move the weights",
            "frozen-layer": "where no layer moves any more, all are frozen",
        },
    ),
    "level-shift": Ladder(
        "times the level before",
        (2.5, 1.8, 1.5, 1.3, 1.15, 1.07),
        (15, 10, 6, 4, 2.5, 1.5),
        {
            "loss-spike": "its kind `never recovers` is the same picture",
            "train-eval-gap": "the train data became harder and the held-out data did not",
            "suspiciously-good": "the same: eval now is far better than train",
        },
    ),
    "variance-shift": Ladder(
        "times the noise before (batch of 256 down to 4, 8, 16, 32, 64, 128)", (8.0, 5.66, 4.0, 2.83, 2.0, 1.41)
    ),
    "oscillation": Ladder(
        "amplitude of the swing over the standard deviation of the rest", (6.0, 4.0, 2.5, 1.6, 1.0, 0.5)
    ),
    "outlier": Ladder("times its neighbours (or one over it)", (10.0, 5.0, 3.0, 2.0, 1.5, 1.2), (60, 30, 15, 10, 6, 4)),
    "exploding-gradient": Ladder(
        "times the gradient norm before the onset, at its largest",
        (1e6, 1e4, 1e3, 1e2, 30.0, 8.0),
        None,
        {
            "clipping": "a norm far above the limit is clipped at every step",
            "non-finite": "a gradient that explodes overflows",
            "level-shift": "the gradient norm stays on its new level",
            "outlier": "a gradient norm that leaves its neighbours",
        },
    ),
    "vanishing-gradient": Ladder(
        "gradient norm of the first layer over that of the last",
        (1e-7, 1e-6, 1e-5, 1e-4, 3e-3, 2e-2),
        None,
        {**_STUCK, "frozen-layer": "layers without a gradient do not move"},
    ),
    "dead-units": Ladder(
        "share of hidden units that never respond",
        (0.95, 0.8, 0.6, 0.4, 0.25, 0.12),
        None,
        {
            "plateau": "a network of dead units cannot learn",
            "loss-spike": "the loss leaps as units die",
            "level-shift": "and stays higher",
        },
    ),
    "frozen-layer": Ladder(
        "share of the layers times share of the run in which they stand still",
        (0.75, 0.5, 0.25, 0.15, 0.08, 0.05),
        None,
        {"update-ratio": "an update of zero is far below the usual", "plateau": "what stands still does not improve"},
    ),
    "clipping": Ladder(
        "median gradient norm over the limit of the clipping",
        (1000.0, 100.0, 30.0, 10.0, 4.0, 2.0),
        None,
        {"plateau": "steps that are a thousandth of what they should be teach hardly anything (SGD)"},
    ),
    "amp-collapse": Ladder(
        "loss scale at the end (from 65,536)",
        (2.0**-10, 2.0**-4, 1.0, 16.0, 256.0, 2048.0),
        None,
        {
            "non-finite": "the gradient norm of an overflow is infinite",
            "plateau": "skipped steps teach nothing",
        },
    ),
    "lr-schedule:warmup-missing": Ladder(
        "share of the run that the warm-up was meant to last",
        (0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
        None,
        {"loss-spike": "a full rate on fresh weights throws the loss up", "exploding-gradient": "and the gradients"},
    ),
    "lr-schedule:too-often": Ladder(
        "steps of the scheduler for one of the optimiser",
        (4.0, 3.0, 2.0, 1.5, 1.2, 1.1),
        None,
        {"plateau": "the rate is at its end long before the run is"},
    ),
    "lr-schedule:per-epoch": Ladder(
        "steps of the optimiser for one of the scheduler",
        (100.0, 50.0, 20.0, 10.0, 4.0, 2.0),
        None,
        {"plateau": "a rate that stays in its warm-up teaches hardly anything"},
    ),
    "lr-schedule:wrong-peak": Ladder(
        "times the stated peak (or one over it)",
        (10.0, 5.0, 3.0, 2.0, 1.3, 1.1),
        None,
        {
            "divergence": "a rate of several times the right one may make the loss diverge",
            "loss-spike": "or make the loss leap",
            "plateau": "a tenth of the right rate teaches slowly",
        },
    ),
    "lr-schedule:never-decays": Ladder(
        "stated rate at the end over the peak, which it keeps", (0.01, 0.05, 0.2, 0.5, 0.7, 0.85)
    ),
    "lr-schedule:wrong-period": Ladder("times the stated period of restarts", (3.0, 2.0, 1.5, 1.25, 1.1, 1.05)),
    "overfitting": Ladder(
        "eval loss at the end over its smoothed minimum",
        (3.0, 2.0, 1.5, 1.25, 1.12, 1.05),
        None,
        {"train-eval-gap": "eval lies above train, by as much and more"},
    ),
    "train-eval-gap": Ladder(
        "eval loss over train loss, last fifth of the run",
        (5.0, 3.0, 2.0, 1.6, 1.3, 1.15),
    ),
    "train-eval-scale-mismatch": Ladder(
        "times the train loss that is logged (sum over accumulated batches)",
        (32.0, 16.0, 8.0, 4.0, 3.0, 2.0),
        None,
        {
            "train-eval-gap": "train and eval do lie apart",
            "suspiciously-good": "eval reads far better than train",
        },
    ),
    "suspiciously-good": Ladder(
        "eval loss over what it would be without the leak",
        (0.01, 0.05, 0.1, 0.2, 0.4, 0.6),
        None,
        {
            "train-eval-gap": "train and eval do lie apart",
            "train-eval-scale-mismatch": "a share of answers that are given away makes eval a constant share of what "
            "it was, from the untrained model on: a log cannot tell that from a loss that is divided",
        },
    ),
    "loss-sum-mismatch": Ladder("share of the total that no component explains", (0.5, 0.2, 0.1, 0.05, 0.02, 0.005)),
    "loss-display-mismatch": Ladder("displayed loss over the total", (3.0, 1.5, 1.2, 1.1, 1.03, 1.01)),
    "weight-not-applied": Ladder(
        "applied weight over the stated one, of one component",
        (5.0, 2.0, 1.5, 1.2, 1.05, 1.02),
        None,
        {"curriculum-off-schedule": "the weight that takes effect is not the planned one"},
    ),
    "inactive-component": Ladder(
        "share of the rows with weight in which the component is exactly 0", (1.0, 1.0, 1.0, 0.8, 0.4, 0.15)
    ),
    "curriculum-off-schedule:late": Ladder(
        "share of the run by which a phase begins late (or early)", (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    ),
    "curriculum-off-schedule:weight": Ladder("observed weight over the planned one", (5.0, 2.0, 1.5, 1.2, 1.05, 1.02)),
    "curriculum-bypass": Ladder(
        "share of the total that enters although its weight is 0",
        (0.5, 0.25, 0.1, 0.05, 0.02, 0.005),
        None,
        {"loss-sum-mismatch": "the weighted components do not add up to the total"},
    ),
    "missing-steps": Ladder("share of the rows, in one hole (2 rows; 1 row)", (0.3, 0.1, 0.05, 0.02, 2, 1)),
    "step-regression": Ladder("share of the run by which the step goes back (3 rows; 1 row)",
                              (0.5, 0.2, 0.1, 0.05, 3, 1), None,
                              {"unfinished-run": "a counter that was set back does not reach the stated steps"}),
    "clock-skew": Ladder("seconds that the clock goes back", (86400.0, 7200.0, 600.0, 120.0, 20.0, 5.0)),
    "stall": Ladder(
        "seconds without a record", (43200.0, 14400.0, 3600.0, 1200.0, 300.0, 60.0), (2000, 500, 150, 60, 20, 8)
    ),
    "truncated-stream": Ladder(
        "share of the file that is left, cut inside a record",
        (0.4, 0.6, 0.75, 0.85, 0.93, 0.98),
        None,
        {"unfinished-run": "the log ends before the step that was stated"},
    ),
    "unfinished-run": Ladder("share of the stated steps that was reached", (0.2, 0.4, 0.6, 0.8, 0.9, 0.97), None,
                             {"truncated-stream": "a process that is killed writes no end record (event stream)"}),
    "repeated-data": Ladder("rows whose data was fed before", (400.0, 300.0, 200.0, 120.0, 64.0, 32.0)),
    "stale-values": Ladder("rows that carry each evaluation on", (50.0, 25.0, 10.0, 5.0, 3.0, 2.0)),
    "hidden-non-finite": Ladder(
        "rows whose loss was not finite (a share below 1)",
        (0.6, 0.3, 0.1, 5, 2, 1),
        None,
        {
            "non-finite": "the gradient norm of those rows is logged as NaN",
            "loss-spike": "a loss that reads exactly 0 for a row is out of place",
            "level-shift": "as is one that reads 0 to the end",
            "outlier": "a row that reads exactly 0 is out of place",
        },
    ),
    "source-disagreement": Ladder(
        "relative difference of the loss in the other log", (0.5, 0.2, 0.1, 0.05, 0.01, 0.002)
    ),
    "rank-divergence": Ladder(
        "relative difference of the parameter norm of one rank at the end", (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
    ),
    "rank-missing": Ladder("share of the ranks' records that is missing", (0.5, 0.25, 0.18, 0.1, 0.04, 0.012)),
    "memory-growth": Ladder(
        "times the memory after warm-up, at the end of the run",
        (4.0, 2.0, 1.5, 1.25, 1.1, 1.04),
        None,
        {"memory-overflow": "memory that grows meets its limit, where one is known"},
    ),
    "memory-overflow": Ladder(
        "largest use over the limit (1: it ran out)",
        (1.0, 0.99, 0.98, 0.96, 0.93, 0.88),
        None,
        {"memory-growth": "the use climbs until it is there"},
    ),
    "throughput-drop": Ladder("times the speed before", (0.1, 0.25, 0.5, 0.7, 0.85, 0.93)),
    "mode-collapse": Ladder(
        "diversity at the end over that before the onset",
        (0.02, 0.1, 0.25, 0.5, 0.75, 0.9),
        None,
        {
            "discriminator-dominance": "samples of few kinds are told from real ones easily",
            "generator-dominance": "a generator that rushes ahead is the usual reason",
        },
    ),
    "discriminator-dominance": Ladder(
        "D's loss over its equilibrium, last fifth of the run",
        (0.01, 0.05, 0.15, 0.3, 0.5, 0.7),
        None,
        {"mode-collapse": "a generator without a usable gradient loses its diversity",
         "vanishing-gradient": "the generator's gradient vanishes as the discriminator saturates"},
    ),
    "generator-dominance": Ladder(
        "D(fake) - D(real) over the distance of the two targets, last fifth",
        (0.5, 0.3, 0.2, 0.12, 0.06, 0.03),
        None,
        {"mode-collapse": "a generator that need not follow the data leaves its modes"},
    ),
    "missing-input": Ladder("share of the recorded batches without a required input", (1.0, 1.0, 0.9, 0.6, 0.3, 0.1)),
    "forbidden-input": Ladder("share of the recorded batches with a forbidden input", (1.0, 0.5, 0.2, 0.05, 0.02, 0.0)),
    "device-mismatch": Ladder("share of the recorded batches on two devices", (1.0, 0.5, 0.2, 0.05, 0.02, 0.0)),
    "disabled-conditioning": Ladder(
        "share of the recorded batches with the conditioning switched off", (1.0, 0.5, 0.2, 0.05, 0.02, 0.0)
    ),
}  # fmt: skip


def ladder_of(kind: str, variant: str = "") -> Ladder:
    """The ladder of a variant, or else of its kind.

    >>> ladder_of("plateau", "stuck").sizes[0]
    0.9
    """
    return LADDERS.get(f"{kind}:{variant}") or LADDERS[kind]
