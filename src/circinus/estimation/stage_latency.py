"""One operator in one pool under one allocation: what it takes, how long requests wait for it and how long it works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.errors import PlanningError
from circinus.estimation.batch_time_ratios import batch_time_ratios
from circinus.estimation.estimate import DeploymentUse, ReplicaDemand
from circinus.estimation.merged_load import ArrivalModel, MergedLoad, replicas_for, station_load
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator
from circinus.estimation.traffic import RequestStream
from circinus.profiling import OperatorProfile
from circinus.queueing.response_time import mean_batch_size
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Allocation, Deployment, OperatorSpec, Pool, Query

_ROUNDING = 1e-9


def replica_demand(operator: OperatorSpec, pool: Pool, cpus: float, memory_bytes: float) -> ReplicaDemand:
    """What one replica of `operator` with `cpus` CPUs takes from one node of `pool`.

    Args:
        operator: says which GPUs it needs.
        pool: says what a node has and costs.
        cpus: CPUs of the replica.
        memory_bytes: its peak memory, as profiled.
    """
    shares = (
        cpus / pool.cpus,
        memory_bytes / pool.memory_bytes if pool.memory_bytes else 0.0,
        operator.gpus / pool.gpus if pool.gpus else 0.0,
        operator.gpu_memory_bytes / pool.gpu_memory_bytes if pool.gpu_memory_bytes else 0.0,
    )
    return ReplicaDemand(
        cpus=cpus,
        memory_bytes=memory_bytes,
        gpus=operator.gpus,
        gpu_memory_bytes=operator.gpu_memory_bytes,
        cost_usd_per_h=pool.price_usd_per_h * max(shares),
    )


def replicas_per_node(demand: ReplicaDemand, pool: Pool) -> int:
    """How many replicas of one deployment a node of `pool` holds; 0: it does not fit."""
    amounts = (
        (demand.cpus, pool.cpus),
        (demand.memory_bytes, pool.memory_bytes),
        (demand.gpus, pool.gpus),
        (demand.gpu_memory_bytes, pool.gpu_memory_bytes),
    )
    return min(int(available / needed + _ROUNDING) for needed, available in amounts if needed > 0)


FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class StageLatency:
    """One operator of one plan."""

    use: DeploymentUse
    likely_and_pessimistic_s: FloatArray
    """(2, scenarios) wait and service; in the second row with the service time, and the load that requests wait under,
    as few items allow them to be."""
    mean_wait_s: float
    """Over the scenarios."""
    mean_service_s: float
    """Over the scenarios."""
    mean_fill: float
    """Requests a batch."""
    doubts: tuple[str, ...]
    """Why the time at the deployment is no more than a guess."""


def operator_queue_key(operator: str) -> str:
    """What the draws for the waits at `operator` are called."""
    return f"operator {operator}"


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of one operator: seconds for one item alone on the fewest CPUs."""

    scenarios_s: FloatArray
    mean_s: float
    square_s2: float
    cube_s3: float
    mean_factor: float
    """At least 1: what the mean of all may be over that of few items."""
    stretched_s: FloatArray
    """The scenarios with the allowance for a percentile of times measured on few items."""

    @classmethod
    def of(cls, profile: OperatorProfile, percentile: PercentileEstimator) -> _Measured:
        service_s = profile.service_s
        scenarios_s = service_s[percentile.grid.items(len(service_s))]
        return cls(
            scenarios_s,
            float(service_s.mean()),
            float((service_s**2.0).mean()),
            float((service_s**3.0).mean()),
            percentile.allowance.of_mean(service_s),
            scenarios_s * percentile.allowance.of(service_s),
        )


