"""Operators of random applications. Their code never runs: times, sizes and scores are simulated."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.operators import Item, operator


@operator
def a_first(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


@operator
def a_second(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


@operator
def a_third(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


@operator
def b_first(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


@operator
def b_second(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


@operator
def b_third(value: object, *, quality: int) -> object:
    """Return the value."""
    return value


def items(pipeline: str, seed: int) -> Sequence[Item]:
    """Return no items; those of a random application are drawn with its ground truth."""
    return []


def score(output: object, truth: object) -> float:
    """Return the lowest score."""
    return 0.0
