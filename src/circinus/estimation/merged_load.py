"""The load under which a plan is estimated: what all queries together ask of every deployment and link."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circinus.errors import PlanningError
from circinus.estimation.estimate import DeploymentUse, PlanCandidate
from circinus.estimation.traffic import RequestStream
from circinus.queueing.arrivals import (
    ArrivalProcess,
    MarkovModulatedPoisson,
    Periodic,
    RecordedProcess,
    arrival_process,
    fit_arrival_process,
)
from circinus.queueing.response_time import mixed_batch_sizes
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Deployment, DirectedLink, Query

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class ArrivalModel:
    """Regular, in bursts, or neither: then independent of each other."""

    jitter_s: float | None = None
    """Standard deviation about regular times; None: they are not regular."""
    modulation: MarkovModulatedPoisson | None = None

    @classmethod
    def of(cls, query: Query) -> ArrivalModel:
        """As the query says; a recording as what it was measured to be."""
        return _of(query)

    def is_poisson(self, *, first: bool) -> bool:
        """Whether requests are independent of each other; `first`: straight from the source."""
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
    ) -> RequestStream:
        """Requests that come so.

        Args:
            rate_per_s: of the query.
            mean_s: mean seconds in service.
            square_s2: mean of their squares.
            cube_s3: mean of their cubes.
            first: whether requests come straight from the source; behind other queues see `behind`.
            mean_factor: what the mean seconds may come to over `mean_s`.
        """
        jitter_s = self.jitter_s if first else None
        return RequestStream(rate_per_s, mean_s, square_s2, cube_s3, jitter_s, self.modulation, mean_factor)

    def after_queue(self, traffic: RequestStream, ready_s: FloatArray) -> RequestStream:
        """Requests of this kind that come behind others' queues.

        Args:
            traffic: what comes.
            ready_s: (n,) after how long requests come, of n.
        """
        if self.jitter_s is None:
            return traffic
        return replace(traffic, jitter_s=math.hypot(self.jitter_s, float(np.std(ready_s))))


@lru_cache(maxsize=256)  # recordings are long, and every operator and link asks
def _of(query: Query) -> ArrivalModel:
    process = arrival_process(query)
    if isinstance(process, RecordedProcess):
        process = _measured(process)
    if isinstance(process, Periodic):
        return ArrivalModel(jitter_s=process.jitter_s / math.sqrt(3.0))  # uniform between minus and plus the jitter
    return ArrivalModel(modulation=process if isinstance(process, MarkovModulatedPoisson) else None)


@lru_cache(maxsize=256)  # the same under other objectives
def _measured(recording: RecordedProcess) -> ArrivalProcess:
    return fit_arrival_process(np.array(recording.moments_s), recording.period_s)


_ONE_BY_ONE = (1.0,)
_ROUNDING = 1e-9
"""A count of replicas that exceeds a whole number by less than this is that number."""


@dataclass(frozen=True)
class DeploymentLoad:
    """One deployment as sized, under the requests of all queries that share it."""

    replicas: int
    traffic: RequestStream
    """The merged requests; the seconds are those of a full batch."""
    fill_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) seconds of a batch of 1, 2, ... over the mean of what its items take alone; those of the first of
    its queries."""
    batch_wait_s: float = 0.0
    groups: tuple[float, ...] = (1.0,)
    """Shares of groups of 1, 2, ... requests that come at once."""
    arrival_scv: float = 1.0
    """Squared coefficient of variation of the times between requests, at most 1: that of independent ones."""

    @property
    def batch_size(self) -> int:
        """Most requests in a batch."""
        return len(self.fill_ratios)

    @property
    def busy_replicas(self) -> float:
        """Mean number of busy replicas, when batches are full."""
        return self.traffic.offered_load / self.batch_size

    @property
    def utilization(self) -> float:
        """Share of the time that a replica is busy, when batches are full."""
        return self.busy_replicas / self.replicas

    @property
    def station(self) -> LoadedStation:
        """As a queue."""
        return station_load(
            self.replicas, self.traffic, self.fill_ratios, self.batch_wait_s, self.groups, self.arrival_scv
        )


