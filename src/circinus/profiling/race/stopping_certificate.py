"""What plans say of the configurations that were not measured."""

from __future__ import annotations

from dataclasses import dataclass

from circinus.specification import Configuration

_LEAST = 1e-6
"""Probabilities below this are not told apart: beliefs are not as exact."""


@dataclass(frozen=True)
class StoppingCertificate:
    """How probable it is that a configuration which was not measured makes a query's plan cheaper."""

    unmeasured: int
    """How many configurations were not measured."""
    considered: int
    """How many of these were looked at one by one: all, unless there are too many to list."""
    probability: float | None
    """The greatest probability with which one of those looked at improves the plan of any query by more than
    `saving`, as believed from what was measured; None: too little was to say."""
    saving: float
    """Share of a plan's cost."""
    conclusive: bool
    """Whether that is little enough to stop, and nothing that might help is known on too few items or cannot be
    measured."""
    next: Configuration | None = None
    """What would be measured next; None: nothing that can be measured is worth it."""
    prior: str = ""
    """What became of scores known from elsewhere; empty: there are none."""

    def __str__(self) -> str:
        if not self.unmeasured:
            return "no configuration is left that was not tried"
        makes = f"gives a query a first plan or one more than {self.saving:.0%} cheaper"
        if self.probability is None:
            words = f"too little was measured to say whether another configuration {makes}"
        elif self.conclusive:
            which = "most likely none of the configurations that were not measured"
            if self.considered < self.unmeasured:
                which += f" ({self.considered:,} of {self.unmeasured:,} were looked at, mostly the most promising)"
            return f"{which} {makes}: each does with a probability of at most {max(self.probability, _LEAST):.2g}"
        else:
            chance = max(self.probability, _LEAST)
            words = f"with a probability of {chance:.2g} a configuration that was not measured {makes}"
        return words if self.next is None else f"{words}; the next to measure is {self.next}"
