"""Small random matching problems, with the enumeration of all solutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product

import numpy as np

from budget import HANG_LIMIT_S
from circinus.estimation import (
    DeploymentUse,
    Estimate,
    LinkUse,
    MergedLoad,
    PlanCandidate,
    ReplicaDemand,
    RequestStream,
    StageEstimate,
    merge_loads,
)
from circinus.matching.cuts import Cut
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem import Problem
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solution
from circinus.planning import Frontier
from circinus.specification import (
    Allocation,
    Billing,
    Configuration,
    CostSlo,
    Deployment,
    DirectedLink,
    HardwareClass,
    Infrastructure,
    KnobValues,
    LatencySlo,
    Link,
    Network,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
)
from circinus.statistics.interval import Interval

GIB = 2.0**30
_AMOUNTS = ("cpus", "memory_bytes", "gpus", "gpu_memory_bytes", "cost_usd_per_h", "spare_replicas")

Answer = tuple[float, float, tuple[PlanCandidate, ...]]
"""(weight, cost, plans)"""


@dataclass(frozen=True)
class Instance:
    infrastructure: Infrastructure
    queries: tuple[Query, ...]
    candidates: Mapping[str, tuple[PlanCandidate, ...]]

    @cached_property
    def demands(self) -> Mapping[Deployment, ReplicaDemand]:
        """Demands of replicas: the maximum over all plans."""
        by_deployment: dict[Deployment, list[ReplicaDemand]] = {}
        for plans in self.candidates.values():
            for used in (used for plan in plans for used in plan.deployments):
                by_deployment.setdefault(used.deployment, []).append(used.demand)
        return {
            deployed: ReplicaDemand(*(max(getattr(demand, name) for demand in demands) for name in _AMOUNTS))
            for deployed, demands in by_deployment.items()
        }

    @cached_property
    def links(self) -> tuple[DirectedLink, ...]:
        """All directed links."""
        return tuple(Network(self.infrastructure).links)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Feasible solutions; see `all_answers`."""
        return tuple(_solutions(self))


def infrastructure(pools: list[tuple[str, int, float, float, float]], bandwidth_bytes_per_s: float = 1e6):
    """Return pools (name, nodes, cpus, memory in GiB, price) at sites of their names, which are linked to `home`."""
    return Infrastructure(
        name="test",
        sites=(Site(name="home"), *(Site(name=name) for name, *_ in pools)),
        pools=tuple(
            Pool(
                name=name,
                site=name,
                tier="edge",
                nodes=nodes,
                cpus=cpus,
                memory_bytes=memory * GIB,
                hardware=HardwareClass(name="local"),
                price_usd_per_h=price,
            )
            for name, nodes, cpus, memory, price in pools
        ),
        links=tuple(
            Link(source="home", target=name, bandwidth_bytes_per_s=bandwidth_bytes_per_s, round_trip_s=0.01)
            for name, *_ in pools
        ),
    )


def deployment(operator: str, knob: int, pool: str, cpus: float = 1.0, target: float = 0.5, pipeline: str = "p"):
    return Deployment(pipeline, operator, KnobValues.of({"k": knob}), pool, Allocation(cpus, 1, target))


def use(
    deployed: Deployment,
    fluid: float,
    infra: Infrastructure,
    memory_gib: float = 0.5,
    rate_per_s: float = 1.0,
    spare: int = 0,
):
    pool = infra.pool(deployed.pool)
    cpus = deployed.allocation.cpus
    share = pool.reserved_share((cpus, memory_gib * GIB, 0.0, 0.0))
    busy = fluid * deployed.allocation.utilization_target
    mean_s = busy / rate_per_s
    return DeploymentUse(
        deployed,
        ReplicaDemand(cpus, memory_gib * GIB, 0.0, 0.0, pool.price_usd_per_h * share, spare),
        busy,
        RequestStream(rate_per_s, mean_s, 2 * mean_s**2),
    )


def crossing(link: DirectedLink, bytes_per_s: float) -> LinkUse:
    seconds = bytes_per_s / link.bandwidth_bytes_per_s
    return LinkUse(link, bytes_per_s, RequestStream(1.0, seconds, seconds**2))


