"""By how much waits grow at most."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.matching.waits import _longer_s
from circinus.queueing.load import StationLoad

LOADS = st.builds(
    lambda servers, utilization, alone_s, scv: StationLoad(
        servers, (1.0,), 0.0, utilization * servers / alone_s, alone_s, scv, (1 + scv) * (1 + 2 * scv)
    ),
    st.integers(1, 9),
    st.floats(0.01, 0.95),
    st.floats(0.01, 10.0),
    st.floats(0.0, 3.0),
)
DRAWS = st.lists(st.floats(0.0, 8.0), min_size=1, max_size=30)


@given(LOADS, LOADS, DRAWS)
def test_no_draw_waits_longer_than_said_and_one_does(before: StationLoad, now: StationLoad, draws: list[float]) -> None:
    longer_s = [
        float(now.wait(now.utilization).at(np.array([d]))[0] - before.wait(before.utilization).at(np.array([d]))[0])
        for d in draws
    ]
    assert _longer_s(before, now, np.array(draws)) == pytest.approx(max(longer_s))


def test_how_long_batches_take_is_not_bounded() -> None:
    batches = StationLoad(1, (1.0, 1.5), 0.0, 1.0, 0.1, 0.0, 1.0)
    assert _longer_s(batches, batches, np.array([1.0])) == math.inf
