"""From queries, their candidates and the infrastructure to a `Problem`; everything meaningless is refused here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.estimation.estimator import USABLE_LINK_SHARE
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import RESOURCES, CapacityRows, Problem
from circinus.matching.solvers.sparse_rows import SparseRows
from circinus.specification import Deployment, Infrastructure, Network, Query

_LEAST_FLUID = 1e-12
"""Load of a deployment whose service time is below the clock's resolution: it still pays a share."""

_LARGEST_FRACTION = 4
"""Capacity rows for whole replicas are made for replicas larger than 1/2 ... 1/(this + 1) of a node."""


def build_problem(
    queries: Sequence[Query],
    candidates: Mapping[str, Sequence[PlanCandidate]],
    infrastructure: Infrastructure,
    *,
    usable_link_share: float = USABLE_LINK_SHARE,
    known: Mapping[Deployment, ReplicaDemand] | None = None,
    held: Collection[str] = (),
    raised: Collection[str] = (),
    running: Mapping[Deployment, ReplicaDemand] | None = None,
) -> Problem:
    """The matching of `queries` as arrays.

    Args:
        queries: what to serve, with distinct names.
        candidates: query name -> plans that promise its objectives; a query may have none.
        infrastructure: the pools and links.
        usable_link_share: share of each link's bandwidth that may be filled.
        known: what further queries expect a replica of a deployment to take; it counts, too.
        held: names of queries that come first because a tenant was promised so much (`Ranks`).
        raised: names of queries of which some come first for that reason.
        running: deployments that are part of the problem whether any candidate uses them or not.

    Raises:
        PlanningError: duplicate or unknown names, numbers that are negative, infinite or not numbers, a link or node
            without capacity, or a candidate that does not promise its query's objectives.
    """
    _check_queries(queries, candidates)
    flat = [candidate for query in queries for candidate in candidates.get(query.name, ())]
    sizes = [len(candidates.get(query.name, ())) for query in queries]
    for query in queries:
        for candidate in candidates.get(query.name, ()):
            _check_candidate(query, candidate)

    _check_capacities(infrastructure, links_usable=usable_link_share)
    demand_of = merged_demands((use.deployment, use.demand) for candidate in flat for use in candidate.deployments)
    if running:
        demand_of = merged_demands([*demand_of.items(), *running.items()])
    if known:
        demand_of = merged_demands([*demand_of.items(), *((d, known[d]) for d in demand_of if d in known)])
    deployments = tuple(sorted(demand_of, key=lambda deployment: deployment.name))
    pools = {pool.name: index for index, pool in enumerate(infrastructure.pools)}
    _check_pools(deployments, pools)
    demand = np.array([_amounts(demand_of[d]) for d in deployments]).reshape(len(deployments), len(RESOURCES))
    pool_of = np.array([pools[d.pool] for d in deployments], dtype=np.int64)
    nodes = np.array([pool.nodes for pool in infrastructure.pools], dtype=np.int64)
    node_capacity = np.array([[p.cpus, p.memory_bytes, p.gpus, p.gpu_memory_bytes] for p in infrastructure.pools])
    links = Network(infrastructure).links
    ranks = PriorityLevels.of(queries, held, raised)
    return Problem(
        queries=tuple(query.name for query in queries),
        sources=tuple(query.source for query in queries),
        priority_levels=ranks,
        weight=ranks.weight,
        cost_limit_usd_per_h=np.array(
            [math.inf if q.slos.cost is None else q.slos.cost.limit_usd_per_h for q in queries], dtype=np.float64
        ),
        block=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        candidates=tuple(flat),
        query_of=np.repeat(np.arange(len(queries)), sizes),
        transfer_cost_usd_per_h=np.array([c.transfer_cost_usd_per_h for c in flat], dtype=np.float64),
        fractional_load=_fluid(flat, deployments),
        traffic=_traffic(flat, [link.name for link in links]),
        deployments=deployments,
        pool_of=pool_of,
        demand=demand,
        price_usd_per_h=np.array([demand_of[d].cost_usd_per_h for d in deployments], dtype=np.float64),
        max_replicas=_max_replicas(demand, nodes[pool_of], node_capacity[pool_of]),
        pools=tuple(pools),
        nodes=nodes,
        node_capacity=node_capacity,
        rows=_capacity_rows(demand, pool_of, nodes, node_capacity, [pool.headroom for pool in infrastructure.pools]),
        links=tuple(link.name for link in links),
        link_capacity_bytes_per_s=np.array([usable_link_share * link.bandwidth_bytes_per_s for link in links]),
    )


