"""Construction and validation of a `Problem` from queries, candidates and the infrastructure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import RESOURCES, CapacityRows, Problem
from circinus.matching.solvers.sparse_rows import SparseRows
from circinus.specification import Deployment, Infrastructure, Network, Query

_MAX_REPLICAS_PER_NODE_ROW = 4
"""Maximum k of the capacity rows that count replicas larger than 1/(k + 1) of a node."""


def build_problem(
    queries: Sequence[Query],
    candidates: Mapping[str, Sequence[PlanCandidate]],
    infrastructure: Infrastructure,
    *,
    shared_demands: Mapping[Deployment, ReplicaDemand] | None = None,
    guaranteed: Collection[str] = (),
    preferred: Collection[str] = (),
    running: Mapping[Deployment, ReplicaDemand] | None = None,
) -> Problem:
    """Return the matching problem of `queries` as arrays.

    Args:
        queries: with distinct names.
        candidates: query name -> plans that meet its SLOs; a query may have none.
        infrastructure: the pools and links.
        shared_demands: demands of replicas expected by further queries; the maximum counts.
        guaranteed: names of queries that must be served to meet a tenant's share (see `PriorityLevels.of`).
        preferred: names of the queries of tenants that lack some of their share.
        running: deployments that are part of the problem even if no candidate uses them.

    Raises:
        PlanningError: a plan uses an unknown pool or link, or its amounts are negative, infinite or not numbers.
    """
    all_candidates = [candidate for query in queries for candidate in candidates.get(query.name, ())]
    sizes = [len(candidates.get(query.name, ())) for query in queries]
    _check_amounts(all_candidates)
    demand_of = merged_demands(
        (use.deployment, use.demand) for candidate in all_candidates for use in candidate.deployments
    )
    if running:
        demand_of = merged_demands([*demand_of.items(), *running.items()])
    if shared_demands:
        demand_of = merged_demands(
            [*demand_of.items(), *((d, shared_demands[d]) for d in demand_of if d in shared_demands)]
        )
    deployments = tuple(sorted(demand_of, key=lambda deployment: deployment.name))
    pools = {pool.name: index for index, pool in enumerate(infrastructure.pools)}
    _check_pools(deployments, pools)
    demand = np.array([demand_of[d].amounts for d in deployments]).reshape(len(deployments), len(RESOURCES))
    pool_of = np.array([pools[d.pool] for d in deployments], dtype=np.int64)
    spare = np.array([demand_of[d].spare_replicas for d in deployments], dtype=np.int64)
    nodes = np.array([pool.nodes for pool in infrastructure.pools], dtype=np.int64)
    node_capacity = np.array([pool.amounts for pool in infrastructure.pools])
    links, share = Network(infrastructure).links, infrastructure.usable_link_share
    return Problem(
        queries=tuple(query.name for query in queries),
        sources=tuple(query.source for query in queries),
        priority_levels=PriorityLevels.of(queries, guaranteed, preferred),
        cost_limit_usd_per_h=np.array(
            [math.inf if q.slos.cost is None else q.slos.cost.limit_usd_per_h for q in queries], dtype=np.float64
        ),
        block=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        candidates=tuple(all_candidates),
        query_of=np.repeat(np.arange(len(queries)), sizes),
        transfer_cost_usd_per_h=np.array([c.transfer_cost_usd_per_h for c in all_candidates], dtype=np.float64),
        fractional_load=_fractional_load(all_candidates, deployments),
        traffic=_traffic(all_candidates, [link.name for link in links]),
        deployments=deployments,
        pool_of=pool_of,
        demand=demand,
        price_usd_per_h=np.array([demand_of[d].cost_usd_per_h for d in deployments], dtype=np.float64),
        max_replicas=max_replicas(demand, nodes[pool_of], node_capacity[pool_of], spare > 0),
        spare_replicas=spare,
        late_share=np.array([demand_of[d].late_share for d in deployments], dtype=np.float64),
        pools=tuple(pools),
        nodes=nodes,
        base_nodes=np.array([pool.base_nodes for pool in infrastructure.pools], dtype=np.int64),
        node_price_usd_per_h=np.array([p.paid_usd_per_h if p.bills_nodes else 0.0 for p in infrastructure.pools]),
        node_capacity=node_capacity,
        rows=capacity_rows(
            demand, pool_of, nodes, node_capacity, [pool.headroom for pool in infrastructure.pools], spare > 0
        ),
        links=tuple(link.name for link in links),
        link_capacity_bytes_per_s=np.array([share * link.bandwidth_bytes_per_s for link in links]),
    )


def merged_demands(demands: Iterable[tuple[Deployment, ReplicaDemand]]) -> dict[Deployment, ReplicaDemand]:
    """Return the maximum demand of each deployment's replicas over all uses.

    The memory of a replica may have been measured behind different ancestors; all of them will run in it.
    """
    merged: dict[Deployment, ReplicaDemand] = {}
    for deployment, demand in demands:
        current = merged.get(deployment)
        if current is demand:
            continue
        if current is None or current == demand:
            merged[deployment] = demand
        else:
            merged[deployment] = ReplicaDemand(*map(max, astuple(current), astuple(demand)))
    return merged


def _incidence(rows: Sequence[Mapping[int, float]], columns: int) -> SparseRows:
    return SparseRows(
        start=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        column=np.array([column for row in rows for column in row], dtype=np.int64),
        value=np.array([value for row in rows for value in row.values()], dtype=np.float64),
        columns=columns,
    )


def _fractional_load(candidates: Sequence[PlanCandidate], deployments: Sequence[Deployment]) -> SparseRows:
    column_of = {deployment: index for index, deployment in enumerate(deployments)}
    rows = [
        {column_of[use.deployment]: use.fractional_replicas for use in candidate.deployments}
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
                    f"a plan uses unknown link {use.link.name}; links are {', '.join(links)}",
                    code="plan.unknown_link",
                    location=f"query {candidate.query}",
                )
            column = column_of[use.link.name]
            total[column] = total.get(column, 0.0) + use.bytes_per_s
        rows.append({column: value for column, value in total.items() if value > 0})
    return _incidence(rows, len(links))


def max_replicas(demand: FloatArray, nodes: IntArray, capacity: FloatArray, is_spread: BoolArray) -> IntArray:
    """Return (D,) the number of replicas of each deployment that fit on otherwise empty nodes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        per_node = np.where(demand > 0, np.floor(capacity / demand + 1e-9), np.inf).min(axis=1, initial=np.inf)
    per_node = np.where(is_spread, np.minimum(per_node, 1), per_node)
    return np.asarray(nodes * np.where(np.isinf(per_node), np.iinfo(np.int32).max, per_node), dtype=np.int64)


