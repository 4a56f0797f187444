"""An engine in simulated time: the simulator, stopped whenever somebody looks or changes something."""

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
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode, Request, Response, ServedBatch
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.counters import RECENT
from circinus.serving.engine import DesiredDeployment, QueryStatus, Route
from circinus.serving.state_serialization import state_fingerprint
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests, VisitDepartures
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.specification import Deployment, Network, QueryPlan, prefix_configuration

_RECENT_ENDS = 300
"""Of each query that are told of."""


@dataclass(frozen=True, eq=False)
class _Places:
    """Which visit is where."""

    station_of: IntArray
    """(visits,)"""
    deployments: Mapping[Deployment, int]
    """Deployment -> its station."""
    prefixes: tuple[str, ...]
    """(visits,) labels of what is asked for there; empty for links."""


class _Served:
    """Who waits at which deployment, and which batches it served."""

    def __init__(self, places: _Places) -> None:
        self._places = places
        self._parts: dict[int, list[tuple[FloatArray, FloatArray, IntArray, IntArray]]] = {
            number: [] for number in places.deployments.values()
        }
        """Station -> (begin of service, its end, fill, visit) of those that came and were not told of yet."""
        self._counts = dict.fromkeys(self._parts, 0)
        self._recent: dict[int, deque[ServedBatch]] = {number: deque(maxlen=RECENT) for number in self._parts}

    def note(self, exits: VisitDepartures) -> None:
        """Requests that came, and when they are served."""
        station = self._places.station_of[exits.visit]
        for number in np.unique(station).tolist():
            if number in self._parts:
                here = station == number
                self._parts[number].append(
                    (exits.start_s[here], exits.end_s[here], exits.fill[here], exits.visit[here])
                )

    def status(
        self, wanted: DesiredDeployment, ready: int, now_s: float, unbegun: Mapping[int, int]
    ) -> DeploymentStatus:
        """One deployment: who has come and is not being served, and what was served."""
        number = self._places.deployments.get(wanted.deployment)
        if number is None:  # no query that is simulated may go there
            return DeploymentStatus(wanted.deployment, wanted.replicas, ready, 0, 0, 0)
        waiting = self._look(number, now_s, wanted.replicas)
        return DeploymentStatus(
            deployment=wanted.deployment,
            replicas_wanted=wanted.replicas,
            replicas_ready=ready,
            queue_length=waiting + unbegun.get(number, 0),
            requests=0,
            restarts=0,
            batches=self._counts[number],
            recent_batches=tuple(self._recent[number]),
        )

    def _look(self, number: int, now_s: float, replicas: int) -> int:
        parts = self._parts[number]
        if not parts:
            return 0
        start_s, end_s, fill, visit = (
            parts[0] if len(parts) == 1 else (np.concatenate(column) for column in zip(*parts, strict=True))
        )
        done = np.flatnonzero(end_s <= now_s)
        if len(done):
            done = done[np.argsort(end_s[done], kind="stable")]
            firsts = done[np.unique(start_s[done], return_index=True)[1]] if fill[done].max() > 1 else done
            for position in firsts[-RECENT:].tolist():
                served_s, items = float(end_s[position] - start_s[position]), int(fill[position])
                prefix = self._places.prefixes[int(visit[position])]
                self._recent[number].append(ServedBatch(served_s, items, prefix, self._counts[number] // replicas))
            self._counts[number] += len(firsts)
        left = end_s > now_s
        self._parts[number] = [(start_s[left], end_s[left], fill[left], visit[left])] if left.any() else []
        return int((start_s > now_s).sum())


@dataclass(eq=False)
class _Phase:
    """As long as the same deployments run: all plans that requests may follow meanwhile, of which one a query does."""

    desired: DesiredState
    begin_s: float
    """When requests may enter it."""
    simulation: Simulation
    variants: dict[tuple[str, tuple[Deployment, ...]], int]
    """(query, deployments of its plan) -> number among the simulated queries."""
    served: _Served


@dataclass(eq=False)
class _Sent:
    """The requests of one query."""

    requests: Requests
    done_s: FloatArray
    """(n,) when each was answered; infinite: not yet, or never."""
    entered: int = 0
    answered: int = 0
    failed: int = 0
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_ENDS))
    """Latencies of the last that ended; infinite: it failed."""
    under_way: list[tuple[_Phase, int, IntArray]] = field(default_factory=list)
    """(phase, number among its queries, requests)"""

    def fail(self, count: int) -> None:
        self.failed += count
        self.recent_s.extend([math.inf] * min(count, _RECENT_ENDS))

    def status(self, query: str) -> QueryStatus:
        latency_s = tuple(self.recent_s)
        failed = latency_s.count(math.inf)
        if failed:
            latency_s = tuple(seconds for seconds in latency_s if seconds < math.inf)
        return QueryStatus(query, self.entered, self.answered, self.failed, latency_s, failed)


