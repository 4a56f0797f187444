"""Plans that queries may take, and the deployments that these use."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import DeploymentUse, ReplicaDemand
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.problem import CapacityRows
from circinus.matching.problem_builder import capacity_rows, max_replicas, merged_demands
from circinus.specification import Deployment, Infrastructure, Query

_TIE = 1e-6
"""Part of the cost of all that fits for which all of a pool's resources, or a link, count if costs are equal."""


@dataclass(frozen=True)
class PlanOption:
    """A plan that a query may take, with limits that are tightened where the plan broke its promises."""

    query: int
    plan: CompiledPlan
    limit_s: float
    """Limit on the bound of its latency; infinite without an SLO."""
    limit_usd_per_h: float = math.inf
    """Limit on its share of the cost; infinite without an SLO."""

    def minimum_fills(self) -> list[float]:
        """Return the load per replica of each deployment below which the query pays too much.

        Fully shared deployments elsewhere are assumed. It is infinite if the query pays too much in any case.
        """
        uses, left = self.plan.deployments, self.limit_usd_per_h - self.plan.transfer_cost_usd_per_h
        whole = [use.busy_replicas * use.demand.cost_usd_per_h for use in uses]
        lowest = [price / u.deployment.allocation.utilization_target for price, u in zip(whole, uses, strict=True)]
        rooms = [left - sum(lowest) + own for own in lowest]
        return [
            0.0 if price <= 0 else price / room if room > 0 else math.inf
            for price, room in zip(whole, rooms, strict=True)
        ]


@dataclass(frozen=True)
class PlannedDeployment:
    """A deployment of the options."""

    deployment: Deployment
    demand: ReplicaDemand
    max_replicas: int
    """On otherwise empty nodes."""


