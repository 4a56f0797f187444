"""What is worth measuring, by the definitions, and what is pointless never leaves a query without its best plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.exploration.improvement import LIKELY, Outlook, chance, incumbents, keeps, pointless, savings

SAVING = 0.05
seeds = st.integers(0, 100_000)


def _random(seed: int) -> Outlook:
    rng = np.random.default_rng(seed)
    count, situations = int(rng.integers(1, 8)), int(rng.integers(1, 4))
    exact = rng.choice([1.0, 1.02, 1.5, 2.0, np.inf], (count, situations))
    measured = rng.random(count) < 0.6
    sure = measured & (rng.random(count) < 0.5)
    return Outlook(
        keeps=np.where(sure, 1.0, rng.random(count)),
        sure=sure,
        measured=measured,
        usd_per_h=exact * rng.choice([1.0, 0.9], exact.shape),
        sure_usd_per_h=np.where(sure[:, None], exact, np.inf),
    )


@given(seeds)
def test_savings_are_against_the_best_that_is_sure_or_likely(seed: int) -> None:
    outlook = _random(seed)
    best, found = incumbents(outlook), savings(outlook)
    for k, saved in enumerate(found):
        shares = [0.0]
        for s in range(len(best)):
            rivals = [outlook.sure_usd_per_h[j, s] for j in np.flatnonzero(outlook.sure)]
            rivals += [
                outlook.usd_per_h[j, s]
                for j in np.flatnonzero(outlook.measured & ~outlook.sure & (outlook.keeps >= LIKELY))
            ]
            rival = min(rivals, default=np.inf)
            assert best[s] == rival
            if not outlook.measured[k] and np.isfinite(outlook.usd_per_h[k, s]):
                shares.append(1.0 if np.isinf(rival) else 1.0 - outlook.usd_per_h[k, s] / rival)
        assert saved == pytest.approx(max(shares))
    expected = [p if share > SAVING else 0.0 for p, share in zip(outlook.keeps, found, strict=True)]
    assert chance(outlook, SAVING).tolist() == expected


@given(seeds)
def test_what_is_pointless_saves_nothing_worth_speaking_of(seed: int) -> None:
    outlook = _random(seed)
    idle = pointless(outlook, SAVING)
    best = outlook.sure_usd_per_h.min(axis=0, initial=np.inf)
    left = np.where(idle[:, None], np.inf, outlook.sure_usd_per_h).min(axis=0, initial=np.inf)
    np.testing.assert_array_equal(left, best)  # the best sure plan of every situation is left
    for k in np.flatnonzero(idle):
        finite = np.isfinite(outlook.usd_per_h[k])
        assert (outlook.usd_per_h[k, finite] >= (1 - SAVING) * best[finite]).all()


def test_without_any_sure_plan_only_what_has_no_plan_is_pointless() -> None:
    nobody = np.zeros(2, dtype=bool)
    costs = np.array([[1.0, np.inf], [np.inf, np.inf]])
    outlook = Outlook(np.ones(2), nobody, np.ones(2, dtype=bool), costs, np.full((2, 2), np.inf))
    assert pointless(outlook, SAVING).tolist() == [False, True]


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(-1, 1))
def test_the_chance_to_keep_a_threshold_is_that_of_students_distribution(
    mean: float, deviation: float, threshold: float
) -> None:
    up = keeps(np.array([mean]), np.array([deviation]), threshold, at_least=True)[0]
    down = keeps(np.array([mean]), np.array([deviation]), threshold, at_least=False)[0]
    # The density of five degrees of freedom and a variance of 1, summed up.
    x = np.linspace(-60.0, (mean - threshold) / deviation, 200_001)
    density = 8 / (3 * np.pi * np.sqrt(5)) * np.sqrt(5 / 3) * (1 + x**2 / 3) ** -3
    expected = float(((density[1:] + density[:-1]) / 2 * np.diff(x)).sum())
    assert up == pytest.approx(expected, abs=1e-5)
    assert up + down == pytest.approx(1.0)
