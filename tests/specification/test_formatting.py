from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circinus.specification.formatting import (
    Rounding,
    ceil_significant,
    digits_apart,
    floor_significant,
    format_amount,
    format_bandwidth,
    format_bytes,
    format_duration,
    format_interval,
    format_latency_bound,
    format_percentage,
    format_score,
    format_usd_per_h,
)
from circinus.specification.units import DURATION


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.4123, "412 ms"), (0.9999, "1 s"), (59.99, "1 min"), (90, "1.5 min"), (1.5e-6, "1.5 µs"),
        (0.00005, "50 µs"), (3661.0, "1.02 h"), (1e-9, "0.001 µs"), (1234.0, "20.6 min"), (3.6e6, "1000 h"),
        (3.6e7, "10000 h"), (5.61e-17, "0 s"),
    ],
)  # fmt: skip
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_bound_that_is_none_is_no_number() -> None:
    assert format_latency_bound(0.4123) == "413 ms"
    assert format_latency_bound(1e12) == "no bound"


def test_other_quantities_have_a_unit_that_fits() -> None:
    assert format_bytes(160_000) == "156 KiB"
    assert format_bytes(2.0**31) == "2 GiB"
    assert format_bytes(0) == "0 B"
    assert format_bandwidth(5e6) == "40 Mbit/s"
    assert format_bandwidth(0) == "0 bit/s"
    assert format_usd_per_h(0.01234) == "$0.0123/h"
    assert format_usd_per_h(1234567.0) == "$1234567/h"
    assert format_usd_per_h(-0.5) == "-$0.50/h"
    assert format_usd_per_h(12.34) == "$12.34/h"
    assert format_usd_per_h(1.69e-5) == "< $0.0001/h"
    assert format_usd_per_h(0) == "$0/h"
    assert format_percentage(0.84123) == "84.1%"
    assert format_percentage(1) == "100%"
    assert format_percentage(1.234e-7) == "0.0000123%"
    assert format_amount("cpus", 2.0) == "2 CPUs"
    assert format_amount("cpus", 1.0) == "1 CPU"
    assert format_amount("gpu memory", 1.5 * 2**30) == "1.5 GiB GPU memory"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "0.900"), (1, "1.000"), (0, "0.000"), (0.01234, "0.0123"), (87.654, "87.7"), (-0.5, "-0.500")],
)
def test_scores_stand_below_each_other_and_small_ones_are_not_lost(value: float, text: str) -> None:
    assert format_score(value) == text


@dataclass(frozen=True)
class Bounded:
    value: float
    lower: float
    upper: float


def test_bounds_are_said_like_the_value() -> None:
    assert format_interval(format_duration, Bounded(0.412, 0.38, 1.2)) == "412 ms (380 ms to 1.2 s)"
    assert format_interval(format_score, Bounded(0.8, 0.75, 0.85)) == "0.800 (0.750 to 0.850)"


@given(st.floats(1e-6, 1e6))
def test_a_duration_keeps_three_digits(seconds: float) -> None:
    number, unit = format_duration(seconds).split(" ")
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}[unit]
    assert float(number) * factor == pytest.approx(seconds, rel=5.1e-3)


@pytest.mark.parametrize(("value", "up", "down"), [(0.41234, 0.413, 0.412), (412.0, 412.0, 412.0), (0.0, 0.0, 0.0)])
def test_limits_are_rounded_to_the_kind_side(value: float, up: float, down: float) -> None:
    assert ceil_significant(value) == up
    assert floor_significant(value) == down


@given(st.floats(1e-6, 1e9))
def test_rounding_never_tightens_and_hardly_loosens(value: float) -> None:
    assert value <= ceil_significant(value) <= value * 1.0101
    assert value * 0.9899 <= floor_significant(value) <= value


@given(st.floats(1e-6, 1e4))
def test_bounds_are_printed_on_the_side_on_which_they_hold(value: float) -> None:
    lower, upper = (float(format_score(value, rounding=rounding)) for rounding in (Rounding.DOWN, Rounding.UP))
    assert lower <= value * (1 + 1e-9)
    assert upper >= value * (1 - 1e-9)
    number, unit = format_latency_bound(value).split(" ")
    assert value * (1 - 1e-9) <= float(number) * DURATION.factors[unit] <= value * 1.0101


@given(st.floats(1e-3, 1e5), st.floats(0, 0.02))
@example(125.0, 8e-4)
@example(2.0, -9e-10)
def test_a_latency_bound_that_meets_a_limit_is_never_printed_above_it(limit: float, share: float) -> None:
    limit = float(f"{limit:.6g}")
    number, unit = format_latency_bound(limit * (1 - share), limit=limit).split(" ")
    assert float(number) * DURATION.factors[unit] == pytest.approx(limit * (1 - share), rel=0.011)
    assert float(number) * DURATION.factors[unit] <= limit * (1 + 1e-12)


@given(st.floats(1e-3, 1e3), st.integers(1, 9))
@example(1.645, 4)
def test_a_value_below_a_limit_is_printed_below_it(limit: float, decimals: int) -> None:
    limit = float(f"{limit:.6g}")
    value = limit * (1 - 10.0**-decimals)
    assert float(format_score(value, digits_apart(value, limit))) < limit
