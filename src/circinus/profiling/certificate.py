"""What plans say of the configurations that were not measured."""

from __future__ import annotations

from dataclasses import dataclass

from circinus.spec import Configuration


@dataclass(frozen=True)
class Certificate:
    """How probable it is that a configuration which was not measured makes a query's plan cheaper."""

    unmeasured: int
    """How many configurations were not measured."""
    considered: int
    """How many of these were looked at one by one: all, unless there are too many to list."""
    probability: float
    """The greatest probability with which one of those looked at improves the plan of any query by more than
    `saving`."""
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
            return "every configuration was measured"
        which = "none of the unmeasured configurations"
        if self.considered < self.unmeasured:
            which += f" (of {self.unmeasured:,} the {self.considered:,} most promising were looked at)"
        makes = f"any query's plan more than {self.saving:.0%} cheaper"
        if self.conclusive:
            likely = f" with a probability above {self.probability:.2g}" if self.probability else ""
            return f"{which} makes {makes}{likely}"
        words = f"with a probability of {self.probability:.2g} an unmeasured configuration makes {makes}"
        return words if self.next is None else f"{words}; the next to measure is {self.next}"
