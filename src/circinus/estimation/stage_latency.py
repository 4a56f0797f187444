"""Latency of a stage: an operator in a pool under an allocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.errors import PlanningError
from circinus.estimation.estimate import DeploymentUse, ReplicaDemand
from circinus.estimation.interruptions import spare_replicas
from circinus.estimation.merged_load import ArrivalModel, MergedLoad, replicas_for, station_load
from circinus.estimation.percentiles import UNBOUNDED, MeasuredSample, MeasuredSamples, ScenarioGrid
from circinus.estimation.traffic import RequestStream
from circinus.profiling import OperatorProfile
from circinus.queueing.response_time import mean_batch_size
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Allocation, Deployment, HardwareClass, KnobValues, OperatorSpec, Pool, Query

_ROUNDING = 1e-9


def replica_demand(
    operator: OperatorSpec, knobs: KnobValues, pool: Pool, cpus: float, memory_bytes: float
) -> ReplicaDemand:
    """Return the resources that a replica with some knob values takes from a node."""
    amounts = cpus, memory_bytes, operator.gpus, operator.replica_gpu_memory_bytes(knobs.as_dict())
    return ReplicaDemand(*amounts, cost_usd_per_h=pool.paid_usd_per_h * pool.reserved_share(amounts))


def replicas_per_node(demand: ReplicaDemand, pool: Pool) -> int:
    """Return the number of replicas of a deployment that fit on a node of `pool`."""
    amounts = zip(demand.amounts, pool.amounts, strict=True)
    return min(int(available / needed + _ROUNDING) for needed, available in amounts if needed > 0)


def batch_time_ratios(
    profile: OperatorProfile, hardware: HardwareClass, cpus: float, batch_size: int
) -> tuple[float, ...]:
    """Return (batch_size,) times of a batch of 1, 2, ... relative to the mean unbatched time of its items.

    All times are those on `hardware`, unbatched ones with the fewest CPUs. Ratios are interpolated linearly between the
    batch sizes that were profiled with `cpus` CPUs, and constant below the smallest of them.

    Raises:
        PlanningError: the allocation was not profiled.
    """
    ratio_of = profile.batch_ratio_on(hardware)
    measured = {size: ratio for (its_cpus, size), ratio in sorted(ratio_of.items()) if its_cpus == cpus}
    if batch_size not in measured:
        allocations = ", ".join(f"{c:g} CPUs with batches of {b}" for c, b in sorted(ratio_of))
        raise PlanningError(
            f"{cpus:g} CPUs with batches of {batch_size} were not profiled (profiled: {allocations})",
            code="profile.allocation_not_measured",
            location=f"operator {profile.operator}",
            hint="Run `circinus profile` again.",
        )
    if batch_size == 1:
        return (measured[1],)
    ratios = np.interp(np.arange(1, batch_size + 1), list(measured), list(measured.values()))
    return tuple(ratios.tolist())


@dataclass(frozen=True, eq=False)
class StageTimes:
    """Times at an operator of a plan."""

    expected_and_pessimistic_s: FloatArray
    """(2, scenarios) wait and service; in the second row at the upper bounds of service time and load, which allow for
    small samples."""
    mean_wait_s: float
    """Mean over the scenarios."""
    mean_service_s: float
    """Mean over the scenarios."""
    mean_batch_size: float


@dataclass(frozen=True, eq=False)
class StageLatency:
    """Latency of an operator of a plan."""

    use: DeploymentUse
    times: StageTimes
    caveats: tuple[str, ...]
    """Reasons why the latency is only a rough estimate."""


def operator_queue_key(operator: str) -> str:
    """Return the name of the random draws for waits at `operator`."""
    return f"operator {operator}"


class StageLatencyModel:
    """Latency model of the stages of a query's plans, under any configuration."""

    def __init__(self, query: Query, samples: MeasuredSamples) -> None:
        self._query = query
        self._samples = samples
        self._arrivals = ArrivalModel.of(query)
        self._guaranteed: dict[tuple[OperatorProfile, str, Allocation], StageLatency] = {}
        self._uses: dict[tuple[OperatorProfile, str, Allocation], DeploymentUse] = {}
        self._services: dict[
            tuple[OperatorProfile, str, Allocation], tuple[FloatArray, ElementTimes | None, float]
        ] = {}

    @property
    def arrivals(self) -> ArrivalModel:
        return self._arrivals

    def stage(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: MergedLoad | None,
    ) -> StageLatency:
        """Return the latency of an operator in a pool, guaranteed or under `conditions`.

        Raises:
            PlanningError: the allocation was not profiled, or `conditions` lack the deployment.
        """
        if conditions is not None:
            return self._compute(operator, profile, pool, allocation, conditions)
        key = (profile, pool.name, allocation)
        stage = self._guaranteed.get(key)
        if stage is None:
            stage = self._guaranteed[key] = self._compute(operator, profile, pool, allocation, None)
        return stage

    def use(
        self, operator: OperatorSpec, profile: OperatorProfile, pool: Pool, allocation: Allocation
    ) -> DeploymentUse:
        """Return the usage of a deployment by requests that arrive straight from the source.

        Raises:
            PlanningError: the allocation was not profiled.
        """
        key = profile, pool.name, allocation
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = self._use(operator, profile, pool, allocation)
        return use

    def _use(
        self, operator: OperatorSpec, profile: OperatorProfile, pool: Pool, allocation: Allocation
    ) -> DeploymentUse:
        ratios = batch_time_ratios(profile, pool.hardware, allocation.cpus, allocation.batch_size)
        slowdown = profile.slowdown(pool.hardware)
        full_batch, service_time = ratios[-1] * slowdown, self._samples.of(profile.service_s)
        mean_s, square_s2, cube_s3 = service_time.moments
        traffic = self._arrivals.traffic(
            self._query.rate_per_s,
            mean_s * full_batch,
            square_s2 * full_batch**2,
            cube_s3 * full_batch**3,
            first=not operator.after and pool.site == self._query.source,
            mean_factor=service_time.mean_factor,
            has_elements=profile.has_elements,
        )
        knobs = profile.prefix[operator.name]
        demand = replica_demand(operator, knobs, pool, allocation.cpus, profile.peak_memory_bytes)
        if pool.spot is not None:
            startup_s, target = profile.startup_on(pool.hardware), allocation.utilization_target
            spare, late_share = spare_replicas(pool, startup_s, traffic.mean_s, target)
            demand = replace(demand, spare_replicas=spare, late_share=late_share)
        return DeploymentUse(
            deployment=Deployment(
                pipeline=self._query.pipeline,
                operator=operator.name,
                knobs=knobs,
                pool=pool.name,
                allocation=allocation,
            ),
            demand=demand,
            busy_replicas=traffic.offered_load / allocation.batch_size,
            traffic=traffic,
            fill_ratios=ratios,
            batch_wait_s=operator.batch_wait_s if allocation.batch_size > 1 else 0.0,
        )

    def service(
        self, profile: OperatorProfile, pool: Pool, allocation: Allocation
    ) -> tuple[FloatArray, ElementTimes | None, float]:
        """Return (n,) inflated service times of a full batch, elements of the requests if any, and their factor."""
        key = profile, pool.name, allocation
        if key not in self._services:
            ratios = batch_time_ratios(profile, pool.hardware, allocation.cpus, allocation.batch_size)
            slowdown, service_time = profile.slowdown(pool.hardware), self._samples.of(profile.service_s)
            elements = ElementTimes.of(profile, ratios, self._samples.percentile.grid)
            service_s = service_time.inflated_scenarios * slowdown * ratios[-1]
            self._services[key] = service_s, elements, slowdown * service_time.inflation
        return self._services[key]

    def _compute(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: MergedLoad | None,
    ) -> StageLatency:
        use = self.use(operator, profile, pool, allocation)
        traffic, ratios = use.traffic, use.fill_ratios
        slowdown, service_time = profile.slowdown(pool.hardware), self._samples.of(profile.service_s)
        if conditions is None:
            stations = stations_at_target(
                use.busy_replicas, traffic, ratios, use.batch_wait_s, allocation.utilization_target
            )
        else:
            stations = (deployment_station(use.deployment, conditions),)
        # Poisson stations do not depend on the query's rate, so that other queries have equal ones.
        is_shared = conditions is None and profile.runs is None and all(station.is_poisson for station in stations)
        parts = operator.name, stations, service_time, slowdown, ratios[-1]
        if is_shared:
            times = _shared_longest_times(*parts)
        else:
            times = _longest_times(*parts, ElementTimes.of(profile, ratios, self._samples.percentile.grid))
        caveats = tuple(f"operator {operator.name}: {caveat}" for s in stations for caveat in s.caveats())
        if profile.runs is not None:
            caveats += (f"operator {operator.name}: the number of its runs depends on the item",)
        return StageLatency(use, times, caveats)


