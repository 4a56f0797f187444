"""How long an increment is expected to take."""

from __future__ import annotations

import pytest
from sample_application import Application

from circinus.profiling.measurement.runner import Measurement, OperatorRuns
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator

OPERATORS = ("prepare", "left", "right", "joined")


def _measurement(seconds: float, items: int, ran_s: float) -> Measurement:
    runs = {name: OperatorRuns((seconds,) * items, (1,) * items) for name in OPERATORS}
    return Measurement(runs, {}, ran_s, {}, ())


def test_nothing_is_known_at_first(application: Application) -> None:
    estimator = MeasurementTimeEstimator(application.addresses())
    assert estimator.increment_s(application.configuration(1, "low"), 0, 8) is None
    assert estimator.overhead == 1.0


def test_what_the_cache_holds_costs_nothing(application: Application) -> None:
    estimator = MeasurementTimeEstimator(application.addresses())
    low, high = application.configuration(1, "low"), application.configuration(1, "high")
    estimator.measured(low, 8, _measurement(0.5, 8, 16.0), 16.0)
    assert estimator.increment_s(low, 0, 8) == 0.0
    assert estimator.increment_s(low, 8, 10) == pytest.approx(2 * 4 * 0.5)
    # `prepare` and `right` ran for these 8 items; `left` and `joined` have not under this prefix.
    assert estimator.increment_s(high, 0, 8) == pytest.approx(8 * 2 * 0.5)
    assert estimator.increment_s(high, 0, 9) == pytest.approx(8 * 2 * 0.5 + 4 * 0.5)


def test_the_nearest_knowledge_counts(application: Application) -> None:
    estimator = MeasurementTimeEstimator(application.addresses())
    one, other = application.configuration(1, "low"), application.configuration(20, "high")
    estimator.add_service_times(one, {name: [1.0, 3.0] for name in OPERATORS})
    assert estimator.service_s("left", other) == 2.0  # another quality is better than nothing
    estimator.add_service_times(application.configuration(1, "high"), {"left": [7.0]})
    assert estimator.service_s("left", other) == 7.0  # the same quality under another prefix is better
    estimator.add_service_times(other, {"left": [9.0]})
    assert estimator.service_s("left", other) == 9.0


def test_loads_and_transport_are_in_the_ratio(application: Application) -> None:
    estimator = MeasurementTimeEstimator(application.addresses())
    configuration = application.configuration(1, "low")
    estimator.measured(configuration, 2, _measurement(0.5, 2, 4.0), 12.0)
    assert estimator.overhead == 3.0
    assert estimator.increment_s(configuration, 2, 4) == pytest.approx(2 * 4 * 0.5 * 3)
    estimator.add_elapsed(4.0, [], 4.0)
    assert estimator.overhead == 2.0
