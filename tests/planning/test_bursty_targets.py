"""Utilization targets of bursty queries, and guarantees for bursts among other load."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.estimation.merged_load import ArrivalModel
from circinus.estimation.stage_latency import stations_at_target
from circinus.planning.search_space import utilization_targets
from circinus.specification import AnyArrivals, BurstyArrivals, PeriodicArrivals, PoissonArrivals, Query


def _query(arrivals: AnyArrivals, rate_per_s: float) -> Query:
    return Query(name="q", pipeline="p", source="s", rate=rate_per_s, arrivals=arrivals)


@pytest.mark.parametrize("arrivals", [PoissonArrivals(), PeriodicArrivals()])
def test_without_bursts_targets_are_those_of_the_settings(arrivals: AnyArrivals) -> None:
    assert utilization_targets(_query(arrivals, 5.0), (0.4, 0.7)) == (0.4, 0.7)


def test_bursts_may_be_given_as_much_room_as_others_have_all_the_time() -> None:
    bursty = _query(BurstyArrivals(peak=4.0, burst_s=10.0, every_s=60.0), 5.0)
    assert utilization_targets(bursty, (0.4, 0.7)) == (0.1, 0.17, 0.4, 0.7)


def _promised_s(arrivals: AnyArrivals, rate_per_s: float, seconds: float) -> float:
    """Return the 95th percentile of the time at a replica, with other load up to a utilization of 0.4."""
    coming = ArrivalModel.of(_query(arrivals, rate_per_s))
    traffic = coming.traffic(rate_per_s, seconds, 1.1 * seconds**2, 1.3 * seconds**3, first=True)
    (station,) = stations_at_target(traffic.offered_load, traffic, (1.0,), 0.0, 0.4)
    added_s, factor = station.response().at(-np.log1p(-np.array([0.95])))
    return float(added_s[0] + factor[0] * seconds)


def test_bursts_of_little_work_are_hardly_seen_and_bursts_of_much_are() -> None:
    bursty = BurstyArrivals(peak=4.0, burst_s=10.0, every_s=60.0)
    for rate_per_s, least, most in ((0.05, 1.0, 1.2), (3.5, 10.0, np.inf)):
        times = _promised_s(bursty, rate_per_s, 0.1) / _promised_s(PoissonArrivals(), rate_per_s, 0.1)
        assert least - 0.05 <= times <= most
