"""The texts below the fields of models."""

from __future__ import annotations

from pydantic import BaseModel, Field

from circinus.specification.json_schema import field_docs


class Box(BaseModel):
    """A box."""

    width_m: float
    """Outside."""
    color: str = "red"
    lid: bool = Field(default=True, alias="cover")
    """Whether it has one;
    most have."""


class Crate(Box):
    """A box of wood."""

    color: str = "brown"
    """Of the paint."""


def test_the_text_below_a_field_is_found_and_what_has_none_is_left_out() -> None:
    assert field_docs(Box) == {"width_m": "Outside.", "lid": "Whether it has one;\nmost have."}


def test_fields_are_inherited_with_their_texts() -> None:
    assert field_docs(Crate) == {**field_docs(Box), "color": "Of the paint."}
