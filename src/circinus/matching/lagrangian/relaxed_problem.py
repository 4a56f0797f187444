"""The relaxed matching problem: shares of capacities without whole replicas, as arrays of any size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.matching.tolerances import CAPACITY_TOLERANCE

Amounts = NDArray[np.floating[Any]]

NOT_SERVED = -1


@dataclass(frozen=True, eq=False)
class RelaxedProblem:
    """A problem of C classes of identical queries, up to P plans each, and S slots of resources per plan.

    The first `local` slots are resources of the class's site, which only its own queries can use; the others are shared
    by all sites. Amounts are shares of capacities, so that every capacity is 1. Classes are ordered by site.
    """

    multiplicity: FloatArray
    """(C,) number of queries in each class."""
    weight: FloatArray
    """(C,) weight of each query."""
    cost_usd_per_h: FloatArray
    """(C, P) infinite if a class has fewer plans."""
    amounts: Amounts
    """(C, P, S) shares of capacities; 0 if there is no plan. Single precision halves the memory."""
    site: IntArray
    """(C,) ascending."""
    sites: int
    local: int
    """Number of slots of the site's own resources."""

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.weight)

    @property
    def shared(self) -> int:
        """Number of shared resources."""
        return int(self.amounts.shape[2]) - self.local

    @property
    def queries(self) -> float:
        """Number of queries in all classes."""
        return float(self.multiplicity.sum())

    @property
    def total_weight(self) -> float:
        """Weight of all queries."""
        return float(self.multiplicity @ self.weight)

    @cached_property
    def class_of(self) -> IntArray:
        """(N,) class of each single query, ascending."""
        return np.repeat(np.arange(self.classes), np.rint(self.multiplicity).astype(np.int64))

    @cached_property
    def resources(self) -> IntArray:
        """(C, S) index of the resources of each class's slots: those of all sites, then shared ones."""
        shared = np.broadcast_to(self.sites * self.local + np.arange(self.shared), (self.classes, self.shared))
        if not self.local:
            return shared
        own = self.site[:, None] * self.local + np.arange(self.local)
        return np.concatenate([own, shared], axis=1).astype(np.int64)

    @cached_property
    def servable_weight(self) -> float:
        """Weight of all queries with a plan that fits by itself."""
        fits = np.isfinite(self.cost_usd_per_h)
        fits &= self.amounts.max(axis=2, initial=0.0) <= 1.0 + 2 * CAPACITY_TOLERANCE
        return float((self.multiplicity * self.weight)[fits.any(axis=1)].sum())

    @property
    def capacities(self) -> int:
        """Number of resources: of all sites, and shared ones."""
        return self.sites * self.local + self.shared

    @cached_property
    def site_starts(self) -> IntArray:
        """(sites + 1,) start of each site's single queries."""
        return np.searchsorted(self.site[self.class_of], np.arange(self.sites + 1)).astype(np.int64)

    def usage_of(self, chosen: IntArray) -> FloatArray:
        """Return (capacities,) the usage of each resource by a choice (N,)."""
        served = np.flatnonzero(chosen >= 0)
        return self.usage_of_plans(self.class_of[served], chosen[served], np.ones(len(served)))

    def usage_of_plans(self, classes: IntArray, plans: IntArray, queries: FloatArray) -> FloatArray:
        """Return (capacities,) the usage of each resource by numbers of queries of classes on plans."""
        amounts = self.amounts[classes, plans] * queries[:, None]
        usage = np.zeros(self.capacities)
        usage[self.sites * self.local :] = amounts[:, self.local :].sum(axis=0)
        if self.local:
            flat = self.resources[classes, : self.local].reshape(-1)
            usage += np.bincount(flat, weights=amounts[:, : self.local].reshape(-1), minlength=self.capacities)
        return usage

    def weight_of(self, chosen: IntArray) -> float:
        """Return the weight of the served queries."""
        return float(self.weight[self.class_of[chosen >= 0]].sum())

    def cost_usd_per_h_of(self, chosen: IntArray) -> float:
        """Return the cost of the chosen plans."""
        served = np.flatnonzero(chosen >= 0)
        return float(self.cost_usd_per_h[self.class_of[served], chosen[served]].sum())

    def part(self, classes: IntArray) -> RelaxedProblem:
        """Return the problem restricted to some classes, ascending."""
        return replace(
            self,
            multiplicity=self.multiplicity[classes],
            weight=self.weight[classes],
            cost_usd_per_h=self.cost_usd_per_h[classes],
            amounts=self.amounts[classes],
            site=self.site[classes],
        )
