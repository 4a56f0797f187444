"""Service times are predicted from similar prefixes, with an uncertainty that fits."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.search.service_time_prediction import OperatorTimes, Times

CODES = np.array([[a, b, c] for a in range(5) for b in range(4) for c in range(5)])
OWN = np.array([True, False, False])


def _logs(rng: np.random.Generator, rest: float) -> np.ndarray:
    """Return logarithms that depend on the first two knobs, not on the third."""
    return (
        rng.normal(0, 0.5, 5)[CODES[:, 0]] + rng.normal(0, 0.3, 4)[CODES[:, 1]] + rng.normal(0, rest, len(CODES)) - 3.0
    )


def _learnt(measured: np.ndarray, values: np.ndarray) -> Times:
    """Predict repeatedly, each time from the variances of the previous prediction."""
    model, found = OperatorTimes(CODES, OWN), None
    for _ in range(20):
        found = model.predict(measured, values, earlier=found)
    assert found is not None
    return found


def test_what_was_measured_is_known_and_the_rest_is_near() -> None:
    rng = np.random.default_rng(0)
    logs = _logs(rng, 0.01)
    measured = rng.permutation(len(CODES))[:25]
    found = OperatorTimes(CODES, OWN).predict(measured, np.exp(logs[measured]))
    np.testing.assert_allclose(found.mean[measured], logs[measured])
    assert (found.deviation[measured] == 0).all()
    others = np.setdiff1d(np.arange(len(CODES)), measured)
    assert (found.deviation[others] > 0).all()
    assert np.abs(found.mean - logs)[others].mean() < 0.06


def test_a_dead_knob_is_found_dead() -> None:
    rng = np.random.default_rng(1)
    measured = rng.permutation(len(CODES))[:40]
    found = _learnt(measured, np.exp(_logs(rng, 0.02)[measured]))
    first, second, third = np.sqrt(found.variances[:3])
    assert third < second / 2
    assert third < first / 3


@pytest.mark.parametrize("rest", [0.05, 0.3])
def test_errors_are_hardly_greater_than_said(rest: float) -> None:
    scaled = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        logs = _logs(rng, rest)
        measured = rng.permutation(len(CODES))[:20]
        found = _learnt(measured, np.exp(logs[measured]))
        others = np.setdiff1d(np.arange(len(CODES)), measured)
        scaled.append(((found.mean - logs) / np.where(found.deviation > 0, found.deviation, 1.0))[others])
    assert 0.1 < float(np.mean(np.square(scaled))) < 1.5


def test_a_slow_first_run_misleads_less_than_it_would_on_average() -> None:
    logs = np.full(len(CODES), -3.0)
    measured = np.arange(0, len(CODES), 9)
    slow, fast = np.exp(logs[measured]), np.exp(logs[measured])
    slow[0] *= 5.0
    fast[0] /= 5.0
    others = np.setdiff1d(np.arange(len(CODES)), measured)
    too_slow = (_learnt(measured, slow).mean + 3.0)[others].mean()
    assert 0 <= too_slow < np.log(5.0) / len(measured)
    assert too_slow < -(_learnt(measured, fast).mean + 3.0)[others].mean()


def test_another_place_tells_what_is_alike_there() -> None:
    rng = np.random.default_rng(2)
    logs = _logs(rng, 0.02)
    model = OperatorTimes(CODES, OWN)
    elsewhere = model.smoothed(np.exp(logs + 0.7))
    assert np.abs(elsewhere - logs - 0.7).mean() < 0.05
    measured = np.array([0, 50])
    with_prior = model.predict(measured, np.exp(logs[measured]), elsewhere)
    without = model.predict(measured, np.exp(logs[measured]))
    assert np.abs(with_prior.mean - logs).mean() < 0.1 < np.abs(without.mean - logs).mean()
    again = model.predict(measured, np.exp(logs[measured]), elsewhere, with_prior)
    assert again.mean == pytest.approx(with_prior.mean, abs=0.1)


def test_without_knobs_everything_takes_the_same() -> None:
    found = OperatorTimes(np.zeros((1, 0), dtype=np.int64), np.zeros(0, dtype=bool)).predict(
        np.array([0]), np.array([2.0])
    )
    assert found.mean == pytest.approx(np.log([2.0]))