class Catalogue:
    """All options of all queries, as arrays over options, stages and stations."""

    def __init__(
        self, queries: Sequence[Query], plans: Mapping[str, Sequence[CompiledPlan]], infrastructure: Infrastructure
    ) -> None:
        """Collect the options.

        Args:
            queries: to be planned.
            plans: of each query.
            infrastructure: with pools and links.
        """
        self.queries, self.infrastructure = queries, infrastructure
        self.options = [
            PlanOption(
                number,
                plan,
                math.inf if query.slos.latency is None else query.slos.latency.limit_s,
                math.inf if query.slos.cost is None else query.slos.cost.limit_usd_per_h,
            )
            for number, query in enumerate(queries)
            for plan in plans[query.name]
        ]
        distinct = list({id(option.plan): option.plan for option in self.options}.values())
        demands = merged_demands((use.deployment, use.demand) for plan in distinct for use in plan.deployments)
        self.stations = _stations(demands, infrastructure)
        self.number_of = {station.deployment: number for number, station in enumerate(self.stations)}
        self.links = sorted({use.link for plan in distinct for use in plan.links}, key=lambda link: link.name)
        """Links, which are further stations."""
        self.number_of_link = {link: len(self.stations) + number for number, link in enumerate(self.links)}
        uses_of = {id(plan): self._uses(plan) for plan in distinct}
        self.uses_of = [uses_of[id(option.plan)] for option in self.options]
        """Station and load of each option's stages, then of its links."""

    @cached_property
    def query_of(self) -> IntArray:
        """(options,) query of each."""
        return np.array([option.query for option in self.options], dtype=np.int64)

    def _uses(self, plan: CompiledPlan) -> tuple[tuple[int, ...], tuple[float, ...]]:
        sent = defaultdict[int, float](float)
        for crossing in plan.links:
            sent[self.number_of_link[crossing.link]] += crossing.bytes_per_s / crossing.link.bandwidth_bytes_per_s
        stations = *(self.number_of[use.deployment] for use in plan.deployments), *sent
        return stations, (*(use.busy_replicas for use in plan.deployments), *sent.values())

    @cached_property
    def station(self) -> IntArray:
        """(options, uses) station of each use; the number of stations and links where an option has no further use."""
        most = max((len(stations) for stations, _ in self.uses_of), default=0)
        none = len(self.stations) + len(self.links)
        padded = [stations + (none,) * (most - len(stations)) for stations, _ in self.uses_of]
        return np.array(padded, dtype=np.int64).reshape(len(padded), most)

    @cached_property
    def load(self) -> FloatArray:
        """(options, uses) busy replicas, or share of a link's bandwidth."""
        loads = np.zeros(self.station.shape)
        for number, (_, own) in enumerate(self.uses_of):
            loads[number, : len(own)] = own
        return loads

    def of_stations(self, values: FloatArray | IntArray) -> FloatArray:
        """Return (stations + links + 1,) values of stations, and 0 for links and for no station."""
        return np.concatenate([values, np.zeros(len(self.links) + 1)])

    @cached_property
    def transfer_usd_per_h(self) -> FloatArray:
        """(options,) cost of what each sends."""
        return np.array([option.plan.transfer_cost_usd_per_h for option in self.options], dtype=np.float64)

    @cached_property
    def spare(self) -> IntArray:
        """(stations,) spare replicas."""
        return np.array([station.demand.spare_replicas for station in self.stations], dtype=np.int64)

    @cached_property
    def pool_of(self) -> IntArray:
        """(stations,) pool of each."""
        number = {pool.name: index for index, pool in enumerate(self.infrastructure.pools)}
        return np.array([number[station.deployment.pool] for station in self.stations], dtype=np.int64)

    @cached_property
    def billed_usd_per_h(self) -> FloatArray:
        """(stations,) price of a replica; 0 where nodes are paid whole."""
        pools = self.infrastructure.pools
        return np.array(
            [
                0.0 if pools[pool].bills_nodes else station.demand.cost_usd_per_h
                for station, pool in zip(self.stations, self.pool_of.tolist(), strict=True)
            ]
        )

    @cached_property
    def compared_usd_per_h(self) -> FloatArray:
        """(stations + links + 1,) price of a replica by which answers are compared.

        Equal costs are told apart by the resources of a pool that a replica takes, and by the links that are crossed.
        """
        shares = (self.rows.coefficients / self.rows.limit[:, None]).max(axis=0, initial=0.0)
        tie_usd_per_h = self.tie_usd_per_h * np.array([*shares, *[1.0] * len(self.links), 0.0])
        return np.asarray(self.of_stations(self.billed_usd_per_h) + tie_usd_per_h)

    @property
    def tie_usd_per_h(self) -> float:
        """Price of all of a pool's resources, of a link, or of a busy replica, by which equal costs are told apart."""
        return _TIE * max(self.max_cost_usd_per_h, 1.0)

    @cached_property
    def compared_option_usd_per_h(self) -> FloatArray:
        """(options,) price by which answers are compared, beside that of replicas: transfers, and the load."""
        return np.asarray(self.transfer_usd_per_h + self.tie_usd_per_h * self.load.sum(axis=1))

    @cached_property
    def rows(self) -> CapacityRows:
        """Linear limits on the replicas of the stations."""
        pools = self.infrastructure.pools
        return capacity_rows(
            np.array([station.demand.amounts for station in self.stations]).reshape(len(self.stations), 4),
            self.pool_of,
            np.array([pool.nodes for pool in pools], dtype=np.int64),
            np.array([pool.amounts for pool in pools]),
            [pool.headroom for pool in pools],
            self.spare > 0,
        )

    @cached_property
    def node_share(self) -> FloatArray:
        """(stations, 4) share of each resource of a node that a replica takes."""
        capacity = np.array([pool.amounts for pool in self.infrastructure.pools])[self.pool_of]
        amounts = np.array([station.demand.amounts for station in self.stations]).reshape(len(self.stations), 4)
        share: FloatArray = np.where(amounts > 0, np.inf, 0.0)
        np.divide(amounts, capacity, out=share, where=capacity > 0)
        return share

    @cached_property
    def max_cost_usd_per_h(self) -> float:
        """Upper bound of the cost of all that fits."""
        transfers = np.zeros(len(self.queries))
        np.maximum.at(transfers, self.query_of, self.transfer_usd_per_h)
        return float(transfers.sum()) + sum(p.nodes * max(p.paid_usd_per_h, 0.0) for p in self.infrastructure.pools)

    def use(self, option: int, station: int) -> DeploymentUse:
        """Return how an option uses a deployment."""
        return self.options[option].plan.deployments[self.uses_of[option][0].index(station)]

    def cheapest(self, options: IntArray, usd_per_h: FloatArray, count: int) -> BoolArray:
        """Return (options,) the cheapest options of each query, and of each query and placement the cheapest one.

        Args:
            options: among which to choose.
            usd_per_h: price of each of them.
            count: of each query.
        """
        chosen = np.zeros(len(self.options), dtype=bool)
        order = options[np.lexsort((usd_per_h, self.query_of[options]))]
        query = self.query_of[order]
        first = np.searchsorted(query, query)
        chosen[order[np.arange(len(order)) - first < count]] = True
        return chosen


def _stations(demands: Mapping[Deployment, ReplicaDemand], infrastructure: Infrastructure) -> list[PlannedDeployment]:
    deployments = sorted(demands, key=lambda deployment: deployment.name)
    pools = {pool.name: pool for pool in infrastructure.pools}
    most = max_replicas(
        np.array([demands[d].amounts for d in deployments]).reshape(len(deployments), 4),
        np.array([pools[d.pool].nodes for d in deployments], dtype=np.int64),
        np.array([pools[d.pool].amounts for d in deployments]).reshape(len(deployments), 4),
        np.array([demands[d].spare_replicas > 0 for d in deployments], dtype=bool),
    )
    return [PlannedDeployment(d, demands[d], int(count)) for d, count in zip(deployments, most.tolist(), strict=True)]