def merged_demands(demands: Iterable[tuple[Deployment, ReplicaDemand]]) -> dict[Deployment, ReplicaDemand]:
    """For each deployment the most that any of its uses expects a replica to take.

    The memory of a replica may have been measured behind different ancestors; all of them will run in it.
    """
    merged: dict[Deployment, ReplicaDemand] = {}
    for deployment, new in demands:
        known = merged.get(deployment)
        if known is None or known == new:
            merged[deployment] = new
        else:
            merged[deployment] = ReplicaDemand(
                cpus=max(known.cpus, new.cpus),
                memory_bytes=max(known.memory_bytes, new.memory_bytes),
                gpus=max(known.gpus, new.gpus),
                gpu_memory_bytes=max(known.gpu_memory_bytes, new.gpu_memory_bytes),
                cost_usd_per_h=max(known.cost_usd_per_h, new.cost_usd_per_h),
            )
    return merged


def _amounts(demand: ReplicaDemand) -> tuple[float, float, float, float]:
    return demand.cpus, demand.memory_bytes, demand.gpus, demand.gpu_memory_bytes


def _incidence(rows: Sequence[Mapping[int, float]], columns: int) -> SparseRows:
    return SparseRows(
        start=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        column=np.array([column for row in rows for column in row], dtype=np.int64),
        value=np.array([value for row in rows for value in row.values()], dtype=np.float64),
        columns=columns,
    )


def _fluid(candidates: Sequence[PlanCandidate], deployments: Sequence[Deployment]) -> SparseRows:
    column_of = {deployment: index for index, deployment in enumerate(deployments)}
    rows = [
        {column_of[use.deployment]: max(use.fractional_replicas, _LEAST_FLUID) for use in candidate.deployments}
        for candidate in candidates
    ]
    return _incidence(rows, len(deployments))


def _traffic(candidates: Sequence[PlanCandidate], links: Sequence[str]) -> SparseRows:
    column_of = {link: index for index, link in enumerate(links)}
    rows = []
    for candidate in candidates:
        total: dict[int, float] = {}
        for use in candidate.links:
            if use.link.name not in column_of:
                raise PlanningError(
                    f"query {candidate.query}: found link {use.link.name} in a plan, expected one of {', '.join(links)}"
                )
            column = column_of[use.link.name]
            total[column] = total.get(column, 0.0) + use.bytes_per_s
        rows.append({column: value for column, value in total.items() if value > 0})
    return _incidence(rows, len(links))