def capacity_rows(
    demand: FloatArray,
    pool_of: IntArray,
    nodes: IntArray,
    capacity: FloatArray,
    headroom: Sequence[float],
    is_spread: BoolArray,
) -> CapacityRows:
    """Return the linear limits on whole replicas of D deployments.

    Args:
        demand: (D, 4) resources of one replica.
        pool_of: (D,)
        nodes: (K,) of each pool.
        capacity: (K, 4) resources of a node.
        headroom: share of each pool that stays free.
        is_spread: (D,) whether each replica is on another node.
    """
    coefficients: list[FloatArray] = []
    limit: list[float] = []
    row_kind: list[tuple[int, int, bool]] = []
    for pool in range(len(nodes)):
        inside = pool_of == pool
        for resource in range(len(RESOURCES)):
            amounts = np.where(inside, demand[:, resource], 0.0)
            node_amount = capacity[pool, resource]
            if node_amount <= 0 or nodes[pool] == 0 or not np.any(amounts > 0):
                continue  # demand for an absent resource is excluded by `max_replicas` = 0
            coefficients.append(amounts)
            limit.append(node_amount * float(nodes[pool]) * (1.0 - headroom[pool]))
            row_kind.append((pool, resource, True))
            for k in range(1, _MAX_REPLICAS_PER_NODE_ROW + 1):
                pieces = np.clip(np.ceil((k + 1) * amounts / node_amount - 1e-9) - 1, 0.0, k)
                if np.any(pieces / k > amounts / node_amount + 1e-9):
                    coefficients.append(pieces)
                    limit.append(float(k * nodes[pool]))
                    row_kind.append((pool, resource, False))
        for deployment in np.flatnonzero(inside & is_spread & (nodes[pool] > 0)):
            coefficients.append(np.eye(len(pool_of))[deployment])
            limit.append(float(nodes[pool]))
            row_kind.append((pool, 0, False))
    return CapacityRows(
        coefficients=np.array(coefficients).reshape(len(limit), len(pool_of)),
        limit=np.array(limit, dtype=np.float64),
        pool=np.array([pool for pool, _, _ in row_kind], dtype=np.int64),
        resource=np.array([resource for _, resource, _ in row_kind], dtype=np.int64),
        plain=np.array([plain for _, _, plain in row_kind], dtype=bool),
    )


def _check_amounts(candidates: Iterable[PlanCandidate]) -> None:
    for candidate in candidates:
        invalid = candidate.invalid_amount
        if invalid is not None:
            raise PlanningError(
                f"amounts of a plan must be finite and at least 0, got {invalid}",
                code="planning.invalid_number",
                location=f"query {candidate.query}, plan {candidate.plan.configuration}",
            )


def _check_pools(deployments: Sequence[Deployment], pools: Mapping[str, int]) -> None:
    for deployment in deployments:
        if deployment.pool not in pools:
            raise PlanningError(
                f"unknown pool {deployment.pool}; pools are {', '.join(pools)}",
                code="plan.unknown_pool",
                location=f"deployment {deployment.name}",
            )
