"""Merged load of all queries on deployments and links."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation.estimate import DeploymentUse, LinkUse
from circinus.estimation.traffic import RequestStream
from circinus.queueing.arrivals import (
    ArrivalProcess,
    MarkovModulatedPoisson,
    Periodic,
    Poisson,
    RecordedProcess,
    arrival_process,
    fit_arrival_process,
)
from circinus.queueing.response_time import mixed_batch_sizes
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Deployment, DirectedLink, Query


@dataclass(frozen=True)
class ArrivalModel:
    """Arrival model of a query: periodic, bursty, or else Poisson."""

    jitter_s: float | None = None
    """Standard deviation of periodic arrivals about their regular times; None if not periodic."""
    modulation: MarkovModulatedPoisson | None = None

    @classmethod
    def of(cls, query: Query) -> ArrivalModel:
        """Return the arrival model of a query; a recording is replaced by the process fitted to it."""
        return _of(query)

    def is_poisson(self, *, first: bool) -> bool:
        """Return whether arrivals are Poisson; `first` for requests that arrive directly from the source."""
        return self.modulation is None and (self.jitter_s is None or not first)

    def traffic(
        self,
        rate_per_s: float,
        mean_s: float,
        square_s2: float,
        cube_s3: float,
        *,
        first: bool,
        mean_factor: float = 1.0,
        has_elements: bool = False,
    ) -> RequestStream:
        """Return the request stream of a query with these arrivals.

        Args:
            first: whether requests arrive directly from the source; see `after_queue` otherwise.
            mean_factor: upper bound of the actual mean service time over `mean_s`.
            has_elements: whether requests have several elements.
        """
        jitter_s = self.jitter_s if first else None
        return RequestStream(
            rate_per_s, mean_s, square_s2, cube_s3, jitter_s, self.modulation, mean_factor, has_elements
        )

    def after_queue(self, traffic: RequestStream, ready_s: FloatArray) -> RequestStream:
        """Return the stream with the jitter that upstream queues add.

        `ready_s` is (n,), the delays of n requests since the source.
        """
        if self.jitter_s is None:
            return traffic
        return replace(traffic, jitter_s=math.hypot(self.jitter_s, float(np.std(ready_s))))


@lru_cache(maxsize=256)  # fitting a recording is slow, and repeated for every operator and link
def _of(query: Query) -> ArrivalModel:
    process = arrival_process(query)
    if isinstance(process, RecordedProcess):
        process = _fitted(process)
    if isinstance(process, Periodic):
        return ArrivalModel(jitter_s=process.jitter_s / math.sqrt(3.0))  # uniform jitter
    if isinstance(process, MarkovModulatedPoisson):
        return ArrivalModel(modulation=process)
    if isinstance(process, Poisson):
        return ArrivalModel()
    raise TypeError(f"there is no queueing formula for arrivals of type {type(process).__name__}")


@lru_cache(maxsize=256)  # shared by queries that differ in their SLOs only
def _fitted(recording: RecordedProcess) -> ArrivalProcess:
    return fit_arrival_process(np.array(recording.moments_s), recording.period_s)


_SINGLE_ARRIVALS: tuple[float, ...] = (1.0,)
_ROUNDING = 1e-9
"""Rounding tolerance of a number of replicas."""


@dataclass(frozen=True)
class DeploymentLoad:
    """Sized deployment under the requests of all its queries."""

    replicas: int
    traffic: RequestStream
    """Merged requests, with the service times of full batches."""
    fill_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) time of a batch of 1, 2, ... relative to the mean unbatched time of its items (first query)."""
    batch_wait_s: float = 0.0
    groups: tuple[float, ...] = (1.0,)
    """Shares of groups of 1, 2, ... requests that arrive simultaneously."""
    arrival_scv: float = 1.0
    """Squared coefficient of variation of interarrival times, at most 1, the value of a Poisson process."""
    spare_replicas: int = 0
    """Number of replicas that are not counted on, as nodes may be interrupted."""

    @property
    def batch_size(self) -> int:
        return len(self.fill_ratios)

    @property
    def busy_replicas(self) -> float:
        """Mean number of busy replicas with full batches."""
        return self.traffic.offered_load / self.batch_size

    @property
    def utilization(self) -> float:
        """Share of the time that a replica is busy with full batches."""
        return self.busy_replicas / self.replicas

    @property
    def station(self) -> LoadedStation:
        """Queueing model of the deployment."""
        return station_load(
            self.certain_replicas, self.traffic, self.fill_ratios, self.batch_wait_s, self.groups, self.arrival_scv
        )

    @property
    def certain_replicas(self) -> int:
        """Number of replicas without the spare ones."""
        return self.replicas - self.spare_replicas


