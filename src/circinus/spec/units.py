"""Quantities as people write them (`150ms`, `40Mbit/s`, `8GiB`, `$0.40/h`) and the base units we compute in.

Base units: seconds, bytes, bytes per second, requests per second, US dollars per hour, US dollars per gigabyte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_NUMBER = r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"


@dataclass(frozen=True)
class Quantity:
    """One kind of quantity: its units with their factors to the base unit, and how it is spoken of."""

    name: str
    example: str
    factors: Mapping[str, float]
    """Unit as written -> factor to the base unit."""
    prefix: str = ""
    """What stands before the number, such as `$`."""

    def parse(self, text: str) -> float:
        """The value of `text` in base units.

        Raises:
            ValueError: `text` is not a number followed by one of the units.
        """
        match = re.fullmatch(rf"\s*{re.escape(self.prefix)}\s*{_NUMBER}\s*(?P<unit>\S*)\s*", text)
        if match is None or match["unit"] not in self.factors:
            units = ", ".join(self.factors)
            raise ValueError(f"a {self.name} such as {self.example} (units: {units})")
        return float(match["number"]) * self.factors[match["unit"]]

    def format(self, value: float) -> str:
        """`value`, given in base units, in the largest unit that leaves at least 1; `parse` gives `value` back."""
        units = sorted(self.factors.items(), key=lambda unit: unit[1])
        fitting = [unit for unit in units if abs(value) >= unit[1]] or units[:1]
        for unit, factor in [*reversed(fitting), *units]:
            text = f"{self.prefix}{value / factor:.12g}{unit}"
            if self.parse(text) == value:
                return text
        return f"{self.prefix}{value!r}{next(unit for unit, factor in units if factor == 1)}"


DURATION = Quantity("duration", "150ms", {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0})
SIZE = Quantity(
    "size",
    "8GiB",
    {
        "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
    },
)  # fmt: skip
BANDWIDTH = Quantity(
    "bandwidth",
    "40Mbit/s",
    {
        "bit/s": 1 / 8, "kbit/s": 1e3 / 8, "Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8,
        "B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "KiB/s": 2.0**10, "MiB/s": 2.0**20, "GiB/s": 2.0**30,
    },
)  # fmt: skip
RATE = Quantity("rate", "5/s", {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600})
PRICE_PER_H = Quantity("price", "$0.40/h", {"/h": 1.0, "/day": 1 / 24, "/month": 1 / 730}, prefix="$")
PRICE_PER_GB = Quantity("price of traffic", "$0.05/GB", {"/GB": 1.0, "/TB": 1e-3}, prefix="$")


def _validator(quantity: Quantity) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        return quantity.parse(value) if isinstance(value, str) else value

    return validate


def _annotated(quantity: Quantity) -> tuple[Any, ...]:
    schema = {"anyOf": [{"type": "number"}, {"type": "string", "examples": [quantity.example]}]}
    return (
        Field(ge=0, allow_inf_nan=False),
        BeforeValidator(_validator(quantity)),
        PlainSerializer(quantity.format, return_type=str),
        WithJsonSchema({**schema, "description": f"A {quantity.name} such as `{quantity.example}`."}),
    )


DurationS = Annotated[float, *_annotated(DURATION)]
Bytes = Annotated[float, *_annotated(SIZE)]
BytesPerS = Annotated[float, *_annotated(BANDWIDTH)]
RequestsPerS = Annotated[float, *_annotated(RATE)]
UsdPerH = Annotated[float, *_annotated(PRICE_PER_H)]
UsdPerGb = Annotated[float, *_annotated(PRICE_PER_GB)]
