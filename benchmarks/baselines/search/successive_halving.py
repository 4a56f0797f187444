"""Successive halving (Karnin, Koren & Somekh, ICML 2013; Jamieson & Talwalkar, AISTATS 2016), items as the resource."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, cheapest_usd_per_h, mean_scores, placeable
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import IntArray


@dataclass(frozen=True)
class SuccessiveHalving:
    """All configurations on a few items; the better half on twice as many; until few are known on all items.

    Better is what has a plan within the limits of latency and cost (known after the first items), falls less short of
    the threshold by its estimate, and of those that do not fall short what is cheaper. With nothing granted dear
    configurations crowd out cheap ones that just keep the threshold, with much granted cheap ones that do not keep it
    crowd out those that do; this much, and so many survivors, were best on other seeds than those of the race. Prefixes
    that were run are not run again, and items that were measured count on. It claims that a case is infeasible where no
    survivor keeps the SLOs.
    """

    first_items: int = 8
    survivors: int = 6
    """Configurations from which on nothing is halved: they are measured on all items."""
    granted_errors: float = 0.5
    """Standard errors by which an estimate may fall short and still count as keeping the threshold."""
    name: str = "successive halving"
    reuse_prefixes: bool = True

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        kept: IntArray = rng.permutation(placeable(meter))  # of equal ones, chance decides
        items = self.first_items
        while True:
            items = meter.space.items if len(kept) <= self.survivors else min(items, meter.space.items)
            for configuration in kept:
                meter.measure(int(configuration), items - int(meter.items[configuration]))
            kept = self._ranked(case, meter, kept)
            if items == meter.space.items or not len(kept):
                break
            kept = kept[: max(self.survivors, (len(kept) + 1) // 2)]
            items *= 2
        full = meter.items == meter.space.items
        return cheapest_plan(case, meter, full & case.accurate(mean_scores(meter)))

    def _ranked(self, case: Case, meter: Meter, kept: IntArray) -> IntArray:
        """Best first, without those that have no plan within the limits."""
        cost = cheapest_usd_per_h(case, meter)[kept]
        scores = [meter.scores(int(k)) for k in kept]
        errors = np.array([s.std() / np.sqrt(len(s)) * np.sqrt(1 - len(s) / meter.space.items) for s in scores])
        short = case.sign * (case.threshold - np.array([s.mean() for s in scores])) - self.granted_errors * errors
        order = np.lexsort((cost, np.maximum(short, 0.0)))
        return kept[order[np.isfinite(cost[order])]]
