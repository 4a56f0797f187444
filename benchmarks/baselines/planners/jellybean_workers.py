"""Greedy assignment of workers to the operators of one query, over heterogeneous tiers: see `jellybean`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from benchmarks.baselines.admission import FreeCapacity
from benchmarks.baselines.by_hand import UTILIZATION_TARGET
from benchmarks.baselines.planners.visible_plans import BATCHES, is_in_time
from benchmarks.baselines.vulcan_plans import plan_on, transfer_s
from circinus.estimation import ReplicaDemand
from circinus.estimation.cost import usd_per_h_for_bytes
from circinus.estimation.stage_latency import replica_demand
from circinus.profiling import ConfigurationProfile
from circinus.specification import (
    Allocation,
    Deployment,
    Network,
    OperatorSpec,
    Pipeline,
    PlanShare,
    Pool,
    Query,
    QueryPlan,
)

_ASSIGNMENTS = 20
"""Assignments that the beam keeps."""
_MIN_SHARE = 0.01
"""Smallest share of the traffic in a place."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class WorkerAssignment:
    """Workers of the operators so far."""

    measured: ConfigurationProfile
    divisions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Operator -> pool -> its share of the traffic."""
    ready_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> mean time until it is done in its slowest place."""
    usd_per_h: float = 0.0
    """Price of added workers, of the work, and of transfers."""
    added: Mapping[str, int] = field(default_factory=dict)
    """Pool -> number of added workers."""


@dataclass(frozen=True)
class _Place:
    """Pool in which an operator may work."""

    pool: Pool
    deployment: Deployment
    demand: ReplicaDemand
    load: float
    """Workers that all requests keep busy."""
    free: float
    """Further workers that may be busy, running or added ones."""
    ready_s: float
    """Mean time until the operator is done."""
    transfers_usd_per_h: float
    """Price of receiving all requests."""


