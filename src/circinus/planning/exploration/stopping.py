"""When no further configuration is pursued."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StoppingRule:
    """What is too little."""

    saving: float = 0.05
    """Share of its plan's cost that a query is to save at least."""
    probability: float = 0.05
    """What saves more with at most this probability is not pursued."""
    probability_without_plan: float = 0.005
    """The same as long as there is no plan: to miss the only one costs more than to miss a cheaper one."""
