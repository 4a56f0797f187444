from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.control.ladders.rung_loads import RateBounds, RateEstimator


def _read(arrivals_s: np.ndarray, until_s: float, every_s: float = 0.25) -> list[tuple[float, RateBounds]]:
    meter, found = RateEstimator(), []
    for now_s in np.arange(0.0, until_s, every_s):
        bounds = meter.read(float(now_s), int(np.searchsorted(arrivals_s, now_s)))
        if bounds is not None:
            found.append((float(now_s), bounds))
    return found


@pytest.mark.parametrize("rate_per_s", [0.5, 5.0, 50.0])
def test_bounds_of_random_arrivals_hold_mostly(rate_per_s: float) -> None:
    rng = np.random.default_rng(1)
    found = _read(np.cumsum(rng.exponential(1 / rate_per_s, int(4000 * rate_per_s))), 3000.0)
    below = np.mean([bounds.min_per_s > rate_per_s for _, bounds in found])
    above = np.mean([bounds.max_per_s < rate_per_s for _, bounds in found])
    assert below < 0.12  # of three windows
    assert above < 0.05
    assert all(bounds.min_per_s <= bounds.max_per_s for _, bounds in found)


def test_a_burst_is_seen_within_a_second_or_two_and_its_end_within_the_longest_window() -> None:
    rng = np.random.default_rng(2)
    calm = np.cumsum(rng.exponential(0.1, 300))
    burst = calm[-1] + np.cumsum(rng.exponential(0.02, 1000))
    after = burst[-1] + np.cumsum(rng.exponential(0.1, 400))
    begin_s, end_s = calm[-1], burst[-1]
    found = _read(np.concatenate([calm, burst, after]), float(after[-1]))
    seen_s = next(now_s for now_s, bounds in found if now_s > begin_s and bounds.min_per_s > 20.0)
    over_s = next(now_s for now_s, bounds in found if now_s > end_s and bounds.max_per_s < 20.0)
    assert seen_s - begin_s < 2.0
    assert over_s - end_s < 17.0


def test_a_counter_that_begins_anew_is_no_negative_rate() -> None:
    meter = RateEstimator()
    for now_s in range(20):
        meter.read(float(now_s), 10 * now_s)
    assert meter.read(20.0, 3) is None
    bounds = meter.read(22.0, 23)
    assert bounds is not None
    assert bounds.expected_per_s == pytest.approx(10.0)


def test_what_came_in_the_last_moments() -> None:
    meter = RateEstimator()
    found = [meter.read(look / 8, 10 * look if look < 11 else 150) for look in range(12)]
    assert found[7] is None, "too early"
    before, last = found[10], found[11]
    assert before is not None
    assert last is not None
    assert (before.recent_s, before.recent_requests) == (0.25, 20)
    assert (last.recent_s, last.recent_requests) == (0.25, 60)
    rare = meter.read(3.0, 400)
    assert rare is not None
    assert rare.recent_requests == 0, "those are no moments"


def test_a_look_that_took_long_makes_no_burst() -> None:
    """A late reading may date from its start, so that the next one contains more requests."""
    meter, per_s = RateEstimator(), 40
    for look in range(20):
        meter.read(look / 4, look * per_s // 4)
    late = meter.read(7.0, 5 * per_s, began_s=5.0)  # the state at the start of the reading
    after = [meter.read(now_s, int(now_s * per_s)) for now_s in (7.1, 7.4, 7.65)]
    for bounds in (late, *after):
        assert bounds is not None
        assert bounds.min_per_s <= per_s
        assert bounds.recent_requests / bounds.recent_s <= 1.05 * per_s


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 100)), min_size=1, max_size=100))
def test_whatever_is_read_bounds_are_in_order(readings: list[tuple[float, int]]) -> None:
    meter, now_s, count = RateEstimator(), 0.0, 0
    for gap_s, more in readings:
        now_s, count = now_s + gap_s, count + more
        bounds = meter.read(now_s, count)
        if bounds is not None:
            assert 0 <= bounds.min_per_s <= bounds.max_per_s
            assert bounds.expected_per_s <= bounds.max_per_s
