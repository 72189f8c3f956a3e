"""How often healthy runs are flagged and planted spikes found: `python -m benchmarks.detection`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from analysis.anomalies import anomalies
from analysis.anomaly.rolling import rolling_moments
from benchmarks.training_curves import CURVES, NOISES, curve, noise, run_of

PAGE = Path(__file__).parents[1] / "docs" / "detection.md"
SIGMAS = (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)
#: Runs a cell, by length: long runs cost more and say more.
LENGTHS = {60: 70, 300: 70, 2000: 35, 100_000: 7}
#: What is planted: nothing, or a factor on a number of rows.
FAULTS = {"healthy": (1.0, 0), "x2, 1 step": (2.0, 1), "x1.3, 1 step": (1.3, 1), "x2, 20 steps": (2.0, 20)}
Rule = Callable[[np.ndarray], np.ndarray]


def ours(loss: np.ndarray) -> np.ndarray:
    """Rows of findings of warning or worse."""
    flagged = np.zeros(len(loss), bool)
    for finding in anomalies(run_of({"loss": loss})).findings:
        if finding.severity != "info":
            flagged[finding.first_step : finding.last_step + 1] = True
    return flagged


def global_z(loss: np.ndarray) -> np.ndarray:
    return (loss - loss.mean()) / loss.std() > 3


def global_iqr(loss: np.ndarray) -> np.ndarray:
    low, high = np.quantile(loss, [0.25, 0.75])
    return loss > high + 1.5 * (high - low)


def rolling_z(loss: np.ndarray) -> np.ndarray:
    """Each row against the 30 before it."""
    mean, std = rolling_moments(loss, 30, edge="causal", least=10)
    flagged = np.zeros(len(loss), bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        flagged[1:] = (loss[1:] - mean[:-1]) / std[:-1] > 3
    return flagged


RULES: dict[str, Rule] = {
    "aftertrain": ours,
    "global z > 3": global_z,
    "global IQR x 1.5": global_iqr,
    "rolling z > 3, 30 rows": rolling_z,
}


def losses(n: int, sigma: float, runs: int, factor: float, rows: int) -> Iterator[tuple[np.ndarray, int]]:
    """Losses over all curves and noises in turn, with the row from which a fault is planted."""
    pairs = itertools.cycle(itertools.product(CURVES, NOISES))
    for seed, (kind, sort) in zip(range(runs), pairs, strict=False):
        rng = np.random.default_rng([n, seed, int(1000 * sigma)])
        loss = curve(kind, n) * noise(sort, sigma, n, rng)
        place = int(rng.integers(n // 5, n - 25))
        loss[place : place + rows] *= factor
        yield loss, place


def rate(rule: Rule, n: int, sigma: float, runs: int, factor: float, rows: int) -> float:
    """Share of runs in which the rule flags the fault, or anything at all where there is none."""
    hit = 0
    for loss, place in losses(n, sigma, runs, factor, rows):
        flagged = rule(loss)
        hit += bool(flagged[place : place + rows].any() if rows else flagged.any())
    return hit / runs


def page(scale: float) -> Iterator[str]:
    yield (
        "# Detection, measured\n\nPer cent of runs. `healthy`: runs without a fault that are flagged (ours: a finding "
        "of warning or worse of any kind; the other rules: any row above). The other columns: runs in which the "
        "planted rows are flagged. Losses: "
        f"{', '.join(CURVES)}; noise of each level in turn {', '.join(NOISES)} (heavy: Student's t with 5 degrees on "
        "the log). Noise of 15 % and more hides a twofold step from any rule that stays silent on healthy runs: "
        "log 2 is then 4.6 of its spreads or less. `python -m benchmarks.detection --write` makes this page.\n"
    )
    for n, runs in LENGTHS.items():
        count = max(7, int(runs * scale))
        yield f"## {n:,} rows, {count} runs a cell\n"
        yield f"| rule | noise | {' | '.join(FAULTS)} |\n|---|---|{'---|' * len(FAULTS)}"
        for name, rule in RULES.items():
            for sigma in SIGMAS:
                cells = [f"{100 * rate(rule, n, sigma, count, *fault):.0f}" for fault in FAULTS.values()]
                yield f"| {name} | {100 * sigma:.0f} % | {' | '.join(cells)} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer runs a cell (default 1)")
    parser.add_argument("--write", action="store_true", help="write docs/detection.md")
    given = parser.parse_args()
    lines = []
    for line in page(given.scale):
        print(line, flush=True)
        lines.append(line)
    if given.write:
        PAGE.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