def candidate(
    query: str,
    uses: list[DeploymentUse],
    links: list[LinkUse] = (),
    transfer: float = 0.0,
    latency_s: float = 0.5,
    accuracy: float = 0.9,
) -> PlanCandidate:
    operators = {u.deployment.operator: u.deployment for u in uses}
    plan = QueryPlan(
        pipeline=uses[0].deployment.pipeline,
        configuration=Configuration.of({name: d.knobs for name, d in operators.items()}),
        placement=tuple(sorted((name, d.pool) for name, d in operators.items())),
        allocations=tuple(sorted((name, d.allocation) for name, d in operators.items())),
    )
    shared = transfer + sum(u.fractional_replicas * u.demand.cost_usd_per_h for u in uses)
    dedicated = transfer + sum(max(1, np.ceil(u.fractional_replicas - 1e-9)) * u.demand.cost_usd_per_h for u in uses)
    estimate = Estimate(
        percentile=95.0,
        latency_s=Interval(latency_s, latency_s * 0.9, latency_s * 1.1),
        accuracy=Interval(accuracy, accuracy - 0.02, accuracy + 0.02),
        cost_usd_per_h=Interval(dedicated, min(shared, dedicated), dedicated),
        stages=tuple(StageEstimate(name, d.pool, 0.0, 0.0, latency_s) for name, d in operators.items()),
        return_s=0.0,
    )
    return PlanCandidate(query, plan, estimate, tuple(uses), tuple(links), transfer)


@cache
def random_instance(
    seed: int,
    *,
    queries: int = 3,
    candidates: int = 4,
    cost_slos: float = 0.3,
    elastic: bool = False,
    spot: bool = False,
) -> Instance:
    """Return a random instance, cached with its answers.

    With `elastic`, the nodes of some pools are chosen, or paid whole; with `spot`, plans in a larger pool have spare
    replicas.
    """
    rng = np.random.default_rng(seed)
    pools = [
        (name, int(rng.integers(1, 3)), float(rng.choice([2.0, 3.0, 4.0])), float(rng.choice([1.0, 2.0, 4.0])), price)
        for name, price in (("near", 0.0 if rng.random() < 0.3 else 0.3), ("far", 1.0))
    ]
    infra = infrastructure(pools, bandwidth_bytes_per_s=float(rng.choice([2e5, 1e6])))
    if elastic:
        infra = infra.model_copy(update={"pools": tuple(_elastic(rng, pool) for pool in infra.pools)})
    if spot:
        more = {"far": 2}
        wider = (p.model_copy(update={"nodes": p.nodes + more.get(p.name, 0)}) for p in infra.pools)
        infra = infra.model_copy(update={"pools": tuple(wider)})
    links = {link.target: link for link in Network(infra).links if link.source == "home"}
    weights = (1.0, 1.0, 2.0, 0.5, 1 / 3)
    feasible: dict[str, tuple[PlanCandidate, ...]] = {}
    drawn = []
    for index in range(queries):
        name = f"q{index}"
        plans: dict[QueryPlan, PlanCandidate] = {}
        for _ in range(int(rng.integers(0 if rng.random() < 0.1 else 1, candidates + 1))):
            uses, crossed = [], []
            for operator in ("a", "b")[: int(rng.integers(1, 3))]:
                pool = ("near", "far")[int(rng.integers(2))]
                cpus = float(rng.choice([1.0, 1.5, 2.0]))
                deployed = deployment(operator, int(rng.integers(2)), pool, cpus, float(rng.choice([0.4, 0.7])))
                memory = float(rng.choice([0.4, 1.0])) if deployed.knobs.as_dict()["k"] else 0.3
                spare = int(deployed.allocation.utilization_target / 0.35) if spot and pool == "far" else 0
                uses.append(use(deployed, float(rng.choice([0.2, 0.5, 0.8, 1.3])), infra, memory, spare=spare))
                if rng.random() < 0.5:
                    crossed.append(crossing(links[pool], float(rng.choice([2e4, 6e4, 1.5e5]))))
            made = candidate(name, uses, list({c.link: c for c in crossed}.values()), float(rng.choice([0.0, 0.01])))
            plans[made.plan] = made
        limit = float(rng.choice([0.1, 0.2, 0.4])) if rng.random() < cost_slos else None
        slos = Slos(latency=LatencySlo(limit_s=0.7), cost=None if limit is None else CostSlo(limit_usd_per_h=limit))
        drawn.append(
            Query(
                name=name,
                pipeline="p",
                source="home",
                rate_per_s=1.0,
                slos=slos,
                weight=float(rng.choice(weights)),
            )
        )
        feasible[name] = tuple(c for c in plans.values() if not c.estimate.violations(slos))
    return Instance(infra, tuple(drawn), feasible)


