"""Engine in simulated time: a discrete-event simulation that pauses for status calls and state changes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.control.managed_plans import ManagedPlans
from circinus.errors import ServingError
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import arrival_process
from circinus.queueing.event_arrays import VisitDepartures
from circinus.queueing.split_sequence import split_part
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode, Request, Response, ServedBatch
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import DesiredDeployment, QueryStatus
from circinus.serving.routes import Route
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_fingerprint
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.specification import Deployment, Network, QueryPlan, prefix_configuration

_RECENT_LATENCIES = 300
"""Number of recent latencies in the status of a query."""


@dataclass(frozen=True, eq=False)
class _Visits:
    """Stations and prefixes of all visits of the simulated queries."""

    station_of: IntArray
    """(visits,) index of the station."""
    deployments: Mapping[Deployment, int]
    """Deployment -> index of its station."""
    prefixes: tuple[str, ...]
    """(visits,) hashes of the prefixes; empty for links."""


class _ServedBatches:
    """Queue lengths and served batches of all deployments."""

    def __init__(self, visits: _Visits) -> None:
        self._visits = visits
        self._pending: dict[int, list[tuple[FloatArray, FloatArray, IntArray, IntArray]]] = {
            station: [] for station in visits.deployments.values()
        }
        """Station -> (start of service, its end, batch size, visit) of requests that are not yet reported as served."""
        self._counts = dict.fromkeys(self._pending, 0)
        self._recent: dict[int, deque[ServedBatch]] = {
            station: deque(maxlen=SERVING.recent_requests) for station in self._pending
        }

    def note(self, exits: VisitDepartures) -> None:
        """Add requests with their start and end of service."""
        stations = self._visits.station_of[exits.visit]
        for station in np.unique(stations).tolist():
            if station in self._pending:
                rows = stations == station
                self._pending[station].append(
                    (exits.start_s[rows], exits.end_s[rows], exits.fill[rows], exits.visit[rows])
                )

    def status(
        self, desired: DesiredDeployment, ready: int, now_s: float, unstarted: Mapping[int, int]
    ) -> DeploymentStatus:
        """Return the status of a deployment at `now_s`."""
        station = self._visits.deployments.get(desired.deployment)
        if station is None:  # no simulated query uses the deployment
            return DeploymentStatus(desired.deployment, desired.replicas, ready, 0, 0, 0)
        waiting = self._collect(station, now_s, desired.replicas)
        return DeploymentStatus(
            deployment=desired.deployment,
            target_replicas=desired.replicas,
            replicas_ready=ready,
            queue_length=waiting + unstarted.get(station, 0),
            requests=0,
            restarts=0,
            batches=self._counts[station],
            recent_batches=tuple(self._recent[station]),
        )

    def _collect(self, station: int, now_s: float, replicas: int) -> int:
        """Count the batches that ended by `now_s`, and return the number of waiting requests."""
        chunks = self._pending[station]
        if not chunks:
            return 0
        start_s, end_s, batch_size, visit = (
            chunks[0] if len(chunks) == 1 else (np.concatenate(column) for column in zip(*chunks, strict=True))
        )
        done = np.flatnonzero(end_s <= now_s)
        if len(done):
            done = done[np.argsort(end_s[done], kind="stable")]
            batches = done[np.unique(start_s[done], return_index=True)[1]] if batch_size[done].max() > 1 else done
            for position in batches[-SERVING.recent_requests :].tolist():
                served_s, items = float(end_s[position] - start_s[position]), int(batch_size[position])
                prefix = self._visits.prefixes[int(visit[position])]
                self._recent[station].append(ServedBatch(served_s, items, prefix, self._counts[station] // replicas))
            self._counts[station] += len(batches)
        rows = end_s > now_s
        self._pending[station] = [(start_s[rows], end_s[rows], batch_size[rows], visit[rows])] if rows.any() else []
        return int((start_s > now_s).sum())


@dataclass(frozen=True, eq=False)
class _SimulatedPart:
    """Part of a plan, whose requests are those of a simulated query."""

    index: int
    """Index of the simulated query."""
    deployments: tuple[Deployment, ...]
    requests: IntArray
    """(n,) indexes of its requests among those of the query."""


_RouteKey = tuple[str, tuple[tuple[float, tuple[Deployment, ...]], ...]]
"""Query, and share and deployments of each part of its route."""


@dataclass(eq=False)
class _Phase:
    """Period with constant deployments, with simulated queries for each plan that these deployments can serve."""

    desired: DesiredState
    start_s: float
    """Time from which requests may enter."""
    simulation: Simulation
    variants: dict[_RouteKey, tuple[_SimulatedPart, ...]]
    """Route -> its parts."""
    served: _ServedBatches


@dataclass(eq=False)
class _QueryRequests:
    """Requests of one query, with their outcomes."""

    requests: Requests
    done_s: FloatArray
    """(n,) completion times; infinite for failed, dropped and incomplete requests."""
    received: int = 0
    completed: int = 0
    failed: int = 0
    dropped: int = 0
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_LATENCIES))
    """Latencies of recent requests; infinite for dropped and NaN for failed requests."""
    in_flight: list[tuple[_Phase, _SimulatedPart, IntArray]] = field(default_factory=list)
    """(phase, part of a plan, indexes of requests)"""

    def fail(self, count: int) -> None:
        self.failed += count
        self.recent_s.extend([math.nan] * min(count, _RECENT_LATENCIES))

    def status(self, query: str) -> QueryStatus:
        latency_s = tuple(seconds for seconds in self.recent_s if not math.isnan(seconds))
        failed = len(self.recent_s) - len(latency_s)
        return QueryStatus(query, self.received, self.completed, self.failed, latency_s, failed, self.dropped)


class SimulatedEngine:
    """Implementation of `Engine` in simulated time. Its requests are arguments of the constructor, not of `submit`.

    Requests of paused queries fail instead of waiting.
    """

    def __init__(
        self,
        controlled: ManagedPlans,
        profiles: Mapping[str, PipelineProfile],
        requests: Mapping[str, Requests],
        *,
        startup_s: float,
    ) -> None:
        """Create an engine without deployments.

        Args:
            controlled: plans that routes may follow, extended by `learn`.
            profiles: pipeline -> its profile.
            requests: query -> its requests, with items as indexes into the items of a configuration.
            startup_s: start-up time of new replicas.
        """
        self.now_s = 0.0
        self._specification = controlled.specification
        self._network = Network(controlled.specification.required_infrastructure)
        self._profiles = profiles
        self._startup_s = startup_s
        self._plans: dict[str, list[QueryPlan]] = {}
        self._queries = {
            name: _QueryRequests(sent, np.full(len(sent.arrival_s), math.inf)) for name, sent in requests.items()
        }
        self._nodes = dict(controlled.specified_nodes)
        self._lost: set[str] = set()
        self._phases: list[_Phase] = []
        self._next_phase: _Phase | None = None
        self._routes: dict[str, Route] = {}
        self._state = ""
        self.learn(controlled)

    def learn(self, controlled: ManagedPlans) -> tuple[str, ...]:
        """Add plans that routes may follow; there is nothing to warn of."""
        for name, rungs in controlled.rungs.items():
            plans = self._plans.setdefault(name, [])
            plans.extend(rung.candidate.plan for rung in rungs if rung.candidate.plan not in plans)
        return ()

    def advance(self, until_s: float) -> None:
        """Advance the simulation to `until_s`."""
        if self._next_phase is not None and self._next_phase.start_s <= until_s:
            phase, self._next_phase = self._next_phase, None
            self._advance(phase.start_s)
            self._phases.append(phase)
            self._enter(phase, phase.desired)
        self._advance(until_s)

    def fail_nodes(self, pool: str) -> None:
        """Remove all nodes of a pool, and fail the requests in flight that use it."""
        self._lost.add(pool)
        for query in self._queries.values():
            for _, part, requests in query.in_flight:
                if any(deployment.pool == pool for deployment in part.deployments):
                    query.fail(len(requests))
                    query.in_flight = [entry for entry in query.in_flight if entry[2] is not requests]

    def restore_nodes(self, pool: str) -> None:
        """Restore the nodes of a pool, without replicas."""
        self._lost.discard(pool)

    def drift(self, profiles: Mapping[str, PipelineProfile]) -> None:
        """Replace service times and scores by those of `profiles`, except for requests in flight."""
        self._profiles = profiles
        current = self._phases[-1] if self._phases else None
        if current is not None:
            drifted = self._phase(current.desired, self.now_s)
            self._phases.append(drifted)
            self._enter(drifted, current.desired)

    def latency_s(self, query: str) -> tuple[FloatArray, FloatArray]:
        """Return (n,) arrival times and (n,) latencies; infinite for failed, dropped and incomplete requests."""
        sent = self._queries[query]
        return sent.requests.arrival_s[: sent.received], (sent.done_s - sent.requests.arrival_s)[: sent.received]

    async def apply(self, desired: DesiredState) -> None:
        """Apply a state as `Engine.apply` does, and return after the simulated start-up time."""
        for deployment in desired.deployments:
            if deployment.deployment.pool in self._lost:
                raise ServingError(f"pool {deployment.deployment.pool} has no nodes", code="pool.no_node")
        current = self._phases[-1] if self._phases else None
        sizes, current_sizes = _sizes(desired), {} if current is None else _sizes(current.desired)
        if current is not None and sizes == current_sizes:
            self._enter(current, desired)
            return
        grows = any(replicas > current_sizes.get(deployment, 0) for deployment, replicas in sizes.items())
        start_s = self.now_s + (self._startup_s if grows and current is not None else 0.0)
        self._next_phase = next_phase = self._phase(desired, start_s)
        if start_s <= self.now_s:
            self.advance(self.now_s)
        try:
            while self._next_phase is next_phase:
                await asyncio.sleep(0)
        except asyncio.CancelledError:  # the current phase stays as it is
            if self._next_phase is next_phase:
                self._next_phase = None
            raise

    async def submit(self, request: Request) -> Response:
        """Raise ServingError, as requests are arguments of the constructor."""
        raise ServingError("a simulated engine accepts no requests", code="engine.not_supported")

    async def status(self) -> EngineStatus:
        current = self._phases[-1] if self._phases else None
        deployments = []
        if current is not None:
            unstarted = current.simulation.queued()
            for desired in current.desired.deployments:
                ready = 0 if desired.deployment.pool in self._lost else desired.replicas
                deployments.append(current.served.status(desired, ready, self.now_s, unstarted))
        return EngineStatus(
            mode=Mode.REPLAY,
            deployments=tuple(deployments),
            routes=tuple(self._routes),
            state=self._state,
            queries=tuple(query.status(name) for name, query in self._queries.items()),
            nodes={name: 0 if name in self._lost else count for name, count in self._nodes.items()},
        )

    async def close(self) -> None:
        self._phases.clear()

    def _phase(self, desired: DesiredState, start_s: float) -> _Phase:
        replicas = _sizes(desired)
        planned: list[PlannedQuery] = []
        variants: dict[_RouteKey, tuple[_SimulatedPart, ...]] = {}
        requests: list[Requests] = []
        for query in self._specification.queries:
            pipeline = self._specification.pipelines[query.pipeline]
            order = [operator.name for operator in pipeline.topological_order()]
            for plan in self._plans.get(query.name, []):
                if query.name not in self._queries or not replicas.keys() >= set(plan.deployments):
                    continue
                sent = self._queries[query.name].requests
                shares = [part.share for part in plan.parts]
                part_of = split_part(query.name, shares, np.arange(len(sent.arrival_s)))
                parts = []
                for number, part in enumerate(plan.parts):
                    profile = next(
                        candidate
                        for candidate in self._profiles[query.pipeline].configurations
                        if candidate.configuration == part.plan.configuration
                    )
                    deployments = tuple(part.plan.deployment_of(name) for name in order)
                    parts.append(_SimulatedPart(len(planned), deployments, np.flatnonzero(part_of == number)))
                    planned.append(PlannedQuery(query, pipeline, part.plan, profile, arrival_process(query)))
                    requests.append(_on_items(sent, parts[-1].requests, len(profile.items)))
                variants[_route_key(query.name, shares, [part.deployments for part in parts])] = tuple(parts)
        model = build_model(planned, replicas, self._network)
        duration_s = max((float(sent.arrival_s[-1]) for sent in requests if len(sent.arrival_s)), default=0.0) + 1.0
        served = _ServedBatches(_visits(model, planned))
        simulation = Simulation(
            model.stations, model.queries, duration_s=duration_s, requests=requests, watch=served.note
        )
        phase = _Phase(desired, start_s, simulation, variants, served)
        for index in range(len(planned)):
            simulation.inject(index, False)
        if start_s > 0:
            simulation.advance(start_s)
        return phase

    def _enter(self, phase: _Phase, desired: DesiredState) -> None:
        """Send new requests into `phase`, on the routes of `desired`."""
        phase.desired = desired
        self._state = state_fingerprint(desired)
        self._routes = {route.query: route for route in desired.routes}

    def _advance(self, until_s: float) -> None:
        if until_s <= self.now_s:
            return
        current = self._phases[-1] if self._phases else None
        for phase in self._phases:
            for parts in phase.variants.values():
                for part in parts:
                    phase.simulation.inject(part.index, False)
        for name, query in self._queries.items():
            begin, query.received = query.received, int(np.searchsorted(query.requests.arrival_s, until_s))
            route = self._routes.get(name)
            entered = () if current is None or route is None else current.variants.get(_key_of(route), ())
            if current is None or not entered:
                query.fail(query.received - begin)
                continue
            for part in entered:
                first, last = np.searchsorted(part.requests, (begin, query.received)).tolist()
                if any(deployment.pool in self._lost for deployment in part.deployments):
                    query.fail(last - first)
                    continue
                current.simulation.inject(part.index, True)
                if last > first:
                    query.in_flight.append((current, part, part.requests[first:last]))
        for phase in self._phases:
            phase.simulation.advance(until_s)
        self.now_s = until_s
        for query in self._queries.values():
            self._complete(query)
        busy = {id(phase) for query in self._queries.values() for phase, _, _ in query.in_flight}
        self._phases = [phase for phase in self._phases if phase is current or id(phase) in busy]

    def _complete(self, query: _QueryRequests) -> None:
        """Record the requests of a query that completed by now."""
        remaining = []
        for phase, part, requests in query.in_flight:
            run, rows = phase.simulation.runs[part.index], np.searchsorted(part.requests, requests)
            done_s, is_dropped = run.done_s[rows], run.dropped_s[rows] <= self.now_s
            has_ended = is_dropped | (done_s <= self.now_s)
            query.done_s[requests[has_ended]] = done_s[has_ended]
            query.dropped += int(is_dropped.sum())
            query.completed += int((has_ended & ~is_dropped).sum())
            query.recent_s.extend((done_s - query.requests.arrival_s[requests])[has_ended].tolist())
            if not has_ended.all():
                remaining.append((phase, part, requests[~has_ended]))
        query.in_flight = remaining


def _visits(model: SimulationModel, planned: Sequence[PlannedQuery]) -> _Visits:
    stations, prefixes = [np.zeros(0, dtype=np.int64)], []
    for planned_query, query, visits in zip(planned, model.queries, model.operators, strict=True):
        operators = {visit: operator for operator, visit in visits.items()}
        stations.append(np.array([visit.station for visit in query.visits], dtype=np.int64))
        prefixes += [
            configuration_hash(
                prefix_configuration(planned_query.pipeline, planned_query.plan.configuration, operators[visit])
            )
            if visit in operators
            else ""
            for visit in range(len(query.visits))
        ]
    return _Visits(np.concatenate(stations), model.deployments, tuple(prefixes))


def _sizes(desired: DesiredState) -> dict[Deployment, int]:
    return {deployment.deployment: deployment.replicas for deployment in desired.deployments}


def _key_of(route: Route) -> _RouteKey:
    parts = route.parts
    deployments = [tuple(stage.deployment for stage in part.stages) for part in parts]
    return _route_key(route.query, [part.share for part in parts], deployments)


def _route_key(query: str, shares: Sequence[float], deployments: Sequence[tuple[Deployment, ...]]) -> _RouteKey:
    return query, tuple(zip(shares, deployments, strict=True))


def _on_items(requests: Requests, rows: IntArray, items: int) -> Requests:
    """Return some requests on the items of a configuration, which may be fewer than those of other configurations."""
    return Requests(requests.arrival_s[rows], requests.items[rows] % items)
