"""Enumeration of all choices of whole plans and replicas at the final sizes, for a few queries with latency SLOs.

Latencies, and so the truth, are those of the product's estimator under the merged load; choices, replicas, packings and
costs are not. More replicas are taken never to slow a query down.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, product

import numpy as np

from benchmarks.possible.instances import Instance
from circinus.errors import PlanningError
from circinus.estimation import MergedLoad, PlanCandidate, QueryEstimators, merge_loads
from circinus.specification import Deployment, Pool

TOLERANCE = 1e-9
"""Rounding tolerance of loads and capacities, as a share."""
Counts = tuple[int, ...]


@dataclass(frozen=True)
class Optimum:
    """The maximum weight, and the minimum cost at it."""

    weight: float
    cost_usd_per_h: float
    is_proved: bool = True
    """False if a time limit ended a search."""


def node_shares(amounts: Sequence[float], pool: Pool) -> tuple[float, ...]:
    """Return the shares of a node that a replica takes; infinite without capacity."""
    pairs = zip(amounts, pool.amounts, strict=True)
    return tuple(0.0 if not amount else amount / of_node if of_node else math.inf for amount, of_node in pairs)


@lru_cache(maxsize=100_000)
def fewest_nodes(shares: tuple[tuple[float, ...], ...], counts: Counts, most: int) -> int | None:
    """Return the fewest equal nodes, up to `most`, that hold replicas, or None: all packings are tried.

    Args:
        shares: of a node that a replica of each kind takes.
        counts: replicas of each kind.
        most: greatest number of nodes.
    """
    order = sorted(range(len(counts)), key=lambda kind: -max(shares[kind]))
    replicas = [shares[kind] for kind in order for _ in range(counts[kind])]

    def fits(index: int, free: tuple[tuple[float, ...], ...], tried: set[tuple[int, object]]) -> bool:
        if index == len(replicas):
            return True
        state = index, tuple(sorted(tuple(round(left, 9) for left in node) for node in free))
        if state in tried:
            return False
        tried.add(state)
        for node, left in enumerate(free):
            rest = tuple(a - b for a, b in zip(left, replicas[index], strict=True))
            is_new = left not in free[:node] and min(rest) >= -TOLERANCE
            if is_new and fits(index + 1, (*free[:node], rest, *free[node + 1 :]), tried):
                return True
        return False

    if not replicas:
        return 0
    total = max(map(sum, zip(*replicas, strict=True)))
    for nodes in range(math.ceil(total - TOLERANCE), most + 1):
        if fits(0, ((1.0,) * len(shares[0]),) * nodes, set()):
            return nodes
    return None


class Enumeration:
    """All choices of whole plans for the queries of an instance."""

    def __init__(self, instance: Instance, *, shares_deployments: bool = True) -> None:
        """Prepare the estimators.

        Args:
            instance: queries on an infrastructure.
            shares_deployments: whether queries may share deployments; else each has its own.
        """
        self._instance, self._infrastructure = instance, instance.specification.required_infrastructure
        self._pools = {pool.name: pool for pool in self._infrastructure.pools}
        self._shares_deployments = shares_deployments
        self._estimators = {
            query.name: QueryEstimators(query, instance.pipeline, instance.network)
            for query in instance.specification.queries
        }
        self._queries = {query.name: query for query in instance.specification.queries}
        self._reestimated: dict[object, bool] = {}
        self._measured = instance.measured()

    @cached_property
    def _plans(self) -> Mapping[str, Sequence[PlanCandidate]]:
        """Plans of each query that meet its SLOs with the infrastructure to itself."""
        return {
            name: [c for c in candidates if self._counts((c,)) is not None and self._may_be_fast((c,))]
            for name, candidates in self._candidates.items()
        }

    @cached_property
    def _candidates(self) -> Mapping[str, Sequence[PlanCandidate]]:
        """Plans of each query that are accurate enough, alone at the highest utilization."""
        limit, candidates = self._infrastructure.utilization_limit, {}
        for name, query in self._queries.items():
            slo = query.slos.accuracy
            accurate = [c for c, p in self._measured.items() if slo is None or slo.is_met_by(slo.worst(p.accuracy))]
            candidates[name] = self._instance.plans(query, self._estimators[name], accurate, target=limit)
        return candidates

    def optimum(self) -> Optimum:
        """Return the optimum."""
        for weight, names in self._subsets():
            costs = self._cheapest(names)
            if costs is not None:
                return Optimum(weight, costs)
        raise AssertionError("serving no query is feasible")

    def wide_search(self, rng: np.random.Generator, orders: int) -> Optimum:
        """Return the best that queries in random orders get, each with its cheapest plan beside those of the others."""
        best = Optimum(0.0, self._cost_usd_per_h((), {}), is_proved=False)
        for _ in range(orders):
            chosen, changed = dict[str, PlanCandidate](), True
            while changed:
                changed = False
                for name in rng.permutation(list(self._queries)).tolist():
                    others = tuple(plan for query, plan in chosen.items() if query != name)
                    cost, plan = self._cheapest_beside(name, others)
                    if plan is not None and (
                        name not in chosen or cost < self._total((*others, chosen[name])) - TOLERANCE
                    ):
                        chosen[name], changed = plan, True
            weight = sum(self._queries[name].weight for name in chosen)
            cost = self._total(tuple(chosen.values()))
            if (weight, -cost) > (best.weight, -best.cost_usd_per_h):
                best = Optimum(weight, cost, is_proved=False)
        return best

    def _total(self, chosen: Sequence[PlanCandidate]) -> float:
        """Return the cost of plans that fit, with as few replicas as they take."""
        counts = self._counts(chosen)
        return math.inf if counts is None else self._cost_usd_per_h(chosen, counts)

    def _cheapest_beside(self, name: str, others: tuple[PlanCandidate, ...]) -> tuple[float, PlanCandidate | None]:
        """Return the cost and plan of a query with which all are served at the lowest cost, or none."""
        costs = [(self._total((*others, plan)), index) for index, plan in enumerate(self._plans[name])]
        for cost, index in sorted(costs):
            counts = self._counts(chosen := (*others, self._plans[name][index]))
            if counts is not None and not self._late(chosen, counts):
                return cost, chosen[-1]
        return math.inf, None

    def latencies_s(self, name: str) -> Iterator[float]:
        """Yield the bounds of the latency of a query's plans with the infrastructure to itself."""
        for plan in self._candidates[name]:
            if (counts := self._counts((plan,))) is not None:
                conditions = merge_loads((plan,), counts)
                sized = self._estimators[name].candidate(plan.plan, self._measured.__getitem__, conditions)
                yield sized.estimate.latency_s.upper

    def _subsets(self) -> list[tuple[float, list[tuple[str, ...]]]]:
        """Return the sets of queries by their weight, the greatest first."""
        by_weight = defaultdict[float, list[tuple[str, ...]]](list)
        for size in range(len(self._queries) + 1):
            for names in combinations(self._queries, size):
                by_weight[sum(self._queries[name].weight for name in names)].append(names)
        return sorted(by_weight.items(), reverse=True)

    def _cheapest(self, sets: Sequence[tuple[str, ...]]) -> float | None:
        """Return the lowest cost at which any of the sets of queries is served, or None."""
        heap: list[tuple[float, int, tuple[PlanCandidate, ...], dict[Deployment, int]]] = []
        number, seen = 0, set[object]()
        for names in sets:
            for chosen in product(*(self._plans[name] for name in names)):
                counts = self._counts(chosen)
                if counts is not None:
                    heap.append((self._cost_usd_per_h(chosen, counts), number, chosen, counts))
                    number += 1
        heapq.heapify(heap)
        hopeless = set[int]()
        first = {entry[1]: entry[1] for entry in heap}
        while heap:
            cost, own, chosen, counts = heapq.heappop(heap)
            if first[own] in hopeless:
                continue
            late = self._late(chosen, counts)
            if not late:
                return cost
            if own == first[own] and not self._may_be_fast(chosen):
                hopeless.add(own)
                continue
            for deployment in {use.deployment: None for c in chosen if c.query in late for use in c.deployments}:
                more = counts | {deployment: counts[deployment] + 1}
                key = first[own], tuple(sorted((d.name, n) for d, n in more.items()))
                if key not in seen and self._fits(more):
                    seen.add(key)
                    first[number] = first[own]
                    heapq.heappush(heap, (self._cost_usd_per_h(chosen, more), number, chosen, more))
                    number += 1
        return None

    def _counts(self, chosen: Sequence[PlanCandidate]) -> dict[Deployment, int] | None:
        """Return the fewest replicas at the highest utilization, or None if a capacity does not hold them."""
        busy, traffic = defaultdict[Deployment, float](float), defaultdict[str, float](float)
        capacity = {}
        for candidate in chosen:
            for use in candidate.deployments:
                busy[self._own(use.deployment, candidate.query)] += use.busy_replicas
            for link in candidate.links:
                traffic[link.link.name] += link.bytes_per_s
                capacity[link.link.name] = link.link.bandwidth_bytes_per_s * self._infrastructure.usable_link_share
        if any(volume > capacity[name] * (1 + TOLERANCE) for name, volume in traffic.items()):
            return None
        limit = self._infrastructure.utilization_limit
        counts = {deployment: max(1, math.ceil(load / limit - TOLERANCE)) for deployment, load in busy.items()}
        return counts if self._fits(counts) else None

    def _packings(self, counts: Mapping[Deployment, int]) -> Iterator[tuple[Pool, int | None]]:
        """Yield each pool with the fewest nodes that hold its replicas."""
        for pool in self._pools.values():
            own = sorted((d for d in counts if d.pool == pool.name), key=lambda d: d.name)
            shares = tuple(node_shares(self._amounts(d), pool) for d in own)
            yield pool, fewest_nodes(shares, tuple(counts[d] for d in own), pool.nodes)

    def _fits(self, counts: Mapping[Deployment, int]) -> bool:
        return all(nodes is not None for _, nodes in self._packings(counts))

    def _cost_usd_per_h(self, chosen: Sequence[PlanCandidate], counts: Mapping[Deployment, int]) -> float:
        cost = sum(candidate.transfer_cost_usd_per_h for candidate in chosen)
        for pool, nodes in self._packings(counts):
            if pool.bills_nodes:
                cost += pool.price_usd_per_h * max(nodes or 0, pool.base_nodes)
            else:
                shares = (pool.reserved_share(self._amounts(d)) * n for d, n in counts.items() if d.pool == pool.name)
                cost += pool.price_usd_per_h * sum(shares)
        return cost

    def _amounts(self, deployment: Deployment) -> tuple[float, ...]:
        """Return the resources of a replica, which depend on the operator's own knobs only."""
        return self._amounts_of[deployment]

    @cached_property
    def _amounts_of(self) -> Mapping[Deployment, tuple[float, ...]]:
        candidates = (candidate for own in self._candidates.values() for candidate in own)
        return {
            self._own(use.deployment, candidate.query): use.demand.amounts
            for candidate in candidates
            for use in candidate.deployments
        }

    def _own(self, deployment: Deployment, query: str) -> Deployment:
        """Return the deployment, or one that only the query has."""
        if self._shares_deployments:
            return deployment
        return replace(deployment, pipeline=f"{deployment.pipeline} of {query}")

    def _may_be_fast(self, chosen: Sequence[PlanCandidate]) -> bool:
        """Return whether all SLOs hold if each deployment had as many replicas as its pool holds."""
        counts = {}
        for deployment in {self._own(use.deployment, c.query) for c in chosen for use in c.deployments}:
            pool = self._pools[deployment.pool]
            of_node = int(1 / max(node_shares(self._amounts(deployment), pool)) + TOLERANCE)
            counts[deployment] = pool.nodes * of_node
        return not self._late(chosen, counts)

    def _late(self, chosen: Sequence[PlanCandidate], counts: Mapping[Deployment, int]) -> set[str]:
        """Return the queries that miss an SLO."""
        try:
            if not self._shares_deployments:
                return {c.query for c in chosen if not self._is_met(c, merge_loads((c,)))}
            conditions = merge_loads(chosen, counts)
        except PlanningError:  # an overloaded deployment or link
            return {candidate.query for candidate in chosen}
        return {candidate.query for candidate in chosen if not self._is_met(candidate, conditions)}

    def _is_met(self, candidate: PlanCandidate, conditions: MergedLoad) -> bool:
        key = (
            candidate.query,
            candidate.plan,
            tuple(conditions.deployments[use.deployment] for use in candidate.deployments),
            tuple(conditions.links[use.link] for use in candidate.links),
        )
        if key not in self._reestimated:
            sized = self._estimators[candidate.query].candidate(candidate.plan, self._measured.__getitem__, conditions)
            slos = self._queries[candidate.query].slos
            self._reestimated[key] = not sized.estimate.violations(slos, sized=True)
        return self._reestimated[key]