def _elastic(rng: np.random.Generator, pool: Pool) -> Pool:
    nodes, billing = pool.nodes + int(rng.integers(0, 2)), Billing.NODE if rng.random() < 0.8 else Billing.SHARE
    least = int(rng.integers(0, nodes + 1)) if rng.random() < 0.5 else 0
    return pool.model_copy(update={"nodes": nodes, "min_nodes": least, "billing": billing})


def reestimate(made: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
    """Re-estimate a plan under a merged load: cost by busy seconds, latency by the requests of other queries."""
    share = made.transfer_cost_usd_per_h
    factor = 1.0
    for used in made.deployments:
        load = conditions.deployments[used.deployment]
        share += used.demand.cost_usd_per_h * load.replicas * used.traffic.offered_load / load.traffic.offered_load
        factor = max(factor, load.traffic.mean_s / used.traffic.mean_s / 1.3)
    latency = made.estimate.latency_s
    cost = made.estimate.cost_usd_per_h
    estimate = replace(
        made.estimate,
        latency_s=Interval(latency.value * factor, latency.lower * factor, latency.upper * factor),
        cost_usd_per_h=Interval(share, min(cost.lower, share), max(cost.upper, share)),
    )
    return replace(made, estimate=estimate)


def all_answers(instance: Instance) -> tuple[Answer, ...]:
    """Return all feasible solutions by enumeration, cached by instance."""
    return instance.answers


def _solutions(instance: Instance) -> Iterator[Answer]:
    options = [(None, *instance.candidates[query.name]) for query in instance.queries]
    for combination in product(*options):
        plans = tuple(plan for plan in combination if plan is not None)
        cost = checked_cost(instance, plans)
        if cost is not None:
            weight = sum(q.weight for q, plan in zip(instance.queries, combination, strict=True) if plan is not None)
            yield weight, cost, plans


def checked_cost(instance: Instance, plans: tuple[PlanCandidate, ...]) -> float | None:
    """Return the total cost of concurrent plans, or None if they are infeasible."""
    for link in instance.links:
        volume = sum(crossed.bytes_per_s for plan in plans for crossed in plan.links if crossed.link == link)
        if volume > 0.7 * link.bandwidth_bytes_per_s * (1 + 1e-9):
            return None
    conditions = merge_loads(plans)
    price = instance.demands
    nodes = nodes_of(instance, conditions)
    if nodes is None:
        return None
    paid = paid_prices(instance, conditions, nodes)
    slos = {query.name: query.slos for query in instance.queries}
    for plan in plans:
        final = reestimate(plan, conditions)
        limits = slos[plan.query]
        assert limits.latency is not None
        if final.estimate.latency_s.upper > limits.latency.limit_s:
            return None
        share = plan.transfer_cost_usd_per_h + sum(
            paid[used.deployment]
            * conditions.deployments[used.deployment].replicas
            * used.busy_replicas
            / conditions.deployments[used.deployment].busy_replicas
            for used in plan.deployments
        )
        if limits.cost is not None and share > limits.cost.limit_usd_per_h * (1 + 1e-6) + 1e-9:
            return None
    pools = {pool.name: pool for pool in instance.infrastructure.pools}
    whole = sum(pools[name].price_usd_per_h * count for name, count in nodes.items() if pools[name].bills_nodes)
    replicas = sum(
        price[d].cost_usd_per_h * load.replicas
        for d, load in conditions.deployments.items()
        if not pools[d.pool].bills_nodes
    )
    return whole + replicas + sum(plan.transfer_cost_usd_per_h for plan in plans)


def nodes_of(instance: Instance, conditions: MergedLoad) -> dict[str, int] | None:
    """Return the fewest nodes of each pool on which its replicas pack, or None if there are too few."""
    nodes = {}
    for pool in instance.infrastructure.pools:
        spread = [d for d in conditions.deployments if instance.demands[d].spare_replicas]
        items = [
            (
                instance.demands[d].cpus / pool.cpus,
                instance.demands[d].memory_bytes / pool.memory_bytes,
                *(float(d == other) for other in spread),
            )
            for d, load in conditions.deployments.items()
            if d.pool == pool.name
            for _ in range(load.replicas)
        ]
        enough = [count for count in range(pool.base_nodes, pool.nodes + 1) if packs(items, count)]
        if not enough:
            return None
        nodes[pool.name] = enough[0]
    return nodes


def paid_prices(instance: Instance, conditions: MergedLoad, nodes: Mapping[str, int]) -> dict[Deployment, float]:
    """Return the price paid for a replica of each deployment."""
    prices, pools = {}, {pool.name: pool for pool in instance.infrastructure.pools}
    for d in conditions.deployments:
        reserved = sum(
            instance.demands[other].cost_usd_per_h * load.replicas
            for other, load in conditions.deployments.items()
            if other.pool == d.pool
        )
        prices[d] = instance.demands[d].cost_usd_per_h
        if pools[d.pool].bills_nodes and reserved:
            prices[d] *= pools[d.pool].price_usd_per_h * nodes[d.pool] / reserved
    return prices


def packs(items: list[tuple[float, ...]], nodes: int) -> bool:
    """Return whether items fit on nodes of size 1, by exhaustive search."""
    ordered = sorted(items, reverse=True)

    def place(index: int, loads: list[tuple[float, ...]]) -> bool:
        if index == len(ordered):
            return True
        tried = set()
        for node, load in enumerate(loads):
            if load in tried:
                continue
            tried.add(load)
            total = tuple(used + added for used, added in zip(load, ordered[index], strict=True))
            if max(total) <= 1 + 1e-9 and place(index + 1, [*loads[:node], total, *loads[node + 1 :]]):
                return True
        return False

    return place(0, [(0.0,) * len(items[0] if items else ())] * nodes)


def frontiers_of(instance: Instance) -> dict[str, Frontier]:
    """Return the candidates of an instance as frontiers without near misses."""
    return {
        query.name: Frontier(query, instance.candidates[query.name], {}, (), (), "no candidate was made")
        for query in instance.queries
    }


def best_answer(instance: Instance) -> tuple[float, float]:
    """Return (weight, cost) of the best solution: maximum weight, then minimum cost."""
    weight, minus_cost = max((round(weight, 9), -cost) for weight, cost, _ in all_answers(instance))
    return weight, -minus_cost


def larger(instance: Instance, times: int) -> Instance:
    """Return `instance` with `times` as many nodes and `times` the bandwidth."""
    infrastructure = instance.infrastructure
    pools = tuple(pool.model_copy(update={"nodes": times * pool.nodes}) for pool in infrastructure.pools)
    links = tuple(
        link.model_copy(update={"bandwidth_bytes_per_s": times * link.bandwidth_bytes_per_s})
        for link in infrastructure.links
    )
    wider = infrastructure.model_copy(update={"pools": pools, "links": links})
    directed = {link.name: link for link in Network(wider).links}
    candidates = {
        name: tuple(
            replace(plan, links=tuple(crossing(directed[use.link.name], use.bytes_per_s) for use in plan.links))
            for plan in plans
        )
        for name, plans in instance.candidates.items()
    }
    return Instance(wider, instance.queries, candidates)


def repeated(instance: Instance, times: list[int]) -> Instance:
    """Return `instance` with as many copies of each query as `times`."""
    queries = tuple(
        query.model_copy(update={"name": f"{query.name}-{number}"})
        for query, count in zip(instance.queries, times, strict=True)
        for number in range(count)
    )
    candidates = {
        query.name: tuple(replace(c, query=query.name) for c in instance.candidates[query.name.partition("-")[0]])
        for query in queries
    }
    return Instance(instance.infrastructure, queries, candidates)


def packed_optimum(problem: Problem) -> Solution:
    """Return the exact solver's choice on nodes: what does not pack is cut off until it does."""
    cuts = list[Cut]()
    while True:
        found = MilpSolver().solve(problem, cuts, HANG_LIMIT_S)
        _, further = pack_pools(problem, problem.usage_of(found.chosen))
        if not further:
            return found
        cuts += further
