"""Successive halving (Karnin, Koren & Somekh, ICML 2013; Jamieson & Talwalkar, AISTATS 2016) over items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, cheapest_usd_per_h, mean_scores, placeable
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import IntArray


@dataclass(frozen=True)
class SuccessiveHalving:
    """Search over all configurations on a few items, then the better half on twice as many, until few remain.

    Configurations without a plan within the limits of latency and cost (available after the first items) are dropped.
    The others are ranked by their shortfall from the threshold, and then by cost. Without granted errors expensive
    configurations crowd out cheap ones that just meet the threshold; with many, cheap ones that miss it crowd out those
    that meet it. These values were best on other seeds than those of the race. Prefixes and measured items are reused.
    A case is reported as infeasible if no survivor meets the SLOs.
    """

    first_items: int = 8
    survivors: int = 6
    """Number of configurations that are measured on all items instead of being halved."""
    granted_errors: float = 0.5
    """Standard errors of shortfall that still count as meeting the threshold."""
    name: str = "successive halving"
    reuse_prefixes: bool = True

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        remaining: IntArray = rng.permutation(placeable(meter))  # ties are broken at random
        items = self.first_items
        while True:
            items = meter.space.items if len(remaining) <= self.survivors else min(items, meter.space.items)
            for configuration in remaining:
                meter.measure(int(configuration), items - int(meter.items[configuration]))
            remaining = self._ranked(case, meter, remaining)
            if items == meter.space.items or not len(remaining):
                break
            remaining = remaining[: max(self.survivors, (len(remaining) + 1) // 2)]
            items *= 2
        full = meter.items == meter.space.items
        return cheapest_plan(case, meter, full & case.accurate(mean_scores(meter)))

    def _ranked(self, case: Case, meter: Meter, remaining: IntArray) -> IntArray:
        """Return the configurations with a plan within the limits, best first."""
        cost = cheapest_usd_per_h(case, meter)[remaining]
        scores = [meter.scores(int(k)) for k in remaining]
        errors = np.array([s.std() / np.sqrt(len(s)) * np.sqrt(1 - len(s) / meter.space.items) for s in scores])
        shortfall = case.sign * (case.threshold - np.array([s.mean() for s in scores])) - self.granted_errors * errors
        order = np.lexsort((cost, np.maximum(shortfall, 0.0)))
        return remaining[order[np.isfinite(cost[order])]]
