"""Sizes of machines against enumeration: every choice of plans on every number of nodes that holds its replicas.

Without latency SLOs, plans take the replicas of one utilization target. With them, plans may also take more replicas
and need not be fast enough at that target (`enumeration`). Plans of single queries and their SLOs as sized are those of
the estimator; merging, rounding, packing and choosing are written anew.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.possible.enumeration import Enumeration, fewest_nodes, node_shares
from benchmarks.possible.instances import Instance
from circinus.estimation import PlanCandidate
from circinus.matching import MatchSettings
from circinus.matching.candidate_machines import candidate_machines
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.machine_sizing import MachineSizing, size_machines
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.profiling import PipelineProfile
from circinus.specification import Deployment, Query, Specification
from circinus.testing.random_instances import random_specification

_TARGET = 0.7
_ROUNDING = 1e-6
SETTINGS = MatchSettings(time_limit_s=60.0, divides_requests=False)
"""Settings at which plans are those that are enumerated: undivided."""
KEYS = ("equal", "bounded", "added", "curve")
"""Keys of `compared` that are true of a sizing as enumerated."""


def random_sizes(count: int, console: Console) -> PartResult:
    """Compare sizes of random instances, every other one with latency SLOs, with enumerated ones."""
    rows = list[dict[str, Any]]()
    for seed in range(count):
        specification, profiles = instance(seed)
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        sizing = size_machines(specification, profiles, settings=SETTINGS, explains=not has_latency(seed))
        seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
        row = compared(sizing, profiles)
        rows.append(row | {"part": "sizes", "seed": seed, "seconds": round(seconds, 3), "cpu_s": round(cpu_s, 3)})
        if not all(row[key] for key in KEYS):
            console.print(f"instance {seed}: {row}")
    unit = "of instances"
    free, limited = ([row for row in rows if has_latency(row["seed"]) == kind] for kind in (False, True))
    note = f"of {count} random ones with 1 to 4 queries on 2 or 3 kinds of machines, half of them with latency SLOs"
    without, with_slos = f"of {len(free)} without latency SLOs", f"of {len(limited)} with latency SLOs"
    served = [row for row in limited if row["weight"] == row["weight_possible"] > 0]
    ratio = max((row["cost"] / row["cost_possible"] for row in served), default=1.0)
    return [
        Figure("sizes as good as possible, no latency SLOs", _share(free, "equal"), 1.0, "higher", unit, without),
        Figure("sizes as good as possible, latency SLOs", _share(limited, "equal"), 1.0, "higher", unit, with_slos),
        Figure("sizes: cost over the optimum, worst", ratio, 1.05, "lower", "times", f"{with_slos}, at its weight"),
        Figure("sizes as good as all plans at targets", _share(rows, "bounded"), 1.0, "higher", unit, note),
        Figure("sizes: additions as enumerated", _share(free, "added"), 1.0, "higher", unit, without),
        Figure("sizes: curves as enumerated", _share(free, "curve"), 1.0, "higher", unit, without),
        Figure("sizes proved optimal", _share(rows, "optimal"), None, "higher", unit, note),
        Figure("sizes: slowest", max(row["seconds"] for row in rows), 10.0, "lower", "s", note),
    ], [{"part": "sizes", "differing": [row for row in rows if not all(row[key] for key in KEYS)]}]


def _share(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(bool(row[key]) for row in rows) / max(len(rows), 1)


def has_latency(seed: int) -> bool:
    """Return whether the queries of an instance have latency SLOs."""
    return seed % 2 == 1


def instance(seed: int) -> tuple[Specification, Mapping[str, PipelineProfile]]:
    """Return a random specification with candidate machines, and its profiles.

    Its queries have at most 36 plans each, of two operators with two knob values on three kinds of machines. Of the
    first 200 instances, the largest has 68,590 choices of plans that are fast enough; their enumeration takes 7 s.
    """
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


def compared(sizing: MachineSizing, profiles: Mapping[str, PipelineProfile]) -> dict[str, Any]:
    """Return a sizing's weight and cost, and whether its figures are those of an enumeration."""
    specification, truth = sizing.specification, PlansAtTargets(sizing.specification, profiles)
    at_targets_weight, at_targets_usd_per_h = weight, cost_usd_per_h = truth.optimum()
    if any(query.slos.latency is not None for query in specification.queries):
        optimum = Enumeration(Instance(specification, dict(profiles))).optimum()
        weight, cost_usd_per_h = optimum.weight, optimum.cost_usd_per_h
    matching = sizing.matching
    reached = matching.satisfied_weight, -sizing.cost_usd_per_h * (1 - _ROUNDING)
    total = sum(query.weight for query in specification.queries)
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
        "bounded": reached >= (at_targets_weight, -at_targets_usd_per_h)
        and (
            matching.satisfied_weight > at_targets_weight
            or sizing.cost_bound_usd_per_h <= at_targets_usd_per_h + _ROUNDING
        ),
        "added": all(_is_equal(usd_per_h, added[name]) for name, usd_per_h in sizing.added_usd_per_h.items()),
        "curve": is_on_curve,
        "optimal": sizing.is_optimal,
    }


