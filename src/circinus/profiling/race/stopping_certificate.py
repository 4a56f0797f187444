"""Certificate of the benefit of configurations that were not measured."""

from __future__ import annotations

from dataclasses import dataclass

from circinus.specification import Configuration

_MIN_PROBABILITY = 1e-6
"""Smallest reported probability; estimates are not more exact."""


@dataclass(frozen=True)
class StoppingCertificate:
    """Probability that an unmeasured configuration would make a query's plan cheaper."""

    unmeasured: int
    """Number of unmeasured configurations."""
    considered: int
    """Number of unmeasured configurations that were evaluated: all, unless there are too many to enumerate."""
    probability: float | None
    """Highest posterior probability that an evaluated configuration improves the plan of a query by more than
    `saving`; None if there are too few measurements."""
    saving: float
    """Saving as a share of a plan's cost."""
    conclusive: bool
    """True if the probability is low enough to stop, and no helpful configuration has too few items or is
    unmeasurable."""
    next: Configuration | None = None
    """Next configuration to measure; None if no measurable one is worthwhile."""
    prior: str = ""
    """Use of scores from transfer sources; empty if there are none."""

    def __str__(self) -> str:
        if not self.unmeasured:
            return "all configurations were tried"
        benefit = f"gives a query its first plan or one more than {self.saving:.0%} cheaper"
        if self.probability is None:
            message = f"too few measurements to estimate whether another configuration {benefit}"
        elif self.conclusive:
            subject = "most likely no unmeasured configuration"
            if self.considered < self.unmeasured:
                subject += f" ({self.considered:,} of {self.unmeasured:,} evaluated, mostly the most promising)"
            return f"{subject} {benefit}: the probability is at most {max(self.probability, _MIN_PROBABILITY):.2g} each"
        else:
            probability = max(self.probability, _MIN_PROBABILITY)
            message = f"with probability {probability:.2g} an unmeasured configuration {benefit}"
        return message if self.next is None else f"{message}; next to measure: {self.next}"
