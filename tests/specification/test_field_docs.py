"""Docstrings of the fields of models."""

from __future__ import annotations

from pydantic import BaseModel, Field

from circinus.specification.json_schema import field_docs


class Box(BaseModel):
    """A box."""

    width_m: float
    """Outer width."""
    color: str = "red"
    lid: bool = Field(default=True, alias="cover")
    """True for a box with a lid;
    most have one."""


class Crate(Box):
    """A wooden box."""

    color: str = "brown"
    """Color of the paint."""


def test_the_text_below_a_field_is_found_and_what_has_none_is_left_out() -> None:
    assert field_docs(Box) == {"width_m": "Outer width.", "lid": "True for a box with a lid;\nmost have one."}


def test_fields_are_inherited_with_their_texts() -> None:
    assert field_docs(Crate) == {**field_docs(Box), "color": "Color of the paint."}
