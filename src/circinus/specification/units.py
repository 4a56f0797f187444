"""Quantities with units (`150ms`, `40Mbit/s`, `8GiB`, `$0.40/h`), converted to base units.

Base units: seconds, bytes, bytes per second, requests per second, US dollars per hour, US dollars per gigabyte.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from circinus.specification.diagnostics import Expected, describe, issue_error
from circinus.specification.limits import MAX_TEXT

_NUMBER = r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"

REQUIRE_UNITS = "bare_numbers_refused"
"""Key of the validation context that makes a number without a unit an error, unless it is 0."""


class UnitError(ValueError):
    """Text that is not a quantity of the expected kind."""

    def __init__(self, found: str, expected: str, hint: str = "") -> None:
        super().__init__(f"found {found}, expected {expected}" + (f"; {hint}" if hint else ""))
        self.found, self.expected, self.hint = found, expected, hint


@dataclass(frozen=True)
class Quantity:
    """Kind of quantity: its units with factors to the base unit, and its name in messages."""

    name: str
    example: str
    factors: Mapping[str, float]
    """Unit as written -> factor to the base unit. The first of several units with equal factors is printed."""
    prefix: str = ""
    """Text before the number, such as `$`."""
    decimals: int = 0
    """Minimum number of printed decimals."""
    printed: tuple[str, ...] = ()
    """Preferred units for printing, used if they represent the value exactly; default all."""
    maximum: float = 1e15
    """Largest value in base units."""
    minimum: float = 0.0
    """Smallest value above zero in base units."""

    @property
    def expected(self) -> str:
        """Expected value in messages."""
        return f"a {self.name} such as {self.example}"

    @property
    def units(self) -> tuple[str, ...]:
        """Units of messages and of `format`: the first one for each factor."""
        by_factor: dict[float, str] = {}
        for unit, factor in self.factors.items():
            by_factor.setdefault(factor, unit)
        return tuple(by_factor.values())

    @property
    def pattern(self) -> str:
        """Regular expression (ECMA 262) of all texts that `parse` accepts."""
        units = "|".join(re.escape(unit).replace("/", r"\/") for unit in self.factors)
        return rf"^\s*{re.escape(self.prefix)}\s*\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*({units})\s*$"

    def expected_range(self, *, above_zero: bool) -> str:
        """Return the expectation of a value that is negative, too large or, with `above_zero`, 0 or too small."""
        smallest = f"at least {self.format(self.minimum)}" if self.minimum else "more than 0"
        return f"a {self.name} of {smallest if above_zero else 'at least 0'}, and at most {self.format(self.maximum)}"

    def parse(self, text: str, *, above_zero: bool = False) -> float:
        """Return the value of `text` in base units.

        Raises:
            UnitError: `text` is not a number followed by one of the units, or it is negative, too large or, with
                `above_zero`, 0 or too small.
        """
        number, unit = self._split(text)
        value = self._exact(number, unit)
        if not self._is_in_range(value, above_zero=above_zero):
            raise UnitError(describe(text), self.expected_range(above_zero=above_zero))
        return value

    def _split(self, text: str) -> tuple[str, str]:
        """Return the number and the unit of a text. Longer texts would take quadratic time."""
        pattern = rf"\s*{re.escape(self.prefix)}\s*{_NUMBER}\s*(?P<unit>\S*)\s*"
        match = re.fullmatch(pattern, text, re.ASCII) if len(text) <= MAX_TEXT else None
        if match is None:
            raise UnitError(describe(text), self.expected, f"units: {', '.join(self.units)}")
        if match["unit"] not in self.factors:
            raise UnitError(describe(text), self.expected, self._hint(match["number"], match["unit"]))
        return match["number"], match["unit"]

    def _exact(self, number: str, unit: str) -> float:
        """Return the value in base units, computed in decimals, so that 830ms is 0.83s exactly."""
        value = float(number) * self.factors[unit]
        if not value or not math.isfinite(value):
            return value + 0.0
        # A factor is a whole number, or one divided by another.
        return float(Fraction(number) * Fraction(self.factors[unit]).limit_denominator(10**6))

    def _hint(self, number: str, unit: str) -> str:
        written = unit.casefold()
        preferred = [candidate for candidate in self.units if candidate in self.printed]
        other_case = [candidate for candidate in self.units if candidate.casefold() == written]
        # `2m` is a prefix of minutes and of milliseconds, so both are suggested.
        longer = sorted((candidate for candidate in self.units if candidate.startswith(unit)), key=len, reverse=True)
        candidates = other_case + _similar(written, preferred) or longer or _similar(written, self.units)
        if unit and candidates:
            return f"did you mean {' or '.join(f'{self.prefix}{number}{candidate}' for candidate in candidates)}?"
        return f"units: {', '.join(self.units)}"

    def format(self, value: float) -> str:
        """Return a value in base units as a number >= 1 of few digits with a unit, which `parse` reads back exactly."""
        value += 0.0  # turns -0.0 into 0.0
        units = {self.factors[unit]: unit for unit in self.units}
        preferred = [factor for factor in units if not self.printed or units[factor] in self.printed]
        fitting = sorted((factor for factor in preferred if value >= factor), reverse=True) or [1.0]
        for factors in (fitting, sorted(units)):
            texts = [f"{self.prefix}{n}{units[f]}" for f in factors for n in self._numbers(value / f)]
            exact = [text for text in texts if self._is_exact(text, value)]
            if exact:
                return min(exact, key=lambda text: len(text.replace(".", "")))
        return f"{self.prefix}{value!r}{units[1.0]}"

    def _numbers(self, number: float) -> tuple[str, ...]:
        return (f"{number:.{self.decimals}f}",) if number == round(number, self.decimals) else (f"{number:.12g}",)

    def _is_exact(self, text: str, value: float) -> bool:
        try:
            return self._exact(*self._split(text)) == value
        except UnitError:  # a value that is not finite
            return False

    def validate(self, value: Any, info: ValidationInfo, *, above_zero: bool = False) -> Any:
        """Return a parsed text, or a number (in base units) unchanged if the context allows numbers without unit."""
        if isinstance(value, str):
            try:
                return self.parse(value, above_zero=above_zero)
            except UnitError as error:
                raise issue_error(error.found, error.expected, error.hint) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise issue_error(describe(value), self.expected)
        if not self._is_in_range(value, above_zero=above_zero):
            raise issue_error(describe(value), self.expected_range(above_zero=above_zero))
        if value != 0 and info.context is not None and info.context.get(REQUIRE_UNITS):
            raise issue_error(describe(value), self.expected, f"add the unit: {', '.join(self.units)}")
        return value

    def _is_in_range(self, value: float, *, above_zero: bool) -> bool:
        is_large_enough = value > 0 and value >= self.minimum if above_zero else value >= 0
        return is_large_enough and value <= self.maximum


def _similar(written: str, units: Sequence[str]) -> list[str]:
    by_folded = {unit.casefold(): unit for unit in units}
    return [by_folded[match] for match in difflib.get_close_matches(written, by_folded, n=1, cutoff=0.6)]


DURATION = Quantity(
    "duration", "150ms", {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}, maximum=1e9
)
SIZE = Quantity(
    "size",
    "8GiB",
    {
        "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
    },
    maximum=2.0**60,
)  # fmt: skip
BANDWIDTH = Quantity(
    "bandwidth",
    "40Mbit/s",
    {
        "bit/s": 1 / 8, "kbit/s": 1e3 / 8, "Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8,
        "bps": 1 / 8, "kbps": 1e3 / 8, "Mbps": 1e6 / 8, "Gbps": 1e9 / 8,
        "B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "KiB/s": 2.0**10, "MiB/s": 2.0**20, "GiB/s": 2.0**30,
    },
    printed=("bit/s", "kbit/s", "Mbit/s", "Gbit/s"),
)  # fmt: skip
RATE = Quantity(
    "rate", "5/s", {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "req/s": 1.0, "rps": 1.0}, maximum=1e9, minimum=1e-9
)
PRICE_PER_H = Quantity(
    "price",
    "$0.40/h",
    {"/h": 1.0, "/day": 1 / 24, "/month": 1 / 730},
    prefix="$",
    decimals=2,
    printed=("/h",),
    maximum=1e9,
)
PRICE_PER_GB = Quantity(
    "price of traffic",
    "$0.05/GB",
    {"/GB": 1.0, "/TB": 1e-3},
    prefix="$",
    decimals=2,
    printed=("/GB",),
    maximum=1e9,
)


def _annotated(quantity: Quantity, *, above_zero: bool = False) -> tuple[Any, ...]:
    schema = {
        "anyOf": [{"type": "string", "pattern": quantity.pattern, "examples": [quantity.example]}, {"const": 0}],
        "description": f"{quantity.expected[0].upper()}{quantity.expected[1:]}.",
    }
    return (
        Field(gt=0, allow_inf_nan=False) if above_zero else Field(ge=0, allow_inf_nan=False),
        BeforeValidator(partial(quantity.validate, above_zero=above_zero)),
        PlainSerializer(quantity.format, return_type=str, when_used="json-unless-none"),
        WithJsonSchema(schema),
        Expected(quantity.expected),
    )


DurationS = Annotated[float, *_annotated(DURATION)]
PositiveDurationS = Annotated[float, *_annotated(DURATION, above_zero=True)]
Bytes = Annotated[float, *_annotated(SIZE)]
PositiveBytes = Annotated[float, *_annotated(SIZE, above_zero=True)]
BytesPerS = Annotated[float, *_annotated(BANDWIDTH, above_zero=True)]
RequestsPerS = Annotated[float, *_annotated(RATE, above_zero=True)]
UsdPerH = Annotated[float, *_annotated(PRICE_PER_H)]
UsdPerGb = Annotated[float, *_annotated(PRICE_PER_GB)]
