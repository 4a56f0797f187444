"""The matching problem as arrays: compiled once from queries and candidates, then read by every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circinus.estimation import Candidate, ReplicaDemand
from circinus.spec import Deployment

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

RESOURCES = ("cpus", "memory", "gpus", "gpu memory")
"""What a replica takes of its node, in the order of every array's last axis."""

REPLICA_TOLERANCE = 1e-6
"""Share of a replica by which rounded sums may exceed a whole number before one more replica is needed."""

CAPACITY_TOLERANCE = 1e-6
"""Relative excess over a capacity that counts as rounding."""


_DENSE_ENTRIES = 2_000_000
"""Up to so many entries, sums of rows are taken of the whole matrix: many times faster than row by row."""


@dataclass(frozen=True, eq=False)
class Incidence:
    """A sparse matrix by rows: what each candidate takes of each column (deployment or link)."""

    start: IntArray
    """(rows + 1,) where each row's entries begin."""
    column: IntArray
    """(entries,)"""
    value: FloatArray
    """(entries,)"""
    columns: int

    def row(self, index: int) -> tuple[IntArray, FloatArray]:
        """Columns and values of one row."""
        entries = slice(self.start[index], self.start[index + 1])
        return self.column[entries], self.value[entries]

    @cached_property
    def _dense(self) -> tuple[FloatArray, BoolArray] | None:
        """The whole matrix, and where it has entries; None where it is too large to be written out."""
        rows = len(self.start) - 1
        if rows * self.columns > _DENSE_ENTRIES:
            return None
        values, entries = np.zeros((rows, self.columns)), np.zeros((rows, self.columns), dtype=bool)
        row, column, value = self.entries(0, rows)
        values[row, column] = value
        entries[row, column] = True
        return values, entries

    def entries(self, first: int, last: int) -> tuple[IntArray, IntArray, FloatArray]:
        """Row (counted from `first`), column and value of all entries of the rows `first` up to `last`."""
        span = slice(self.start[first], self.start[last])
        row = np.repeat(np.arange(last - first), np.diff(self.start[first : last + 1]))
        return row, self.column[span], self.value[span]

    def total(self, rows: IntArray) -> tuple[FloatArray, BoolArray]:
        """Sum of the given rows for each column, and whether any of them has an entry there."""
        if self._dense is not None:
            values, entries = self._dense
            return values[rows].sum(axis=0), np.logical_or.reduce(entries[rows], axis=0)
        sums: FloatArray = np.zeros(self.columns, dtype=np.float64)
        touched = np.full(self.columns, fill_value=False)
        for index in rows:
            columns, values = self.row(int(index))
            sums[columns] += values
            touched[columns] = True
        return sums, touched


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
class Problem:
    """Q queries, P candidates (in blocks, query by query), D deployments, K pools, L directed links."""

    queries: tuple[str, ...]
    weight: FloatArray
    """(Q,)"""
    cost_limit_usd_per_h: FloatArray
    """(Q,) inf where a query has no cost objective."""
    block: IntArray
    """(Q + 1,) where each query's candidates begin."""
    candidates: tuple[Candidate, ...]
    query_of: IntArray
    """(P,)"""
    transfer_cost_usd_per_h: FloatArray
    """(P,)"""
    fluid: Incidence
    """(P, D) replicas that each candidate needs of each deployment at its utilisation target, not rounded."""
    traffic: Incidence
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

    def candidates_of(self, query: int) -> range:
        """Indexes of the candidates of one query."""
        return range(int(self.block[query]), int(self.block[query + 1]))

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
        fluid, used = self.fluid.total(picked)
        traffic, _ = self.traffic.total(picked)
        replicas = whole_replicas(fluid, used)
        return Usage(
            fluid=fluid,
            used=used,
            replicas=replicas,
            traffic_bytes_per_s=traffic,
            rows=self.rows.coefficients @ replicas,
            cost_usd_per_h=float(self.price_usd_per_h @ replicas + self.transfer_cost_usd_per_h[picked].sum()),
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
        columns, fluid = self.fluid.row(candidate)
        return float(
            self.transfer_cost_usd_per_h[candidate]
            + np.sum(self.price_usd_per_h[columns] * usage.replicas[columns] * fluid / usage.fluid[columns])
        )

    def served(self, chosen: IntArray) -> Iterator[tuple[int, int]]:
        """(query, candidate) of every query that is served."""
        return ((query, int(candidate)) for query, candidate in enumerate(chosen) if candidate >= 0)


@dataclass(frozen=True, eq=False)
class Usage:
    """What a choice takes."""

    fluid: FloatArray
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


def whole_replicas(fluid: FloatArray, used: BoolArray) -> IntArray:
    """Whole replicas for loads: none where unused, else at least one and no fewer than the load, rounding aside."""
    whole = np.ceil(fluid - REPLICA_TOLERANCE).astype(np.int64)
    return np.asarray(np.where(used, np.maximum(whole, 1), 0), dtype=np.int64)
