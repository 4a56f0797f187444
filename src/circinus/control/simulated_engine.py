"""An engine in simulated time: the simulator, stopped whenever somebody looks or changes something."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from circinus.control.controlled import Controlled
from circinus.errors import ServingError
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import arrival_process
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode, Request, Response
from circinus.serving.engine import QueryStatus, Route
from circinus.serving.state_file import desired_fingerprint
from circinus.simulation import PlannedQuery
from circinus.simulation.entries import Exits
from circinus.simulation.model import Requests
from circinus.simulation.plans import model_of
from circinus.simulation.simulation import Simulation
from circinus.spec import Deployment, Network, Plan

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class _Waiting:
    """Who waits at which deployment."""

    def __init__(self, station_of: IntArray, deployments: Mapping[Deployment, int]) -> None:
        self._station_of = station_of
        """(visits,)"""
        self._deployments = deployments
        self._start_s: dict[int, list[FloatArray]] = {number: [] for number in deployments.values()}
        """Station -> when those that came begin to be served."""

    def note(self, exits: Exits) -> None:
        """Requests that came, and when they are served."""
        station = self._station_of[exits.visit]
        for number in np.unique(station).tolist():
            if number in self._start_s:
                self._start_s[number].append(exits.start_s[station == number])

    def lengths(self, now_s: float, unbegun: Mapping[int, int]) -> dict[Deployment, int]:
        """Deployment -> requests that have come and are not being served."""
        found = {}
        for deployment, number in self._deployments.items():
            parts = self._start_s[number]
            later = np.concatenate(parts) if parts else np.zeros(0)
            later = later[later > now_s]
            self._start_s[number] = [later]
            found[deployment] = len(later) + unbegun.get(number, 0)
        return found


@dataclass(eq=False)
class _Phase:
    """As long as the same deployments run: all plans that requests may follow meanwhile, of which one a query does."""

    desired: DesiredState
    begin_s: float
    """When requests may enter it."""
    simulation: Simulation
    variants: dict[tuple[str, tuple[Deployment, ...]], int]
    """(query, deployments of its plan) -> number among the simulated queries."""
    waiting: _Waiting


@dataclass(eq=False)
class _Sent:
    """The requests of one query."""

    requests: Requests
    done_s: FloatArray
    """(n,) when each was answered; infinite: not yet, or never."""
    entered: int = 0
    answered: int = 0
    failed: int = 0
    under_way: list[tuple[_Phase, int, IntArray]] = field(default_factory=list)
    """(phase, number among its queries, requests)"""


class SimulatedEngine:
    """`Engine` but for `submit`: its requests are given beforehand."""

    def __init__(
        self,
        controlled: Controlled,
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
        self._plans: dict[str, list[Plan]] = {}
        self._sent = {name: _Sent(asked, np.full(len(asked.arrival_s), math.inf)) for name, asked in requests.items()}
        self._nodes = {pool.name: pool.nodes for pool in infrastructure.pools}
        self._lost: set[str] = set()
        self._phases: list[_Phase] = []
        self._coming: _Phase | None = None
        self._routes: dict[str, Route] = {}
        self._state = ""
        self.learn(controlled)

    def learn(self, controlled: Controlled) -> None:
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

    def lose(self, pool: str) -> None:
        """All nodes of a pool are gone, with what was under way there."""
        self._lost.add(pool)
        for sent in self._sent.values():
            for phase, number, which in sent.under_way:
                deployments = next(key[1] for key, value in phase.variants.items() if value == number)
                if any(deployment.pool == pool for deployment in deployments):
                    sent.failed += len(which)
                    sent.under_way = [entry for entry in sent.under_way if entry[2] is not which]

    def bring_back(self, pool: str) -> None:
        """The nodes of a pool are there again; nothing runs on them."""
        self._lost.discard(pool)

    def latency_s(self, query: str) -> tuple[FloatArray, FloatArray]:
        """(n,) when requests came, and (n,) how long each took; infinite where it was lost or is not answered yet."""
        sent = self._sent[query]
        return sent.requests.arrival_s[: sent.entered], (sent.done_s - sent.requests.arrival_s)[: sent.entered]

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`; returns when so much simulated time has passed."""
        for wanted in desired.deployments:
            if wanted.deployment.pool in self._lost:
                raise ServingError(f"pool {wanted.deployment.pool} has no node")
        last = self._phases[-1] if self._phases else None
        sizes, before = _sizes(desired), {} if last is None else _sizes(last.desired)
        if last is not None and sizes == before:
            self._enter(last, desired)
            return
        grows = any(replicas > before.get(deployment, 0) for deployment, replicas in sizes.items())
        begin_s = self.now_s + (self._startup_s if grows and last is not None else 0.0)
        self._coming = self._phase(desired, begin_s)
        if begin_s <= self.now_s:
            self.advance(self.now_s)
        while self._coming is not None and self._coming.desired == desired:
            await asyncio.sleep(0)

    async def submit(self, request: Request) -> Response:
        """Nobody may."""
        raise ServingError("requests of a simulated engine are given beforehand")

    async def status(self) -> EngineStatus:
        """As `Engine.status`."""
        last = self._phases[-1] if self._phases else None
        deployments = []
        if last is not None:
            queues = last.waiting.lengths(self.now_s, last.simulation.unbegun())
            for wanted in last.desired.deployments:
                ready = 0 if wanted.deployment.pool in self._lost else wanted.replicas
                deployments.append(
                    DeploymentStatus(wanted.deployment, wanted.replicas, ready, queues.get(wanted.deployment, 0), 0, 0)
                )
        return EngineStatus(
            mode=Mode.REPLAY,
            deployments=tuple(deployments),
            routes=tuple(self._routes),
            state=self._state,
            queries=tuple(
                QueryStatus(name, sent.entered, sent.answered, sent.failed) for name, sent in self._sent.items()
            ),
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
        model = model_of(planned, replicas, self._network)
        ends_s = max((float(one.arrival_s[-1]) for one in asked if len(one.arrival_s)), default=0.0) + 1.0
        stations = [np.array([visit.station for visit in query.visits], dtype=np.int64) for query in model.queries]
        waiting = _Waiting(np.concatenate([*stations, np.zeros(0, dtype=np.int64)]), model.deployments)
        simulation = Simulation(model.stations, model.queries, duration_s=ends_s, requests=asked, watch=waiting.note)
        phase = _Phase(desired, begin_s, simulation, variants, waiting)
        for number in range(len(planned)):
            simulation.let_in(number, False)
        if begin_s > 0:
            simulation.advance(begin_s)
        return phase

    def _enter(self, phase: _Phase, desired: DesiredState) -> None:
        """From now on requests enter a phase, on the routes of a state."""
        phase.desired = desired
        self._state = desired_fingerprint(desired)
        self._routes = {route.query: route for route in desired.routes}

    def _advance(self, until_s: float) -> None:
        if until_s <= self.now_s:
            return
        last = self._phases[-1] if self._phases else None
        for phase in self._phases:
            for number in phase.variants.values():
                phase.simulation.let_in(number, False)
        for name, sent in self._sent.items():
            begin, sent.entered = sent.entered, int(np.searchsorted(sent.requests.arrival_s, until_s))
            route = self._routes.get(name)
            entry = None if last is None or route is None else last.variants.get((name, _deployments(route)))
            if entry is None or last is None or any(d.pool in self._lost for d in _deployments(route)):
                sent.failed += sent.entered - begin
                continue
            last.simulation.let_in(entry, True)
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
            if not there.all():
                left.append((phase, number, which[~there]))
        sent.under_way = left


def _sizes(desired: DesiredState) -> dict[Deployment, int]:
    return {wanted.deployment: wanted.replicas for wanted in desired.deployments}


def _deployments(route: Route | None) -> tuple[Deployment, ...]:
    return () if route is None else tuple(stage.deployment for stage in route.stages)


def _on_items(requests: Requests, items: int) -> Requests:
    """The same, where a configuration was measured on fewer items than others."""
    return Requests(requests.arrival_s, requests.items % items)
