"""Queries that run in whole replicas, and the simulation of those that wait for the same replicas or links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.baselines.admission import FreeCapacity
from benchmarks.baselines.planners.query_plans import limit_s, limit_usd_per_h
from benchmarks.baselines.vulcan_plans import mean_latency_s
from benchmarks.evaluation.contest import Contest
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, replicas_for
from circinus.profiling import ConfigurationProfile
from circinus.queueing.arrivals import arrival_process
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model_builder import build_model
from circinus.specification import Deployment, PoissonArrivals, Query, QueryPlan

_REQUESTS, _MOST_REQUESTS = 500, 10_000
"""Simulated requests of the least frequent stream, and at most of all together."""
_COARSE, _CLEARLY = 0.1, 1.1
"""Share of these requests that is simulated first, and the excess of a percentile over its limit that then suffices."""
_BUSIEST = 0.95
"""Utilization from which on no simulation is needed to see that a replica is missing."""
_MOST_TRIED = 6
"""Numbers of replicas that are tried for a plan."""


@dataclass(frozen=True)
class Sized:
    """A plan of a query with the replicas with which its latency limit, and those of all others, hold."""

    candidate: PlanCandidate
    capacity: FreeCapacity
    """What is left with it."""
    usd_per_h: float
    """Cost of its shares of replicas and transfers, and of the replicas that it adds."""


@dataclass(frozen=True)
class _Stream:
    """Requests of all queries of the same source, plan and latency limit, whose arrivals are one Poisson process."""

    planned: PlannedQuery
    stations: frozenset[object]
    """Deployments and links on their way."""

    def joined_by(self, query: Query) -> _Stream:
        """Return the stream with the requests of another query."""
        merged = self.planned.query.model_copy(update={"rate_per_s": self.planned.query.rate_per_s + query.rate_per_s})
        return replace(self, planned=replace(self.planned, query=merged, arrivals=arrival_process(merged)))


class Cluster:
    """Queries that run, and the capacity that is left."""

    def __init__(self, contest: Contest, seed: int) -> None:
        self._pipelines, self._network, self._seed = contest.specification.pipelines, contest.network, seed
        self.capacity = FreeCapacity(contest.specification.required_infrastructure)
        self._streams: dict[object, _Stream] = {}

    def run(self, query: Query, measured: ConfigurationProfile, sized: Sized) -> None:
        """Let a query run with a plan."""
        self.capacity = sized.capacity
        key, stream = self._stream(query, measured, sized.candidate)
        self._streams[key] = stream

    def late(self) -> list[object]:
        """Return the keys of the streams that miss their limits when all run together."""
        if not self._streams:
            return []
        replicas = {deployment: self.capacity.replicas(deployment) for deployment in self.capacity.demands}
        return self._missed(self._streams, replicas, 4 * _REQUESTS, 30 * _MOST_REQUESTS)

    def key(self, query: Query, plan: QueryPlan) -> object:
        """Return the key of the stream of a query."""
        single = None if isinstance(query.arrivals, PoissonArrivals) else query.name
        return plan, query.source, query.slos.latency, single

    def sized(
        self,
        query: Query,
        measured: ConfigurationProfile,
        estimator: Estimator,
        plan: QueryPlan,
        below_usd_per_h: float = float("inf"),
    ) -> Sized | None:
        """Add replicas at the bottleneck until all limits hold; None if they do not, or not below a cost."""
        pools = {pool.name: pool for pool in self._network.infrastructure.pools}
        placement = {operator: pools[pool] for operator, pool in plan.placement}
        pipeline, slos = self._pipelines[query.pipeline], query.slos
        if mean_latency_s(query, pipeline, measured, placement, self._network) > limit_s(slos):
            return None
        try:
            candidate = estimator.candidate(plan)
        except PlanningError:  # the traffic exceeds a link
            return None
        uses, share_usd_per_h = candidate.deployments, candidate.estimate.cost_usd_per_h.lower
        running = {use.deployment: self.capacity.replicas(use.deployment) for use in uses}
        busy = {use.deployment: self.capacity.busy.get(use.deployment, 0.0) + use.busy_replicas for use in uses}
        replicas = {d: max(running[d], replicas_for(load, _BUSIEST)) for d, load in busy.items()}
        price = {use.deployment: use.demand.cost_usd_per_h for use in uses}
        for _ in range(_MOST_TRIED):
            added = sum(price[d] * (number - running[d]) for d, number in replicas.items())
            own = sum(price[d] * replicas[d] * use.busy_replicas / busy[d] for use in uses for d in [use.deployment])
            if own + candidate.transfer_cost_usd_per_h > limit_usd_per_h(slos):
                return None
            if added + share_usd_per_h >= below_usd_per_h:
                return None
            capacity = self.capacity.copied()
            if not capacity.admit(candidate, replicas):
                return None
            if self._holds(query, measured, candidate, capacity):
                return Sized(candidate, capacity, added + share_usd_per_h)
            replicas[max(replicas, key=lambda d: (busy[d] / replicas[d], d.name))] += 1
        return None

    def _holds(
        self, query: Query, measured: ConfigurationProfile, candidate: PlanCandidate, capacity: FreeCapacity
    ) -> bool:
        """Return whether the limits of all queries hold that wait for the same replicas or links."""
        key, stream = self._stream(query, measured, candidate)
        others = {other: s for other, s in self._streams.items() if other != key}
        together, stations = {key: stream}, set(stream.stations)
        while joining := {other: s for other, s in others.items() if other not in together and s.stations & stations}:
            together |= joining
            stations.update(*(s.stations for s in joining.values()))
        replicas = {deployment: capacity.replicas(deployment) for deployment in capacity.demands}
        if self._missed(together, replicas, _COARSE * _REQUESTS, _COARSE * _MOST_REQUESTS, _CLEARLY):
            return False
        return not self._missed(together, replicas, _REQUESTS, _MOST_REQUESTS)

    def _stream(self, query: Query, measured: ConfigurationProfile, candidate: PlanCandidate) -> tuple[object, _Stream]:
        key = self.key(query, candidate.plan)
        if key in self._streams:
            return key, self._streams[key].joined_by(query)
        pipeline = self._pipelines[query.pipeline]
        planned = PlannedQuery(query, pipeline, candidate.plan, measured, arrival_process(query))
        deployments = (use.deployment for use in candidate.deployments)
        return key, _Stream(planned, frozenset((*deployments, *(crossing.link for crossing in candidate.links))))

    def _missed(
        self,
        streams: Mapping[object, _Stream],
        replicas: Mapping[Deployment, int],
        least: float,
        most: float,
        excess: float = 1.0,
    ) -> list[object]:
        """Simulate streams together; return the keys of those whose percentile is beyond the limit times an excess.

        Args:
            streams: the streams.
            replicas: of all their deployments.
            least: expected number of requests of the least frequent stream.
            most: maximum of all requests.
            excess: factor of the limits.
        """
        planned = [stream.planned for stream in streams.values()]
        rates_per_s = [one.query.rate_per_s for one in planned]
        duration_s = min(least / min(rates_per_s), most / sum(rates_per_s))
        model = build_model(planned, replicas, self._network)
        simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=self._seed)
        simulation.run()
        return [
            key
            for key, one, run in zip(streams, planned, simulation.runs, strict=True)
            if len(run.latency_s)
            and np.quantile(run.latency_s, one.query.slos.percentile / 100) > excess * limit_s(one.query.slos)
        ]
