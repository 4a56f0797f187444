"""What later steps teach the choice: combinations that pass the linear capacities and still cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.matching.problem import IntArray, Problem, Usage


class Cut(Protocol):
    """A restriction that every answer must keep."""

    @property
    def exact(self) -> bool:
        """Whether only impossible answers are cut off, so that bounds and optimality outlast the cut."""
        ...

    def holds(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether the choice (Q,) with its usage keeps the restriction."""
        ...


@dataclass(frozen=True, eq=False)
class PackingCut:
    """Replicas that do not go on the nodes of a pool together: at least one group must stay below its count."""

    pool: int
    groups: tuple[tuple[IntArray, int], ...]
    """(deployments, count): the replicas of these deployments together number `count` or more."""
    exact: bool
    """False when the search for a packing was given up before it had tried everything."""

    def holds(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
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
    exact: bool = True
    """False: the candidate is given up, whatever its neighbours."""

    def holds(self, problem: Problem, chosen: IntArray, usage: Usage) -> bool:
        """Whether the candidate is not chosen, or has other neighbours."""
        if chosen[problem.query_of[self.candidate]] != self.candidate:
            return True
        if not self.exact:
            return False
        taken = chosen[chosen >= 0]
        return bool(np.isin(self.absent, taken).any() or not np.isin(self.present, taken).all())


def sizing_cut(problem: Problem, chosen: IntArray, candidate: int, reason: str, *, exact: bool) -> SizingCut:
    """The cut that forbids `candidate` beside the neighbours that it has in `chosen`."""
    nothing = np.array([], dtype=np.int64)
    if not exact:
        return SizingCut(candidate, nothing, nothing, reason, exact=False)
    neighbours = _neighbours(problem, candidate)
    there = np.isin(neighbours, chosen[chosen >= 0])
    return SizingCut(candidate, neighbours[there], neighbours[~there], reason)


def _neighbours(problem: Problem, candidate: int) -> IntArray:
    """The candidates of other queries that use one of the candidate's deployments or links."""
    found = np.zeros(len(problem.candidates), dtype=bool)
    for incidence in (problem.fluid, problem.traffic):
        row_of = np.repeat(np.arange(len(problem.candidates)), np.diff(incidence.start))
        found[row_of[np.isin(incidence.column, incidence.row(candidate)[0])]] = True
    found &= problem.query_of != problem.query_of[candidate]
    return np.flatnonzero(found).astype(np.int64)
