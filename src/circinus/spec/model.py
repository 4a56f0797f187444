"""The base of everything in a specification: frozen, closed to unknown fields, equal by value."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=63)]
"""A name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit."""

Scalar = bool | int | float | str
"""The value of a knob."""


class SpecModel(BaseModel):
    """A frozen model. Fields carry their unit (`round_trip_s`); in YAML the alias (`round_trip: 20ms`) is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)
