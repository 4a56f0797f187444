from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.reporting.quantities import duration, size, usd_per_h


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.412, "412 ms"), (0.9999, "1 s"), (59.99, "1 min"), (1.5e-6, "1.5 µs"), (3661.0, "1.02 h"),
        (1e-9, "0.001 µs"), (1234.0, "20.6 min"), (3.6e6, "1000 h"), (3.6e7, "10000 h"),
    ],
)  # fmt: skip
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_prices() -> None:
    assert size(160_000) == "156 KiB"
    assert size(0) == "0 B"
    assert usd_per_h(0.0123) == "$0.0123/h"
    assert usd_per_h(12345) == "$12345/h"


@given(st.floats(1e-6, 1e6))
def test_a_duration_keeps_three_digits(seconds: float) -> None:
    number, unit = duration(seconds).split(" ")
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}[unit]
    assert float(number) * factor == pytest.approx(seconds, rel=5.1e-3)