class WorkerAssigner:
    """Assigner of workers to the operators of a query."""

    def __init__(self, query: Query, pipeline: Pipeline, network: Network, capacity: FreeCapacity) -> None:
        self._query, self._pipeline, self._network = query, pipeline, network
        self._capacity, self._room = capacity, dict[tuple[Deployment, ReplicaDemand], int]()
        self._tiers, self._sinks = network.infrastructure.tiers, pipeline.sinks()
        self._pools = {pool.name: pool for pool in network.pools_for(query.source)}

    def assignments(self, measured: ConfigurationProfile) -> Sequence[WorkerAssignment]:
        """Return assignments that are visibly in time, the cheapest first."""
        beam = [WorkerAssignment(measured)]
        for operator in self._pipeline.topological_order():
            extended = [
                longer
                for assignment in beam
                for tier in range(self._input_tier(assignment, operator), len(self._tiers))
                if (longer := self._extended(assignment, operator, tier)) is not None
            ]
            beam = sorted(extended, key=lambda assignment: assignment.usd_per_h)[:_ASSIGNMENTS]
        return beam

    def divided(self, assignment: WorkerAssignment) -> QueryPlan:
        """Return the plan, in which following operators divide the traffic alike, from the lowest tier up."""
        ends = dict[str, tuple[Sequence[str], Sequence[float]]]()
        for name, division in assignment.divisions.items():
            pools = sorted(division, key=lambda pool: (self._tiers.index(self._pools[pool].tier), pool))
            ends[name] = pools, np.cumsum([division[pool] for pool in pools])[:-1].tolist()
        parts = []
        for begin, end in pairwise(sorted({0.0, 1.0}.union(*(own for _, own in ends.values())))):
            placement = {
                name: self._pools[pools[int(np.searchsorted(own, (begin + end) / 2))]]
                for name, (pools, own) in ends.items()
            }
            parts.append(PlanShare(end - begin, plan_on(self._pipeline, assignment.measured, placement)))
        return QueryPlan.split(parts)

    def _input_tier(self, assignment: WorkerAssignment, operator: OperatorSpec) -> int:
        pools = (self._pools[pool] for parent in operator.parents for pool in assignment.divisions[parent])
        return max((self._tiers.index(pool.tier) for pool in pools), default=0)

    def _extended(
        self, assignment: WorkerAssignment, operator: OperatorSpec, first_tier: int
    ) -> WorkerAssignment | None:
        """Return the assignment with workers for an operator on a tier and, if these are too few, on later ones."""
        taken, left = list[tuple[_Place, float]](), 1.0
        for tier in range(first_tier, len(self._tiers)):
            of_tier = list(self._greedy(self._places(assignment, operator, tier), operator, left))
            if tier == first_tier and not of_tier:
                return None
            taken += of_tier
            left -= sum(share for _, share in of_tier)
            if left <= _ROUNDING:
                break
        else:
            return None
        added, usd_per_h = {**assignment.added}, assignment.usd_per_h
        for place, share in taken:
            workers = self._capacity.missing(place.deployment, share * place.load)
            added[place.pool.name] = added.get(place.pool.name, 0) + workers
            usd_per_h += self._usd_per_h(place, share)
        return WorkerAssignment(
            measured=assignment.measured,
            divisions={**assignment.divisions, operator.name: {place.pool.name: share for place, share in taken}},
            ready_s={**assignment.ready_s, operator.name: max(place.ready_s for place, _ in taken)},
            usd_per_h=usd_per_h,
            added=added,
        )

    def _greedy(self, places: Sequence[_Place], operator: OperatorSpec, left: float) -> Iterator[tuple[_Place, float]]:
        """Yield places of one tier with shares: the cheapest that can do what is left, else the nearest ones first."""
        enough = [place for place in places if left * place.load <= place.free]
        if enough:
            yield min(enough, key=lambda place: (self._usd_per_h(place, left), place.ready_s)), left
        elif operator.split and self._query.split:
            for place in sorted(places, key=lambda place: (place.demand.cost_usd_per_h * place.load, place.ready_s)):
                share = min(left, place.free / place.load)
                if share >= _MIN_SHARE:
                    left -= share
                    yield place, share

    def _usd_per_h(self, place: _Place, share: float) -> float:
        """Return the price of added workers, of the work, and of transfers."""
        workers = self._capacity.missing(place.deployment, share * place.load)
        busy = share * place.load / UTILIZATION_TARGET
        return (workers + busy) * place.demand.cost_usd_per_h + share * place.transfers_usd_per_h

    def _places(self, assignment: WorkerAssignment, operator: OperatorSpec, tier: int) -> list[_Place]:
        """Return the pools of a tier that can run an operator in time."""
        places, profile = list[_Place](), assignment.measured.operators[operator.name]
        for pool in self._pools.values():
            allowed = operator.allowed_tiers is None or pool.tier in operator.allowed_tiers
            if self._tiers.index(pool.tier) != tier or not allowed or profile.peak_memory_bytes > pool.memory_bytes:
                continue
            knobs, allocation = profile.prefix[operator.name], Allocation(min(operator.cpus), 1, UTILIZATION_TARGET)
            demand = replica_demand(operator, knobs, pool, allocation.cpus, profile.peak_memory_bytes)
            deployment = Deployment(self._pipeline.name, operator.name, knobs, pool.name, allocation)
            if (deployment, demand) not in self._room:
                self._room[deployment, demand] = self._capacity.nodes.room(pool.name, demand)
            room = max(0, self._room[deployment, demand] - assignment.added.get(pool.name, 0))
            service_s = float(profile.service_s.mean()) * profile.slowdown(pool.hardware)
            arrival_s, transfers_usd_per_h = self._inputs(assignment, operator, pool.site)
            ready_s, size_bytes = arrival_s + BATCHES * service_s, float(profile.output_bytes.mean())
            back_s = transfer_s(self._network, pool.site, self._query.source, size_bytes, results=True)
            if is_in_time(self._query, ready_s + (back_s if operator.name in self._sinks else 0.0)):
                free = max(0.0, self._capacity.spare(deployment)) + room * UTILIZATION_TARGET
                load = self._query.rate_per_s * service_s
                places.append(_Place(pool, deployment, demand, load, free, ready_s, transfers_usd_per_h))
        return places

    def _inputs(self, assignment: WorkerAssignment, operator: OperatorSpec, site: str) -> tuple[float, float]:
        """Return the mean time until all inputs are at a site, at the latest, and the price of their transfers."""
        inputs = [
            (
                assignment.ready_s[parent],
                self._pools[pool].site,
                share,
                assignment.measured.operators[parent].output_bytes,
            )
            for parent in operator.parents
            for pool, share in assignment.divisions[parent].items()
        ] or [(0.0, self._query.source, 1.0, assignment.measured.input_bytes)]
        arrival_s, usd_per_h = 0.0, 0.0
        for ready_s, origin, share, sizes in inputs:
            size_bytes = float(sizes.mean())
            arrival_s = max(arrival_s, ready_s + transfer_s(self._network, origin, site, size_bytes))
            sent_per_s = share * self._query.rate_per_s * size_bytes
            usd_per_h += sum(usd_per_h_for_bytes(link, sent_per_s) for link in self._network.path(origin, site) or ())
        return arrival_s, usd_per_h
