"""Sizes of machines against enumeration: every choice of plans on every number of nodes that holds its replicas.

Plans of single queries and their SLOs as sized are those of the estimator; merging, rounding, packing and choosing are
written anew.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.estimation import PlanCandidate
from circinus.matching import MatchSettings
from circinus.matching.candidate_machines import candidate_machines
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.machine_sizing import MachineSizing, size_machines
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Specification
from circinus.testing.random_instances import random_specification

_TARGET = 0.7
_ROUNDING = 1e-6
_IDLE_PER_S = 1e-6
_LARGE_S = 1e6
SETTINGS = MatchSettings(time_limit_s=60.0, divides_requests=False)
"""Settings at which plans are those that are enumerated: replicas for one utilization, undivided."""

_Replica = tuple[float, ...]


def random_sizes(count: int, console: Console) -> PartResult:
    """Compare sizes of random instances, every other one with latency SLOs, with enumerated ones."""
    rows = list[dict[str, Any]]()
    for seed in range(count):
        specification, profiles = instance(seed)
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        sizing = size_machines(specification, profiles, settings=SETTINGS, explains=not has_latency(seed))
        seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
        row = compared(sizing, Enumeration(specification, profiles))
        rows.append(row | {"part": "sizes", "seed": seed, "seconds": round(seconds, 3), "cpu_s": round(cpu_s, 3)})
        if not all(row[key] for key in _KEYS):
            console.print(f"instance {seed}: {row}")
    shares = {key: sum(bool(row[key]) for row in rows) / count for key in (*_KEYS, "optimal")}
    note = f"of {count} random ones with 1 to 4 queries on 2 or 3 kinds of machines, half of them with latency SLOs"
    free = [row for row in rows if not has_latency(row["seed"])]
    exact = sum(bool(row["equal"]) for row in free) / len(free)
    without = f"of {len(free)} without latency SLOs"
    return [
        Figure("sizes equal to the optimum, no latency SLOs", exact, 1.0, "higher", "of instances", without),
        Figure("sizes as good as all plans at targets", shares["bounded"], 1.0, "higher", "of instances", note),
        Figure("sizes as good as all plans as sized", shares["equal"], 1.0, "higher", "of instances", note),
        Figure("sizes: additions as enumerated", shares["added"], 1.0, "higher", "of instances", without),
        Figure("sizes: curves as enumerated", shares["curve"], 1.0, "higher", "of instances", without),
        Figure("sizes proved optimal", shares["optimal"], None, "higher", "of instances", note),
        Figure("sizes: slowest", max(row["seconds"] for row in rows), 10.0, "lower", "s", note),
    ], [{"part": "sizes", "differing": [row for row in rows if not all(row[key] for key in _KEYS)]}]


_KEYS = ("equal", "bounded", "added", "curve")


def has_latency(seed: int) -> bool:
    """Return whether the queries of an instance have latency SLOs."""
    return seed % 2 == 1


def instance(seed: int) -> tuple[Specification, Mapping[str, PipelineProfile]]:
    """Return a random specification with candidate machines, and its profiles."""
    number = seed // 2
    specification, profiles = random_specification(seed, queries=1 + number % 4, operators=1 + number // 4 % 2, nodes=3)
    infrastructure = specification.required_infrastructure
    pools = tuple(pool.model_copy(update={"private": False}) for pool in infrastructure.pools[: 2 + number // 8 % 2])
    update = {"pools": pools, "utilization_targets": (_TARGET,), "max_utilization": _TARGET}
    machines = candidate_machines(
        infrastructure.model_copy(update=update), {pool.name: pool.nodes + 1 for pool in pools}
    )
    removed = {"cost": None} if has_latency(seed) else {"cost": None, "latency": None}
    queries = tuple(
        query.model_copy(update={"slos": query.slos.model_copy(update=removed)}) for query in specification.queries
    )
    return replace(specification, infrastructure=machines, queries=queries), profiles


def compared(sizing: MachineSizing, truth: Enumeration) -> dict[str, float | bool | int]:
    """Return a sizing's weight and cost, and whether its figures are those of an enumeration, or better."""
    weight, cost_usd_per_h = truth.optimum()
    at_targets = replace(truth, at_targets=True).optimum()
    matching = sizing.matching
    reached = matching.satisfied_weight, -sizing.cost_usd_per_h * (1 - _ROUNDING)
    total = sum(query.weight for query in sizing.specification.queries)
    without = {name: truth.optimum(matching.served - {name})[1] for name in sizing.added_usd_per_h}
    added = {name: cost_usd_per_h - cost for name, cost in without.items()}
    is_on_curve = True
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        if sizing.curve and share * total <= matching.satisfied_weight:
            _, lowest_usd_per_h = truth.optimum(required_weight=share * total)
            enough = [p.cost_usd_per_h for p in sizing.curve if p.weight >= share * total * (1 - _ROUNDING)]
            is_on_curve &= _is_equal(min(enough), lowest_usd_per_h)
    return {
        "weight": matching.satisfied_weight,
        "weight_possible": weight,
        "cost": sizing.cost_usd_per_h,
        "cost_possible": cost_usd_per_h,
        "equal": reached >= (weight, -cost_usd_per_h),
        "bounded": reached >= (at_targets[0], -at_targets[1])
        and (matching.satisfied_weight > at_targets[0] or sizing.cost_bound_usd_per_h <= at_targets[1] + _ROUNDING),
        "added": all(_is_equal(usd_per_h, added[name]) for name, usd_per_h in sizing.added_usd_per_h.items()),
        "curve": is_on_curve,
        "optimal": sizing.is_optimal,
    }


