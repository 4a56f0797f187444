"""Planners of single queries: each query gets the plan that is best for it alone, first come, first served.

Whole replicas at a common utilization are placed on nodes until a query does not fit (`first_come`), so that nothing is
overloaded, which most of these planners would not ensure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.baselines.first_come_plans import PlanOf, first_come
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.profiling import PipelineProfile

Prepare = Callable[[Contest, Market, int], tuple[Mapping[str, PipelineProfile], PlanOf]]
"""(contest, its market, seed) -> the profiles that were bought, and the plan of each query."""


@dataclass(frozen=True)
class OneByOne:
    """A planner of single queries."""

    name: str
    prepare: Prepare
    tiers: tuple[str, ...] | None = None
    shares_prefixes: bool = False
    """Whether shared prefixes of configurations are measured once."""

    @property
    def description(self) -> str:
        """See `Planner`; the text of the module."""
        return sys.modules[self.prepare.__module__].__doc__ or ""

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`."""
        market = Market(contest, shares_prefixes=self.shares_prefixes)
        begin_s = time.perf_counter()
        profiles, plan_of = self.prepare(contest, market, seed)
        plans = {query: plan_of(query) for query in contest.specification.queries}
        first_plan_s = time.perf_counter() - begin_s
        matching = first_come(contest.specification, profiles, plans.__getitem__)
        return market.planned(matching, first_plan_s, time.perf_counter() - begin_s)
