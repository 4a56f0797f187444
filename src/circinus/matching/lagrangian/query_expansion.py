"""Expansion of query classes to single queries, with the usage of a choice."""

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
    """(C, S) index in `usage` of the resources of each class's slots."""
    capacities: int
    """Number of resources: of all sites, and shared ones."""

    @classmethod
    def of(cls, problem: RelaxedProblem) -> ExpandedQueries:
        """Expand the classes of a problem."""
        class_of = np.repeat(np.arange(problem.classes), np.rint(problem.multiplicity).astype(np.int64))
        local = problem.sites * problem.local
        own = problem.site[:, None] * problem.local + np.arange(problem.local)
        shared = np.broadcast_to(local + np.arange(problem.shared), (problem.classes, problem.shared))
        resources = np.concatenate([own, shared], axis=1).astype(np.int64)
        return cls(problem, class_of, resources, local + problem.shared)

    @cached_property
    def site_starts(self) -> IntArray:
        """(sites + 1,) start of each site's queries."""
        return np.searchsorted(self.problem.site[self.class_of], np.arange(self.problem.sites + 1)).astype(np.int64)

    def usage(self, chosen: IntArray) -> FloatArray:
        """Return (capacities,) the usage of each resource by a choice (N,)."""
        served = np.flatnonzero(chosen >= 0)
        classes = self.class_of[served]
        amounts = self.problem.amounts[classes, chosen[served]].astype(np.float64)
        usage = np.zeros(self.capacities)
        local = self.problem.local
        usage[self.problem.sites * local :] = amounts[:, local:].sum(axis=0)
        if local:
            flat = self.resources[classes, :local].reshape(-1)
            usage += np.bincount(flat, weights=amounts[:, :local].reshape(-1), minlength=self.capacities)
        return usage

    def weight(self, chosen: IntArray) -> float:
        """Return the weight of the served queries."""
        return float(self.problem.weight[self.class_of[chosen >= 0]].sum())

    def cost_usd_per_h(self, chosen: IntArray) -> float:
        """Return the cost of the chosen plans."""
        served = np.flatnonzero(chosen >= 0)
        return float(self.problem.cost_usd_per_h[self.class_of[served], chosen[served]].sum())

    def value(self, chosen: IntArray, objective: DualObjective) -> float:
        """Return the value of a choice by an objective."""
        return objective.weight * self.weight(chosen) - objective.cost * self.cost_usd_per_h(chosen)
