"""Which configuration to measure next, or that none is worth it: on arrays alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.planning.exploration.improvement import Outlook, chance, savings


@dataclass(frozen=True)
class Stopping:
    """When no further configuration is measured."""

    saving: float = 0.05
    """Share of its plan's cost that a query is to save at least."""
    probability: float = 0.05
    """What saves more with at most this probability is not measured."""
    without_plan: float = 0.005
    """The same as long as there is no plan: to miss the only one costs more than to miss a cheaper one."""


@dataclass(frozen=True)
class Choice:
    """What is worth most."""

    configuration: int | None
    """None: nothing that can be measured is worth it."""
    worth_per_s: float
    probability: float
    """The greatest with which any configuration saves enough of any query's cost."""


def choose(
    outlooks: Sequence[Outlook], weights: Sequence[float], seconds: Callable[[int], float], stopping: Stopping
) -> Choice:
    """The unmeasured configuration with the most expected savings per second; of equals the first.

    Expected savings are, for each query, the share of the best plan's cost that a configuration saves times the
    probability that it keeps the accuracy objective, times the query's weight; added up.

    Args:
        outlooks: one for each query, of the same configurations.
        weights: of the queries.
        seconds: configuration -> until it is known whether it keeps the objectives; infinite: it cannot be measured.
        stopping: what is too little.
    """
    greatest = np.max([chance(outlook, stopping.saving) for outlook in outlooks], axis=0)
    worth = np.zeros(len(greatest))
    for outlook, weight in zip(outlooks, weights, strict=True):
        worth += weight * outlook.keeps * savings(outlook)
    best, chosen = 0.0, None
    for number in np.flatnonzero(greatest > stopping.probability).tolist():
        per_s = float(worth[number]) / max(seconds(number), 1e-9)
        if per_s > best:
            best, chosen = per_s, number
    return Choice(chosen, best, float(greatest.max(initial=0.0)))
