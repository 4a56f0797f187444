"""The matching problem as arrays: compiled once from queries and candidates, then read by every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.solvers.sparse_rows import SparseRows
from circinus.specification import Deployment

RESOURCES = ("cpus", "memory", "gpus", "gpu memory")
"""What a replica takes of its node, in the order of every array's last axis."""

REPLICA_TOLERANCE = 1e-6
"""Share of a replica by which rounded sums may exceed a whole number before one more replica is needed."""

CAPACITY_TOLERANCE = 1e-6
"""Relative excess over a capacity that counts as rounding."""

_COST_TOLERANCE_USD_PER_H = 1e-12


@dataclass(frozen=True, eq=False)
class CapacityRows:
    """Linear limits on whole replicas: coefficients @ replicas <= limit.

    The *plain* rows add up a pool's resource over its nodes. The others hold because replicas are not divided between
    nodes: of the replicas that take more than 1/(k+1) of a node at most k fit on it, and more generally
    sum(ceil((k+1) a) - 1) <= k over the replicas of a node that take the shares a (a dual feasible function after
    Fekete and Schepers, "New classes of fast lower bounds for bin packing problems", 2001).
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
    """The p candidates of one query, written out over the d deployments that any of them uses."""

    deployments: IntArray
    """(d,)"""
    fractional_load: FloatArray
    """(p, d)"""
    uses: BoolArray
    """(p, d)"""
    traffic_bytes_per_s: FloatArray
    """(p, L)"""
    coefficients: FloatArray
    """(d, rows) what one replica adds to each capacity row."""


@dataclass(frozen=True, eq=False)
class IncumbentChoice:
    """What runs already, and what changing it counts."""

    chosen: IntArray
    """(Q,) candidate whose plan runs; -1 where none does, or the one that did is possible no more."""
    change_usd_per_h: float
    """What another plan or none, for a query that runs, counts beside its cost. It is never part of a cost."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Q queries, P candidates (in blocks, query by query), D deployments, K pools, L directed links."""

    queries: tuple[str, ...]
    sources: tuple[str, ...]
    """Site that each query comes from."""
    priority_levels: PriorityLevels
    weight: FloatArray
    """(Q,) what queries count, so that higher ranks come first."""
    cost_limit_usd_per_h: FloatArray
    """(Q,) inf where a query has no cost objective."""
    block: IntArray
    """(Q + 1,) where each query's candidates begin."""
    candidates: tuple[PlanCandidate, ...]
    query_of: IntArray
    """(P,)"""
    transfer_cost_usd_per_h: FloatArray
    """(P,)"""
    fractional_load: SparseRows
    """(P, D) replicas that each candidate needs of each deployment at its utilisation target, not rounded."""
    traffic: SparseRows
    """(P, L) bytes per second that each candidate sends over each link."""
    deployments: tuple[Deployment, ...]
    pool_of: IntArray
    """(D,)"""
    demand: FloatArray
    """(D, 4) what one replica takes of its node."""
    price_usd_per_h: FloatArray
    """(D,) of one replica."""
    max_replicas: IntArray
    """(D,) as many as fit when the pool holds nothing else."""
    pools: tuple[str, ...]
    nodes: IntArray
    """(K,)"""
    node_capacity: FloatArray
    """(K, 4)"""
    rows: CapacityRows
    links: tuple[str, ...]
    link_capacity_bytes_per_s: FloatArray
    """(L,) usable share of the bandwidth."""
    incumbent: IncumbentChoice | None = None
    """None: nothing runs yet."""

    def candidates_of(self, query: int) -> range:
        """Indexes of the candidates of one query."""
        return range(int(self.block[query]), int(self.block[query + 1]))

    @cached_property
    def runs(self) -> BoolArray:
        """(P,) candidates whose plan runs already."""
        found = np.zeros(len(self.candidates), dtype=bool)
        if self.incumbent is not None:
            found[self.incumbent.chosen[self.incumbent.chosen >= 0]] = True
        return found

    @cached_property
    def change_usd_per_h(self) -> FloatArray:
        """(P,) what choosing each candidate counts beside its cost: something where it replaces one that runs."""
        if self.incumbent is None:
            return np.zeros(len(self.candidates))
        replaces = (self.incumbent.chosen >= 0)[self.query_of] & ~self.runs
        return np.asarray(np.where(replaces, self.incumbent.change_usd_per_h, 0.0))

    @property
    def most_change_usd_per_h(self) -> float:
        """What it counts when none of the plans that run stays."""
        return 0.0 if self.incumbent is None else self.incumbent.change_usd_per_h * float(self.runs.sum())

    def cost_with_churn_usd_per_h(self, usage: Usage) -> float:
        """What choices of equal weight are compared by: the cost, and what changes of what runs count."""
        per_change = 0.0 if self.incumbent is None else self.incumbent.change_usd_per_h
        return usage.cost_usd_per_h + per_change * usage.changes

    @cached_property
    def blocks(self) -> tuple[CandidateBlock, ...]:
        """Of each query."""
        return tuple(self._block(self.candidates_of(query)) for query in range(len(self.queries)))

    def _block(self, candidates: range) -> CandidateBlock:
        deployments, fluid, uses = self.fractional_load.to_dense(candidates.start, candidates.stop)
        crossed, volume, _ = self.traffic.to_dense(candidates.start, candidates.stop)
        traffic = np.zeros((len(candidates), len(self.links)))
        traffic[:, crossed] = volume
        return CandidateBlock(deployments, fluid, uses, traffic, self.rows.coefficients[:, deployments].T)

    def demand_of(self, deployment: int) -> ReplicaDemand:
        """What one replica of a deployment takes, and costs."""
        cpus, memory_bytes, gpus, gpu_memory_bytes = (float(amount) for amount in self.demand[deployment])
        return ReplicaDemand(cpus, memory_bytes, gpus, gpu_memory_bytes, float(self.price_usd_per_h[deployment]))

    def usage_of(self, chosen: IntArray) -> Usage:
        """What the chosen candidates take together.

        Args:
            chosen: (Q,) candidate of each query, -1 for none.
        """
        picked = chosen[chosen >= 0]
        fluid, used = self.fractional_load.total(picked)
        traffic, _ = self.traffic.total(picked)
        replicas = round_up_replicas(fluid, used)
        return Usage(
            fractional_load=fluid,
            used=used,
            replicas=replicas,
            traffic_bytes_per_s=traffic,
            rows=self.rows.coefficients @ replicas,
            cost_usd_per_h=float(self.price_usd_per_h @ replicas + self.transfer_cost_usd_per_h[picked].sum()),
            changes=int(self.runs.sum() - self.runs[picked].sum()),
        )

    def fits(self, usage: Usage) -> bool:
        """Whether all linear capacities hold (whether the replicas pack on nodes is another question)."""
        return bool(
            np.all(usage.rows <= self.rows.limit * (1 + CAPACITY_TOLERANCE))
            and np.all(usage.traffic_bytes_per_s <= self.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE))
            and np.all(usage.replicas <= self.max_replicas)
        )

    def weight_of(self, chosen: IntArray) -> float:
        """Satisfied weight."""
        return float(self.weight[chosen >= 0].sum())

    def cost_share_usd_per_h(self, candidate: int, usage: Usage) -> float:
        """What a chosen candidate costs its query: its share by busy seconds of whole replicas, plus its transfers."""
        columns, fluid = self.fractional_load.row(candidate)
        return float(
            self.transfer_cost_usd_per_h[candidate]
            + np.sum(self.price_usd_per_h[columns] * usage.replicas[columns] * fluid / usage.fractional_load[columns])
        )

    def served(self, chosen: IntArray) -> Iterator[tuple[int, int]]:
        """(query, candidate) of every query that is served."""
        return ((query, int(candidate)) for query, candidate in enumerate(chosen) if candidate >= 0)


@dataclass(frozen=True, eq=False)
class Usage:
    """What a choice takes."""

    fractional_load: FloatArray
    """(D,) load in replicas at the utilisation target."""
    used: BoolArray
    """(D,)"""
    replicas: IntArray
    """(D,)"""
    traffic_bytes_per_s: FloatArray
    """(L,)"""
    rows: FloatArray
    """(rows,) left side of each capacity row."""
    cost_usd_per_h: float
    """Of all replicas and all transfers."""
    changes: int = 0
    """Queries that run and get another plan or none."""


def round_up_replicas(fluid: FloatArray, used: BoolArray) -> IntArray:
    """Whole replicas for loads: none where unused, else at least one and no fewer than the load, rounding aside."""
    whole = np.ceil(fluid - REPLICA_TOLERANCE).astype(np.int64)
    return np.asarray(np.where(used, np.maximum(whole, 1), 0), dtype=np.int64)


def meets_cost_slo(share_usd_per_h: FloatArray | float, limit_usd_per_h: FloatArray | float) -> BoolArray:
    """Whether shares keep limits, rounding aside."""
    return np.asarray(share_usd_per_h <= limit_usd_per_h * (1 + CAPACITY_TOLERANCE) + _COST_TOLERANCE_USD_PER_H)
