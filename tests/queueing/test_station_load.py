"""Stations under load against long simulations of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.errors import PlanningError
from circinus.queueing import lindley_recursion as recursion
from circinus.queueing.arrivals import MarkovModulatedPoisson, Periodic, Poisson
from circinus.queueing.arrivals.process import ArrivalProcess
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.queueing.lindley_recursion import response_by_sample_path
from circinus.queueing.response_time import LEVELS, MIDPOINTS, ResponseTime, mixture
from circinus.queueing.station_model import LoadedStation
from raised import raises_code

QUANTILES = [0.5, 0.95, 0.99]


def _load(
    servers: int, ratios: tuple[float, ...], utilization: float, *, wait_s: float = 0.0, jitter_s: float | None = None
) -> LoadedStation:
    """Requests that take a tenth of a second alone, give or take a third."""
    rate_per_s = utilization * servers * len(ratios) / (0.1 * ratios[-1])
    return LoadedStation(servers, ratios, wait_s, rate_per_s, 0.1, 0.1, 1.1**3, jitter_s)


def _simulated_s(load: LoadedStation, arrivals: ArrivalProcess, requests: int = 200_000) -> np.ndarray:
    rng = np.random.default_rng(1)
    spread = np.log1p(load.service_scv) ** 0.5
    arrival_s = arrivals.times_s(requests / load.rate_per_s, rng)
    service_s = load.mean_service_s * np.exp(spread * rng.normal(size=len(arrival_s)) - spread**2 / 2)
    station = Station("s", load.servers, load.fill_ratios, load.batch_wait_s)
    return (serve_fcfs(station, [0.0] * load.servers, arrival_s, service_s).end_s - arrival_s)[requests // 20 :]


def _estimated_s(load: LoadedStation) -> np.ndarray:
    rng = np.random.default_rng(2)
    spread = np.log1p(load.service_scv) ** 0.5
    added_s, factor = load.response().at(rng.exponential(1.0, 100_000))
    return added_s + factor * load.mean_service_s * np.exp(spread * rng.normal(size=100_000) - spread**2 / 2)


@pytest.mark.parametrize("wait_s", [0.1, 1.0])
@pytest.mark.parametrize("rate_per_s", [0.02, 0.5, 3.0, 20.0])
def test_how_batches_fill_depends_on_the_rate_however_little_requests_ask(rate_per_s: float, wait_s: float) -> None:
    """Pairs at a server that is hardly busy: the first of a pair waits for the second, which does not wait at all."""
    alone_s = 1e-5
    load = LoadedStation(1, (1.0, 1.0), wait_s, rate_per_s, alone_s, 0.1, 1.1**3)
    paired = 1 - np.exp(-rate_per_s * wait_s)
    assert load.response().mean_wait_s == pytest.approx(paired / rate_per_s / (1 + paired), rel=0.03)


@pytest.mark.parametrize("rate_per_s", [0.02, 0.5, 20.0])
@pytest.mark.parametrize("alone_s", [0.0, 1e-14])
def test_batches_fill_even_where_requests_take_no_time(alone_s: float, rate_per_s: float) -> None:
    load = LoadedStation(1, (1.0, 1.0), 1.0, rate_per_s, alone_s, 0.1, 1.1**3)
    paired = 1 - np.exp(-rate_per_s)
    assert load.response().mean_wait_s == pytest.approx(paired / rate_per_s / (1 + paired), rel=0.03)


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    ("servers", "ratios", "wait_s"),
    [
        (1, (1.0, 1.3), 0.0),
        (1, (1.0, 1.1, 1.2, 1.3), 0.0),
        (3, (1.0, 1.5, 2.0, 2.5), 0.0),
        (8, tuple(1 + 0.4 * k for k in range(16)), 0.0),
        (2, (1.0, 1.3, 1.6, 1.9), 0.05),
    ],
)
def test_batches(servers: int, ratios: tuple[float, ...], wait_s: float, utilization: float) -> None:
    load = _load(servers, ratios, utilization, wait_s=wait_s)
    simulated_s = _simulated_s(load, Poisson(load.rate_per_s))
    assert np.quantile(_estimated_s(load), QUANTILES) == pytest.approx(np.quantile(simulated_s, QUANTILES), rel=0.08)


@given(st.lists(st.floats(1.0, 1.5), min_size=2, max_size=8), st.floats(0.3, 0.8), st.floats(0.0, 0.5))
@settings(max_examples=examples(60))
def test_rounding_changes_little(steps: list[float], utilization: float, scv: float) -> None:
    """The same path of requests without any rounding, for batches of which larger ones take no less."""
    ratios, spread = tuple(np.cumprod(steps).tolist()), np.log1p(scv) ** 0.5
    found = response_by_sample_path(2, ratios, utilization, scv)
    times, alone_s = recursion._path(spread)
    arrival_s = times / (utilization * 2 * len(ratios) / ratios[-1])
    served = serve_fcfs(Station("s", 2, ratios), [0.0, 0.0], arrival_s, alone_s)
    assert found.mean_wait_s == pytest.approx((served.start_s - arrival_s).mean(), rel=0.15, abs=0.05)
    stays_s = (found.added_s + found.factor) @ np.diff(LEVELS)
    assert stays_s == pytest.approx((served.end_s - arrival_s).mean(), rel=0.06)


def test_groups_of_very_many_sizes_are_not_rounded_away() -> None:
    """No share of 400 is as much as a hundredth. A request waits for those of its group before it, at least."""
    found = response_by_sample_path(1, (1.0,), 0.5, 0.1, groups=(1 / 400,) * 400)
    mean, square = 401 / 2, 401 * 801 / 6
    assert found.mean_wait_s > 0.8 * (square - mean) / (2 * mean)


@pytest.mark.parametrize("utilization", [0.4, 0.7, 0.8])
@pytest.mark.parametrize("servers", [1, 3])
def test_regular_requests(servers: int, utilization: float) -> None:
    load = _load(servers, (1.0,), utilization, jitter_s=0.0)
    simulated_s = _simulated_s(load, Periodic(load.rate_per_s, 0.0))
    assert np.quantile(_estimated_s(load), QUANTILES) == pytest.approx(np.quantile(simulated_s, QUANTILES), rel=0.08)


def test_requests_one_by_one_and_at_random_are_one_formula() -> None:
    load = _load(2, (1.5,), 0.7)
    assert load.is_poisson
    added_s, factor = load.response().at(-np.log1p(-MIDPOINTS))
    np.testing.assert_allclose(added_s, load.wait(load.utilization).quantile(MIDPOINTS))
    np.testing.assert_allclose(factor, 1.5)


@pytest.mark.parametrize(("peak", "burst_s", "every_s"), [(1.5, 30.0, 100.0), (4.0, 10.0, 60.0)])
def test_bursts_wait_as_long_as_they_do(peak: float, burst_s: float, every_s: float) -> None:
    """Those that a station keeps up with, and those that fill its queue: within a third, and it says so."""
    load = _load(2, (1.0,), 0.5)
    calm = (every_s - peak * burst_s) / (every_s - burst_s)
    come = MarkovModulatedPoisson((load.rate_per_s * peak, load.rate_per_s * calm), (burst_s, every_s - burst_s))
    bursty = LoadedStation(**{**vars(load), "modulation": come})
    simulated_s = _simulated_s(bursty, come, 1_000_000)
    assert np.quantile(_estimated_s(bursty), QUANTILES) == pytest.approx(np.quantile(simulated_s, QUANTILES), rel=0.33)
    assert np.quantile(_estimated_s(bursty), 0.95) > np.quantile(_estimated_s(load), 0.95)
    assert any("burst" in doubt for doubt in bursty.caveats())


@pytest.mark.parametrize("burst_s", [5.0, 30.0])
@pytest.mark.parametrize("in_bursts", [0.9, 0.97, 1.0, 1.05, 1.3])
def test_bursts_that_are_just_served_fill_the_queue(in_bursts: float, burst_s: float) -> None:
    """About the rate at which a station no longer keeps up nothing changes all at once."""
    load = _load(2, (1.0,), 0.3)
    peak, share = in_bursts / 0.3, 0.1
    calm = (1 - share * peak) / (1 - share)
    come = MarkovModulatedPoisson(
        (load.rate_per_s * peak, load.rate_per_s * calm), (burst_s, burst_s * (1 - share) / share)
    )
    bursty = LoadedStation(**{**vars(load), "modulation": come})
    simulated_s = _simulated_s(bursty, come, 1_000_000)
    assert np.quantile(_estimated_s(bursty), QUANTILES) == pytest.approx(np.quantile(simulated_s, QUANTILES), rel=0.2)


def test_doubts_name_what_formulas_are_not_good_for() -> None:
    assert not _load(2, (1.0,), 0.7).caveats()
    assert "85%" in _load(2, (1.0,), 0.85).caveats()[0]
    heavy = LoadedStation(1, (1.0,), 0.0, 1.0, 0.1, 4.0, 45.0)
    assert "vary widely" in heavy.caveats()[0]


@pytest.mark.parametrize("ratios", [(1.0,), (1.0, 1.5)])
def test_who_cannot_keep_up_is_told_so(ratios: tuple[float, ...]) -> None:
    with raises_code(PlanningError, "load.overloaded"):
        _load(2, ratios, 1.01).response()


@given(st.floats(0.0, 1.0), st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_a_mixture_lies_between_its_parts(share: float, one_s: float, other_s: float) -> None:
    levels = np.ones(len(MIDPOINTS))
    parts = [ResponseTime(one_s * levels, levels, one_s), ResponseTime(other_s * levels, levels, other_s)]
    mixed = mixture([(share, parts[0]), (1 - share, parts[1])], 1.0)
    least, most = sorted((one_s, other_s))
    assert (mixed.added_s >= least - 1e-9).all()
    assert (mixed.added_s <= most + 1e-9).all()
    assert mixed.mean_wait_s == pytest.approx(share * one_s + (1 - share) * other_s)
    assert (np.diff(mixed.added_s) >= -1e-9).all()
