"""The matching as the prices see it: shares of capacities, without whole replicas; all in arrays, for any size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError

Amounts = NDArray[np.floating[Any]]

TOLERANCE = 1e-6
"""Share of a capacity by which usage may exceed it: the rounding of sums."""
_TOGETHER = 4096
"""Classes that are looked at at once, to need little memory."""


@dataclass(frozen=True, eq=False)
class RelaxedProblem:
    """C classes of queries that are alike, up to P plans each, S slots of resources a plan may take from.

    The first `local` slots are resources of the class's site, which only that site's queries can take; the others are
    shared by all. Amounts are shares of capacities, so that every capacity is 1. Classes are ordered by site.
    """

    multiplicity: FloatArray
    """(C,) queries in each class."""
    weight: FloatArray
    """(C,) of each of them."""
    cost_usd_per_h: FloatArray
    """(C, P) infinite where a class has fewer plans."""
    amounts: Amounts
    """(C, P, S) shares of capacities; 0 where there is no plan. In single precision they take half the memory."""
    site: IntArray
    """(C,) ascending."""
    sites: int
    local: int
    """Slots that are the site's own."""

    @property
    def classes(self) -> int:
        """C"""
        return len(self.weight)

    @property
    def shared(self) -> int:
        """Resources that all share."""
        return int(self.amounts.shape[2]) - self.local

    @property
    def queries(self) -> float:
        """Of all classes."""
        return float(self.multiplicity.sum())

    @property
    def total_weight(self) -> float:
        """Of all queries."""
        return float(self.multiplicity @ self.weight)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each site's classes begin, and where the last one's end."""
        return tuple(np.searchsorted(self.site, np.arange(self.sites + 1)).tolist())

    @cached_property
    def least_cost_usd_per_h(self) -> FloatArray:
        """(C,) of each class's cheapest plan; 0 where there is none."""
        least = self.cost_usd_per_h.min(axis=1)
        return np.where(np.isfinite(least), least, 0.0)

    @cached_property
    def spread(self) -> FloatArray:
        """(sites, S + 1) sums over a site's queries of the squares of what they take, on average over their plans; the
        last of the squares of their weights."""
        squares = np.empty((self.classes, self.amounts.shape[2] + 1))
        for first in range(0, self.classes, _TOGETHER):
            rows = slice(first, first + _TOGETHER)
            squares[rows, :-1] = np.square(self.amounts[rows]).mean(axis=1)
        squares[:, -1] = self.weight**2
        squares *= self.multiplicity[:, None]
        found = np.zeros((self.sites, squares.shape[1]))
        np.add.at(found, self.site, squares)
        return found

    def part(self, classes: IntArray) -> RelaxedProblem:
        """Some of the classes, ascending."""
        return replace(
            self,
            multiplicity=self.multiplicity[classes],
            weight=self.weight[classes],
            cost_usd_per_h=self.cost_usd_per_h[classes],
            amounts=self.amounts[classes],
            site=self.site[classes],
        )

    def checked(self) -> RelaxedProblem:
        """The problem itself.

        Raises:
            PlanningError: shapes that do not belong together, numbers that are negative or none, classes not in the
                order of their sites.
        """
        count, plans = self.cost_usd_per_h.shape
        if self.amounts.shape[:2] != (count, plans) or not 0 <= self.local <= self.amounts.shape[2]:
            raise PlanningError(
                f"amounts: found the shape {self.amounts.shape}, expected ({count}, {plans}, at least {self.local})"
            )
        for name, values in (("multiplicity", self.multiplicity), ("weight", self.weight), ("site", self.site)):
            if values.shape != (count,):
                raise PlanningError(f"{name}: found the shape {values.shape}, expected ({count},)")
        if count and not plans:
            raise PlanningError(f"plans: found none for {count} classes, expected room for one at least")
        divided = np.flatnonzero(self.multiplicity != np.rint(self.multiplicity))
        if len(divided):
            raise PlanningError(
                f"class {divided[0]}: found multiplicity {self.multiplicity[divided[0]]:g}, expected a whole number"
            )
        for name, values in (("multiplicity", self.multiplicity), ("weight", self.weight)):
            wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(wrong):
                raise PlanningError(
                    f"class {wrong[0]}: found {name} {values[wrong[0]]:g}, expected a finite number above 0"
                )
        bad = np.argwhere(~(self.cost_usd_per_h >= 0))
        if len(bad):
            row, plan = bad[0]
            found = self.cost_usd_per_h[row, plan]
            raise PlanningError(f"class {row}, plan {plan}: found cost {found:g}, expected a number of at least 0")
        if self.amounts.size and not (self.amounts.min() >= 0 and np.isfinite(self.amounts.max())):
            row, plan, slot = np.argwhere(~((self.amounts >= 0) & np.isfinite(self.amounts)))[0]
            raise PlanningError(
                f"class {row}, plan {plan}: found demand {self.amounts[row, plan, slot]:g} for resource {slot}, "
                "expected a finite number of at least 0; a resource without capacity must not be asked for"
            )
        if count and (np.any(np.diff(self.site) < 0) or self.site[0] < 0 or self.site[-1] >= self.sites):
            raise PlanningError(
                f"site: found classes out of order, expected numbers from 0 to {self.sites - 1} ascending"
            )
        return self
