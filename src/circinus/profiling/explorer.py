"""Who says which configurations to measure at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.objectives import Objective
from circinus.profiling.profile import PipelineProfile
from circinus.spec import Configuration

BoolArray = NDArray[np.bool_]
Seconds = Callable[[Configuration, int], float]


@dataclass(frozen=True)
class Proposal:
    """A configuration to measure on its first items."""

    configuration: Configuration
    worth_per_s: float
    """In the currency of `Step.worth_per_s`."""


@dataclass(frozen=True)
class Certificate:
    """Why no further configuration is worth a measurement."""

    unmeasured: int
    """How many configurations were not measured."""
    probability: float
    """The greatest probability with which one of them improves the plan of any query by more than `saving`."""
    saving: float
    """Share of a plan's cost."""
    conclusive: bool = True
    """Whether that is little enough to stop; else what might help cannot be measured."""

    def __str__(self) -> str:
        if not self.unmeasured:
            return "every configuration was measured"
        likely = f" with a probability above {self.probability:.2g}" if self.probability else ""
        return (
            f"none of the unmeasured configurations makes any query's plan more than {self.saving:.0%} cheaper{likely}"
        )


@dataclass(frozen=True, eq=False)
class Assessment:
    """What plans say of the configurations, measured and not."""

    next: Proposal | Certificate
    pointless: Mapping[Objective, BoolArray]
    """For each objective (k,) configurations, in the order listed, with which no query's plan would be much cheaper
    than with those that surely keep it, whichever pool is full: whether they keep it need not be asked."""


class Explorer(Protocol):
    """Chooses among configurations by the plans of queries, which profiling knows nothing of. Follows from what is
    known alone."""

    def cover(self, listed: Sequence[Configuration]) -> Sequence[Configuration]:
        """Configurations to begin with, so that something is known of every operator.

        Args:
            listed: all configurations, in the order that `Assessment.pointless` keeps.
        """

    def assess(self, known: PipelineProfile, seconds: Seconds) -> Assessment:
        """What is worth measuring.

        Args:
            known: what was measured.
            seconds: (configuration, items) -> seconds until it is known on so many items; infinite: it cannot be
                measured.
        """