def _max_replicas(demand: FloatArray, nodes: IntArray, capacity: FloatArray) -> IntArray:
    """(D,) replicas of each deployment that fit on otherwise empty nodes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        per_node = np.where(demand > 0, np.floor(capacity / demand + 1e-9), np.inf).min(axis=1, initial=np.inf)
    return np.asarray(nodes * np.where(np.isinf(per_node), np.iinfo(np.int32).max, per_node), dtype=np.int64)


def _capacity_rows(
    demand: FloatArray, pool_of: IntArray, nodes: IntArray, capacity: FloatArray, headroom: Sequence[float]
) -> CapacityRows:
    coefficients: list[FloatArray] = []
    limit: list[float] = []
    kind: list[tuple[int, int, bool]] = []
    for pool in range(len(nodes)):
        inside = pool_of == pool
        for resource in range(len(RESOURCES)):
            amounts = np.where(inside, demand[:, resource], 0.0)
            room = capacity[pool, resource]
            if room <= 0 or nodes[pool] == 0 or not np.any(amounts > 0):
                continue  # what asks for a resource that is not there has no replica at all (`max_replicas`)
            coefficients.append(amounts)
            limit.append(room * float(nodes[pool]) * (1.0 - headroom[pool]))
            kind.append((pool, resource, True))
            for k in range(1, _LARGEST_FRACTION + 1):
                pieces = np.clip(np.ceil((k + 1) * amounts / room - 1e-9) - 1, 0.0, k)
                if np.any(pieces / k > amounts / room + 1e-9):
                    coefficients.append(pieces)
                    limit.append(float(k * nodes[pool]))
                    kind.append((pool, resource, False))
    return CapacityRows(
        coefficients=np.array(coefficients).reshape(len(limit), len(pool_of)),
        limit=np.array(limit, dtype=np.float64),
        pool=np.array([pool for pool, _, _ in kind], dtype=np.int64),
        resource=np.array([resource for _, resource, _ in kind], dtype=np.int64),
        plain=np.array([plain for _, _, plain in kind], dtype=bool),
    )


def _check_queries(queries: Sequence[Query], candidates: Mapping[str, Sequence[PlanCandidate]]) -> None:
    twice = [name for name, count in Counter(query.name for query in queries).items() if count > 1]
    if twice:
        raise PlanningError(f"queries: found the name {twice[0]} twice, expected distinct names; rename one")
    unknown = sorted(set(candidates) - {query.name for query in queries})
    if unknown:
        raise PlanningError(f"candidates: found plans for {unknown[0]}, which is not among the queries to match")
    for query in queries:
        if not (math.isfinite(query.weight) and query.weight > 0):
            raise PlanningError(f"query {query.name}: found weight {query.weight}, expected a finite number above 0")


def _check_candidate(query: Query, candidate: PlanCandidate) -> None:
    where = f"query {query.name}, plan {candidate.plan.configuration}"
    if candidate.query != query.name:
        raise PlanningError(f"{where}: found a plan made for query {candidate.query}")
    _check_number(where, "transfer cost", candidate.transfer_cost_usd_per_h)
    seen: set[Deployment] = set()
    for use in candidate.deployments:
        name = f"{where}, deployment {use.deployment.name}"
        if use.deployment in seen:
            raise PlanningError(f"{name}: found it twice in one plan")
        seen.add(use.deployment)
        target = use.deployment.allocation.utilization_target
        if not 0 < target <= 1:
            raise PlanningError(f"{name}: found the utilisation target {target}, expected more than 0 and at most 1")
        _check_number(name, "busy replicas", use.busy_replicas)
        _check_number(name, "price", use.demand.cost_usd_per_h)
        for resource, amount in zip(RESOURCES, _amounts(use.demand), strict=True):
            _check_number(name, resource, amount)
    for link in candidate.links:
        _check_number(f"{where}, link {link.link.name}", "traffic", link.bytes_per_s)
    violated = candidate.estimate.violations(query.slos)
    if violated:
        raise PlanningError(
            f"{where}: found a candidate that does not promise {', '.join(violated)}, expected only plans whose "
            "objectives are promised; leave it to the near misses"
        )


def _check_pools(deployments: Sequence[Deployment], pools: Mapping[str, int]) -> None:
    for deployment in deployments:
        if deployment.pool not in pools:
            raise PlanningError(
                f"deployment {deployment.name}: found pool {deployment.pool}, expected one of {', '.join(pools)}"
            )


def _check_number(where: str, what: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise PlanningError(f"{where}: found {what} {value}, expected a finite number of at least 0")


def _check_capacities(infrastructure: Infrastructure, links_usable: float) -> None:
    if not 0 < links_usable <= 1:
        raise PlanningError(f"usable share of links: found {links_usable}, expected more than 0 and at most 1")
    for pool in infrastructure.pools:
        where = f"pool {pool.name}"
        for resource, amount in zip(
            RESOURCES, (pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes), strict=True
        ):
            _check_number(where, f"{resource} of a node", amount)
        if pool.nodes > 0 and (pool.cpus <= 0 or pool.memory_bytes <= 0):
            raise PlanningError(f"{where}: found a node without {'cpus' if pool.cpus <= 0 else 'memory'}")
