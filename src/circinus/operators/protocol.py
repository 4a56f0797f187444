"""What an operator, an item of a data set and a metric are to Circinus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # every replica imports this module, and none needs what the specification is made of
    from circinus.specification.base_model import Scalar


@runtime_checkable
class Operator(Protocol):
    """One replica of an operator with its knobs set and its model loaded."""

    def process(self, *inputs: Sequence[Any]) -> Sequence[Any]:
        """Process a batch.

        Args:
            inputs: one sequence for each operator named in `after` (for the pipeline's input where there is none),
                all of the same length n.

        Returns:
            n outputs, the i-th for the i-th of each input. Everything must pickle.
        """
        ...


@dataclass(frozen=True)
class OperatorFactory:
    """An operator before its knobs are set: what `@operator` makes of a class or a function."""

    name: str
    create: Callable[[Mapping[str, Scalar], float], Operator]
    """(knob values, CPUs of the replica) -> a loaded operator. Called once a replica."""
    knobs: tuple[str, ...]
    """Names of the knobs it accepts."""
    inputs: int | None
    """Number of inputs `process` takes; None: any."""
    version: str
    """Hash of the defining source file (or the version declared with `@operator(version=...)`): what was measured
    of one version is not believed of another."""
    target: Callable[..., Any]
    """The class or function that was decorated."""
    required_knobs: tuple[str, ...] = ()
    """Names of the knobs that have no default: each must be in the specification."""


@dataclass(frozen=True)
class Item:
    """One input of a data set, with the truth to score the answer against."""

    key: str
    value: Any
    truth: Any
    strata: Mapping[str, str] = field(default_factory=dict)
    """Conditions of the item, such as noise level or room."""


Metric = Callable[[Any, Any], float]
"""(output of the pipeline, truth) -> score."""

DatasetFunction = Callable[..., Sequence[Item]]
"""(arguments of the specification as keywords) -> items, the same at every call."""
