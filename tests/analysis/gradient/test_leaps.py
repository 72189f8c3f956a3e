"""A norm that leaps for good is found at its step; learning that sets in, noise and ways back are not taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.gradient.leaps import lasting_leap
from analysis.gradients import gradients
from tests.analysis.gradient.build import run_of, told

N = 400
RNG = np.random.default_rng(3)
NOISE = np.exp(0.2 * RNG.normal(size=N))
X = np.arange(N) / N
FALLING = (2 * np.exp(-4 * X) + 0.5) * np.exp(0.03 * RNG.normal(size=N))
FLAT = 2.3 * np.exp(0.02 * RNG.normal(size=N))


def leap(times: float, rows: int = 1, at: int = 250) -> np.ndarray:
    """A norm that grows within some rows and stays."""
    return NOISE * times ** np.clip((np.arange(N) - at + 1) / rows, 0.0, 1.0)


@pytest.mark.parametrize("loss", [FALLING, FLAT], ids=["falls", "stands"])
@pytest.mark.parametrize(("times", "rows"), [(1e6, 1), (1e4, 15), (120.0, 1), (120.0, 15)])
def test_a_norm_that_leaps_for_good_is_a_warning_though_the_loss_goes_on_as_before(
    loss: np.ndarray, times: float, rows: int
) -> None:
    (finding,) = gradients(run_of({"loss": loss, "grad_norm": leap(times, rows)})).findings
    assert (finding.kind, finding.severity) == ("exploding-gradient", "warning")
    assert abs((finding.first_step or 0) - 250) <= 4, "where it sets out, not where it is far up"
    assert finding.evidence["times"] == pytest.approx(times, rel=0.6)


#: Nothing is learned, and then at once: a plateau, and the loss falls as the gradient grows.
ESCAPES = np.where(np.arange(N) < 250, 2.3, 2.3 * np.exp(-(np.arange(N) - 249) / 12) + 0.1) * (FLAT / 2.3)


@pytest.mark.parametrize(
    ("loss", "norm", "expected"),
    [
        (ESCAPES, leap(1e3, 15), "info"),  # the learning sets in
        (FALLING, leap(1e3, 100), "info"),  # bit by bit
        (FALLING, np.where(np.arange(N) < 30, 1e3, 1.0) * leap(1e3), None),  # back to where it began
        (FALLING, np.where(np.arange(N) < 300, leap(1e4), NOISE), "info"),  # and came back
        (FALLING, leap(20.0), None),
        (FALLING, leap(1e3, at=5), "info"),  # out of an initialisation at next to nothing
    ],
)
def test_what_resembles_a_leap_for_good_is_no_warning(loss: np.ndarray, norm: np.ndarray, expected: str | None) -> None:
    found = gradients(run_of({"loss": loss, "grad_norm": norm})).findings
    assert [f.severity for f in found] == ([] if expected is None else [expected])


def test_leaps_of_noise_are_none_in_logs_of_any_length() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([60, 300, 3000, 20000]))
        walk = rng.normal(size=n) * rng.choice([0.3, 1.0, 2.0]) + 0.02 * rng.normal(size=n).cumsum()
        assert lasting_leap(walk / np.log(10), 1.5) is None, seed


def test_a_layer_whose_gradient_had_vanished_and_comes_back_has_not_exploded() -> None:
    wakes = {f"grad_norm/{i}": NOISE * np.minimum(10.0 ** (i - 6 + 8 * X), 0.3) for i in range(4)}
    columns = {"loss": FLAT, "grad_norm": NOISE, **wakes}
    assert told(gradients(run_of(columns))) == []
    columns["grad_norm/0"] = 1e-4 * leap(1e5)
    columns["grad_norm"] = np.hypot(NOISE, columns["grad_norm/0"])
    (finding,) = [f for f in gradients(run_of(columns)).findings if f.kind == "exploding-gradient"]
    assert (finding.severity, finding.evidence["layer"]) == ("warning", "0")
