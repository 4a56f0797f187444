"""Judge of plans with whole replicas, at the loads that they really have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.errors import PlanningError
from circinus.estimation import ReplicaDemand, merge_loads
from circinus.estimation.compiled_plan import CompiledPlan, QueueTimes
from circinus.matching.problem import meets_cost_slo
from circinus.matching.problem_builder import merged_demands
from circinus.planning.bin_packing import pack_on_fewest, with_spread
from circinus.specification import Deployment, Infrastructure, Query

_ROUNDING = 1e-9


@dataclass(frozen=True)
class PlanVerdict:
    """Promises that plans with whole replicas break, and their cost."""

    late: Mapping[str, float]
    """Query whose latency exceeds its limit -> latency over the limit."""
    dear: frozenset[str]
    """Queries that miss their cost SLOs."""
    unpacked: frozenset[str]
    """Pools on whose nodes the replicas were not packed."""
    cost_usd_per_h: float

    @property
    def is_kept(self) -> bool:
        """Whether every promise is kept."""
        return not (self.late or self.dear or self.unpacked)


class PlanJudge:
    """Judge of plans on an infrastructure, by the estimates of `circinus.estimation` under the merged load."""

    def __init__(self, queries: Sequence[Query], infrastructure: Infrastructure) -> None:
        self._queries = {query.name: query for query in queries}
        self._pools = {pool.name: pool for pool in infrastructure.pools}
        self._times = QueueTimes()
        self._packed = dict[object, int | None]()

    def verdict(self, plans: Mapping[str, CompiledPlan], replicas: Mapping[Deployment, int]) -> PlanVerdict:
        """Judge plans.

        Args:
            plans: query -> its plan.
            replicas: of each deployment, with spare ones.
        """
        uses = [use for plan in plans.values() for use in plan.deployments]
        demands = merged_demands((use.deployment, use.demand) for use in uses)
        nodes = {pool: self._nodes(pool, demands, replicas) for pool in self._pools}
        prices = {d: self._paid_usd_per_h(d, demands, replicas, nodes) for d in demands}
        total = sum(prices[d] * replicas[d] for d in demands) + self._empty_usd_per_h(demands)
        busy = dict.fromkeys(demands, 0.0)
        for use in uses:
            busy[use.deployment] += max(use.busy_replicas, _ROUNDING)
        dear = set[str]()
        for name, plan in plans.items():
            total += plan.transfer_cost_usd_per_h
            slo = self._queries[name].slos.cost
            if slo is not None:
                shares = (
                    prices[u.deployment] * replicas[u.deployment] * max(u.busy_replicas, _ROUNDING) / busy[u.deployment]
                    for u in plan.deployments
                )
                if not meets_cost_slo(plan.transfer_cost_usd_per_h + sum(shares), slo.limit_usd_per_h):
                    dear.add(name)
        unpacked = frozenset(pool for pool, count in nodes.items() if count is None)
        return PlanVerdict(self._late(plans, replicas), frozenset(dear), unpacked, total)

    def _late(self, plans: Mapping[str, CompiledPlan], replicas: Mapping[Deployment, int]) -> dict[str, float]:
        try:
            conditions = merge_loads(plans.values(), replicas)
        except PlanningError:  # a deployment or link is overloaded
            return dict.fromkeys(plans, math.inf)
        stations = {deployment: load.station for deployment, load in conditions.deployments.items()}
        late = dict[str, float]()
        for name, plan in plans.items():
            slo = self._queries[name].slos.latency
            if slo is not None:
                bound_s = plan.bound_s(stations.__getitem__, conditions.links, self._times)
                if not slo.is_met_by(bound_s):
                    late[name] = bound_s / slo.limit_s
        return late

    def _nodes(
        self, name: str, demands: Mapping[Deployment, ReplicaDemand], replicas: Mapping[Deployment, int]
    ) -> int | None:
        """Return the nodes of a pool that run, or None if the replicas were not packed on all."""
        pool = self._pools[name]
        own = sorted((d for d in demands if d.pool == name), key=lambda deployment: deployment.name)
        if not own:
            return pool.base_nodes
        key = name, tuple((demands[d].amounts, demands[d].spare_replicas, replicas[d]) for d in own)
        if key not in self._packed:
            count = np.array([replicas[d] for d in own], dtype=np.int64)
            amounts = np.array([demands[d].amounts for d in own])
            is_spread = np.array([demands[d].spare_replicas > 0 for d in own])
            demand, capacity = with_spread(amounts, np.array([pool.amounts]), is_spread)
            used = count @ amounts
            usable = np.array(pool.amounts) * pool.nodes * (1 - pool.headroom)
            fewest = None
            if np.all(used <= usable * (1 + _ROUNDING)) and pool.nodes:
                minimum = max(pool.base_nodes if pool.is_elastic else pool.nodes, 1)
                fewest = pack_on_fewest(demand, count, capacity[0], minimum, pool.nodes)
            is_packed = fewest is not None and fewest.packing.nodes is not None
            self._packed[key] = fewest.count if fewest is not None and is_packed else None
        return self._packed[key]

    def _paid_usd_per_h(
        self,
        deployment: Deployment,
        demands: Mapping[Deployment, ReplicaDemand],
        replicas: Mapping[Deployment, int],
        nodes: Mapping[str, int | None],
    ) -> float:
        """Return the price of a replica: on nodes that are paid whole, its part by what each replica reserves."""
        pool, price = self._pools[deployment.pool], demands[deployment].cost_usd_per_h
        if not pool.bills_nodes:
            return price
        reserved = sum(demands[d].cost_usd_per_h * replicas[d] for d in demands if d.pool == pool.name)
        count = nodes[pool.name]
        paid = pool.paid_usd_per_h * (pool.nodes if count is None else count)
        return price * paid / reserved if reserved > 0 and paid > 0 else price

    def _empty_usd_per_h(self, demands: Mapping[Deployment, ReplicaDemand]) -> float:
        """Return the cost of nodes that always run in pools without replicas."""
        used = {deployment.pool for deployment in demands}
        empty = (pool for pool in self._pools.values() if pool.bills_nodes and pool.name not in used)
        return sum(pool.paid_usd_per_h * pool.base_nodes for pool in empty)
