from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import PlanningError
from circinus.queueing.formulas import erlang_c, waiting

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


def _greedy_batches(arrivals_s: np.ndarray, batch_size: int, first_s: float, more_s: float) -> np.ndarray:
    """Waits at one server that takes whoever waits, up to the batch size; n requests take first + (n - 1) more."""
    waits = np.empty(len(arrivals_s))
    free, index = 0.0, 0
    while index < len(arrivals_s):
        start = max(free, arrivals_s[index])
        count = max(1, min(batch_size, int(np.searchsorted(arrivals_s, start, side="right")) - index))
        waits[index : index + count] = start - arrivals_s[index : index + count]
        free = start + first_s + (count - 1) * more_s
        index += count
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


@given(utilizations)
def test_one_exponential_server_is_exact(utilization: float) -> None:
    wait = waiting(1, utilization, 2.0, 1.0)
    assert wait.mean_s == pytest.approx(utilization * 2.0 / (1 - utilization))
    time_s = 3.0
    assert wait.beyond(time_s) == pytest.approx(utilization * math.exp(-(1 - utilization) * time_s / 2.0))


@given(st.integers(1, 50), utilizations)
def test_many_exponential_servers_are_exact(servers: int, utilization: float) -> None:
    wait = waiting(servers, utilization, 1.0, 1.0)
    probability = float(erlang_c(servers, servers * utilization))
    assert wait.mean_s == pytest.approx(probability / (servers * (1 - utilization)))


@given(utilizations, variations)
def test_the_mean_of_a_single_server_is_that_of_pollaczek_and_khinchine(utilization: float, scv: float) -> None:
    wait = waiting(1, utilization, 0.5, scv)
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
    assert waiting(servers, utilization, 1.0, scv).mean_s == pytest.approx(simulated_s, rel=0.07)


@pytest.mark.parametrize("servers", [1, 4])
def test_tails_against_a_simulated_queue(servers: int) -> None:
    rng = np.random.default_rng(7)
    count, utilization = 200_000, 0.7
    arrivals_s = np.cumsum(rng.exponential(1 / (utilization * servers), count))
    waits = _lindley(arrivals_s, rng.exponential(1.0, count), servers)[1000:]
    wait = waiting(servers, utilization, 1.0, 1.0)
    assert (waits > 0).mean() == pytest.approx(float(wait.probability), rel=0.05)
    for percentile in (0.8, 0.95):
        assert np.quantile(waits, percentile) == pytest.approx(float(wait.quantile([percentile])[0]), rel=0.1)


def test_less_variable_service_has_a_shorter_tail_than_promised() -> None:
    rng = np.random.default_rng(8)
    count, utilization = 200_000, 0.7
    arrivals_s = np.cumsum(rng.exponential(1 / utilization, count))
    waits = _lindley(arrivals_s, np.ones(count), 1)
    wait = waiting(1, utilization, 1.0, 0.0)
    assert waits.mean() == pytest.approx(float(wait.mean_s), rel=0.05)
    assert np.quantile(waits, 0.99) <= float(wait.quantile([0.99])[0])


@pytest.mark.parametrize("utilization", [0.2, 0.4, 0.7, 0.9])
@pytest.mark.parametrize(("batch_size", "more_s"), [(4, 0.0), (4, 0.3), (8, 0.1), (8, 0.8), (2, 1.0)])
def test_waits_of_greedy_batches_are_not_underestimated(utilization: float, batch_size: int, more_s: float) -> None:
    rng = np.random.default_rng(9)
    full_s = 1.0 + (batch_size - 1) * more_s
    rate = utilization * batch_size / full_s
    arrivals_s = np.cumsum(rng.exponential(1 / rate, 60_000))
    waits = _greedy_batches(arrivals_s, batch_size, 1.0, more_s)
    wait = waiting(1, utilization, full_s, 0.0, batch_size=float(batch_size))
    assert waits.mean() <= float(wait.mean_s) * 1.02
    assert np.quantile(waits, 0.95) <= float(wait.quantile([0.95])[0]) * 1.02


@given(st.integers(1, 60), utilizations, variations)
def test_more_servers_at_the_same_utilization_wait_less(servers: int, utilization: float, scv: float) -> None:
    few, many = waiting(servers, utilization, 1.0, scv), waiting(servers + 1, utilization, 1.0, scv)
    assert many.mean_s <= few.mean_s * (1 + 1e-9)
    assert many.probability <= few.probability * (1 + 1e-9)


@given(st.integers(1, 60), utilizations, variations)
def test_more_servers_under_the_same_load_wait_less(servers: int, utilization: float, scv: float) -> None:
    few = waiting(servers, utilization, 1.0, scv)
    many = waiting(servers + 1, utilization * servers / (servers + 1), 1.0, scv)
    assert many.mean_s <= few.mean_s * (1 + 1e-9)


@given(st.integers(1, 30), utilizations, st.floats(0.0, 0.01), variations, st.floats(0.0, 1.0), st.sampled_from([1, 4]))
def test_busier_or_more_variable_servers_wait_longer(
    servers: int, utilization: float, more: float, scv: float, more_scv: float, batch_size: int
) -> None:
    base = waiting(servers, utilization, 1.0, scv, batch_size=batch_size)
    busier = waiting(servers, utilization + more, 1.0, scv, batch_size=batch_size)
    variable = waiting(servers, utilization, 1.0, scv + more_scv, batch_size=batch_size)
    assert base.mean_s <= busier.mean_s * (1 + 1e-9)
    assert base.mean_s <= variable.mean_s * (1 + 1e-9)


def test_the_quantile_inverts_the_tail() -> None:
    wait = waiting(3, 0.8, 0.2, 0.5)
    uniforms = np.array([0.0, 0.3, 0.9, 0.99])
    times_s = wait.quantile(uniforms)
    assert times_s[0] == 0
    np.testing.assert_allclose(wait.beyond(times_s[2:]), 1 - uniforms[2:])


def test_draws_extend_the_shape_of_the_wait() -> None:
    wait = waiting(np.array([[1.0], [2.0]]), 0.5, np.array([1.0, 2.0, 3.0]), 0.0)
    assert wait.at(np.ones(5, dtype=np.float32)).shape == (2, 3, 5)
    assert wait.at(np.ones(5, dtype=np.float32)).dtype == np.float32


def test_no_load_means_no_wait() -> None:
    wait = waiting(2, 0.0, 1.0, 1.0)
    assert wait.mean_s == 0
    assert (wait.quantile([0.1, 0.999]) == 0).all()


@pytest.mark.parametrize("utilization", [1.0, 1.5, -0.1])
def test_a_server_that_is_always_busy_is_an_error(utilization: float) -> None:
    with pytest.raises(PlanningError, match="utilisation"):
        waiting(1, utilization, 1.0, 1.0)
