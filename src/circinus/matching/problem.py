"""The matching problem as arrays, compiled once from queries and candidates."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.solvers.sparse_rows import SparseRows
from circinus.matching.tolerances import CAPACITY_TOLERANCE, REPLICA_TOLERANCE
from circinus.planning.bin_packing import FewestNodes, pack_on_fewest, with_spread
from circinus.planning.settings import RunningLoad
from circinus.specification import Deployment, DirectedLink, QueryPlan
from circinus.specification.slo import COST_ROUNDING, COST_ROUNDING_USD_PER_H

RESOURCES = ("cpus", "memory", "gpus", "gpu memory")
"""Resources of a replica, in the order of every array's last axis."""

_NODE_STEPS, _MAX_SEARCHED_REPLICAS = 500, 20
"""Maximum number of partial packings for each number of nodes of an elastic pool, and of replicas that are packed so;
with more, they are put on nodes one by one."""


@dataclass(frozen=True, eq=False)
class CapacityRows:
    """Linear limits on whole replicas: coefficients @ replicas <= limit.

    The *plain* rows add up a pool's resource over its nodes. The other rows hold because replicas cannot be split
    between nodes: at most k replicas that take more than 1/(k+1) of a node fit on it, and more generally sum(ceil((k+1)
    a) - 1) <= k over the replicas of a node that take the shares a (a dual feasible function after Fekete and Schepers,
    "New classes of fast lower bounds for bin packing problems", 2001).
    """

    coefficients: FloatArray
    """(rows, deployments)"""
    limit: FloatArray
    """(rows,) > 0"""
    pool: IntArray
    """(rows,)"""
    resource: IntArray
    """(rows,) index into RESOURCES"""
    plain: BoolArray
    """(rows,)"""


@dataclass(frozen=True, eq=False)
class CandidateBlock:
    """The p candidates of one query as dense arrays over the d deployments that any of them uses."""

    deployments: IntArray
    """(d,)"""
    fractional_load: FloatArray
    """(p, d)"""
    uses: BoolArray
    """(p, d)"""
    traffic_bytes_per_s: FloatArray
    """(p, L)"""
    coefficients: FloatArray
    """(d, rows) coefficients of one replica in each capacity row."""


