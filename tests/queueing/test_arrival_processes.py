"""Arrival processes: what is drawn is as often and as bursty as they say, and the closed forms are right."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples, share_of
from circinus.errors import PlanningError
from circinus.queueing.arrivals import (
    ArrivalProcess,
    MarkovModulatedPoisson,
    Periodic,
    Poisson,
    RecordedProcess,
    arrival_process,
)
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.queueing.station_model import LoadedStation
from circinus.specification import BurstyArrivals, PeriodicArrivals, Query, RecordedArrivals
from raised import raises_code

WINDOWS_S = np.array([0.05, 0.13, 0.2, 0.37, 1.0, 1.3, 2.5, 6.0])
PROCESSES: dict[str, ArrivalProcess] = {
    "poisson": Poisson(5.0),
    "periodic": Periodic(5.0),
    "little jitter": Periodic(5.0, 0.02),
    "greatest jitter": Periodic(5.0, 0.1),
    "bursty": MarkovModulatedPoisson((20.0, 2.0), (1.0, 5.0)),
    "on and off": MarkovModulatedPoisson((0.0, 8.0), (3.0, 1.0)),
    "recorded": RecordedProcess((0.0, 0.1, 0.3), 1.0),
    "recorded batches": RecordedProcess.of([3.0, 3.0, 3.0, 3.0, 4.0, 4.5, 4.5, 9.0], 2.0),
}


def query(**changes: object) -> Query:
    return Query(**{"name": "q", "pipeline": "p", "source": "s", "rate": "5/s", **changes})


@pytest.mark.parametrize("name", PROCESSES)
def test_counts_have_the_mean_and_the_dispersion_that_they_should(name: str) -> None:
    """At the beginning of the time asked for and at its end: the process is stationary.

    The bounds are six standard errors wide, that of the variance from the fourth moment of the counts.
    """
    process, draws, duration_s = PROCESSES[name], share_of(6000), 13.7
    rng = np.random.default_rng(11)
    counts = np.empty((2, draws, len(WINDOWS_S)))
    for draw in range(draws):
        times_s = process.times_s(duration_s, rng)
        assert (np.diff(times_s) >= 0).all()
        assert times_s.dtype == np.float64
        assert not len(times_s) or 0 <= times_s[0] <= times_s[-1] < duration_s
        counts[0, draw] = np.searchsorted(times_s, WINDOWS_S)
        counts[1, draw] = len(times_s) - np.searchsorted(times_s, duration_s - WINDOWS_S)
    mean, variance = (
        process.rate_per_s * WINDOWS_S,
        process.rate_per_s * WINDOWS_S * process.index_of_dispersion(WINDOWS_S),
    )
    assert (np.abs(counts.mean(axis=1) - mean) <= 6 * np.sqrt(variance / draws) + 1e-9).all()
    deviations = (counts - mean) ** 2
    error = np.maximum(deviations.std(axis=1), 1 / draws**0.5) / draws**0.5
    assert (np.abs(deviations.mean(axis=1) - variance) <= 6 * error + 1e-9).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_seed_fixes_what_is_drawn(name: str) -> None:
    one, same, other = (PROCESSES[name].times_s(50.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()


@given(
    rate_per_s=st.floats(0.1, 50),
    window_s=st.floats(0.001, 20),
    share=st.floats(0, 1),
)
@settings(max_examples=examples(120))
def test_periodic_index_is_the_variance_summed_over_phases(rate_per_s: float, window_s: float, share: float) -> None:
    """Brute force: the probability of every arrival to fall into the window, over a fine grid of phases."""
    process = Periodic(rate_per_s, share / 2 / rate_per_s)
    periods, spread = window_s * rate_per_s, max(share, 1e-6)
    phases = (np.arange(4000) + 0.5) / 4000
    due = np.arange(-2, int(periods) + 3) + phases[:, None]
    within = np.clip((np.minimum(due + spread / 2, periods) - np.maximum(due - spread / 2, 0)) / spread, 0, 1)
    variance = (within * (1 - within)).sum(axis=1).mean() + within.sum(axis=1).var()
    assert process.index_of_dispersion(np.array([window_s]))[0] == pytest.approx(variance / periods, abs=3e-3 / periods)


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    """(nodes, weights) of the rule of Gauss on -1 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    return nodes, weights


