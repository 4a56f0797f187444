"""Configurations at random, each on every item (Bergstra & Bengio, JMLR 13, 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, mean_scores, placeable
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case


@dataclass(frozen=True)
class RandomSearch:
    """A fixed number of different configurations that fit somewhere; the cheapest plan of those that keep the SLOs.

    Prefixes that were run are not run again. It claims that a case is infeasible where it found nothing.
    """

    configurations: int = 15
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"random {self.configurations}"

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        for configuration in rng.permutation(placeable(meter))[: self.configurations]:
            meter.measure(int(configuration), meter.space.items)
        return cheapest_plan(case, meter, case.accurate(mean_scores(meter)))
