"""Exhaustive enumeration of the plans of a small instance, the reference for the search."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import count, islice

import numpy as np

from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, replicas_for
from circinus.planning import SearchSettings
from circinus.specification import Slos
from planning_instances import Instance, all_plans, random_instance

EXACT = SearchSettings(tolerance=0.0, max_plans=10**9, margin_tolerance=0.0, max_margin_plans=10**9, near_misses=10**6)
"""Settings of an exact search."""

MOST_PLANS = 400

_AMOUNTS = ("cpus", "memory_bytes", "gpus", "gpu_memory_bytes")


@dataclass(frozen=True)
class Listed:
    """An enumerated plan that fits in the pools and links."""

    candidate: PlanCandidate
    point: tuple[float, ...]
    """Amounts of every pool (fully shared, dedicated), bytes per second of every link, cost (fully shared, dedicated).
    """

    def violations(self, slos: Slos) -> tuple[str, ...]:
        return self.candidate.estimate.violations(slos)

    @property
    def latency_s(self) -> float:
        return self.candidate.estimate.latency_s.upper

    @property
    def shared_cost(self) -> float:
        return self.candidate.estimate.cost_usd_per_h.lower

    @property
    def dedicated_cost(self) -> float:
        return self.candidate.estimate.cost_usd_per_h.upper

    @property
    def accuracy(self) -> float:
        return self.candidate.estimate.accuracy.lower


@cache
def small_instance(seed: int) -> Instance:
    """Return the first of `random_instance(seed)`, `random_instance(seed + 1000)`, ... with `MOST_PLANS` plans or
    fewer."""
    drawn = (random_instance(number) for number in count(seed, 1000))
    return next(i for i in drawn if len(list(islice(all_plans(i), MOST_PLANS + 1))) <= MOST_PLANS)


def list_plans(instance: Instance) -> tuple[Listed, ...]:
    """Return all plans of an instance that the query could have by itself."""
    estimators = {
        profile.configuration: Estimator(instance.query, instance.pipeline, profile, instance.network)
        for profile in instance.profile.configurations
    }
    found = []
    for plan in all_plans(instance):
        try:
            candidate = estimators[plan.configuration].candidate(plan)
        except PlanningError:  # exceeds the usable share of a link
            continue
        point = point_of(instance, candidate)
        if point is not None:
            found.append(Listed(candidate, point))
    return tuple(found)


def point_of(instance: Instance, candidate: PlanCandidate) -> tuple[float, ...] | None:
    """Return the resource usage of a plan, or None if some pool cannot hold it."""
    infrastructure = instance.network.infrastructure
    amounts: dict[tuple[str, str, str], float] = defaultdict(float)
    for use in candidate.deployments:
        pool = infrastructure.pool(use.deployment.pool)
        spare = use.demand.spare_replicas
        replicas = replicas_for(use.busy_replicas, use.deployment.allocation.utilization_target) + spare
        if spare and replicas > pool.nodes:
            return None  # they are on distinct nodes
        for amount in _AMOUNTS:
            needed = getattr(use.demand, amount)
            if needed > 0 and replicas > pool.nodes * int(getattr(pool, amount) / needed + 1e-9):
                return None  # a replica must fit on one node
            amounts[pool.name, amount, "shared"] += needed * use.fractional_replicas
            amounts[pool.name, amount, "alone"] += needed * replicas
    for pool in infrastructure.pools:
        for amount in _AMOUNTS:
            if amounts[pool.name, amount, "alone"] > getattr(pool, amount) * pool.nodes * (1 + 1e-9):
                return None
    sent = {use.link.name: use.bytes_per_s for use in candidate.links}
    cost = candidate.estimate.cost_usd_per_h
    return (
        *(amounts[p.name, a, how] for p in infrastructure.pools for a in _AMOUNTS for how in ("shared", "alone")),
        *(sent.get(link.name, 0.0) for link in instance.network.links),
        cost.lower,
        cost.upper,
    )


def undominated(plans: list[Listed]) -> list[Listed]:
    """Return the plans that no other plan dominates in every amount; of equal ones the first."""
    points = unbeaten([plan.point for plan in plans])
    return [next(plan for plan in plans if plan.point == point) for point in points]


def unbeaten(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return the points that no other point dominates; of equal ones the first."""
    kept: list[tuple[float, ...]] = []
    for point in sorted(points, key=sum):
        ceiling = np.array(point) + 1e-9 * np.abs(point)
        if not any((np.array(other) <= ceiling).all() for other in kept):
            kept.append(point)
    return kept


def roomy_point(candidate: PlanCandidate, point: tuple[float, ...], slos: Slos) -> tuple[float, ...]:
    """Return the usage and the guaranteed latency and accuracy (if there are SLOs) of a plan; less is better."""
    estimate = candidate.estimate
    latency_s = 0.0 if slos.latency is None else estimate.latency_s.upper
    if slos.accuracy is None:
        return (*point, latency_s, 0.0)
    lacking = -estimate.accuracy.lower if slos.accuracy.comparison == ">=" else estimate.accuracy.upper
    return (*point, latency_s, lacking)