@dataclass(frozen=True, eq=False)
class IncumbentChoice:
    """The running candidates, and the churn price."""

    chosen: IntArray
    """(Q,) running candidate of each query; -1 if none runs or it is infeasible now."""
    change_usd_per_h: float
    """Churn price of changing or stopping a running query's plan. It is never part of a cost."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of Q queries, P candidates (in blocks, query by query), D deployments, K pools, L directed links."""

    queries: tuple[str, ...]
    sources: tuple[str, ...]
    """Source site of each query."""
    priority_levels: PriorityLevels
    cost_limit_usd_per_h: FloatArray
    """(Q,) inf if a query has no cost SLO."""
    block: IntArray
    """(Q + 1,) start of each query's candidates."""
    candidates: tuple[PlanCandidate, ...]
    query_of: IntArray
    """(P,)"""
    transfer_cost_usd_per_h: FloatArray
    """(P,)"""
    fractional_load: SparseRows
    """(P, D) fractional replicas that each candidate needs of each deployment at its target utilization."""
    traffic: SparseRows
    """(P, L) bytes per second of each candidate on each link."""
    deployments: tuple[Deployment, ...]
    pool_of: IntArray
    """(D,)"""
    demand: FloatArray
    """(D, 4) resources of one replica."""
    price_usd_per_h: FloatArray
    """(D,) price of one replica; where nodes are paid whole, the price that it reserves: never more than is paid."""
    max_replicas: IntArray
    """(D,) number of replicas that fit into an otherwise empty pool."""
    spare_replicas: IntArray
    """(D,) number of replicas beside those for the load, as nodes may be interrupted; then each is on another node."""
    late_share: FloatArray
    """(D,) share of requests that count as late since interruptions may delay them."""
    pools: tuple[str, ...]
    nodes: IntArray
    """(K,) greatest number."""
    base_nodes: IntArray
    """(K,) number that always runs."""
    node_price_usd_per_h: FloatArray
    """(K,) price of a node that is paid whole, else 0."""
    node_capacity: FloatArray
    """(K, 4)"""
    rows: CapacityRows
    links: tuple[str, ...]
    link_capacity_bytes_per_s: FloatArray
    """(L,) usable share of the bandwidth."""
    incumbent: IncumbentChoice | None = None
    """Running plans, or None if nothing runs."""

    def candidates_of(self, query: int) -> range:
        """Return the indexes of the candidates of a query."""
        return range(int(self.block[query]), int(self.block[query + 1]))

    @cached_property
    def runs(self) -> BoolArray:
        """(P,) whether each candidate's plan runs."""
        runs = np.zeros(len(self.candidates), dtype=bool)
        if self.incumbent is not None:
            runs[self.incumbent.chosen[self.incumbent.chosen >= 0]] = True
        return runs

    @cached_property
    def change_usd_per_h(self) -> FloatArray:
        """(P,) churn price of choosing each candidate: positive if it replaces a running one."""
        if self.incumbent is None:
            return np.zeros(len(self.candidates))
        replaces = (self.incumbent.chosen >= 0)[self.query_of] & ~self.runs
        return np.asarray(np.where(replaces, self.incumbent.change_usd_per_h, 0.0))

    @property
    def max_change_usd_per_h(self) -> float:
        """Churn price if all running plans change."""
        return 0.0 if self.incumbent is None else self.incumbent.change_usd_per_h * float(self.runs.sum())

    def cost_with_churn_usd_per_h(self, usage: Usage) -> float:
        """Return the cost including churn, by which choices of equal weight are compared."""
        per_change = 0.0 if self.incumbent is None else self.incumbent.change_usd_per_h
        return usage.cost_usd_per_h + per_change * usage.changes

    @cached_property
    def blocks(self) -> tuple[CandidateBlock, ...]:
        """Candidates of each query as dense arrays."""
        return tuple(self._block(self.candidates_of(query)) for query in range(len(self.queries)))

    def _block(self, candidates: range) -> CandidateBlock:
        deployments, fractional, uses = self.fractional_load.to_dense(candidates.start, candidates.stop)
        crossed, volume, _ = self.traffic.to_dense(candidates.start, candidates.stop)
        traffic = np.zeros((len(candidates), len(self.links)))
        traffic[:, crossed] = volume
        return CandidateBlock(deployments, fractional, uses, traffic, self.rows.coefficients[:, deployments].T)

    @cached_property
    def elastic(self) -> IntArray:
        """Pools of which the number of nodes is chosen."""
        return np.flatnonzero(self.base_nodes < self.nodes).astype(np.int64)

    @cached_property
    def billed_usd_per_h(self) -> FloatArray:
        """(D,) price of one replica, 0 where nodes are paid whole."""
        return np.where(self.node_price_usd_per_h[self.pool_of] > 0, 0.0, self.price_usd_per_h)

    @cached_property
    def _rows_per_node(self) -> FloatArray:
        """(rows,) limit of each capacity row for one node."""
        return self.rows.limit / np.maximum(self.nodes[self.rows.pool], 1) * (1 + CAPACITY_TOLERANCE)

    @cached_property
    def divided_usd_per_h(self) -> FloatArray:
        """(D,) price of one replica if nodes that are paid whole were divisible, by the resource that plans need most.

        It is 0 where all nodes always run. With `fixed_usd_per_h`, replicas never cost less.
        """
        of_node = np.maximum(self.node_capacity, np.finfo(np.float64).tiny)[self.pool_of]
        share, load = np.where(self.demand > 0, self.demand / of_node, 0.0), np.zeros(len(self.deployments))
        _, column, fractional = self.fractional_load.entries(0, len(self.candidates))
        np.add.at(load, column, fractional)
        needed = np.zeros((len(self.pools), len(RESOURCES)))
        np.add.at(needed, self.pool_of, load[:, None] * share)
        most = share[np.arange(len(share)), needed.argmax(axis=1)[self.pool_of]]
        is_chosen = (self.base_nodes < self.nodes)[self.pool_of]
        divided = np.where(is_chosen, self.node_price_usd_per_h[self.pool_of] * most, 0.0)
        return np.where(self.node_price_usd_per_h[self.pool_of] > 0, divided, self.price_usd_per_h)

    @cached_property
    def fixed_usd_per_h(self) -> float:
        """Price of the nodes that are paid whole in pools that always run all of theirs."""
        return float(self.node_price_usd_per_h @ np.where(self.base_nodes < self.nodes, 0, self.nodes))

    def needed_nodes(self, rows: FloatArray) -> IntArray:
        """Return (..., K) nodes without which capacity rows (..., rows) do not hold: packing may need more."""
        needed = np.zeros((*rows.shape[:-1], len(self.pools)))
        if len(self.rows.pool):
            pools, start = np.unique(self.rows.pool, return_index=True)
            needed[..., pools] = np.ceil(np.maximum.reduceat(rows / self._rows_per_node, start, axis=-1))
        return np.clip(needed, self.base_nodes, self.nodes).astype(np.int64)

    @cached_property
    def packed(self) -> tuple[FloatArray, FloatArray]:
        """(D, R) resources of one replica, and (K, R) of one node, with those that spread replicas over nodes."""
        return with_spread(self.demand, self.node_capacity, self.spare_replicas > 0)

    @cached_property
    def _fewest_nodes(self) -> dict[tuple[int, bytes], FewestNodes]:
        return {}

    def fewest_nodes(self, pool: int, replicas: IntArray) -> FewestNodes:
        """Return the packing of a pool's replicas, of (D,), on its fewest nodes."""
        members = np.flatnonzero((self.pool_of == pool) & (replicas > 0))
        key = pool, np.stack([members, replicas[members]]).tobytes()
        fewest = self._fewest_nodes.get(key)
        if fewest is None:
            of_pool = self.rows.pool == pool
            used = self.rows.coefficients[np.ix_(of_pool, members)] @ replicas[members] / self._rows_per_node[of_pool]
            base, most = int(self.base_nodes[pool]), int(self.nodes[pool])
            fewest_possible = min(max(base, math.ceil(used.max(initial=0.0))), most)
            demand, capacity = self.packed[0][members], self.packed[1][pool]
            steps = _NODE_STEPS if replicas[members].sum() <= _MAX_SEARCHED_REPLICAS else 0
            fewest = pack_on_fewest(demand, replicas[members], capacity, fewest_possible, most, steps)
            self._fewest_nodes[key] = fewest
        return fewest

    def nodes_of(self, replicas: IntArray) -> IntArray:
        """Return (K,) nodes that run for replicas (D,): the fewest of elastic pools, else all."""
        return self.with_nodes(self.nodes, replicas, self.elastic)

    def with_nodes(self, nodes: IntArray, replicas: IntArray, pools: IntArray) -> IntArray:
        """Return nodes (K,) with those of elastic pools among some for replicas (D,)."""
        nodes = nodes.copy()
        for pool in np.unique(pools[self.base_nodes[pools] < self.nodes[pools]]).tolist():
            nodes[pool] = self.fewest_nodes(pool, replicas).count
        return nodes

    def cost_usd_per_h(self, replicas: IntArray, nodes: IntArray) -> float:
        """Return the cost of replicas (D,) and of nodes (K,) that are paid whole."""
        return float(self.billed_usd_per_h @ replicas + self.node_price_usd_per_h @ nodes)

    def paid_usd_per_h(self, replicas: IntArray, nodes: IntArray) -> FloatArray:
        """Return (D,) the price of each replica: of nodes that are paid whole, its part by what each one reserves."""
        reserved = self.price_usd_per_h * replicas
        of_pool = np.bincount(self.pool_of, weights=reserved, minlength=len(self.pools))
        paid = self.node_price_usd_per_h * nodes
        factor = np.divide(paid, of_pool, out=np.ones_like(paid), where=(paid > 0) & (of_pool > 0))
        return np.asarray(self.price_usd_per_h * factor[self.pool_of])

    def paid_whole(self, deployment: int, paid_usd_per_h: FloatArray) -> float | None:
        """Return the price paid for a replica of a deployment on nodes that are paid whole, else None."""
        is_whole = self.node_price_usd_per_h[self.pool_of[deployment]] > 0
        return float(paid_usd_per_h[deployment]) if is_whole else None

    def chosen_nodes(self, nodes: IntArray) -> dict[str, int]:
        """Return the nodes (K,) of the pools whose nodes are chosen or paid whole, by the pool's name."""
        is_chosen = (self.base_nodes < self.nodes) | (self.node_price_usd_per_h > 0)
        return {self.pools[pool]: int(nodes[pool]) for pool in np.flatnonzero(is_chosen)}

    def demand_of(self, deployment: int) -> ReplicaDemand:
        """Return the resources and the price of one replica of a deployment, and how many are spare."""
        cpus, memory_bytes, gpus, gpu_memory_bytes = (float(amount) for amount in self.demand[deployment])
        price_usd_per_h, spare = float(self.price_usd_per_h[deployment]), int(self.spare_replicas[deployment])
        late_share = float(self.late_share[deployment])
        return ReplicaDemand(cpus, memory_bytes, gpus, gpu_memory_bytes, price_usd_per_h, spare, late_share)

    def usage_of(self, chosen: IntArray, min_replicas: IntArray | None = None) -> Usage:
        """Return the joint usage of the chosen candidates.

        Args:
            chosen: (Q,) candidate of each query, -1 for none.
            min_replicas: (D,) replicas that run in any case; None: as many as utilization targets take.
        """
        served = chosen[chosen >= 0]
        fractional, used = self.fractional_load.total(served)
        traffic, _ = self.traffic.total(served)
        replicas = round_up_replicas(fractional, used, self.spare_replicas)
        if min_replicas is not None:
            replicas = np.maximum(replicas, min_replicas)
        rows = self.rows.coefficients @ replicas
        nodes = self.nodes_of(replicas)
        return Usage(
            fractional_load=fractional,
            used=used,
            replicas=replicas,
            traffic_bytes_per_s=traffic,
            rows=rows,
            nodes=nodes,
            cost_usd_per_h=self.cost_usd_per_h(replicas, nodes) + float(self.transfer_cost_usd_per_h[served].sum()),
            changes=int(self.runs.sum() - self.runs[served].sum()),
        )

    def running_load(self, chosen: IntArray, min_replicas: IntArray | None = None) -> RunningLoad:
        """Return the load of the chosen candidates, beside which plans of one more query are searched for."""
        usage = self.usage_of(chosen, min_replicas)
        deployments, pools = {}, {name: np.zeros(len(RESOURCES)) for name in self.pools}
        for column in np.flatnonzero(usage.used).tolist():
            deployment, replicas = self.deployments[column], int(usage.replicas[column])
            busy = float(usage.fractional_load[column]) * deployment.allocation.utilization_target
            deployments[deployment] = replicas, busy
            pools[deployment.pool] += replicas * self.demand[column]
        links: dict[DirectedLink, float] = defaultdict(float)
        for _, candidate in self.served(chosen):
            for use in self.candidates[candidate].links:
                links[use.link] += use.bytes_per_s / use.link.bandwidth_bytes_per_s
        return RunningLoad(deployments, links, pools)

    def fits(self, usage: Usage) -> bool:
        """Return whether all linear capacities hold (packing of replicas on nodes is checked separately)."""
        return bool(
            np.all(usage.rows <= self.rows.limit * (1 + CAPACITY_TOLERANCE))
            and np.all(usage.traffic_bytes_per_s <= self.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE))
            and np.all(usage.replicas <= self.max_replicas)
        )

    def cost_share_usd_per_h(self, candidate: int, usage: Usage) -> float:
        """Return the cost of a chosen candidate: its share of whole replicas by busy seconds, plus its transfers."""
        columns, fractional = self.fractional_load.row(candidate)
        price_usd_per_h = self.paid_usd_per_h(usage.replicas, usage.nodes)[columns]
        return float(
            self.transfer_cost_usd_per_h[candidate]
            + np.sum(price_usd_per_h * usage.replicas[columns] * fractional / usage.fractional_load[columns])
        )

    @cached_property
    def replica_demands(self) -> tuple[ReplicaDemand, ...]:
        """(D,) resources and price of one replica."""
        return tuple(map(self.demand_of, range(len(self.deployments))))

    def choice_of(self, plans: Mapping[str, QueryPlan]) -> IntArray:
        """Return (Q,) the candidates with the given plans, by query name; -1 where there is none."""
        chosen = np.full(len(self.queries), -1, dtype=np.int64)
        for index, name in enumerate(self.queries):
            plan = plans.get(name)
            for candidate in self.candidates_of(index) if plan is not None else ():
                if self.candidates[candidate].plan == plan:
                    chosen[index] = candidate
        return chosen

    def exchange_key(self, query: int, usable: BoolArray) -> object:
        """Return a key that is equal for queries with the same usable candidates (P,), in the same order."""
        span = slice(self.block[query], self.block[query + 1])
        parts = [
            self.cost_limit_usd_per_h[query : query + 1],
            self.transfer_cost_usd_per_h[span],
            self.change_usd_per_h[span],
            usable[span],
        ]
        for incidence in (self.fractional_load, self.traffic):
            entries = slice(incidence.start[span.start], incidence.start[span.stop])
            parts += [
                np.diff(incidence.start[span.start : span.stop + 1]),
                incidence.column[entries],
                incidence.value[entries],
            ]
        return tuple(part.tobytes() for part in parts)

    def served(self, chosen: IntArray) -> Iterator[tuple[int, int]]:
        """Yield (query, candidate) of every served query."""
        return ((query, int(candidate)) for query, candidate in enumerate(chosen) if candidate >= 0)