@dataclass(frozen=True, eq=False)
class ElementTimes:
    """Runs of an operator in (n,) scenarios, whose items have none or several runs."""

    has_run: BoolArray
    """Whether the item has a run."""
    min_s: FloatArray
    """Unbatched service time of its longest run, relative to a batch of as many of its runs as one takes."""

    @classmethod
    def of(cls, profile: OperatorProfile, fill_ratios: Sequence[float], grid: ScenarioGrid) -> ElementTimes | None:
        """Return the runs of a profile; None if every item has a single run."""
        if profile.runs is None:
            return None
        items = grid.items(len(profile.runs))
        counts = profile.run_counts[items]
        fill = np.array(fill_ratios)[np.clip(counts, 1, len(fill_ratios)) - 1]
        return cls(counts > 0, profile.longest_run_s[items] * fill)


def _longest_times(
    operator: str,
    stations: tuple[LoadedStation, ...],
    service_time: MeasuredSample,
    slowdown: float,
    full_batch_time_ratio: float,
    elements: ElementTimes | None = None,
) -> StageTimes:
    """Return the longest times of several stations."""
    draws = service_time.percentile.grid.exponentials(operator_queue_key(operator))
    times = [station_time(station, full_batch_time_ratio, draws) for station in stations]
    pessimistic = [pessimistic_station_time(station, full_batch_time_ratio, draws) for station in stations]
    inflation = service_time.inflation
    expected_s = elementwise_max_s(times, service_time.scenarios * slowdown, elements, slowdown)
    pessimistic_s = elementwise_max_s(
        pessimistic, service_time.inflated_scenarios * slowdown, elements, slowdown * inflation
    )
    mean_wait_s = max(time.mean_wait_s for time in times)
    return StageTimes(
        np.stack([expected_s, pessimistic_s]),
        mean_wait_s,
        float(expected_s.mean()) - mean_wait_s,
        max(time.mean_batch_size for time in times),
    )


