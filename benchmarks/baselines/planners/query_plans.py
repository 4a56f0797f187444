"""Plans of single queries within their limits of latency and cost, for planners that know the percentiles of queues.

An operator may be in the nearest pool of each tier. The latency is that of the product's formulas, with waits at the
utilization target; all queries that differ in name and weight only share the estimates.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.baselines.by_hand import UTILIZATION_TARGET
from benchmarks.baselines.vulcan_plans import Placement, mean_latency_s, placements, plan_on
from benchmarks.evaluation.contest import Contest
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate
from circinus.profiling import ConfigurationProfile
from circinus.specification import Configuration, Network, Pipeline, Pool, Query, Slos

TARGETS = (UTILIZATION_TARGET, 0.4)
"""Utilization targets of all replicas of a plan: the second where waits at the first are too long."""


def kind_of(query: Query) -> Query:
    """Return what the plans of a query depend on: all but its name and weight."""
    return query.model_copy(update={"name": "any", "weight": 1.0})


def is_accurate(query: Query, measured: ConfigurationProfile) -> bool:
    """Return whether the mean score meets the SLO."""
    slo = query.slos.accuracy
    return slo is None or slo.is_met_by(measured.accuracy.value)


def limit_s(slos: Slos) -> float:
    """Return the limit of the latency; infinite without one."""
    return float("inf") if slos.latency is None else slos.latency.limit_s


def limit_usd_per_h(slos: Slos) -> float:
    """Return the limit of the cost; infinite without one."""
    return float("inf") if slos.cost is None else slos.cost.limit_usd_per_h


class QueryPlans:
    """Estimated plans, computed once for each kind of query and measurement."""

    def __init__(self, contest: Contest) -> None:
        self._pipelines, self._network = contest.specification.pipelines, contest.network
        self._plans: dict[tuple[Query, Configuration, int], tuple[PlanCandidate, ...]] = {}
        self._placements: dict[tuple[str, str], list[Placement]] = {}

    def placements(self, query: Query, measured: ConfigurationProfile) -> list[Placement]:
        """Return the placements on which every operator fits on a node."""
        key = query.pipeline, query.source
        if key not in self._placements:
            self._placements[key] = list(near_placements(query, self._pipelines[query.pipeline], self._network))
        return [
            placement
            for placement in self._placements[key]
            if all(o.peak_memory_bytes <= placement[name].memory_bytes for name, o in measured.operators.items())
        ]

    def within_limits(self, query: Query, measured: ConfigurationProfile) -> tuple[PlanCandidate, ...]:
        """Return the plans of a configuration within the limits of latency and cost, cheapest first."""
        kind = kind_of(query)
        key = kind, measured.configuration, len(measured.items)
        if key not in self._plans:
            plans = self._estimated(kind, measured)
            self._plans[key] = tuple(sorted(plans, key=lambda plan: plan.estimate.cost_usd_per_h.lower))
        return self._plans[key]

    def _estimated(self, query: Query, measured: ConfigurationProfile) -> Iterator[PlanCandidate]:
        pipeline, slos = self._pipelines[query.pipeline], query.slos
        estimator = Estimator(query, pipeline, measured, self._network)
        for placement in self.placements(query, measured):
            if mean_latency_s(query, pipeline, measured, placement, self._network) > limit_s(slos):
                continue
            for target in TARGETS:
                try:
                    candidate = estimator.candidate(plan_on(pipeline, measured, placement, target=target))
                except PlanningError:  # the traffic exceeds a link
                    break
                estimate = candidate.estimate
                if estimate.cost_usd_per_h.lower > limit_usd_per_h(slos):
                    break
                if estimate.latency_s.value <= limit_s(slos):
                    yield candidate
                    break


def near_placements(query: Query, pipeline: Pipeline, network: Network) -> Iterator[Placement]:
    """Yield the placements on the nearest pool of each tier."""
    nearest: dict[str, Pool] = {}
    for pool in sorted(
        network.pools_for(query.source), key=lambda pool: len(network.path(query.source, pool.site) or ())
    ):
        nearest.setdefault(pool.tier, pool)
    for placement in placements(query, pipeline, network):
        if all(nearest[pool.tier] == pool for pool in placement.values()):
            yield placement
