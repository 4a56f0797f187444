"""A whole answer: at most one plan for every single query, and what all of them take."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem

NOT_SERVED = -1


@dataclass(frozen=True, eq=False)
class ExpandedQueries:
    """The N single queries of a problem's classes."""

    problem: RelaxedProblem
    class_of: IntArray
    """(N,) ascending."""
    resources: IntArray = field(repr=False)
    """(C, S) where in `usage` the resources of each class's slots stand."""
    capacities: int
    """Of all sites and all that is shared."""

    @classmethod
    def of(cls, problem: RelaxedProblem) -> ExpandedQueries:
        """Every query by itself."""
        class_of = np.repeat(np.arange(problem.classes), np.rint(problem.multiplicity).astype(np.int64))
        local = problem.sites * problem.local
        own = problem.site[:, None] * problem.local + np.arange(problem.local)
        shared = np.broadcast_to(local + np.arange(problem.shared), (problem.classes, problem.shared))
        resources = np.concatenate([own, shared], axis=1).astype(np.int64)
        return cls(problem, class_of, resources, local + problem.shared)

    @cached_property
    def site_starts(self) -> IntArray:
        """(sites + 1,) where each site's queries begin."""
        return np.searchsorted(self.problem.site[self.class_of], np.arange(self.problem.sites + 1)).astype(np.int64)

    def usage(self, chosen: IntArray) -> FloatArray:
        """(capacities,) what a choice (N,) takes of each resource."""
        served = np.flatnonzero(chosen >= 0)
        classes = self.class_of[served]
        amounts = self.problem.amounts[classes, chosen[served]].astype(np.float64)
        found = np.zeros(self.capacities)
        local = self.problem.local
        found[self.problem.sites * local :] = amounts[:, local:].sum(axis=0)
        if local:
            flat = self.resources[classes, :local].reshape(-1)
            found += np.bincount(flat, weights=amounts[:, :local].reshape(-1), minlength=self.capacities)
        return found

    def weight(self, chosen: IntArray) -> float:
        """Of the queries served."""
        return float(self.problem.weight[self.class_of[chosen >= 0]].sum())

    def cost_usd_per_h(self, chosen: IntArray) -> float:
        """Of the plans chosen."""
        served = np.flatnonzero(chosen >= 0)
        return float(self.problem.cost_usd_per_h[self.class_of[served], chosen[served]].sum())

    def worth(self, chosen: IntArray, objective: DualObjective) -> float:
        """By an objective."""
        return objective.weight * self.weight(chosen) - objective.cost * self.cost_usd_per_h(chosen)