def station_load(
    servers: int,
    traffic: RequestStream,
    fill_ratios: tuple[float, ...] = (1.0,),
    batch_wait_s: float = 0.0,
    groups: tuple[float, ...] = (1.0,),
    arrival_scv: float = 1.0,
) -> LoadedStation:
    """A queue under `traffic`, whose seconds are those of a full batch."""
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
    """The deployments and links as all queries together load them."""

    deployments: Mapping[Deployment, DeploymentLoad]
    links: Mapping[DirectedLink, RequestStream]
    """The merged transfers; `busy` is the link's utilisation."""


def replicas_for(busy_replicas: float, utilization_target: float) -> int:
    """The fewest whole replicas of which none is busy for more than the target; at least one."""
    return max(1, math.ceil(busy_replicas / utilization_target - _ROUNDING))


def min_replicas_array(busy_replicas: ArrayLike, utilization_target: ArrayLike) -> NDArray[np.float64]:
    """`replicas_for` many, as whole numbers in an array of floats; the arguments broadcast."""
    fluid = np.asarray(busy_replicas, dtype=np.float64) / np.asarray(utilization_target, dtype=np.float64)
    return np.asarray(np.maximum(1.0, np.ceil(fluid - _ROUNDING)))


def merge_loads(candidates: Iterable[PlanCandidate], replicas: Mapping[Deployment, int] | None = None) -> MergedLoad:
    """What the plans chosen for several queries come to together.

    Args:
        candidates: one for each query that is served.
        replicas: how many replicas the deployments have; those not named get the fewest that keep their target.

    Raises:
        PlanningError: a deployment or a link would be busy all the time.
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
        count = (replicas or {}).get(deployment)
        if count is None:
            count = replicas_for(traffic.offered_load / allocation.batch_size, allocation.utilization_target)
        loads[deployment] = DeploymentLoad(count, traffic, uses[0].fill_ratios, uses[0].batch_wait_s)
        if count < 1 or loads[deployment].utilization >= 1:
            raise PlanningError(
                f"deployment {deployment.name}: found {count} replicas for {loads[deployment].busy_replicas:.3g} busy "
                f"ones, expected more replicas than busy ones; add replicas or move queries away",
                code="deployment.overloaded",
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
    loads: Mapping[Deployment, DeploymentLoad], requests: Mapping[Deployment, Sequence[DeploymentUse]]
) -> dict[Deployment, DeploymentLoad]:
    """The same with what the deployments that requests come from make of them.

    Requests come several at once from deployments that serve in batches. Where an operator waits for several others,
    its requests come as those of the last one do; those of several queries come as those of each do. What comes out of
    a busy deployment is more regular than what went in: taken into account where all requests come from one deployment
    and all that leave it come here.

    Args:
        loads: the deployments.
        requests: how they are used, each by one query at least.
    """
    found: dict[Deployment, DeploymentLoad] = {}

    def come(deployment: Deployment) -> DeploymentLoad:
        if deployment not in found:
            uses = [use for use in requests[deployment] if use.traffic.rate_per_s > 0]
            rate_per_s = sum(use.traffic.rate_per_s for use in uses)
            parts = [
                (use.traffic.rate_per_s / rate_per_s * share, fills(before))
                for use in uses
                for before, share in use.after
                if share > 0
            ]
            first = sum(use.traffic.rate_per_s / rate_per_s for use in uses if not use.after)
            groups = mixed_batch_sizes([*parts, (first, _ONE_BY_ONE)] if first > 0 else parts)
            before = {deployment for use in uses for deployment, _ in use.after}
            scv = 1.0
            if len(before) == 1 and first == 0:
                (only,) = before
                if math.isclose(loads[only].traffic.rate_per_s, rate_per_s):
                    scv = come(only).station.departure_scv
            found[deployment] = replace(loads[deployment], groups=groups, arrival_scv=scv)
        return found[deployment]

    def fills(deployment: Deployment) -> tuple[float, ...]:
        load = come(deployment)
        return load.station.response().batch_size_distribution if load.batch_size > 1 else load.groups

    return {deployment: come(deployment) for deployment in loads}
