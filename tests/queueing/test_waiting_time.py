from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import PlanningError
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.queueing.waiting_time import erlang_c, gi_g_c_wait
from golden import check_message
from raised import raises_code

utilizations = st.floats(0.01, 0.98)
variations = st.floats(0.0, 10.0)


def _lindley(arrivals_s: np.ndarray, services_s: np.ndarray, servers: int) -> np.ndarray:
    """Waits in a first-come-first-served queue by following when each server becomes free."""
    free = np.zeros(servers)
    waits = np.empty(len(arrivals_s))
    for index, (arrival, service) in enumerate(zip(arrivals_s, services_s, strict=True)):
        server = int(free.argmin())
        waits[index] = max(0.0, free[server] - arrival)
        free[server] = arrival + waits[index] + service
    return waits


def test_erlang_c_agrees_with_its_sum() -> None:
    for servers in (1, 2, 5, 20):
        for load in np.linspace(0.1, 0.95, 5) * servers:
            tail = load**servers / math.factorial(servers) * servers / (servers - load)
            exact = tail / (sum(load**k / math.factorial(k) for k in range(servers)) + tail)
            assert erlang_c(servers, float(load)) == pytest.approx(exact, rel=1e-12)


def test_erlang_c_of_arrays_is_that_of_their_elements() -> None:
    servers = np.array([[1.0], [3.0], [40.0]])
    load = np.array([0.0, 0.5, 2.5, 39.0, 50.0])
    expected = [[float(erlang_c(int(c[0]), float(a))) for a in load] for c in servers]
    found = erlang_c(servers, load)
    assert found.shape == (3, 5)
    assert found == pytest.approx(np.array(expected), rel=1e-12, abs=0)


def test_erlang_c_of_an_overloaded_queue_is_one() -> None:
    assert erlang_c(3, 3.0) == 1
    assert erlang_c(3, 30.0) == 1


def test_many_servers_do_not_overflow() -> None:
    assert 0 <= erlang_c(5000, 4900.0) < 0.2
    assert erlang_c(5000, 1.0) == 0
    assert erlang_c(10**9, 5e8) == 0
    assert erlang_c(2000, 1990.0) == pytest.approx(float(erlang_c(np.array([2000.0]), 1990.0)[0]), rel=1e-12)


@given(utilizations)
def test_one_exponential_server_is_exact(utilization: float) -> None:
    wait = gi_g_c_wait(1, utilization, 2.0, 1.0)
    assert wait.mean_s == pytest.approx(utilization * 2.0 / (1 - utilization))
    beyond = utilization * math.exp(-(1 - utilization) * 3.0 / 2.0)
    assert float(wait.quantile([1 - beyond])[0]) == pytest.approx(3.0)


@given(st.integers(1, 50), utilizations)
def test_many_exponential_servers_are_exact(servers: int, utilization: float) -> None:
    wait = gi_g_c_wait(servers, utilization, 1.0, 1.0)
    probability = float(erlang_c(servers, servers * utilization))
    assert wait.mean_s == pytest.approx(probability / (servers * (1 - utilization)))


@given(utilizations, variations)
def test_the_mean_of_a_single_server_is_that_of_pollaczek_and_khinchine(utilization: float, scv: float) -> None:
    wait = gi_g_c_wait(1, utilization, 0.5, scv)
    assert wait.mean_s == pytest.approx(utilization / (1 - utilization) * (1 + scv) / 2 * 0.5)


@pytest.mark.parametrize(
    ("servers", "utilization", "scv"), [(2, 0.5, 0.0), (5, 0.8, 0.0), (3, 0.8, 0.25), (4, 0.7, 3.0)]
)
def test_means_on_many_servers_are_near_a_simulated_queue(servers: int, utilization: float, scv: float) -> None:
    rng = np.random.default_rng(6)
    count = 200_000
    arrivals_s = np.cumsum(rng.exponential(1 / (utilization * servers), count))
    services_s = rng.gamma(1 / scv, scv, count) if scv else np.ones(count)
    simulated_s = _lindley(arrivals_s, services_s, servers).mean()
    assert gi_g_c_wait(servers, utilization, 1.0, scv).mean_s == pytest.approx(simulated_s, rel=0.07)


@pytest.mark.parametrize("servers", [1, 4])
def test_tails_against_a_simulated_queue(servers: int) -> None:
    rng = np.random.default_rng(7)
    count, utilization = 200_000, 0.7
    arrivals_s = np.cumsum(rng.exponential(1 / (utilization * servers), count))
    waits = _lindley(arrivals_s, rng.exponential(1.0, count), servers)[1000:]
    wait = gi_g_c_wait(servers, utilization, 1.0, 1.0)
    assert (waits > 0).mean() == pytest.approx(float(wait.probability), rel=0.05)
    for percentile in (0.8, 0.95):
        assert np.quantile(waits, percentile) == pytest.approx(float(wait.quantile([percentile])[0]), rel=0.1)