@given(
    rates=st.tuples(st.floats(0, 100), st.floats(0.1, 100)),
    durations=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    window_s=st.floats(1e-6, 1e4),
)
@settings(max_examples=examples(240))
def test_index_of_bursts_is_the_integral_of_their_covariance(
    rates: tuple[float, float], durations: tuple[float, float], window_s: float
) -> None:
    """Of a Cox process; the eigenvalue of the generator that is not 0 is the rate at which phases are forgotten."""
    process = MarkovModulatedPoisson(rates, durations)
    generator = np.array([[-1 / durations[0], 1 / durations[0]], [1 / durations[1], -1 / durations[1]]])
    forgets = -np.trace(generator)
    shares = np.array(process.shares)
    assert shares @ generator == pytest.approx([0.0, 0.0], abs=1e-9)
    mean = shares @ np.array(rates)
    covariance = shares @ np.array(rates) ** 2 - mean**2
    # The rule of Gauss is exact enough where the covariance is spent well before the window ends or changes little.
    nodes, weights = _gauss()
    reach_s = min(window_s, 40 / forgets)
    lags_s = reach_s * (nodes + 1) / 2
    integral = reach_s / 2 * weights @ ((window_s - lags_s) * covariance * np.exp(-forgets * lags_s))
    expected = 1 + 2 * integral / (mean * window_s)
    assert process.index_of_dispersion(np.array([window_s]))[0] == pytest.approx(expected, rel=1e-5)


@given(moments=st.lists(st.floats(0, 0.999), min_size=1, max_size=12), window_s=st.floats(0.01, 3.5))
@settings(max_examples=examples(240))
def test_index_of_a_recording_is_that_over_all_beginnings(moments: list[float], window_s: float) -> None:
    process = RecordedProcess(tuple(sorted(moments)), 1.0)
    looped = np.concatenate([np.array(process.moments_s) + turn for turn in range(6)])
    begins_s = (np.arange(20_000) + 0.5) / 20_000
    counts = np.searchsorted(looped, begins_s + window_s) - np.searchsorted(looped, begins_s)
    mean = len(moments) * window_s
    # Each of up to 24 changes of the count may be off by one step of the grid.
    bound = 24 * 12 * 2 / 20_000 / mean
    assert process.index_of_dispersion(np.array([window_s]))[0] == pytest.approx(counts.var() / mean, abs=bound + 1e-9)


def test_a_recording_is_played_in_order_and_in_a_loop() -> None:
    process = RecordedProcess((0.0, 0.1, 0.3), 1.0)
    gaps_s = np.diff(process.times_s(20.0, np.random.default_rng(5)))
    turn = [round(float(gap), 9) for gap in gaps_s[:3]]
    assert sorted(turn) == [0.1, 0.2, 0.7]
    assert gaps_s[: 3 * (len(gaps_s) // 3)] == pytest.approx(np.tile(turn, len(gaps_s) // 3))


def test_the_loop_of_a_recording_closes_with_the_mean_gap() -> None:
    process = RecordedProcess.of([5.0, 6.0, 9.0])
    assert (process.moments_s, process.period_s) == ((0.0, 1.0, 4.0), 6.0)
    faster = RecordedProcess.of([5.0, 6.0, 9.0], rate_per_s=1.0)
    assert faster.rate_per_s == pytest.approx(1.0)
    assert faster.moments_s == pytest.approx((0.0, 0.5, 2.0))


@pytest.mark.parametrize("name", PROCESSES)
@given(factor=st.floats(0.01, 100))
@settings(max_examples=examples(80))
def test_scaling_keeps_the_shape(name: str, factor: float) -> None:
    process = PROCESSES[name]
    scaled = process.scaled(factor)
    assert type(scaled) is type(process)
    assert scaled.rate_per_s == pytest.approx(process.rate_per_s * factor)
    if isinstance(process, MarkovModulatedPoisson):  # bursts last as long; the excess grows with the rate
        excess, before = (one.index_of_dispersion(WINDOWS_S) - 1 for one in (scaled, process))
        assert excess == pytest.approx(before * factor, rel=1e-6)
    else:  # time is compressed
        found = scaled.index_of_dispersion(WINDOWS_S / factor)
        assert found == pytest.approx(process.index_of_dispersion(WINDOWS_S), abs=1e-6)


def test_a_query_gets_the_process_that_it_asks_for() -> None:
    assert arrival_process(query()) == Poisson(5.0)
    assert arrival_process(query(arrivals="periodic")) == Periodic(5.0)
    assert arrival_process(query(arrivals=PeriodicArrivals(jitter="5ms"))) == Periodic(5.0, 0.005)
    bursty = arrival_process(query(arrivals=BurstyArrivals(peak=4, burst="10s", every="60s")))
    assert isinstance(bursty, MarkovModulatedPoisson)
    assert bursty.rates_per_s == pytest.approx((20.0, 2.0))
    assert bursty.durations_s == (10.0, 50.0)
    recorded = arrival_process(query(arrivals=RecordedArrivals(file="a.csv", times_s=(5.0, 6.0, 9.0))))
    assert recorded == RecordedProcess.of([5.0, 6.0, 9.0], 5.0)
    with raises_code(PlanningError, "arrivals.recording_not_read") as caught:
        arrival_process(query(arrivals=RecordedArrivals(file="a.csv")))
    assert caught.value.location == "query q"


@given(
    rate_per_s=st.floats(1e-3, 1e4), burst_s=st.floats(1e-3, 1e3), share=st.floats(0.001, 0.99), part=st.floats(0.01, 1)
)
@settings(max_examples=examples(240))
def test_bursts_leave_the_rate_of_the_query_as_it_is(
    rate_per_s: float, burst_s: float, share: float, part: float
) -> None:
    peak = 1 + (1 / share - 1) * part
    arrivals = BurstyArrivals(peak=peak, burst_s=burst_s, every_s=burst_s / share)
    process = arrival_process(query(rate=rate_per_s, arrivals=arrivals))
    assert process.rate_per_s == pytest.approx(rate_per_s)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Poisson(0.0), "invalid_rate"),
        (lambda: Poisson(float("nan")), "invalid_rate"),
        (lambda: Periodic(-1.0), "invalid_rate"),
        (lambda: Periodic(1.0, 0.6), "jitter_out_of_range"),
        (lambda: Periodic(1.0, -0.1), "jitter_out_of_range"),
        (lambda: MarkovModulatedPoisson((1.0, 2.0), (0.0, 1.0)), "invalid_duration"),
        (lambda: MarkovModulatedPoisson((0.0, 0.0), (1.0, 1.0)), "invalid_rate"),
        (lambda: MarkovModulatedPoisson((2.0, -1.0), (1.0, 1.0)), "negative_rate"),
        (lambda: RecordedProcess((), 1.0), "empty_recording"),
        (lambda: RecordedProcess((0.5, 0.2), 1.0), "not_ascending"),
        (lambda: RecordedProcess((0.5, 1.0), 1.0), "not_ascending"),
        (lambda: RecordedProcess((0.5,), 0.0), "invalid_period"),
        (lambda: RecordedProcess.of([1.0, 1.0]), "too_few_times"),
    ],
)
def test_what_is_no_process_is_refused(make: Callable[[], object], code: str) -> None:
    with raises_code(PlanningError, f"arrivals.{code}"):
        make()


