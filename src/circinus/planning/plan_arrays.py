"""Complete plans of one query as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.dominance import nondominated
from circinus.planning.search_space import SearchSpace
from circinus.specification import QueryPlan


@dataclass(frozen=True, eq=False)
class PlanArrays:
    """The n complete plans."""

    configuration: IntArray
    """(n,) indexes into the configurations of the space."""
    pools: IntArray
    """(n, operators)"""
    options: IntArray
    """(n, operators) indexes into the allocations of the operators' option tables."""
    resources: FloatArray
    """(n, columns)"""

    @classmethod
    def none(cls, space: SearchSpace) -> PlanArrays:
        """Return an empty set of plans."""
        operators = len(space.arrays.order)
        nothing = np.zeros((0, operators), dtype=np.int64)
        return cls(np.zeros(0, dtype=np.int64), nothing, nothing, np.zeros((0, space.columns.count)))

    @classmethod
    def joined(cls, *parts: PlanArrays) -> PlanArrays:
        """Return the concatenation of several sets of plans."""
        return cls(
            np.concatenate([part.configuration for part in parts]),
            np.concatenate([part.pools for part in parts]),
            np.concatenate([part.options for part in parts]),
            np.concatenate([part.resources for part in parts]),
        )

    @property
    def count(self) -> int:
        return len(self.configuration)

    @property
    def keys(self) -> IntArray:
        """(n, 1 + 2 operators) identifying key of each plan."""
        return np.column_stack([self.configuration, self.pools, self.options])

    def take(self, rows: IntArray | BoolArray) -> PlanArrays:
        return PlanArrays(self.configuration[rows], self.pools[rows], self.options[rows], self.resources[rows])

    def merged_with(self, additional: PlanArrays) -> PlanArrays:
        """Return the union with `additional`, without dominated plans."""
        if not additional.count:
            return self
        all_plans = PlanArrays.joined(self, additional)
        return all_plans.take(nondominated(all_plans.resources))

    def plan(self, space: SearchSpace, index: int) -> QueryPlan:
        """Return one plan with the names of pools and allocations."""
        arrays = space.arrays
        names = [operator.name for operator in arrays.order]
        pools = [space.columns.pools[pool].name for pool in self.pools[index].tolist()]
        allocations = [
            table.allocations[option] for table, option in zip(space.options, self.options[index].tolist(), strict=True)
        ]
        return QueryPlan(
            pipeline=space.query.pipeline,
            configuration=arrays.configurations[int(self.configuration[index])].configuration,
            placement=tuple(sorted(zip(names, pools, strict=True))),
            allocations=tuple(sorted(zip(names, allocations, strict=True))),
        )
