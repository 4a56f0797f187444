"""Parsing and formatting of quantities, which round-trip exactly."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from circinus.specification.units import (
    BANDWIDTH,
    DURATION,
    PRICE_PER_GB,
    PRICE_PER_H,
    RATE,
    REQUIRE_UNITS,
    SIZE,
    DurationS,
    Quantity,
    UnitError,
)

QUANTITIES = [DURATION, SIZE, BANDWIDTH, RATE, PRICE_PER_H, PRICE_PER_GB]
values = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
durations = TypeAdapter(DurationS)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
@given(value=values)
def test_what_is_printed_is_read_back_exactly(quantity: Quantity, value: float) -> None:
    value = min(value, quantity.maximum)
    assert quantity.parse(quantity.format(value)) == value


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
@given(number=st.decimals(0, 10**5, places=2), data=st.data())
def test_every_unit_is_read_with_its_factor(quantity: Quantity, number: Any, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(list(quantity.factors)))
    space = data.draw(st.sampled_from(["", " "]))
    text = f"{quantity.prefix}{number}{space}{unit}"
    assert quantity.parse(text) == pytest.approx(float(number) * quantity.factors[unit], rel=1e-15)
    assert re.search(quantity.pattern, text)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
@given(text=st.text(max_size=8) | st.from_regex(r"\$?[-+]?[0-9.]{1,4}(e[0-9]{1,3})? ?[a-zA-Z/]{0,5}", fullmatch=True))
def test_the_pattern_for_editors_agrees_with_what_is_read(quantity: Quantity, text: str) -> None:
    try:
        quantity.parse(text)
    except UnitError as error:
        if "and at most" not in error.expected:
            assert not re.search(quantity.pattern, text, re.ASCII)
    else:
        assert re.search(quantity.pattern, text, re.ASCII) or float(re.findall(r"[\d.]+", text)[0]) == 0


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        (DURATION, 0.15, "150ms"),
        (DURATION, 0.0, "0s"),
        (DURATION, 90.0, "90s"),
        (DURATION, 2e-6, "2us"),
        (DURATION, 0.83, "830ms"),
        (DURATION, 0.333333, "333.333ms"),
        (SIZE, 8 * 2.0**30, "8GiB"),
        (SIZE, 2e9, "2GB"),
        (SIZE, 1500.0, "1.5kB"),
        (BANDWIDTH, 5e6, "40Mbit/s"),
        (RATE, 5.0, "5/s"),
        (RATE, 0.5, "30/min"),
        (PRICE_PER_H, 0.4, "$0.40/h"),
        (PRICE_PER_H, 12.3456, "$12.3456/h"),
        (PRICE_PER_GB, 0.05, "$0.05/GB"),
    ],
)
def test_quantities_are_printed_as_people_write_them(quantity: Quantity, value: float, text: str) -> None:
    assert quantity.format(value) == text


@pytest.mark.parametrize(
    ("quantity", "text", "words"),
    [
        (DURATION, "150", ("'150'", "a duration such as 150ms", "units: us, ms, s, min, h")),
        (DURATION, "", ("''", "a duration")),
        (DURATION, "1,5s", ("'1,5s'",)),
        (DURATION, "nan s", ("'nan s'",)),
        (DURATION, "٣s", ("a duration",)),
        (DURATION, "-1ms", ("'-1ms'", "at least 0")),
        (DURATION, "150 Ms", ("did you mean 150ms",)),
        (DURATION, "2m", ("did you mean 2min or 2ms?",)),
        (DURATION, "2minutes", ("did you mean 2min?",)),
        (SIZE, "8Gib", ("did you mean 8GiB?",)),
        (BANDWIDTH, "40Mb/s", ("did you mean 40MB/s or 40Mbit/s?",)),
        (PRICE_PER_H, "0.40/h", ("a price such as $0.40/h",)),
        (PRICE_PER_H, "$1e999/h", ("at most",)),
    ],
)
def test_what_is_no_quantity_is_said_so(quantity: Quantity, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UnitError) as raised:
        quantity.parse(text)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("value", [150, 0.15, "150"])
def test_a_number_without_unit_is_refused_where_people_write(value: Any) -> None:
    with pytest.raises(ValidationError, match=f"found {value!r}, expected a duration such as 150ms"):
        durations.validate_python(value, context={REQUIRE_UNITS: True})


def test_a_number_in_python_is_in_base_units_and_zero_needs_no_unit() -> None:
    assert durations.validate_python(0.15) == 0.15
    assert durations.validate_python(0, context={REQUIRE_UNITS: True}) == 0
    assert durations.dump_python(0.15) == 0.15
    assert durations.dump_python(0.15, mode="json") == "150ms"


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, None, [1]])
def test_what_is_no_number_is_refused_in_python_too(value: Any) -> None:
    with pytest.raises(ValidationError, match="expected a duration"):
        durations.validate_python(value)