class SimulatedEngine:
    """`Engine` but for `submit`: its requests are given beforehand."""

    def __init__(
        self,
        controlled: ManagedPlans,
        profiles: Mapping[str, PipelineProfile],
        requests: Mapping[str, Requests],
        *,
        startup_s: float,
    ) -> None:
        """Nothing runs.

        Args:
            controlled: whose plans may be followed; others by `learn`.
            profiles: pipeline -> what was measured of it.
            requests: query -> what is sent, with items by number among those of its configurations.
            startup_s: from asking for replicas that do not run until they do.
        """
        infrastructure = controlled.specification.infrastructure
        assert infrastructure is not None, "plans are made for one"
        self.now_s = 0.0
        self._specification = controlled.specification
        self._network = Network(infrastructure)
        self._profiles = profiles
        self._startup_s = startup_s
        self._plans: dict[str, list[QueryPlan]] = {}
        self._sent = {name: _Sent(asked, np.full(len(asked.arrival_s), math.inf)) for name, asked in requests.items()}
        self._nodes = {pool.name: pool.nodes for pool in infrastructure.pools}
        self._lost: set[str] = set()
        self._phases: list[_Phase] = []
        self._coming: _Phase | None = None
        self._routes: dict[str, Route] = {}
        self._state = ""
        self.learn(controlled)

    def learn(self, controlled: ManagedPlans) -> None:
        """Plans that routes may follow from now on."""
        for name, rungs in controlled.rungs.items():
            known = self._plans.setdefault(name, [])
            known.extend(rung.candidate.plan for rung in rungs if rung.candidate.plan not in known)

    def advance(self, until_s: float) -> None:
        """Let time pass."""
        if self._coming is not None and self._coming.begin_s <= until_s:
            coming, self._coming = self._coming, None
            self._advance(coming.begin_s)
            self._phases.append(coming)
            self._enter(coming, coming.desired)
        self._advance(until_s)

    def fail_nodes(self, pool: str) -> None:
        """All nodes of a pool are gone, with what was under way there."""
        self._lost.add(pool)
        for sent in self._sent.values():
            for phase, number, which in sent.under_way:
                deployments = next(key[1] for key, value in phase.variants.items() if value == number)
                if any(deployment.pool == pool for deployment in deployments):
                    sent.fail(len(which))
                    sent.under_way = [entry for entry in sent.under_way if entry[2] is not which]

    def restore_nodes(self, pool: str) -> None:
        """The nodes of a pool are there again; nothing runs on them."""
        self._lost.discard(pool)

    def drift(self, profiles: Mapping[str, PipelineProfile]) -> None:
        """From now on operators take and answer something else; requests under way end as they began."""
        self._profiles = profiles
        last = self._phases[-1] if self._phases else None
        if last is not None:
            now = self._phase(last.desired, self.now_s)
            self._phases.append(now)
            self._enter(now, last.desired)

    def latency_s(self, query: str) -> tuple[FloatArray, FloatArray]:
        """(n,) when requests came, and (n,) how long each took; infinite where it was lost or is not answered yet."""
        sent = self._sent[query]
        return sent.requests.arrival_s[: sent.entered], (sent.done_s - sent.requests.arrival_s)[: sent.entered]

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`; returns when so much simulated time has passed."""
        for wanted in desired.deployments:
            if wanted.deployment.pool in self._lost:
                raise ServingError(f"pool {wanted.deployment.pool} has no node", code="pool.no_node")
        last = self._phases[-1] if self._phases else None
        sizes, before = _sizes(desired), {} if last is None else _sizes(last.desired)
        if last is not None and sizes == before:
            self._enter(last, desired)
            return
        grows = any(replicas > before.get(deployment, 0) for deployment, replicas in sizes.items())
        begin_s = self.now_s + (self._startup_s if grows and last is not None else 0.0)
        self._coming = coming = self._phase(desired, begin_s)
        if begin_s <= self.now_s:
            self.advance(self.now_s)
        try:
            while self._coming is coming:
                await asyncio.sleep(0)
        except asyncio.CancelledError:  # what ran before stays as it was
            if self._coming is coming:
                self._coming = None
            raise

    async def submit(self, request: Request) -> Response:
        """Nobody may."""
        raise ServingError("requests of a simulated engine are given beforehand", code="engine.not_supported")

    async def status(self) -> EngineStatus:
        """As `Engine.status`."""
        last = self._phases[-1] if self._phases else None
        deployments = []
        if last is not None:
            unbegun = last.simulation.queued()
            for wanted in last.desired.deployments:
                ready = 0 if wanted.deployment.pool in self._lost else wanted.replicas
                deployments.append(last.served.status(wanted, ready, self.now_s, unbegun))
        return EngineStatus(
            mode=Mode.REPLAY,
            deployments=tuple(deployments),
            routes=tuple(self._routes),
            state=self._state,
            queries=tuple(sent.status(name) for name, sent in self._sent.items()),
            nodes={name: 0 if name in self._lost else count for name, count in self._nodes.items()},
        )

    async def close(self) -> None:
        """As `Engine.close`."""
        self._phases.clear()

    def _phase(self, desired: DesiredState, begin_s: float) -> _Phase:
        replicas = {wanted.deployment: wanted.replicas for wanted in desired.deployments}
        planned: list[PlannedQuery] = []
        variants: dict[tuple[str, tuple[Deployment, ...]], int] = {}
        asked: list[Requests] = []
        for query in self._specification.queries:
            pipeline = self._specification.pipelines[query.pipeline]
            order = [operator.name for operator in pipeline.topological_order()]
            for plan in self._plans.get(query.name, []):
                deployments = tuple(plan.deployment_of(name) for name in order)
                if query.name not in self._sent or not replicas.keys() >= set(deployments):
                    continue
                profile = next(
                    found
                    for found in self._profiles[query.pipeline].configurations
                    if found.configuration == plan.configuration
                )
                variants[query.name, deployments] = len(planned)
                planned.append(PlannedQuery(query, pipeline, plan, profile, arrival_process(query)))
                asked.append(_on_items(self._sent[query.name].requests, len(profile.items)))
        model = build_model(planned, replicas, self._network)
        ends_s = max((float(one.arrival_s[-1]) for one in asked if len(one.arrival_s)), default=0.0) + 1.0
        served = _Served(_places(model, planned))
        simulation = Simulation(model.stations, model.queries, duration_s=ends_s, requests=asked, watch=served.note)
        phase = _Phase(desired, begin_s, simulation, variants, served)
        for number in range(len(planned)):
            simulation.inject(number, False)
        if begin_s > 0:
            simulation.advance(begin_s)
        return phase

    def _enter(self, phase: _Phase, desired: DesiredState) -> None:
        """From now on requests enter a phase, on the routes of a state."""
        phase.desired = desired
        self._state = state_fingerprint(desired)
        self._routes = {route.query: route for route in desired.routes}

    def _advance(self, until_s: float) -> None:
        if until_s <= self.now_s:
            return
        last = self._phases[-1] if self._phases else None
        for phase in self._phases:
            for number in phase.variants.values():
                phase.simulation.inject(number, False)
        for name, sent in self._sent.items():
            begin, sent.entered = sent.entered, int(np.searchsorted(sent.requests.arrival_s, until_s))
            route = self._routes.get(name)
            entry = None if last is None or route is None else last.variants.get((name, _deployments(route)))
            if entry is None or last is None or any(d.pool in self._lost for d in _deployments(route)):
                sent.fail(sent.entered - begin)
                continue
            last.simulation.inject(entry, True)
            if sent.entered > begin:
                sent.under_way.append((last, entry, np.arange(begin, sent.entered)))
        for phase in self._phases:
            phase.simulation.advance(until_s)
        self.now_s = until_s
        for sent in self._sent.values():
            self._collect(sent)
        under_way = {id(phase) for sent in self._sent.values() for phase, _, _ in sent.under_way}
        self._phases = [phase for phase in self._phases if phase is last or id(phase) in under_way]

    def _collect(self, sent: _Sent) -> None:
        """Answers that are there by now."""
        left = []
        for phase, number, which in sent.under_way:
            done_s = phase.simulation.runs[number].done_s[which]
            there = done_s <= self.now_s
            sent.done_s[which[there]] = done_s[there]
            sent.answered += int(there.sum())
            sent.recent_s.extend((done_s - sent.requests.arrival_s[which])[there].tolist())
            if not there.all():
                left.append((phase, number, which[~there]))
        sent.under_way = left


def _places(model: SimulationModel, planned: Sequence[PlannedQuery]) -> _Places:
    stations, prefixes = [np.zeros(0, dtype=np.int64)], []
    for one, query, visits in zip(planned, model.queries, model.operators, strict=True):
        operators = {visit: operator for operator, visit in visits.items()}
        stations.append(np.array([visit.station for visit in query.visits], dtype=np.int64))
        prefixes += [
            configuration_hash(prefix_configuration(one.pipeline, one.plan.configuration, operators[visit]))
            if visit in operators
            else ""
            for visit in range(len(query.visits))
        ]
    return _Places(np.concatenate(stations), model.deployments, tuple(prefixes))


def _sizes(desired: DesiredState) -> dict[Deployment, int]:
    return {wanted.deployment: wanted.replicas for wanted in desired.deployments}


def _deployments(route: Route | None) -> tuple[Deployment, ...]:
    return () if route is None else tuple(stage.deployment for stage in route.stages)


def _on_items(requests: Requests, items: int) -> Requests:
    """The same, where a configuration was measured on fewer items than others."""
    return Requests(requests.arrival_s, requests.items % items)
