"""Tests of the change detector: short delays, and false alarms within the guarantee."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from budget import seeds
from circinus.control.drift.detector import DOWN, UP, Detector, ScaledObservation

Values = Callable[[np.random.Generator], Iterator[float]]


def _alarms(values: Values, least: float, most: float, *, seed: int, count: int, threshold: float) -> int:
    """Return the number of alarms for values that each allow a stake of 1."""
    rng = np.random.default_rng(seed)
    source, detector, alarms = values(rng), Detector.initial(), 0
    for number in range(count):
        value = next(source)
        detector = detector.updated(ScaledObservation.within(value, least, most, value, 0.0), float(number), (0.5, 0.5))
        if detector.change(threshold) is not None:
            detector, alarms = Detector.initial(), alarms + 1
    return alarms


def _binary(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield float(rng.random() < 0.1)


def _narrow(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield float(np.clip(0.5 + 0.05 * rng.standard_normal(), 0, 1))


def _skewed(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield float(rng.beta(0.3, 2.7))


def _wandering(rng: np.random.Generator) -> Iterator[float]:
    """Return values whose mean wanders slowly within the bounds."""
    number = 0
    while True:
        number += 1
        mean = 0.4 if number // 100 % 2 else 0.6
        yield float(rng.random() < mean)


def _provoked(rng: np.random.Generator) -> Iterator[float]:
    """Return values whose mean is at its upper bound just after a bet was won, the worst dependence on the past."""
    last = 0.0
    while True:
        last = float(rng.random() < (0.1 if last else 0.05))
        yield last


@pytest.mark.parametrize(
    ("values", "least", "most"),
    [
        (_binary, 0.1, 0.1),
        (_narrow, 0.5, 0.5),
        (_skewed, 0.1, 0.1),
        (_wandering, 0.4, 0.6),
        (_provoked, 0.05, 0.1),
    ],
)
def test_false_alarms_are_no_more_than_the_stakes_over_the_threshold(values: Values, least: float, most: float) -> None:
    # 1,500 values allow 1,500 / 100 alarms on average over the runs.
    alarms = [_alarms(values, least, most, seed=seed, count=1500, threshold=100.0) for seed in seeds(40)]
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= 15.0 + 3 * error


def test_few_quiet_runs_alarm_at_all_at_a_threshold_as_in_use() -> None:
    alarms = [_alarms(_binary, 0.1, 0.1, seed=seed, count=500, threshold=50_000.0) for seed in seeds(60)]
    assert sum(alarms) <= 2  # at most a hundredth per run is guaranteed


@pytest.mark.parametrize(("mean", "side", "soon"), [(0.4, UP, 220), (0.05, DOWN, 330)])
def test_a_change_is_noticed_soon_with_when_it_was_and_to_what(mean: float, side: int, soon: int) -> None:
    """The optimal delay is about log(1000 / 0.01) divided by the divergence of the values from the bound."""
    delays, begins, means = [], [], []
    for seed in range(20):
        rng, detector = np.random.default_rng(seed), Detector.initial()
        for number in range(5000):
            value = float(rng.random() < (0.2 if number < 300 else mean))
            detector = detector.updated(
                ScaledObservation.within(value, 0.15, 0.25, value, 0.2), float(number), (0.01, 0.01)
            )
            change = detector.change(1000.0)
            if change is not None:
                assert change.side == side
                assert change.expected == pytest.approx(0.2)
                delays.append(number - 299)
                begins.append(change.since_s)
                means.append(change.mean)
                break
    assert len(delays) == 20
    assert 0 < np.mean(delays) < soon
    assert np.median(begins) == pytest.approx(300, abs=40)
    assert np.mean(means) == pytest.approx(mean, abs=0.1)


def test_what_was_owned_before_a_change_does_not_hold_it_up() -> None:
    """New bets start at all times, however long there was no drift."""
    delays = []
    for quiet in (100, 3000):
        rng, detector = np.random.default_rng(1), Detector.initial()
        number = 0
        while detector.change(1000.0) is None:
            value = float(rng.random() < (0.1 if number < quiet else 0.6))
            detector = detector.updated(
                ScaledObservation.within(value, 0.1, 0.1, value, 0.1), float(number), (0.01, 0.01)
            )
            number += 1
        delays.append(number - quiet)
    assert abs(delays[0] - delays[1]) < 30


def test_where_nothing_is_allowed_nothing_alarms_by_itself() -> None:
    detector = Detector.initial()
    for number in range(100):
        detector = detector.updated(ScaledObservation.within(0.0, 0.0, 0.0, 0.0, 0.0), float(number), (1.0, 0.0))
    assert detector.change(1000.0) is None
    detector = detector.updated(ScaledObservation.within(1.0, 0.0, 0.0, 1.0, 0.0), 100.0, (1.0, 0.0))
    assert detector.change(1000.0) is not None