@dataclass(frozen=True, eq=False)
class Usage:
    """Usage of deployments, links and pools by a choice."""

    fractional_load: FloatArray
    """(D,) load in replicas at the target utilization."""
    used: BoolArray
    """(D,)"""
    replicas: IntArray
    """(D,)"""
    traffic_bytes_per_s: FloatArray
    """(L,)"""
    rows: FloatArray
    """(rows,) left side of each capacity row."""
    nodes: IntArray
    """(K,) nodes that run."""
    cost_usd_per_h: float
    """Cost of all replicas and nodes, and of all transfers."""
    changes: int = 0
    """Number of running queries whose plan changes or stops."""


def round_up_replicas(fractional: FloatArray, used: BoolArray | bool, spare: IntArray) -> IntArray:
    """Return whole replicas for fractional ones: at least one and the spare ones if used, else none.

    Rounding errors are ignored.
    """
    rounded = np.ceil(fractional - REPLICA_TOLERANCE).astype(np.int64)
    return np.asarray(np.where(used, np.maximum(rounded, 1) + spare, 0), dtype=np.int64)


def whole_replicas(fractional: float, spare: int) -> int:
    """Return `round_up_replicas` for one deployment in use."""
    return max(math.ceil(fractional - REPLICA_TOLERANCE), 1) + spare


def meets_cost_slo(share_usd_per_h: FloatArray | float, limit_usd_per_h: FloatArray | float) -> BoolArray:
    """Return whether cost shares are within their limits, as `CostSlo.is_met_by` does for one."""
    return np.asarray(share_usd_per_h <= limit_usd_per_h * (1 + COST_ROUNDING) + COST_ROUNDING_USD_PER_H)
