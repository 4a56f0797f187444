"""Column pool: all non-dominated plans of a query, priced at once for column generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.resource_columns import RESOURCES
from circinus.planning.search_space import SearchSpace
from circinus.specification import Allocation, Configuration, QueryPlan


@dataclass(frozen=True)
class DualPrices:
    """Dual prices of resources, in any unit."""

    pools: Mapping[str, tuple[float, float, float, float]]
    """Pool -> price of a CPU, a byte of memory, a GPU and a byte of GPU memory. Pools without an entry are free."""
    links: Mapping[str, float]
    """Directed link -> price of a byte per second."""
    usd_per_h: float
    """Price of a US dollar per hour."""


@dataclass(frozen=True, eq=False)
class ColumnPool:
    """The n non-dominated plans of a query, some of which the matching has as columns already."""

    pipeline: str
    operators: tuple[str, ...]
    pools: tuple[str, ...]
    links: tuple[str, ...]
    allocations: tuple[tuple[Allocation, ...], ...]
    """Allocations of each operator."""
    configurations: Sequence[Configuration]
    keys: NDArray[np.int32]
    """(n, 1 + 2 operators) configuration, pool of each operator, allocation of each operator."""
    takes: NDArray[np.float32]
    """(n, 4 pools + links + 1) usage if fully shared: amounts of pools, bytes per second of links, US dollars per hour.
    """
    listed: BoolArray
    """(n,) whether the matching has the plan already."""

    @classmethod
    def of(cls, space: SearchSpace, plans: PlanArrays, listed: IntArray) -> ColumnPool:
        """Build the pool from a query's plans; `listed` are indexes of plans that the matching has already."""
        columns, offered = space.columns, np.zeros(plans.count, dtype=bool)
        offered[listed] = True
        shared = [
            *range(len(RESOURCES) * len(columns.pools)),
            *(columns.link(link) for link in range(len(columns.links))),
        ]
        return cls(
            pipeline=space.query.pipeline,
            operators=tuple(operator.name for operator in space.arrays.order),
            pools=tuple(pool.name for pool in columns.pools),
            links=tuple(link.name for link in columns.links),
            allocations=tuple(table.allocations for table in space.options),
            configurations=[measured.configuration for measured in space.arrays.configurations],
            keys=plans.keys.astype(np.int32),
            takes=plans.resources[:, [*shared, columns.shared_cost]].astype(np.float32),
            listed=offered,
        )

    def lowest_reduced_cost(self, prices: DualPrices, count: int, *, better_by: float = 0.0) -> tuple[QueryPlan, ...]:
        """Return up to `count` unlisted plans of lowest reduced cost, if they price lower than every listed plan.

        `better_by` is the minimum saving, as a share of the price of the best listed plan.
        """
        reduced_cost = self.takes @ self._vector(prices).astype(np.float32)
        limit = float(reduced_cost[self.listed].min(initial=np.inf)) * (1.0 - better_by)
        better = np.flatnonzero(~self.listed & (reduced_cost < limit))
        best = better[np.argsort(reduced_cost[better], kind="stable")[:count]]
        return tuple(self._plan(index) for index in best.tolist())

    def _vector(self, prices: DualPrices) -> FloatArray:
        pools = np.array([prices.pools.get(name, (0.0,) * len(RESOURCES)) for name in self.pools]).T.reshape(-1)
        return np.concatenate([pools, [prices.links.get(name, 0.0) for name in self.links], [prices.usd_per_h]])

    def _plan(self, index: int) -> QueryPlan:
        count = len(self.operators)
        key = self.keys[index].tolist()
        pools = [self.pools[pool] for pool in key[1 : 1 + count]]
        allocations = [table[option] for table, option in zip(self.allocations, key[1 + count :], strict=True)]
        return QueryPlan(
            pipeline=self.pipeline,
            configuration=self.configurations[key[0]],
            placement=tuple(sorted(zip(self.operators, pools, strict=True))),
            allocations=tuple(sorted(zip(self.operators, allocations, strict=True))),
        )
