"""Interfaces of user code: operators, data sets and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # replicas import this module, and need no pydantic
    from circinus.specification.base_model import Scalar
    from circinus.specification.pipeline import OperatorSpec


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
            n picklable outputs, the i-th for the i-th elements of the inputs. With `emits: many` each is a list, and
            with `branches` each output, or each element of the lists, is a `Branch`.
        """
        ...


@dataclass(frozen=True)
class Branch:
    """Output that takes one of the branches of its operator.

    Example:
        >>> import circinus as c
        >>> c.Branch("unsure", "B 1O8").name
        'unsure'
    """

    name: str
    """One of the operator's `branches`."""
    value: Any
    """Output that operators after this branch receive."""


@dataclass(frozen=True)
class Emission:
    """What an operator returns for each input."""

    max_elements: int | None = None
    """Maximum number of elements of the list that it returns for each input; None if it returns one output."""
    branches: tuple[str, ...] = ()
    """Branches that each output or element takes; empty if it takes none."""

    @classmethod
    def of(cls, spec: OperatorSpec) -> Emission:
        """Return what the specification says."""
        return cls(spec.max_elements if spec.emits == "many" else None, tuple(spec.branches))


ONE = Emission()
"""One output for each input."""
NO_BRANCH = -1
"""Index of the branch of an output without one."""


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
    takes_cpus: bool = True
    """Whether a replica gets its CPUs; otherwise replicas with different CPUs but as many threads are alike."""

    def __call__(self, *inputs: Any, **knobs: Any) -> Any:
        """Call the decorated class or function."""
        return self.target(*inputs, **knobs)


DECLARATION = "__circinus_operator__"
"""Attribute of a decorated class or function with its `OperatorFactory`."""


def operator_of(decorated: Any) -> OperatorFactory | None:
    """Return the factory of a class or function decorated with `@operator`; None for other objects.

    Subclasses and wrappers of an operator, which have its attributes, are none.

    Example:
        >>> import circinus as c
        >>> from circinus.operators import operator_of
        >>> @c.operator(version="1")
        ... def scale(value: float, *, factor: float = 2.0) -> float:
        ...     return value * factor
        >>> operator_of(scale).knobs
        ('factor',)
        >>> operator_of(scale).create({"factor": 3.0}, 1.0).process([1.0, 2.0])
        [3.0, 6.0]
    """
    if isinstance(decorated, OperatorFactory):
        return decorated
    factory = getattr(decorated, DECLARATION, None)
    return factory if isinstance(factory, OperatorFactory) and factory.target is decorated else None


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
