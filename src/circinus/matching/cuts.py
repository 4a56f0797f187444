"""What later steps teach the choice: combinations that pass the linear capacities and still cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.problem import CAPACITY_TOLERANCE, Problem, Usage


class Cut(Protocol):
    """A restriction that every answer must keep."""

    @property
    def valid(self) -> bool:
        """Whether only impossible answers are cut off, so that bounds and optimality outlast the cut."""
        ...

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether the choice (Q,) with its usage keeps the restriction."""
        ...


@dataclass(frozen=True, eq=False)
class ChurnCut:
    """Of the queries that run and could stay as they are, no more than so many get another plan or none."""

    kept: IntArray
    """(Q,) candidate with which each may stay, -1 for none; together they keep everything."""
    most: int
    valid: bool = True

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether few enough change."""
        return bool(((self.kept >= 0) & (chosen != self.kept)).sum() <= self.most)


@dataclass(frozen=True, eq=False)
class PoolCut:
    """A pool of which no more than a share is filled, as whole replicas do not go on its nodes without gaps.

    It stands for many `PackingCut`s where there are too many replicas to find out which of them do not go together.
    """

    pool: int
    share: float
    """Of every plain capacity of the pool."""
    valid: bool = False

    def rows(self, problem: Problem) -> IntArray:
        """The capacity rows that are tighter."""
        return np.flatnonzero(problem.rows.plain & (problem.rows.pool == self.pool)).astype(np.int64)

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether no plain capacity of the pool is filled further."""
        rows = self.rows(problem)
        return bool(np.all(usage.rows[rows] <= self.share * problem.rows.limit[rows] * (1 + CAPACITY_TOLERANCE)))


@dataclass(frozen=True, eq=False)
class PackingCut:
    """Replicas that do not go on the nodes of a pool together: at least one group must stay below its count."""

    pool: int
    groups: tuple[tuple[IntArray, int], ...]
    """(deployments, count): the replicas of these deployments together number `count` or more."""
    valid: bool
    """False when the search for a packing was given up before it had tried everything."""

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether some group stays below its count."""
        return any(usage.replicas[members].sum() < count for members, count in self.groups)


@dataclass(frozen=True, eq=False)
class SizingCut:
    """A candidate that breaks an objective when its deployments and links are shared exactly as they were.

    What a candidate costs and how long it waits depends on the other candidates that touch its deployments or links
    and on nothing else; the same candidate may do well among others.
    """

    candidate: int
    present: IntArray
    """The candidates that were chosen and touch its deployments or links."""
    absent: IntArray
    """The candidates that touch them and were not chosen."""
    reason: str
    valid: bool = True
    """False: the candidate is given up, whatever its neighbours."""

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether the candidate is not chosen, or has other neighbours."""
        if chosen[problem.query_of[self.candidate]] != self.candidate:
            return True
        if not self.valid:
            return False
        taken = chosen[chosen >= 0]
        return bool(np.isin(self.absent, taken).any() or not np.isin(self.present, taken).all())


@dataclass(frozen=True, eq=False)
class CostShareCut:
    """A candidate whose share of its deployments costs more than its query may pay.

    It pays price * fluid * replicas / load for each deployment. For at least k replicas that falls with the load F no
    faster than its tangent at the load F0 that was found, k (2 F0 - F) / F0^2, and it is never below price * fluid.
    The sum of the tangents is linear in the loads and must not exceed what the query may pay.
    """

    candidate: int
    replicas: IntArray
    """(deployments of the candidate,) k: as many as there were."""
    load: FloatArray
    """(deployments of the candidate,) F0: the load there was, in replicas at the utilisation target."""
    reason: str
    valid: bool = True

    def tangents(self, problem: Problem) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """(at load 0, slope, what fewer replicas than k take off at most, the limit), each of the first three
        (deployments of the candidate,), in US dollars per hour."""
        columns, fluid = problem.fractional_load.row(self.candidate)
        price = problem.price_usd_per_h[columns] * fluid
        slope = price * self.replicas / self.load**2
        start = 2 * price * self.replicas / self.load
        fewer = np.maximum(start - slope * fluid - price, 0.0)
        limit = problem.cost_limit_usd_per_h[problem.query_of[self.candidate]]
        return start, slope, fewer, float(limit - problem.transfer_cost_usd_per_h[self.candidate])

    def is_satisfied(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether the candidate is not chosen, or the tangents at the present loads stay within the limit."""
        if chosen[problem.query_of[self.candidate]] != self.candidate:
            return True
        columns, _ = problem.fractional_load.row(self.candidate)
        start, slope, fewer, limit = self.tangents(problem)
        paid = start - slope * usage.fractional_load[columns] - fewer * (usage.replicas[columns] < self.replicas)
        return bool(paid.sum() <= limit * (1 + CAPACITY_TOLERANCE) + 1e-12)


def share_cut(problem: Problem, usage: Usage, candidate: int, reason: str) -> CostShareCut:
    """The cut that forbids `candidate` at the loads of `usage` and at loads that would not lower its share enough."""
    columns, _ = problem.fractional_load.row(candidate)
    return CostShareCut(candidate, usage.replicas[columns], usage.fractional_load[columns], reason)


def sizing_cut(problem: Problem, chosen: IntArray, candidate: int, reason: str, *, exact: bool) -> SizingCut:
    """The cut that forbids `candidate` beside the neighbours that it has in `chosen`."""
    nothing = np.array([], dtype=np.int64)
    if not exact:
        return SizingCut(candidate, nothing, nothing, reason, valid=False)
    neighbours = _neighbours(problem, candidate)
    there = np.isin(neighbours, chosen[chosen >= 0])
    return SizingCut(candidate, neighbours[there], neighbours[~there], reason)


def _neighbours(problem: Problem, candidate: int) -> IntArray:
    """The candidates of other queries that use one of the candidate's deployments or links."""
    found = np.zeros(len(problem.candidates), dtype=bool)
    for incidence in (problem.fractional_load, problem.traffic):
        row_of = np.repeat(np.arange(len(problem.candidates)), np.diff(incidence.start))
        found[row_of[np.isin(incidence.column, incidence.row(candidate)[0])]] = True
    found &= problem.query_of != problem.query_of[candidate]
    return np.flatnonzero(found).astype(np.int64)
