"""Cuts: combinations that satisfy the linear capacities but turned out infeasible in later passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.problem import Problem, Usage, meets_cost_slo
from circinus.matching.tolerances import CAPACITY_TOLERANCE


class Cut(Protocol):
    """A restriction that every answer must satisfy."""

    @property
    def valid(self) -> bool:
        """True if the cut excludes infeasible answers only, so that bounds and optimality remain valid."""
        ...

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether the choice (Q,) with its usage satisfies the restriction."""
        ...


@dataclass(frozen=True, eq=False)
class ChurnCut:
    """A limit on the number of running queries that lose their plan although it could stay."""

    retained: IntArray
    """(Q,) candidate with which each query may stay, -1 for none; they are jointly feasible."""
    max_changes: int
    valid: bool = True

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether few enough plans change."""
        return bool(((self.retained >= 0) & (chosen != self.retained)).sum() <= self.max_changes)


@dataclass(frozen=True, eq=False)
class PoolCut:
    """A limit on the fill of a pool, as whole replicas do not go on its nodes without gaps.

    It replaces many `PackingCut`s if there are too many replicas to find the conflicting ones.
    """

    pool: int
    share: float
    """Maximum share of every plain capacity of the pool."""
    valid: bool = False

    def rows(self, problem: Problem) -> IntArray:
        """Return the capacity rows that the cut tightens."""
        return np.flatnonzero(problem.rows.plain & (problem.rows.pool == self.pool)).astype(np.int64)

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether the fill of the pool is within the limit."""
        rows = self.rows(problem)
        return bool(np.all(usage.rows[rows] <= self.share * problem.rows.limit[rows] * (1 + CAPACITY_TOLERANCE)))


@dataclass(frozen=True, eq=False)
class PackingCut:
    """Replicas that do not pack on the nodes of a pool: at least one group must stay below its count."""

    pool: int
    groups: tuple[tuple[IntArray, int], ...]
    """(deployments, count): the replicas of these deployments together number `count` or more."""
    valid: bool
    """False if the search for a packing stopped before it had tried everything."""

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether some group stays below its count."""
        return any(usage.replicas[members].sum() < count for members, count in self.groups)


@dataclass(frozen=True, eq=False)
class SizingCut:
    """A candidate that violates an SLO if its deployments and links are shared exactly as they were.

    Cost and waiting time of a candidate depend only on the other candidates on its deployments or links, or in its
    pools whose nodes are paid whole; it may be feasible with other neighbours.
    """

    candidate: int
    present: IntArray
    """Chosen candidates on its deployments or links."""
    absent: IntArray
    """Other candidates on its deployments or links."""
    reason: str
    valid: bool = True
    """False to exclude the candidate with any neighbours."""

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether the candidate is not chosen, or has other neighbours."""
        if chosen[problem.query_of[self.candidate]] != self.candidate:
            return True
        if not self.valid:
            return False
        selected = chosen[chosen >= 0]
        return bool(np.isin(self.absent, selected).any() or not np.isin(self.present, selected).all())


@dataclass(frozen=True, eq=False)
class CostShareCut:
    """A candidate whose share of its deployments' cost exceeds its query's limit.

    It pays price * fractional * replicas / load for each deployment. For at least k replicas that falls with the load F
    no faster than its tangent at the load F0 of the violation, k (2 F0 - F) / F0^2, and it is never below price *
    fractional. The sum of the tangents is linear in the loads and must not exceed the query's limit.
    """

    candidate: int
    replicas: IntArray
    """(deployments of the candidate,) k: number of replicas in the violation."""
    load: FloatArray
    """(deployments of the candidate,) F0: load in the violation, in replicas at the target utilization."""
    reason: str
    valid: bool = True

    def tangents(self, problem: Problem) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """Return (value at load 0, slope, maximum relief by fewer replicas than k, limit) in US dollars per hour.

        The first three are arrays over the deployments of the candidate.
        """
        columns, fractional = problem.fractional_load.row(self.candidate)
        price = problem.price_usd_per_h[columns] * fractional
        slope = price * self.replicas / self.load**2
        start = 2 * price * self.replicas / self.load
        relief = np.maximum(start - slope * fractional - price, 0.0)
        limit = problem.cost_limit_usd_per_h[problem.query_of[self.candidate]]
        return start, slope, relief, float(limit - problem.transfer_cost_usd_per_h[self.candidate])

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Return whether the candidate is not chosen, or its tangents at the current loads are within the limit."""
        if chosen[problem.query_of[self.candidate]] != self.candidate:
            return True
        columns, _ = problem.fractional_load.row(self.candidate)
        start, slope, relief, limit = self.tangents(problem)
        paid = start - slope * usage.fractional_load[columns] - relief * (usage.replicas[columns] < self.replicas)
        return bool(meets_cost_slo(float(paid.sum()), limit))


def share_cut(problem: Problem, usage: Usage, candidate: int, reason: str) -> CostShareCut:
    """Return the cut that excludes `candidate` at the loads of `usage` and at loads that lower its share too little."""
    columns, _ = problem.fractional_load.row(candidate)
    return CostShareCut(candidate, usage.replicas[columns], usage.fractional_load[columns], reason)


def sizing_cut(problem: Problem, chosen: IntArray, candidate: int, reason: str, *, exact: bool) -> SizingCut:
    """Return the cut that excludes `candidate` together with its neighbours in `chosen`."""
    no_candidates = np.array([], dtype=np.int64)
    if not exact:
        return SizingCut(candidate, no_candidates, no_candidates, reason, valid=False)
    neighbours = _neighbours(problem, candidate)
    present = np.isin(neighbours, chosen[chosen >= 0])
    return SizingCut(candidate, neighbours[present], neighbours[~present], reason)


def _neighbours(problem: Problem, candidate: int) -> IntArray:
    """Return the candidates of other queries that use one of the candidate's deployments or links.

    On nodes that are paid whole, the cost depends on all replicas of the pool.
    """
    neighbours = np.zeros(len(problem.candidates), dtype=bool)
    is_whole = problem.node_price_usd_per_h[problem.pool_of] > 0
    own = problem.fractional_load.row(candidate)[0]
    columns = np.append(own, np.flatnonzero(is_whole & np.isin(problem.pool_of, problem.pool_of[own])))
    for incidence, shared in ((problem.fractional_load, columns), (problem.traffic, problem.traffic.row(candidate)[0])):
        row_of = np.repeat(np.arange(len(problem.candidates)), np.diff(incidence.start))
        neighbours[row_of[np.isin(incidence.column, shared)]] = True
    neighbours &= problem.query_of != problem.query_of[candidate]
    return np.flatnonzero(neighbours).astype(np.int64)
