"""Counted: planted mistakes are found and named rightly, and schedulers that did as planned are left in peace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytest

from analysis.learning_rate import learning_rate
from tests.analysis import planted_rates
from tests.analysis.planted_rates import FAMILIES, FAULTS, HEALTHY, MANNERS, healthy

#: Steps of a run, and every how many of them is logged.
SIZES = ((60, 1), (1500, 10))


@pytest.fixture(scope="module", autouse=True)
def _made_once() -> Iterator[None]:
    """A real scheduler takes longer to step than its rates to judge: the same one is stepped once."""
    plain = planted_rates.rates
    kept = lru_cache(maxsize=None)(lambda make, n: plain(make, n))

    def rates(make, n, **how) -> np.ndarray:
        return plain(make, n, **how) if how else kept(make, n).copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_rates, "rates", rates)
        yield


def test_planted_mistakes_are_found_and_named(record_property):
    found: Counter[str] = Counter()
    named: Counter[str] = Counter()
    of: Counter[str] = Counter()
    missed = []
    for family in FAMILIES:
        for fault in FAULTS:
            for n, every in SIZES:
                planted = fault(family, n, every)
                if planted is None:
                    continue
                told = [f for f in learning_rate(planted.run).findings if f.severity != "info"]
                right = bool(told) and told[0].evidence["explanation"] in planted.names
                of[fault.__name__] += 1
                found[fault.__name__] += bool(told)
                named[fault.__name__] += right
                if not right:
                    missed.append((family.name, fault.__name__, n, [f.message for f in told]))
    record_property("found and named", {name: (found[name], named[name], of[name]) for name in of})
    assert sum(of.values()) > 200 and set(of) == {fault.__name__ for fault in FAULTS}
    assert sum(found.values()) >= 0.99 * sum(of.values()), missed
    assert sum(named.values()) >= 0.97 * sum(of.values()), missed
    assert all(named[name] >= 0.75 * of[name] for name in of), missed


@pytest.mark.parametrize("manner", MANNERS)
def test_schedulers_that_did_as_planned_are_left_in_peace(manner: str):
    every = MANNERS[manner][2]
    for place, family in enumerate(HEALTHY):
        for n in (4 * max(every, 10), 600):
            resumed = bool((place + (n == 600)) % 2)
            for with_plan in (True, False):
                result = learning_rate(healthy(family, n, manner, with_plan=with_plan, resumed=resumed))
                assert result.findings == (), (family.name, n, with_plan, resumed, result)
                assert not result.not_applicable and len(result.measures) == 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_schedule_is_recognised_without_its_plan(family: planted_rates.Family):
    names = {"restarts": "cosine_with_restarts"}
    for n, every in ((60, 1), (400, 1), (1500, 10)):
        row = learning_rate(planted_rates.run_of(planted_rates.rates(family.make, n), None, every=every)).frame
        seen = row.row(0, named=True)
        assert seen["observed"] == names.get(family.name, family.name), (n, every, seen)
        assert seen["peak"] == pytest.approx(planted_rates.PEAK, rel=1e-4)
        if family.warm:
            assert seen["warmup_steps"] == pytest.approx(planted_rates.tenth(n), abs=1)
            assert seen["total_steps"] == pytest.approx(n, rel=0.01)
        if family.name == "multistep":
            assert seen["gamma"] == pytest.approx(0.2)
            np.testing.assert_allclose(seen["milestones"], [n // 3, n * 2 // 3], atol=every)
        if family.name == "restarts":
            assert seen["restarts"] == 4
