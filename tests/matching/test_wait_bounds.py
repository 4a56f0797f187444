"""By how much waits grow at most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.matching.wait_bounds import _max_increase_s
from circinus.queueing.station_model import LoadedStation
from circinus.queueing.waiting_time import gi_g_c_wait

LOADS = st.builds(
    lambda servers, utilization, alone_s, scv: LoadedStation(
        servers, (1.0,), 0.0, utilization * servers / alone_s, alone_s, scv, (1 + scv) * (1 + 2 * scv)
    ),
    st.integers(1, 9),
    st.floats(0.01, 0.95),
    st.floats(0.01, 10.0),
    st.floats(0.0, 3.0),
)
DRAWS = st.lists(st.floats(0.0, 8.0), min_size=1, max_size=30)


@given(LOADS, LOADS, DRAWS)
def test_no_draw_waits_longer_than_said_and_one_does(
    before: LoadedStation, now: LoadedStation, draws: list[float]
) -> None:
    longer_s = [
        float(now.wait(now.utilization).at(np.array([d]))[0] - before.wait(before.utilization).at(np.array([d]))[0])
        for d in draws
    ]
    assert _max_increase_s(before, now, np.array(draws)) == pytest.approx(max(longer_s))


def test_how_long_batches_take_is_not_bounded() -> None:
    batches = LoadedStation(1, (1.0, 1.5), 0.0, 1.0, 0.1, 0.0, 1.0)
    assert _max_increase_s(batches, batches, np.array([1.0])) == math.inf


@given(LOADS, LOADS, DRAWS, st.floats(1.0, 1.5))
def test_bounds_grow_by_what_slower_servers_make_of_it(
    before: LoadedStation, now: LoadedStation, draws: list[float], factor: float
) -> None:
    slow_before, slow_now = (replace(load, mean_factor=factor).pessimistic() for load in (before, now))
    found_s = _max_increase_s(slow_before, slow_now, np.array(draws))
    if max(before.utilization, now.utilization) * factor >= 1:
        assert found_s == math.inf
        return
    for draw in draws:
        waits_s = [
            gi_g_c_wait(
                load.servers,
                load.utilization * factor,
                load.mean_service_s * factor,
                load.service_scv,
                service_skew=load.service_skew,
            ).at(np.array([draw]))[0]
            for load in (before, now)
        ]
        assert waits_s[1] - waits_s[0] <= found_s + 1e-9 * max(waits_s)


def test_a_station_without_a_formula_is_not_followed_until_it_hardly_keeps_up() -> None:
    regular = LoadedStation(1, (1.0,), 0.0, 9.0, 0.1, 0.2, 1.3, jitter_s=0.0, mean_factor=1.04)
    assert regular.pessimistic() is not None
    assert replace(regular, mean_factor=1.07).pessimistic() is None
    assert replace(regular, mean_factor=1.07, jitter_s=None).pessimistic() is not None