PHASES = st.builds(
    lambda calm, more, durations: MarkovModulatedPoisson((calm + more, calm), durations),
    st.floats(0.0, 10.0),
    st.floats(0.5, 50.0),
    st.tuples(st.floats(0.1, 100.0), st.floats(0.1, 100.0)),
)


@given(PHASES)
def test_two_phases_are_known_by_their_moments(phases: MarkovModulatedPoisson) -> None:
    found = MarkovModulatedPoisson.of_moments(phases.rate_per_s, phases.variance, phases.third_moment, phases.memory_s)
    assert found.rates_per_s == pytest.approx(phases.rates_per_s, rel=1e-6, abs=1e-6)
    assert found.durations_s == pytest.approx(phases.durations_s, rel=1e-6)


@given(st.lists(PHASES, min_size=1, max_size=5), st.floats(0.0, 10.0))
def test_streams_together_vary_as_much_as_all_of_them(
    streams: list[MarkovModulatedPoisson], beside_per_s: float
) -> None:
    found = MarkovModulatedPoisson.superpose(streams, beside_per_s)
    rate_per_s = sum(stream.rate_per_s for stream in streams)
    assert found.rate_per_s == pytest.approx(rate_per_s + beside_per_s)
    assert min(found.rates_per_s) >= 0
    assert found.variance == pytest.approx(sum(stream.variance for stream in streams))
    long_s = np.array([1e9])
    excess = sum((s.index_of_dispersion(long_s)[0] - 1) * s.rate_per_s for s in streams)
    assert (found.index_of_dispersion(long_s)[0] - 1) * found.rate_per_s == pytest.approx(excess, rel=1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_bursty_streams_together_wait_about_as_long_as_they_do(count: int) -> None:
    """At one station for all of them: much longer than if all but one of them came evenly."""
    own = MarkovModulatedPoisson((2 * 16 / count, 16 / count * 2 / 3), (10.0, 30.0))
    rng = np.random.default_rng(3)
    arrival_s = np.sort(np.concatenate([own.times_s(40_000.0, rng) for _ in range(count)]))
    served = serve_fcfs(Station("s", 2), [0.0, 0.0], arrival_s, np.full(len(arrival_s), 0.1))
    together = MarkovModulatedPoisson.superpose([own] * count, 0.0)
    load = LoadedStation(2, (1.0,), 0.0, 16.0, 0.1, 0.0, 1.0, modulation=together)
    added_s, factor = load.response().at(rng.exponential(1.0, 50_000))
    stays_s = served.end_s - arrival_s
    assert np.quantile(added_s + 0.1 * factor, 0.95) == pytest.approx(np.quantile(stays_s, 0.95), rel=0.4)