def _is_equal(first: float, second: float) -> bool:
    return abs(first - second) <= _ROUNDING * max(abs(first), abs(second), 1.0)


class PlansAtTargets:
    """Plans that are fast enough at the utilization target; the best choice of them by depth-first search."""

    def __init__(self, specification: Specification, profiles: Mapping[str, PipelineProfile]) -> None:
        self._queries, self._infrastructure = specification.queries, specification.required_infrastructure
        self._estimates = PlanEstimates(specification, profiles)
        plans = self._estimates.all_plans(self._queries, lambda: False, max_plans=10**6)
        assert plans is not None
        self._plans = {name: sorted(of_query, key=self._cost_of_one) for name, of_query in plans.items()}

    def optimum(
        self, names: set[str] | frozenset[str] | None = None, required_weight: float | None = None
    ) -> tuple[float, float]:
        """Return (weight, cost in US dollars per hour) of the best choice for some queries.

        Args:
            names: queries; None: all.
            required_weight: weight that suffices; None: the more the better.
        """
        queries = [q for q in self._queries if names is None or q.name in names]
        best = -1.0, math.inf

        def search(index: int, chosen: list[PlanCandidate], weight: float, cost_usd_per_h: float) -> None:
            nonlocal best
            possible = weight + sum(query.weight for query in queries[index:])
            if required_weight is not None:
                possible = min(possible, required_weight)
            if possible < best[0] - 1e-9 or (possible <= best[0] + 1e-9 and cost_usd_per_h >= best[1] - 1e-9):
                return
            if index == len(queries):
                if self._meets(chosen):
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
        load: dict[Deployment, float] = defaultdict(float)
        amounts: dict[Deployment, tuple[float, ...]] = {}
        traffic: dict[str, float] = defaultdict(float)
        for plan in plans:
            for use in plan.deployments:
                load[use.deployment] += use.fractional_replicas
                amounts[use.deployment] = use.demand.amounts
            for link in plan.links:
                traffic[link.link.name] += link.bytes_per_s / link.link.bandwidth_bytes_per_s
        if any(share > self._infrastructure.usable_link_share * (1 + 1e-6) for share in traffic.values()):
            return None
        cost = sum(plan.transfer_cost_usd_per_h for plan in plans)
        for pool in self._infrastructure.pools:
            counts: dict[tuple[float, ...], int] = defaultdict(int)
            for deployment, fractional in load.items():
                if deployment.pool == pool.name:
                    counts[amounts[deployment]] += max(math.ceil(fractional - 1e-6), 1)
            kinds = sorted(counts)
            shares = tuple(node_shares(kind, pool) for kind in kinds)
            nodes = fewest_nodes(shares, tuple(counts[kind] for kind in kinds), pool.nodes)
            if nodes is None:
                return None
            cost += nodes * pool.price_usd_per_h
        return cost

    def _meets(self, chosen: Sequence[PlanCandidate]) -> bool:
        by_name = {plan.query: (plan,) for plan in chosen}
        queries: list[Query] = [query for query in self._queries if query.name in by_name]
        problem = build_problem(queries, by_name, self._infrastructure)
        choice = np.arange(len(queries), dtype=np.int64)
        outcome = check_feasibility(problem, choice, [query.slos for query in queries], self._estimates.reestimate)
        return isinstance(outcome, FeasibleSolution)
