"""Random configurations, each measured on every item (Bergstra & Bengio, JMLR 13, 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, mean_scores, placeable
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case


@dataclass(frozen=True)
class RandomSearch:
    """Search over a fixed number of distinct configurations that fit on some tier, for the cheapest feasible plan.

    Prefixes are reused. A case is reported as infeasible if no plan meets the SLOs.
    """

    configurations: int = 15
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"random {self.configurations}"

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        for configuration in rng.permutation(placeable(meter))[: self.configurations]:
            meter.measure(int(configuration), meter.space.items)
        return cheapest_plan(case, meter, case.accurate(mean_scores(meter)))
