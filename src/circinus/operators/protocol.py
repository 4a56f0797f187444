"""Interfaces of user code: operators, data sets and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # replicas import this module, and need no pydantic
    from circinus.specification.base_model import Scalar


@runtime_checkable
class Operator(Protocol):
    """Replica of an operator with its knobs set and its model loaded.

    Example:
        >>> import circinus as c
        >>> class Upper:
        ...     def process(self, texts):
        ...         return [text.upper() for text in texts]
        >>> isinstance(Upper(), c.Operator)
        True
    """

    def process(self, *inputs: Sequence[Any]) -> Sequence[Any]:
        """Process a batch.

        Args:
            inputs: sequences of equal length n, one for each operator in `after`, or the pipeline's inputs if `after`
                is empty.

        Returns:
            n picklable outputs, the i-th for the i-th elements of the inputs.
        """
        ...


@dataclass(frozen=True)
class OperatorFactory:
    """Factory of replicas, created by `@operator` from a class or a function."""

    name: str
    create: Callable[[Mapping[str, Scalar], float], Operator]
    """(knob values, CPUs of the replica) -> loaded operator. Called once per replica."""
    knobs: tuple[str, ...]
    """Names of accepted knobs."""
    inputs: int | None
    """Number of inputs of `process`, or None for any number."""
    version: str
    """Hash of the defining source file, or the version declared with `@operator(version=...)`. Measurements of one
    version do not apply to another."""
    target: Callable[..., Any]
    """Decorated class or function."""
    required_knobs: tuple[str, ...] = ()
    """Names of knobs without default, which the specification must contain."""


@dataclass(frozen=True)
class Item:
    """Input of a data set, with its ground truth.

    Example:
        >>> import circinus as c
        >>> item = c.Item(key="clip-1", value=b"...", truth="good morning", strata={"noise": "low"})
        >>> item.truth
        'good morning'
    """

    key: str
    value: Any
    truth: Any
    strata: Mapping[str, str] = field(default_factory=dict)
    """Properties of the item for stratification, such as noise level or room."""


Metric = Callable[[Any, Any], float]
"""(output of the pipeline, ground truth) -> score."""

DatasetFunction = Callable[..., Sequence[Item]]
"""(keyword arguments of the specification) -> items, equal in every call."""
