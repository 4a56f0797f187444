"""Complete plans of one query as arrays: their points if margins count, and their prices for column generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import PlanCandidate
from circinus.planning.dominance import GrowingArchive
from circinus.planning.resource_columns import RESOURCES
from circinus.planning.search_space import SearchSpace
from circinus.specification import Allocation, Configuration, QueryPlan


@dataclass(frozen=True, eq=False)
class PlanNames:
    """Names and values that the keys of a query's plans refer to."""

    pipeline: str
    operators: tuple[str, ...]
    pools: tuple[str, ...]
    allocations: tuple[tuple[Allocation, ...], ...]
    """Allocations of each operator."""
    configurations: tuple[Configuration, ...]

    @classmethod
    def of(cls, space: SearchSpace) -> PlanNames:
        """Return the names of a space."""
        return cls(
            space.query.pipeline,
            tuple(operator.name for operator in space.arrays.order),
            tuple(pool.name for pool in space.columns.pools),
            tuple(table.allocations for table in space.options),
            tuple(measured.configuration for measured in space.arrays.configurations),
        )

    def plan(self, key: Sequence[int]) -> QueryPlan:
        """Return the plan of a key (`PlanArrays.keys`)."""
        names, count = self.operators, len(self.operators)
        pools = [self.pools[pool] for pool in key[1 : 1 + count]]
        allocations = [table[option] for table, option in zip(self.allocations, key[1 + count :], strict=True)]
        return QueryPlan(
            pipeline=self.pipeline,
            configuration=self.configurations[key[0]],
            placement=tuple(sorted(zip(names, pools, strict=True))),
            allocations=tuple(sorted(zip(names, allocations, strict=True))),
        )


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

    def merged_with(self, additional: PlanArrays, archive: GrowingArchive) -> PlanArrays:
        """Return the union with `additional`, without dominated plans; `archive` has the resources of all before."""
        retained, added = archive.merge(self.resources, additional.resources)
        return PlanArrays.joined(self.take(retained), additional.take(added)) if len(added) else self

    def plan(self, names: PlanNames, index: int) -> QueryPlan:
        """Return one plan with the names of pools and allocations."""
        return names.plan([int(self.configuration[index]), *self.pools[index].tolist(), *self.options[index].tolist()])


@dataclass(frozen=True, eq=False)
class PlanMetrics:
    """Mapping from plans of one query to points; smaller is better in every coordinate."""

    columns: IntArray
    """Resource columns that count."""
    rank: IntArray
    """(configurations,) accuracy rank, 0 for the most accurate; all 0 without an accuracy SLO."""
    tolerance: float
    """Minimum gain to count as better, as a share of an amount or of the latency limit."""
    slack_s: float
    """The tolerance in seconds; infinite without a latency SLO."""

    @classmethod
    def of(cls, space: SearchSpace, shortfall: FloatArray, tolerance: float) -> PlanMetrics:
        """Return the metrics of one query.

        With tolerance 0 every resource counts and no plan is dropped; otherwise only the costs count.
        """
        costs = np.array([space.columns.shared_cost, space.columns.dedicated_cost])
        return cls(
            columns=costs if tolerance > 0 else np.arange(space.columns.count),
            rank=np.unique(shortfall, return_inverse=True)[1].astype(np.int64),
            tolerance=tolerance,
            slack_s=tolerance * space.limit_s if np.isfinite(space.limit_s) else np.inf,
        )

    def points(self, configuration: IntArray, resources: FloatArray, latency_s: FloatArray) -> FloatArray:
        """Return (n, columns + 2) points: amounts, latency and accuracy rank."""
        latency_s = latency_s if np.isfinite(self.slack_s) else np.zeros(len(resources))
        return np.column_stack([resources[:, self.columns], latency_s, self.rank[configuration]])

    def with_tolerance(self, points: FloatArray) -> FloatArray:
        """Return the points raised by the tolerance: a point nowhere above the result dominates the original."""
        raised = points * (1 + self.tolerance)
        raised[:, -2] = points[:, -2] + (self.slack_s if np.isfinite(self.slack_s) else 0.0)
        raised[:, -1] = points[:, -1]
        return raised


@dataclass(frozen=True)
class DualPrices:
    """Dual prices of resources, in any unit."""

    pools: Mapping[str, tuple[float, float, float, float]]
    """Pool -> price of a CPU, a byte of memory, a GPU and a byte of GPU memory. Pools without an entry are free."""
    links: Mapping[str, float]
    """Directed link -> price of a byte per second."""
    usd_per_h: float
    """Price of a US dollar per hour."""

    def of(self, candidate: PlanCandidate) -> float:
        """Return the price of a plan if fully shared."""
        total = self.usd_per_h * candidate.transfer_cost_usd_per_h
        total += sum(self.links.get(use.link.name, 0.0) * use.bytes_per_s for use in candidate.links)
        for use in candidate.deployments:
            amounts = zip(self.pools.get(use.deployment.pool, ()), use.demand.amounts, strict=False)
            replica = self.usd_per_h * use.demand.cost_usd_per_h + sum(price * amount for price, amount in amounts)
            total += use.fractional_replicas * replica
        return total


@dataclass(frozen=True, eq=False)
class ColumnPool:
    """The n non-dominated plans of a query, some of which the matching has as columns already."""

    names: PlanNames
    links: tuple[str, ...]
    keys: NDArray[np.int32]
    """(n, 1 + 2 operators) `PlanArrays.keys`."""
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
            names=PlanNames.of(space),
            links=tuple(link.name for link in columns.links),
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
        return tuple(self.names.plan(self.keys[index].tolist()) for index in best)

    def lowest_price(self, prices: DualPrices) -> float:
        """Return the lowest price of any plan, listed or not."""
        return float((self.takes @ self._vector(prices).astype(np.float32)).min(initial=np.inf))

    def _vector(self, prices: DualPrices) -> FloatArray:
        pools = np.array([prices.pools.get(name, (0.0,) * len(RESOURCES)) for name in self.names.pools]).T.reshape(-1)
        return np.concatenate([pools, [prices.links.get(name, 0.0) for name in self.links], [prices.usd_per_h]])
