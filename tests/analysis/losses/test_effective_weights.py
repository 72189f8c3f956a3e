from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from analysis.accounting.effective_weights import explain_residual, fit_weights, newey_west


def planted(seed: int, rows: int = 200, columns: int = 2, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = np.exp(rng.standard_normal((rows, columns)))
    return raw, raw @ np.linspace(0.5, 1.5, columns) + noise * rng.standard_normal(rows)


@pytest.mark.parametrize("rows", [30, 200, 1500])
@pytest.mark.parametrize("columns", [1, 3])
def test_weights_and_robust_errors_agree_with_statsmodels(rows: int, columns: int) -> None:
    raw, entered = planted(rows + columns, rows, columns)
    zero = np.zeros(rows)
    fit = fit_weights(raw, entered, np.zeros_like(raw), zero)
    lags = int(4 * (rows / 100) ** (2 / 9))
    model = sm.OLS(entered, raw)
    robust = model.fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True}, use_t=True)
    plain = model.fit()
    assert fit.weights == pytest.approx(plain.params, rel=1e-9)
    assert newey_west(raw, fit.left) == pytest.approx(robust.bse, rel=1e-9)
    wider = np.where((plain.bse > robust.bse)[:, None], plain.conf_int(), robust.conf_int())
    assert np.column_stack([fit.low, fit.high]) == pytest.approx(wider, rel=1e-8)


@pytest.mark.parametrize(("decimals", "rows"), [(4, 40), (2, 40), (4, 200)])
def test_intervals_from_printed_numbers_hold_the_truth_nine_times_in_ten(decimals: int, rows: int) -> None:
    held = 0
    for seed in range(200):
        raw = np.abs(planted(seed, rows, 1)[0]) * 5
        entered = np.round(raw[:, 0] * 0.3217, decimals)
        half = 0.5 * 10.0**-decimals
        fit = fit_weights(np.round(raw, decimals), entered, np.full_like(raw, half), np.full(rows, half))
        held += bool(fit.low[0] <= 0.3217 <= fit.high[0])
    assert held >= 180, f"{held} of 200"


@given(
    weight=st.floats(1e-4, 10), raw=st.lists(st.floats(0.5, 500), min_size=1, max_size=8), decimals=st.integers(2, 6)
)
def test_few_printed_rows_are_bounded_for_certain(weight: float, raw: list[float], decimals: int) -> None:
    exact = np.array(raw)
    half = 0.5 * 10.0**-decimals * (1 + 1e-9)
    fit = fit_weights(
        np.round(exact, decimals)[:, None],
        np.round(exact * weight, decimals),
        np.full((len(raw), 1), half),
        np.full(len(raw), half),
    )
    # the bound is first order in the printing error of raw
    slack = 2 * (half / exact.min()) ** 2 * max(weight, 1) * len(raw) ** 0.5 + 1e-12
    assert fit.low[0] - slack <= weight <= fit.high[0] + slack


def test_one_row_gives_the_quotient_and_what_the_digits_allow() -> None:
    fit = fit_weights(np.array([[8.9567]]), np.array([0.1434]), np.array([[5e-5]]), np.array([5e-5]))
    assert fit.weights[0] == pytest.approx(0.1434 / 8.9567)
    assert fit.low[0] == pytest.approx(0.14335 / 8.95675, rel=1e-6)
    assert fit.high[0] == pytest.approx(0.14345 / 8.95665, rel=1e-6)


def constants(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(values) for name, values in raw.items()}


def test_the_true_components_are_chosen_among_others() -> None:
    for seed in range(30):
        raw = dict(zip("abcdef", planted(seed, 60, 6)[0].T, strict=True))
        residual = 0.01 * raw["b"] + 0.2 * raw["e"]
        found = explain_residual(residual, np.full(60, 1e-7), raw, constants(raw))
        assert found is not None and set(found) == {"b", "e"}
        assert found["b"][0] == pytest.approx(0.01, rel=1e-4) and found["e"][0] == pytest.approx(0.2, rel=1e-4)


def test_noise_and_constants_are_explained_by_no_component() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        raw = dict(zip("abc", planted(seed, 60, 3)[0].T, strict=True))
        assert explain_residual(rng.standard_normal(60), np.full(60, 1e-3), raw, constants(raw)) is None
        assert explain_residual(np.full(60, 0.25), np.full(60, 1e-3), raw, constants(raw)) is None


def test_a_raw_value_that_does_not_move_proves_nothing() -> None:
    raw = {"still": np.full(60, 3.0)}
    assert explain_residual(np.full(60, 0.3), np.full(60, 1e-6), raw, constants(raw)) is None


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_too_few_rows_explain_nothing(rows: int) -> None:
    raw = {"a": np.arange(1.0, rows + 1)}
    assert explain_residual(0.1 * raw["a"], np.full(rows, 1e-6), raw, constants(raw)) is None