_shared_longest_times = lru_cache(maxsize=4096)(_longest_times)


def stations_at_target(
    busy_replicas: float,
    traffic: RequestStream,
    fill_ratios: tuple[float, ...],
    batch_wait_s: float,
    utilization_target: float,
) -> tuple[LoadedStation, ...]:
    """Return the queueing models of a deployment that guarantees are computed with.

    The deployment is at its utilization target with requests identical to the query's, and has the replicas that the
    query needs in isolation. Batches wait longer to fill at lower rates: if they wait, there is a second model with
    the query's requests only, and the guarantee is the longer of both times.

    Args:
        traffic: the query's requests, with the service times of full batches.
    """
    replicas, rate_per_s = replicas_for(busy_replicas, utilization_target), traffic.rate_per_s
    if busy_replicas > 0:  # without the query's rate, so that stations of queries with as many replicas are equal
        rate_per_s = utilization_target * replicas * len(fill_ratios) / traffic.mean_s
    streams = [traffic.within(rate_per_s), *([traffic] if batch_wait_s > 0 else [])]
    return tuple(station_load(replicas, stream, fill_ratios, batch_wait_s) for stream in streams)


@dataclass(frozen=True, eq=False)
class StationTime:
    """Response times of n requests at a station: `added_s + factor x` unbatched service time."""

    added_s: FloatArray
    """(n,)"""
    factor: FloatArray | float
    """(n,), or a common factor."""
    mean_wait_s: float
    mean_batch_size: float


