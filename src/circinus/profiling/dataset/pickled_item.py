"""Items of data sets whose values stay serialized."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.operators.process_output import stdout_to_stderr


class PickledItem(Item):
    """Item whose value and ground truth are unpickled when they are read.

    Operators and metrics get them as they were pickled, so that most commands import no type of theirs.
    """

    def __init__(self, key: str, value: bytes, truth: bytes, strata: Mapping[str, str]) -> None:
        """Create an item from its pickled value and ground truth."""
        vars(self).update(key=key, strata=strata, pickled=(value, truth))

    @cached_property
    def value(self) -> Any:
        """Input of the pipeline."""
        return self._unpickled(0)

    @cached_property
    def truth(self) -> Any:
        """Ground truth."""
        return self._unpickled(1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        own, others = ((item.key, item.value, item.truth, item.strata) for item in (self, other))
        return own == others

    __hash__ = None  # type: ignore[assignment]

    def _unpickled(self, index: int) -> Any:
        try:
            with stdout_to_stderr():
                return unpickle_value(vars(self)["pickled"][index])
        except (Exception, SystemExit) as error:  # unpickling imports the module of a type, and runs its code
            raise ProfileError(
                f"cannot unpickle its {('value', 'ground truth')[index]}: {type(error).__name__}: {error}",
                code="dataset.unreadable_item",
                location=f"item {self.key}",
            ) from error


def pickled_value(item: Item) -> bytes:
    """Return the serialized value of an item."""
    value: bytes = vars(item)["pickled"][0] if isinstance(item, PickledItem) else pickle_value(item.value)
    return value


def pickled_truth(item: Item) -> bytes:
    """Return the serialized ground truth of an item."""
    truth: bytes = vars(item)["pickled"][1] if isinstance(item, PickledItem) else pickle_value(item.truth)
    return truth