class StageLatencyModel:
    """The stages of all plans of one query, under any configuration."""

    def __init__(self, query: Query, percentile: PercentileEstimator) -> None:
        self._query = query
        self._percentile = percentile
        self._coming = ArrivalModel.of(query)
        self._promised: dict[tuple[OperatorProfile, str, Allocation], StageLatency] = {}
        self._measured: dict[OperatorProfile, _Measured] = {}

    @property
    def coming(self) -> ArrivalModel:
        """How requests come."""
        return self._coming

    def stage(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: MergedLoad | None,
    ) -> StageLatency:
        """One operator in one pool, as promised or under `conditions`.

        Raises:
            PlanningError: the allocation was not profiled, or `conditions` lack the deployment.
        """
        if conditions is not None:
            return self._compute(operator, profile, pool, allocation, conditions)
        key = (profile, pool.name, allocation)
        stage = self._promised.get(key)
        if stage is None:
            stage = self._promised[key] = self._compute(operator, profile, pool, allocation, None)
        return stage

    def _of(self, profile: OperatorProfile) -> _Measured:
        measured = self._measured.get(profile)
        if measured is None:
            measured = self._measured[profile] = _Measured.of(profile, self._percentile)
        return measured

    def _compute(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: MergedLoad | None,
    ) -> StageLatency:
        ratios = batch_time_ratios(profile, allocation.cpus, allocation.batch_size)
        slowness = profile.slowdown(pool.hardware)
        full, measured = ratios[-1] * slowness, self._of(profile)
        traffic = self._coming.traffic(
            self._query.rate_per_s,
            measured.mean_s * full,
            measured.square_s2 * full**2,
            measured.cube_s3 * full**3,
            first=not operator.after and pool.site == self._query.source,
            mean_factor=measured.mean_factor,
        )
        use = DeploymentUse(
            deployment=Deployment(
                pipeline=self._query.pipeline,
                operator=operator.name,
                knobs=profile.prefix[operator.name],
                pool=pool.name,
                allocation=allocation,
            ),
            demand=replica_demand(operator, pool, allocation.cpus, profile.peak_memory_bytes),
            busy_replicas=traffic.offered_load / allocation.batch_size,
            traffic=traffic,
            fill_ratios=ratios,
            batch_wait_s=operator.batch_wait_s if allocation.batch_size > 1 else 0.0,
        )
        if conditions is None:
            stations = stations_at_target(
                use.busy_replicas, traffic, ratios, use.batch_wait_s, allocation.utilization_target
            )
        else:
            stations = (deployment_station(use.deployment, conditions),)
        draws = self._percentile.grid.exponentials(operator_queue_key(operator.name))
        times = [station_time(station, ratios[-1], draws) for station in stations]
        slower = [pessimistic_station_time(station, ratios[-1], draws) for station in stations]
        node_s = elementwise_max_s(times, measured.scenarios_s * slowness)
        mean_wait_s = max(time.mean_wait_s for time in times)
        return StageLatency(
            use=use,
            likely_and_pessimistic_s=np.stack([node_s, elementwise_max_s(slower, measured.stretched_s * slowness)]),
            mean_wait_s=mean_wait_s,
            mean_service_s=float(node_s.mean()) - mean_wait_s,
            mean_fill=max(time.mean_fill for time in times),
            doubts=tuple(f"deployment {use.deployment.name}: {doubt}" for s in stations for doubt in s.caveats()),
        )


def stations_at_target(
    busy_replicas: float,
    traffic: RequestStream,
    fill_ratios: tuple[float, ...],
    batch_wait_s: float,
    utilization_target: float,
) -> tuple[LoadedStation, ...]:
    """A deployment at its utilisation target, with the replicas that a query needs alone and its kind of requests.

    Batches that wait to fill take the longer the fewer requests come: then also the same with the query's requests
    alone. What is promised is the longer time of both.

    Args:
        busy_replicas: mean number of replicas that the query's requests keep busy.
        traffic: the query's requests, and the seconds of a full batch.
        fill_ratios: as of `DeploymentUse`; so is the next.
        batch_wait_s: how long a batch may wait to fill.
        utilization_target: in (0, 1).
    """
    replicas = replicas_for(busy_replicas, utilization_target)
    times = utilization_target * replicas / busy_replicas if busy_replicas > 0 else 1.0
    come = [traffic.within(traffic.rate_per_s * times), *([traffic] if batch_wait_s > 0 else [])]
    return tuple(station_load(replicas, requests, fill_ratios, batch_wait_s) for requests in come)


@dataclass(frozen=True, eq=False)
class StationTime:
    """The time of n requests at a station: `added_s + factor x` what each takes alone."""

    added_s: FloatArray
    """(n,)"""
    factor: FloatArray | float
    """(n,), or the same for all."""
    mean_wait_s: float
    mean_fill: float


def station_time(station: LoadedStation, full_ratio: float, exponentials: FloatArray) -> StationTime:
    """The time at a station.

    Args:
        station: the queue.
        full_ratio: of the query's own profile, which need not be that of the station: that of another query's.
        exponentials: (n,) draws.
    """
    if station.is_poisson:
        wait_s = station.wait(station.utilization).at(exponentials)
        return StationTime(wait_s, full_ratio, float(wait_s.mean()), 1.0)
    response = station.response()
    added_s, factor = response.at(exponentials)
    factor = factor * (full_ratio / station.fill_ratios[-1])
    return StationTime(added_s, factor, response.mean_wait_s, mean_batch_size(response.batch_size_distribution))


def pessimistic_station_time(station: LoadedStation, full_ratio: float, exponentials: FloatArray) -> StationTime:
    """The time at a station for requests that take as long as they seem to, if servers take as long as they may.

    `UNBOUNDED` where that cannot be told (`StationLoad.slower`). Arguments are those of `time_at`.
    """
    slower = station.pessimistic()
    if slower is None:
        return StationTime(np.full(len(exponentials), UNBOUNDED), 0.0, UNBOUNDED, len(station.fill_ratios))
    return station_time(slower, full_ratio, exponentials)


def elementwise_max_s(times: Sequence[StationTime], alone_s: FloatArray) -> FloatArray:
    """(n,) the longest of several times at a station, request by request, of which each takes `alone_s` (n,) alone."""
    found_s = [np.asarray(time.added_s + time.factor * alone_s) for time in times]
    return np.maximum.reduce(found_s) if len(found_s) > 1 else found_s[0]


def deployment_station(deployment: Deployment, conditions: MergedLoad) -> LoadedStation:
    """A deployment under the merged load.

    Raises:
        PlanningError: `conditions` lack the deployment.
    """
    load = conditions.deployments.get(deployment)
    if load is None:
        raise PlanningError(
            f"deployment {deployment.name}: found no load for it, expected the merged load of every deployment of the "
            f"plan; merge this plan's candidate too",
            code="deployment.no_load",
        )
    return load.station
