"""Exhaustive search: measures everything, the reference for savings of the other methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, mean_scores, placeable
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case


@dataclass(frozen=True)
class Exhaustive:
    """Search that measures every configuration that fits on some tier, on every item, reusing prefixes.

    It finds the optimum and all infeasible cases, as the ground truth is the mean of the same items.
    """

    name: str = "exhaustive"
    reuse_prefixes: bool = True

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        for configuration in placeable(meter):
            meter.measure(int(configuration), meter.space.items)
        return cheapest_plan(case, meter, case.accurate(mean_scores(meter)))
