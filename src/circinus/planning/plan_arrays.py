"""Complete plans of one query as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.planning.dominance import nondominated
from circinus.planning.search_space import SearchSpace
from circinus.specification import QueryPlan

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class PlanArrays:
    """n plans."""

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
        """No plans."""
        operators = len(space.arrays.order)
        nothing = np.zeros((0, operators), dtype=np.int64)
        return cls(np.zeros(0, dtype=np.int64), nothing, nothing, np.zeros((0, space.columns.count)))

    @classmethod
    def joined(cls, *parts: PlanArrays) -> PlanArrays:
        """All plans of several, in their order."""
        return cls(
            np.concatenate([part.configuration for part in parts]),
            np.concatenate([part.pools for part in parts]),
            np.concatenate([part.options for part in parts]),
            np.concatenate([part.resources for part in parts]),
        )

    @property
    def count(self) -> int:
        """n"""
        return len(self.configuration)

    @property
    def keys(self) -> IntArray:
        """(n, 1 + 2 operators) what tells plans apart."""
        return np.column_stack([self.configuration, self.pools, self.options])

    def take(self, which: IntArray | NDArray[np.bool_]) -> PlanArrays:
        """Some of these."""
        return PlanArrays(self.configuration[which], self.pools[which], self.options[which], self.resources[which])

    def with_others(self, others: PlanArrays) -> PlanArrays:
        """These and the others, without those that any other one beats."""
        if not others.count:
            return self
        together = PlanArrays.joined(self, others)
        return together.take(nondominated(together.resources))

    def plan(self, space: SearchSpace, index: int) -> QueryPlan:
        """One of them in words."""
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
