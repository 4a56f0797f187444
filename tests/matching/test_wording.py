from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.matching.wording import amount, bandwidth, duration, rounded_down, rounded_up, size, usd_per_h


def test_quantities_are_spoken_with_a_unit_that_fits() -> None:
    assert duration(0.4123) == "412 ms"
    assert duration(90) == "1.5 min"
    assert duration(0.00005) == "50 us"
    assert size(2.0**31) == "2 GiB"
    assert bandwidth(5e6) == "40 Mbit/s"
    assert usd_per_h(0.01234) == "$0.0123/h"
    assert usd_per_h(1234567.0) == "$1234567/h"
    assert amount("cpus", 2.0) == "2 cpus"
    assert amount("gpu memory", 1.5 * 2**30) == "1.5 GiB gpu memory"


@pytest.mark.parametrize(("value", "up", "down"), [(0.41234, 0.413, 0.412), (412.0, 412.0, 412.0), (0.0, 0.0, 0.0)])
def test_limits_are_rounded_to_the_kind_side(value: float, up: float, down: float) -> None:
    assert rounded_up(value) == up
    assert rounded_down(value) == down


@given(st.floats(1e-6, 1e9))
def test_rounding_never_tightens_and_hardly_loosens(value: float) -> None:
    assert value <= rounded_up(value) <= value * 1.0101
    assert value * 0.9899 <= rounded_down(value) <= value