def station_time(station: LoadedStation, full_batch_time_ratio: float, exponentials: FloatArray) -> StationTime:
    """Return the response times at a station.

    Args:
        full_batch_time_ratio: ratio of the query's profile, which may differ from the station's, taken from the profile
            of another query.
    """
    if station.is_poisson:
        wait_s = station.wait(station.utilization).at(exponentials) + station.batch_wait_s * (station.parts > 1)
        return StationTime(wait_s, full_batch_time_ratio / station.parts, float(wait_s.mean()), 1.0)
    response = station.response()
    added_s, factor = response.at(exponentials)
    factor = factor * (full_batch_time_ratio / station.fill_ratios[-1] / station.parts)
    return StationTime(added_s, factor, response.mean_wait_s, mean_batch_size(response.batch_size_distribution))


def pessimistic_station_time(
    station: LoadedStation, full_batch_time_ratio: float, exponentials: FloatArray
) -> StationTime:
    """Return the response times at a station with the longest mean service times (`LoadedStation.pessimistic`).

    The service times of the requests themselves are unchanged. Times are `UNBOUNDED` if they cannot be determined.
    Arguments: see `station_time`.
    """
    pessimistic = station.pessimistic()
    if pessimistic is None:
        return StationTime(np.full(len(exponentials), UNBOUNDED), 0.0, UNBOUNDED, len(station.fill_ratios))
    return station_time(pessimistic, full_batch_time_ratio, exponentials)


def elementwise_max_s(
    times: Sequence[StationTime],
    unbatched_s: FloatArray,
    elements: ElementTimes | None = None,
    slowdown: float = 1.0,
) -> FloatArray:
    """Return (n,) the maximum of several response times for requests with (n,) unbatched service times.

    Args:
        times: the response times.
        unbatched_s: (n,) unbatched service times, of all elements of a request.
        elements: elements of the requests, if they may have none or several.
        slowdown: factor of the times of `elements`.
    """
    if elements is None:
        total_s = [np.asarray(time.added_s + time.factor * unbatched_s) for time in times]
    else:
        min_s = elements.min_s * slowdown
        # An overloaded operator is one for items that do not reach it, too: its queue takes up what others need.
        waits_s = [np.where(elements.has_run | (time.added_s >= UNBOUNDED), time.added_s, 0.0) for time in times]
        services_s = [np.maximum(time.factor * unbatched_s, min_s) for time in times]
        total_s = [wait_s + service_s for wait_s, service_s in zip(waits_s, services_s, strict=True)]
    return np.maximum.reduce(total_s) if len(total_s) > 1 else total_s[0]


def deployment_station(deployment: Deployment, conditions: MergedLoad) -> LoadedStation:
    """Return the queueing model of a deployment under the merged load.

    Raises:
        PlanningError: `conditions` lack the deployment.
    """
    load = conditions.deployments.get(deployment)
    if load is None:
        raise PlanningError(
            "the merged load lacks this deployment of the plan",
            code="deployment.no_load",
            location=f"deployment {deployment.name}",
            hint="Merge the plan's candidate, too.",
        )
    return load.station
