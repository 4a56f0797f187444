"""Frontiers and matchings of small random pipelines with fan-outs, nesting and branches, against enumeration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, merge_loads, replicas_for
from circinus.matching import MatchSettings, match
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.sizing import with_cost
from circinus.planning import SearchSettings, plan_query
from circinus.planning.search_space import utilization_targets
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.specification import (
    Allocation,
    Deployment,
    KnobValues,
    Network,
    Pipeline,
    Query,
    QueryPlan,
    Specification,
)
from circinus.testing.random_fan_outs import random_fan_out, with_random_runs
from circinus.testing.random_instances import random_infrastructure, random_pipeline, random_profile, random_query

_MOST_PLANS = 400
_EXACT = SearchSettings(tolerance=0.0, max_plans=10**9, margin_tolerance=0.0, max_margin_plans=10**9, near_misses=10**6)
_PLAIN = MatchSettings(divides_requests=False, fits_targets=False, considers_all_plans=False)
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Instance:
    """One query of a random pipeline, with all plans that it could have."""

    specification: Specification
    query: Query
    pipeline: Pipeline
    profile: PipelineProfile
    network: Network

    @classmethod
    def drawn(cls, seed: int) -> Instance:
        """Return a random instance of at most 400 plans."""
        for attempt in range(1000):
            rng = np.random.default_rng([27, seed, attempt])
            batch_sizes = (1, 2) if seed % 3 == 0 else (1,)
            plain = random_pipeline(rng, operators=int(rng.integers(1, 5)), batch_sizes=batch_sizes)
            pipeline = random_fan_out(rng, plain)
            infrastructure = random_infrastructure(rng, sites=int(rng.integers(1, 3)), pools=int(rng.integers(1, 4)))
            sites = [site.name for site in infrastructure.sites]
            query = random_query(rng, pipeline, name="q", source=str(rng.choice(sites)))
            profile = _with_equal_replicas(with_random_runs(rng, pipeline, random_profile(rng, pipeline, items=25)))
            specification = Specification(
                pipelines={pipeline.name: pipeline}, infrastructure=infrastructure, queries=(query,)
            )
            instance = cls(specification, query, pipeline, profile, Network(infrastructure))
            if instance.plans_count <= _MOST_PLANS:
                return instance
        raise AssertionError("every draw has too many plans")

    @property
    def plans_count(self) -> int:
        """Number of plans, also of those that no pool holds."""
        targets = utilization_targets(self.query, self.network.infrastructure)
        pools = len(self.network.pools_for(self.query.source))
        options = [pools * len(o.cpus) * len(o.batch_sizes) * len(targets) for o in self.pipeline.operators]
        return math.prod(options) * len(self.profile.configurations)

    def candidates(self) -> Iterator[PlanCandidate]:
        """Yield all plans that meet the SLOs and that the pools hold."""
        infrastructure = self.network.infrastructure
        targets = utilization_targets(self.query, infrastructure)
        pools = self.network.pools_for(self.query.source)
        for profile in self.profile.configurations:
            estimator = Estimator(self.query, self.pipeline, profile, self.network)
            options = []
            for o in self.pipeline.operators:
                allowed = [p for p in pools if o.allowed_tiers is None or p.tier in o.allowed_tiers]
                sizes = [Allocation(*size) for size in product(o.cpus, o.batch_sizes, targets)]
                options.append(list(product([p.name for p in allowed], sizes)))
            for choice in product(*options):
                names = [o.name for o in self.pipeline.operators]
                plan = QueryPlan(
                    self.pipeline.name,
                    profile.configuration,
                    tuple(sorted((name, pool) for name, (pool, _) in zip(names, choice, strict=True))),
                    tuple(sorted((name, size) for name, (_, size) in zip(names, choice, strict=True))),
                )
                try:
                    candidate = estimator.candidate(plan)
                except PlanningError:  # exceeds the usable share of a link
                    continue
                if self._fits(candidate) and not candidate.estimate.violations(self.query.slos):
                    yield candidate

    def costs_as_sized(self, candidates: Sequence[PlanCandidate], estimates: PlanEstimates) -> Iterator[float]:
        """Yield the costs of those of the plans that meet the SLOs with whole replicas, which the query pays alone."""
        for candidate in candidates:
            replicas = {
                use.deployment: replicas_for(use.busy_replicas, use.deployment.allocation.utilization_target)
                for use in candidate.deployments
            }
            if not self._packs_on_nodes(candidate, replicas):
                continue
            conditions = merge_loads([candidate], replicas)
            alone_usd_per_h = candidate.estimate.cost_usd_per_h.upper
            sized = with_cost(estimates.reestimate(candidate, conditions), alone_usd_per_h, self.query.slos)
            if not sized.estimate.violations(self.query.slos, sized=True):
                yield alone_usd_per_h

    def _fits(self, candidate: PlanCandidate) -> bool:
        amounts: dict[tuple[str, int], float] = {}
        for use in candidate.deployments:
            pool = self.network.infrastructure.pool(use.deployment.pool)
            count = replicas_for(use.busy_replicas, use.deployment.allocation.utilization_target)
            for index, (needed, of_node) in enumerate(zip(use.demand.amounts, pool.amounts, strict=True)):
                if needed > 0 and count > pool.nodes * int(of_node / needed + 1e-9):
                    return False
                key = pool.name, index
                amounts[key] = amounts.get(key, 0.0) + needed * count
                if amounts[key] > of_node * pool.nodes * (1 + 1e-9):
                    return False
        return True

    def _packs_on_nodes(self, candidate: PlanCandidate, replicas: Mapping[Deployment, int]) -> bool:
        demands: dict[str, list[tuple[float, ...]]] = {}
        for use in candidate.deployments:
            demands.setdefault(use.deployment.pool, []).extend([tuple(use.demand.amounts)] * replicas[use.deployment])
        pools = {name: self.network.infrastructure.pool(name) for name in demands}
        return all(_packs(needed, (tuple(pools[n].amounts),) * pools[n].nodes) for n, needed in demands.items())


def _packs(demands: Sequence[tuple[float, ...]], nodes: tuple[tuple[float, ...], ...]) -> bool:
    """Return whether all demands fit on nodes of which so much is free, by trying all ways, each state once."""
    largest_first = sorted(demands, reverse=True)
    states = {tuple(sorted(nodes))}
    for demand in largest_first:
        states = {
            tuple(sorted((*free[:node], left, *free[node + 1 :])))
            for free in states
            for node in {amounts: index for index, amounts in enumerate(free)}.values()
            if min(left := tuple(round(a - d, 6) for a, d in zip(free[node], demand, strict=True))) >= 0
        }
    return bool(states)


def _with_equal_replicas(profile: PipelineProfile) -> PipelineProfile:
    """Return the profile with equal memory of replicas of equal knobs, as they are deployed as the same."""
    memory: dict[tuple[str, KnobValues], float] = {}

    def equal(operator: OperatorProfile) -> OperatorProfile:
        key = operator.operator, operator.prefix[operator.operator]
        return replace(operator, peak_memory_bytes=memory.setdefault(key, operator.peak_memory_bytes))

    return profile.with_operators(equal)


def frontiers(instances: int, console: Console) -> PartResult:
    """Compare the least latency, and the least cost shared and alone, of frontiers with those of all plans."""
    rows: list[dict[str, Any]] = []
    for seed in track(range(instances), "small pipelines", console=console, transient=True):
        instance = Instance.drawn(seed)
        frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, _EXACT)
        listed = list(instance.candidates())
        estimates = PlanEstimates(instance.specification, {instance.pipeline.name: instance.profile})
        matching = match({"q": frontier}, instance.network.infrastructure, estimates.reestimate, settings=_PLAIN)
        cheapest = min(instance.costs_as_sized(listed, estimates), default=None)
        own = matching.cost_usd_per_h if matching.assignments else None
        rows.append(
            {
                "part": "frontiers",
                "seed": seed,
                "plans": instance.plans_count,
                "feasible": len(listed),
                "operators": len(instance.pipeline.operators),
                "frontier_is_equal": _equal(_best(frontier.plans), _best(listed), instance.query),
                "cheapest_usd_per_h": cheapest,
                "matched_usd_per_h": own,
                "matching_is_equal": (own is None) == (cheapest is None)
                and (own is None or cheapest is None or math.isclose(own, cheapest, rel_tol=1e-6, abs_tol=1e-9)),
            }
        )
    equal = [row["frontier_is_equal"] for row in rows]
    served = [row["matching_is_equal"] for row in rows]
    some = sum(row["feasible"] > 0 for row in rows)
    listed_plans = sum(row["feasible"] for row in rows)
    note = f"{len(rows)} pipelines, {some} of them with feasible plans, {listed_plans:,} in all"
    return [
        Figure("frontier: least latency and costs equal those of all plans", float(np.mean(equal)), 1.0, "higher",
               "of pipelines", note),
        Figure("matching of the frontier: served, and at the cost of the cheapest listed plan", float(np.mean(served)),
               1.0, "higher", "of pipelines"),
    ], rows  # fmt: skip


def _best(candidates: Any) -> tuple[float, ...] | None:
    """Return the least latency bound, and the least cost if shared and alone."""
    estimates = [candidate.estimate for candidate in candidates]
    if not estimates:
        return None
    return (
        min(e.cost_usd_per_h.lower for e in estimates),
        min(e.cost_usd_per_h.upper for e in estimates),
        min(e.latency_s.upper for e in estimates),
    )


def _equal(one: tuple[float, ...] | None, other: tuple[float, ...] | None, query: Query) -> bool:
    if one is None or other is None:
        return one is other
    compared = slice(3 if query.slos.latency is not None else 2)  # without a latency SLO, a frontier ignores latency
    return bool(np.allclose(one[compared], other[compared], rtol=_TOLERANCE, atol=1e-12))