def _is_equal(first: float, second: float) -> bool:
    return abs(first - second) <= _ROUNDING * max(abs(first), abs(second), 1.0)


@dataclass
class Enumeration:
    """The best choice of plans by depth-first search, without those that cannot be better."""

    specification: Specification
    profiles: Mapping[str, PipelineProfile]
    at_targets: bool = False
    """Whether plans must be fast enough at utilization targets, too."""
    _nodes: dict[object, int | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._estimates, plans = self._all_plans({} if self.at_targets else {"latency": _LARGE_S})
        if not self.at_targets:
            idle, of_idle = self._all_plans({"latency": _LARGE_S}, rate_per_s=_IDLE_PER_S)
            quick = {(p.query, p.plan) for of_query in of_idle.values() for p in of_query if self._meets(idle, [p])}
            plans = {name: [p for p in of_query if (name, p.plan) in quick] for name, of_query in plans.items()}
        self._plans = {name: sorted(of_query, key=self._cost_of_one) for name, of_query in plans.items()}
        self._pools = {pool.name: pool for pool in self.specification.required_infrastructure.pools}

    def _all_plans(
        self, limits: Mapping[str, float], rate_per_s: float | None = None
    ) -> tuple[PlanEstimates, Mapping[str, Sequence[PlanCandidate]]]:
        """Return estimates, and all plans that meet the SLOs with other latency limits, at another rate."""
        queries = []
        for query in self.specification.queries:
            slos, latency = query.slos, query.slos.latency
            if limits and latency is not None:
                slos = slos.model_copy(update={"latency": latency.model_copy(update={"limit_s": limits["latency"]})})
            rate = query.rate_per_s if rate_per_s is None else rate_per_s
            queries.append(query.model_copy(update={"slos": slos, "rate_per_s": rate}))
        estimates = PlanEstimates(replace(self.specification, queries=tuple(queries)), self.profiles)
        plans = estimates.all_plans(queries, lambda: False, max_plans=10**6)
        assert plans is not None
        return estimates, plans

    def optimum(
        self, names: set[str] | frozenset[str] | None = None, required_weight: float | None = None
    ) -> tuple[float, float]:
        """Return (weight, cost in US dollars per hour) of the best choice for some queries.

        Args:
            names: queries; None: all.
            required_weight: weight that suffices; None: the more the better.
        """
        queries = [q for q in self.specification.queries if names is None or q.name in names]
        best = -1.0, math.inf

        def search(index: int, chosen: list[PlanCandidate], weight: float, cost_usd_per_h: float) -> None:
            nonlocal best
            possible = weight + sum(query.weight for query in queries[index:])
            if required_weight is not None:
                possible = min(possible, required_weight)
            if possible < best[0] - 1e-9 or (possible <= best[0] + 1e-9 and cost_usd_per_h >= best[1] - 1e-9):
                return
            if index == len(queries):
                if self._meets(self._estimates, chosen):
                    best = possible, cost_usd_per_h
                return
            for plan in self._plans[queries[index].name]:
                cost = self._cost([*chosen, plan])
                if cost is not None:
                    search(index + 1, [*chosen, plan], weight + queries[index].weight, cost)
            search(index + 1, chosen, weight, cost_usd_per_h)

        search(0, [], 0.0, self._cost([]) or 0.0)
        return max(best[0], 0.0), best[1]

    def _cost_of_one(self, plan: PlanCandidate) -> float:
        return plan.estimate.cost_usd_per_h.value

    def _cost(self, plans: Sequence[PlanCandidate]) -> float | None:
        """Return the cost of plans on the fewest nodes; None if replicas or traffic do not fit."""
        load: dict[object, float] = defaultdict(float)
        demand: dict[object, tuple[str, _Replica]] = {}
        traffic: dict[str, float] = defaultdict(float)
        for plan in plans:
            for use in plan.deployments:
                load[use.deployment] += use.fractional_replicas
                demand[use.deployment] = use.deployment.pool, use.demand.amounts
            for link in plan.links:
                traffic[link.link.name] += link.bytes_per_s / link.link.bandwidth_bytes_per_s
        usable = self.specification.required_infrastructure.usable_link_share
        if any(share > usable * (1 + 1e-6) for share in traffic.values()):
            return None
        replicas: dict[str, list[_Replica]] = {name: [] for name in self._pools}
        for deployment, fractional in load.items():
            pool, amounts = demand[deployment]
            replicas[pool] += [amounts] * max(math.ceil(fractional - 1e-6), 1)
        cost = sum(plan.transfer_cost_usd_per_h for plan in plans)
        for name, items in replicas.items():
            nodes = self._fewest(name, sorted(items, reverse=True))
            if nodes is None:
                return None
            cost += nodes * self._pools[name].price_usd_per_h
        return cost

    def _fewest(self, pool: str, items: Sequence[_Replica]) -> int | None:
        key = pool, tuple(items)
        if key not in self._nodes:
            capacity, most = np.array(self._pools[pool].amounts), self._pools[pool].nodes
            fitting = (n for n in range(most + 1) if _fits(items, [capacity.copy() for _ in range(n)]))
            self._nodes[key] = next(fitting, None)
        return self._nodes[key]

    def _meets(self, estimates: PlanEstimates, chosen: Sequence[PlanCandidate]) -> bool:
        by_name = {plan.query: (plan,) for plan in chosen}
        queries: list[Query] = [query for query in self.specification.queries if query.name in by_name]
        problem = build_problem(queries, by_name, self.specification.required_infrastructure)
        choice = np.arange(len(queries), dtype=np.int64)
        outcome = check_feasibility(problem, choice, [query.slos for query in queries], estimates.reestimate)
        return isinstance(outcome, FeasibleSolution)


def _fits(items: Sequence[_Replica], free: list[np.ndarray]) -> bool:
    """Return whether replicas fit into what is free on some nodes, by trying all nodes that differ."""
    if not items:
        return True
    if sum(item[0] for item in items) > sum(float(node[0]) for node in free) + 1e-6:
        return False
    tried = set()
    for node in free:
        if node.tobytes() in tried:
            continue
        tried.add(node.tobytes())
        if np.all(items[0] <= node + 1e-6 * np.maximum(node, 1.0)):
            node -= items[0]
            if _fits(items[1:], free):
                return True
            node += items[0]
    return False