def station_load(
    servers: int,
    traffic: RequestStream,
    fill_ratios: tuple[float, ...] = (1.0,),
    batch_wait_s: float = 0.0,
    groups: tuple[float, ...] = (1.0,),
    arrival_scv: float = 1.0,
) -> LoadedStation:
    """Return the queueing model of a station under `traffic`, which has the service times of full batches.

    Elements of a request arrive together, and are divided among all servers. The first one waits about as long as at a
    single server that is as fast as all of them with full batches: exactly so for one server without batches, longer
    than in fact for several, and less long where batches stay small.
    """
    if traffic.has_elements:
        parts = servers * len(fill_ratios)
        return LoadedStation(
            servers=1,
            fill_ratios=_SINGLE_ARRIVALS,
            batch_wait_s=batch_wait_s,
            rate_per_s=traffic.rate_per_s,
            mean_service_s=traffic.mean_s / parts,
            service_scv=traffic.scv,
            service_skew=traffic.skew,
            jitter_s=traffic.jitter_s,
            modulation=traffic.modulation,
            mean_factor=traffic.mean_factor,
            parts=parts,
        )
    return LoadedStation(
        servers=servers,
        fill_ratios=fill_ratios,
        batch_wait_s=batch_wait_s,
        rate_per_s=traffic.rate_per_s,
        mean_service_s=traffic.mean_s / fill_ratios[-1],
        service_scv=traffic.scv,
        service_skew=traffic.skew,
        jitter_s=traffic.jitter_s,
        modulation=traffic.modulation,
        groups=groups,
        arrival_scv=arrival_scv,
        mean_factor=traffic.mean_factor,
    )


@dataclass(frozen=True)
class MergedLoad:
    """Deployments and links under the load of all queries."""

    deployments: Mapping[Deployment, DeploymentLoad]
    links: Mapping[DirectedLink, RequestStream]
    """Merged transfers; `offered_load` is the utilization of the link."""


def replicas_for(busy_replicas: float, utilization_target: float) -> int:
    """Return the minimum number of replicas, at least 1, whose utilization is at most the target."""
    return max(1, math.ceil(busy_replicas / utilization_target - _ROUNDING))


def min_replicas_array(busy_replicas: ArrayLike, utilization_target: ArrayLike) -> FloatArray:
    """Return `replicas_for` elementwise, as whole numbers in an array of floats; the arguments broadcast."""
    fractional = np.asarray(busy_replicas, dtype=np.float64) / np.asarray(utilization_target, dtype=np.float64)
    return np.asarray(np.maximum(1.0, np.ceil(fractional - _ROUNDING)))


class PlanUsage(Protocol):
    """Usage of deployments and links by a plan."""

    @property
    def deployments(self) -> tuple[DeploymentUse, ...]: ...

    @property
    def links(self) -> tuple[LinkUse, ...]: ...