@pytest.mark.parametrize("utilization", [0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("scv", [0.0, 0.25, 0.7])
@pytest.mark.parametrize("servers", [1, 2, 8])
def test_percentiles_of_varying_services_against_a_simulated_queue(
    servers: int, scv: float, utilization: float
) -> None:
    """Of wait and mean service together, as latencies consist of both."""
    rng = np.random.default_rng(8)
    count = 300_000
    arrivals_s = np.cumsum(rng.exponential(1 / (utilization * servers), count))
    services_s = rng.gamma(1 / scv, scv, count) if scv else np.ones(count)
    waits = serve_fcfs(Station("s", servers), [0.0] * servers, arrivals_s, services_s).start_s - arrivals_s
    found = 1 + gi_g_c_wait(servers, utilization, 1.0, scv).quantile([0.5, 0.95, 0.99])
    assert 1 + np.quantile(waits, [0.5, 0.95, 0.99]) == pytest.approx(found, rel=0.1)


@given(utilizations, st.floats(0.0, 2.0))
def test_mean_and_variance_of_a_single_server_are_exact(utilization: float, scv: float) -> None:
    """Variance of the wait after Kleinrock, Queueing Systems I, 1975, for services of a gamma distribution."""
    wait = gi_g_c_wait(1, utilization, 1.0, scv)
    drawn = (np.arange(400_000) + 0.5) / 400_000
    waits = wait.quantile(drawn)
    mean = utilization * (1 + scv) / 2 / (1 - utilization)
    variance = mean**2 + utilization * (1 + scv) * (1 + 2 * scv) / 3 / (1 - utilization)
    assert waits.mean() == pytest.approx(mean, rel=0.001)
    conditional = (variance + mean**2) * utilization / mean**2 - 1
    if 0.36 < conditional < 2.3:  # what the family of distributions reaches
        assert waits.var() == pytest.approx(variance, rel=0.01)


@given(st.integers(1, 60), utilizations, variations)
def test_more_servers_at_the_same_utilization_wait_less(servers: int, utilization: float, scv: float) -> None:
    few, many = gi_g_c_wait(servers, utilization, 1.0, scv), gi_g_c_wait(servers + 1, utilization, 1.0, scv)
    assert many.mean_s <= few.mean_s * (1 + 1e-9)
    assert many.probability <= few.probability * (1 + 1e-9)


@given(st.integers(1, 60), utilizations, variations)
def test_more_servers_under_the_same_load_wait_less(servers: int, utilization: float, scv: float) -> None:
    few = gi_g_c_wait(servers, utilization, 1.0, scv)
    many = gi_g_c_wait(servers + 1, utilization * servers / (servers + 1), 1.0, scv)
    assert many.mean_s <= few.mean_s * (1 + 1e-9)


@given(st.integers(1, 30), utilizations, st.floats(0.0, 0.01), variations, st.floats(0.0, 1.0))
def test_busier_or_more_variable_servers_wait_longer(
    servers: int, utilization: float, more: float, scv: float, more_scv: float
) -> None:
    base = gi_g_c_wait(servers, utilization, 1.0, scv)
    busier = gi_g_c_wait(servers, utilization + more, 1.0, scv)
    variable = gi_g_c_wait(servers, utilization, 1.0, scv + more_scv)
    assert base.mean_s <= busier.mean_s * (1 + 1e-9)
    assert base.mean_s <= variable.mean_s * (1 + 1e-9)


@given(st.integers(1, 30), utilizations, variations, st.floats(1.0, 50.0))
def test_waits_grow_with_their_draws_from_nothing(servers: int, utilization: float, scv: float, skew: float) -> None:
    wait = gi_g_c_wait(servers, utilization, 0.2, scv, service_skew=(1 + scv) * skew)
    times_s = wait.quantile(np.linspace(0.0, 0.999, 200))
    assert times_s[0] == 0
    assert (np.diff(times_s) >= -1e-12).all()


def test_draws_extend_the_shape_of_the_wait() -> None:
    wait = gi_g_c_wait(np.array([[1.0], [2.0]]), 0.5, np.array([1.0, 2.0, 3.0]), 0.0)
    assert wait.at(np.ones(5, dtype=np.float32)).shape == (2, 3, 5)
    assert wait.at(np.ones(5, dtype=np.float32)).dtype == np.float32


def test_no_load_means_no_wait() -> None:
    wait = gi_g_c_wait(2, 0.0, 1.0, 1.0)
    assert wait.mean_s == 0
    assert (wait.quantile([0.1, 0.999]) == 0).all()


@pytest.mark.parametrize("utilization", [1.0, 1.5, -0.1])
def test_a_server_that_is_always_busy_is_an_error(utilization: float) -> None:
    with raises_code(PlanningError, "load.overloaded") as caught:
        gi_g_c_wait(1, utilization, 1.0, 1.0)
    if utilization == 1.5:
        check_message("queueing/overloaded", str(caught.value))