def merge_loads(candidates: Iterable[PlanUsage], replicas: Mapping[Deployment, int] | None = None) -> MergedLoad:
    """Return the merged load of the plans of several queries.

    Deployments without an entry in `replicas` get the minimum at their utilization target.

    Raises:
        PlanningError: a deployment or a link is overloaded.
    """
    requests: dict[Deployment, list[DeploymentUse]] = defaultdict(list)
    transfers: dict[DirectedLink, list[RequestStream]] = defaultdict(list)
    for candidate in candidates:
        for use in candidate.deployments:
            requests[use.deployment].append(use)
        for crossing in candidate.links:
            transfers[crossing.link].append(crossing.traffic)
    loads = {}
    for deployment, uses in requests.items():
        traffic = RequestStream.merged(use.traffic for use in uses)
        allocation = deployment.allocation
        count, spare = (replicas or {}).get(deployment), max(use.demand.spare_replicas for use in uses)
        if count is None:
            count = spare + replicas_for(traffic.offered_load / allocation.batch_size, allocation.utilization_target)
        load = DeploymentLoad(count, traffic, uses[0].fill_ratios, uses[0].batch_wait_s, spare_replicas=spare)
        loads[deployment] = load
        if load.certain_replicas < 1 or load.busy_replicas / load.certain_replicas >= 1:
            raise PlanningError(
                f"the load keeps {loads[deployment].busy_replicas:.3g} replicas busy, but there are only {count}",
                code="deployment.overloaded",
                location=f"deployment {deployment.name}",
                hint="Add replicas, or move queries to other pools.",
            )
    loads = propagate_departures(loads, requests)
    links = {link: RequestStream.merged(streams) for link, streams in transfers.items()}
    for link, traffic in links.items():
        if traffic.offered_load >= 1:
            raise PlanningError(
                f"transfers need {traffic.offered_load:.0%} of the bandwidth; it must be less than 100%",
                code="link.overloaded",
                location=f"link {link.name}",
                hint="Move queries to other pools.",
            )
    return MergedLoad(loads, links)


def propagate_departures(
    loads: Mapping[Deployment, DeploymentLoad],
    requests: Mapping[Deployment, Sequence[DeploymentUse]],
    changed: Container[Deployment] | None = None,
) -> dict[Deployment, DeploymentLoad]:
    """Return the loads with arrivals that follow from the departures of upstream deployments.

    Requests arrive in groups from deployments that serve batches. If an operator waits for several inputs, its
    arrivals are those of its last input; the arrivals of several queries are their mixture. Departures of a busy
    deployment are more regular than its arrivals; this is modelled if all requests come from a single deployment, all
    of whose requests continue to this one.

    Args:
        loads: of all deployments.
        requests: the uses of each deployment.
        changed: deployments whose arrivals are computed, those downstream of changed ones included; the others' loads
            have theirs already. None: all.
    """
    propagated = {} if changed is None else {d: load for d, load in loads.items() if d not in changed}

    def propagate(deployment: Deployment) -> DeploymentLoad:
        if deployment not in propagated:
            groups, scv = arrivals_after(requests[deployment], lambda d: ((load := propagate(d)), load.station))
            propagated[deployment] = replace(loads[deployment], groups=groups, arrival_scv=scv)
        return propagated[deployment]

    return {deployment: propagate(deployment) for deployment in loads}


def arrivals_after(
    requests: Sequence[DeploymentUse], upstream: Callable[[Deployment], tuple[DeploymentLoad, LoadedStation]]
) -> tuple[tuple[float, ...], float]:
    """Return `DeploymentLoad.groups` and `DeploymentLoad.arrival_scv` of a deployment; see `propagate_departures`.

    Args:
        requests: its uses.
        upstream: returns the load of an upstream deployment, with its own arrivals, and its queueing model.
    """
    uses = [use for use in requests if use.traffic.rate_per_s > 0]
    if not any(use.after for use in uses):
        return _SINGLE_ARRIVALS, 1.0
    rate_per_s = sum(use.traffic.rate_per_s for use in uses)
    source_share = sum(use.traffic.rate_per_s / rate_per_s for use in uses if not use.after)
    last = {deployment for use in uses for deployment, share in use.after if share > 0}
    departing, groups = {deployment: _departure_groups(*upstream(deployment)) for deployment in last}, _SINGLE_ARRIVALS
    if any(len(sizes) > 1 for sizes in departing.values()):
        parts = [
            (use.traffic.rate_per_s / rate_per_s * share, departing[deployment])
            for use in uses
            for deployment, share in use.after
            if share > 0
        ]
        groups = mixed_batch_sizes([*parts, (source_share, _SINGLE_ARRIVALS)] if source_share > 0 else parts)
    upstreams = {deployment for use in uses for deployment, _ in use.after}
    if len(upstreams) == 1 and source_share == 0:
        load, station = upstream(*upstreams)
        if math.isclose(load.traffic.rate_per_s, rate_per_s):
            return groups, station.departure_scv
    return groups, 1.0


def _departure_groups(load: DeploymentLoad, station: LoadedStation) -> tuple[float, ...]:
    return station.response().batch_size_distribution if load.batch_size > 1 else load.groups
