"""The engine of one machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import pickle_value
from circinus.serving.audit_buffer import AuditBuffer
from circinus.serving.counters import RequestCounters
from circinus.serving.engine import (
    AuditBatch,
    DesiredDeployment,
    DesiredState,
    EngineStatus,
    Mode,
    Request,
    Response,
    RouteStage,
)
from circinus.serving.local.capacity import MachineCapacity, require_capacity
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.local.fork_server_client import ForkServerClient
from circinus.serving.local.request_execution import CompiledRoute, LinkEmulator, RequestExecution
from circinus.serving.pickled_response import PickledResponse, unpickle_response
from circinus.serving.replicas.replay_executor import load_replay_stages
from circinus.serving.replicas.replica_protocol import Payload, ReplayStage, ReplicaSpec
from circinus.serving.state_serialization import state_fingerprint, validate_state
from circinus.specification import Network

_RunKey = tuple[Mode, DesiredDeployment, tuple[object, ...]]


@dataclass(frozen=True)
class _Force:
    """What is in force."""

    mode: Mode = Mode.REAL
    running: Mapping[_RunKey, DeploymentRuntime] = field(default_factory=dict)
    routes: Mapping[str, CompiledRoute] = field(default_factory=dict)
    state: str = ""


class LocalEngine:
    """`Engine` on this machine, inside the calling process and its event loop; replicas are processes of their own.

    Links are emulated with shared bandwidth and delay, slower hardware by its relative speed. All calls must come from
    one event loop.
    """

    def __init__(self, machine: MachineCapacity | None = None) -> None:
        """An engine that runs nothing yet.

        Args:
            machine: what mode `real` may use; by default this machine.
        """
        self._machine = machine or MachineCapacity.here()
        self._force = _Force()
        self._applying = asyncio.Lock()
        self._processes: ForkServerClient | None = None
        self._links: LinkEmulator | None = None
        self._starting: tuple[DeploymentRuntime, ...] = ()
        self._retiring: dict[DeploymentRuntime, asyncio.Task[None]] = {}
        self._journeys: set[RequestExecution] = set()
        self._recording_ids: dict[tuple[str, RouteStage], int] = {}
        self._counts = RequestCounters()
        self._audits = AuditBuffer()
        self._closed = False

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`. Requests under way finish on the route they began on."""
        async with self._applying:
            self._links = self._links or LinkEmulator(asyncio.get_running_loop())
            validate_state(desired)
            require_capacity(desired, self._machine)
            stages = await asyncio.to_thread(load_replay_stages, desired) if desired.mode is Mode.REPLAY else {}
            if self._closed:
                raise ServingError("the engine was closed", code="engine.closed", hint="Start another engine.")
            await self._change(desired, stages)

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`."""
        value = pickle_value(request.value) if self._force.mode is Mode.REAL else None
        answer = await self.submit_packed(request.query, request.item_key, value, request.input_bytes)
        return unpickle_response(answer)

    async def submit_packed(
        self, query: str, item_key: str, value: Payload | None, input_bytes: float
    ) -> PickledResponse:
        """`submit` with the input and the outputs pickled; the input is not looked at by a replaying engine."""
        compiled = self._force.routes.get(query)
        if compiled is None or self._links is None:
            known = ", ".join(self._force.routes) or "none"
            raise ServingError(
                f"the query has no route; queries with a route: {known}",
                code="route.missing",
                location=f"query {query}",
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[PickledResponse] = loop.create_future()

        def on_done(response: PickledResponse) -> None:
            if not answer.done():  # the caller may have given up
                answer.set_result(response)

        def on_failed(reason: str) -> None:
            if not answer.done():
                answer.set_exception(ServingError(reason, code="query.request_failed"))

        journey = RequestExecution(compiled, item_key, self._links, loop, on_done, on_failed)
        self._journeys.add(journey)
        self._counts.entered(query)
        value = value if self._force.mode is Mode.REAL else None
        try:
            journey.start(value, input_bytes)
            found = await answer
            self._counts.answered(query, found.latency_s)
            share = compiled.route.audit_rate
            self._audits.record(query, share, item_key, compiled.configuration, value, found.outputs)
            return found
        except BaseException:  # also being cancelled
            self._counts.failed(query)
            raise
        finally:
            journey.cancel()
            self._journeys.discard(journey)

    async def status(self) -> EngineStatus:
        """As `Engine.status`. Deployments that only finish what they have are not in it."""
        return EngineStatus(
            mode=self._force.mode,
            deployments=tuple(deployment.status() for deployment in self._force.running.values()),
            routes=tuple(self._force.routes),
            state=self._force.state,
            queries=self._counts.status(),
        )

    async def drain_audits(self) -> AuditBatch:
        """As `Audited.audits`."""
        return self._audits.drain()

    async def close(self) -> None:
        """As `Engine.close`. Requests under way fail."""
        self._closed = True
        await asyncio.gather(*(deployment.end() for deployment in self._starting))  # an apply under way fails
        async with self._applying:
            running, self._force = self._force.running, _Force(self._force.mode)
            for journey in tuple(self._journeys):
                journey.fail("the engine was closed")
            for task in self._retiring.values():
                task.cancel()
            await asyncio.gather(*(deployment.end() for deployment in (*running.values(), *self._retiring)))
            if self._processes is not None:
                await self._processes.close()
                self._processes = None

    async def _change(self, desired: DesiredState, stages: Mapping[tuple[str, RouteStage], ReplayStage]) -> None:
        before = self._force
        replicas = {_run_key(desired, wanted): wanted.replicas for wanted in desired.deployments}
        running = {
            key: before.running.get(key) or self._new_deployment(desired, wanted)
            for key, wanted in zip(replicas, desired.deployments, strict=True)
        }
        sizes_before = {key: deployment.wanted for key, deployment in before.running.items()}
        self._starting = tuple(running.values())
        try:
            routes = self._compile(desired, running, stages)
            async with asyncio.TaskGroup() as group:
                for key, deployment in running.items():
                    group.create_task(deployment.scale_up(replicas[key]))
        except BaseException as error:  # whatever it is, also being cancelled: what ran before stays as it was
            for key, deployment in running.items():
                if key in sizes_before:
                    deployment.scale_down(sizes_before[key])
                else:
                    self._retire(deployment)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        finally:
            self._starting = ()
        self._force = _Force(desired.mode, running, routes, state_fingerprint(desired))
        waits_s = {wanted.deployment: wanted.batch_wait_s for wanted in desired.deployments}
        for key, deployment in running.items():
            deployment.scale_down(replicas[key])
            deployment.set_batch_wait(waits_s[deployment.deployment])
        for key, deployment in before.running.items():
            if key not in running:
                self._retire(deployment)

    def _compile(
        self,
        desired: DesiredState,
        running: Mapping[_RunKey, DeploymentRuntime],
        stages: Mapping[tuple[str, RouteStage], ReplayStage],
    ) -> Mapping[str, CompiledRoute]:
        network = Network(desired.infrastructure)
        by_deployment = {deployment.deployment: deployment for deployment in running.values()}
        for (pipeline, stage), recorded in stages.items():
            number = self._recording_ids.setdefault((pipeline, stage), len(self._recording_ids))
            by_deployment[stage.deployment].add_recordings({number: recorded})
        routes = {}
        for route in desired.routes:
            recordings = {
                stage.operator: self._recording_ids[route.pipeline, stage]
                for stage in route.stages
                if (route.pipeline, stage) in stages
            }
            routes[route.query] = CompiledRoute.compile(route, network, by_deployment, recordings)
        return routes

    def _new_deployment(self, desired: DesiredState, wanted: DesiredDeployment) -> DeploymentRuntime:
        loop = asyncio.get_running_loop()
        if self._processes is None:
            self._processes = ForkServerClient(loop)
        spec = ReplicaSpec(
            name=wanted.deployment.name,
            replays=desired.mode is Mode.REPLAY,
            uses=wanted.uses,
            operator_version=wanted.operator_version,
            knobs=wanted.deployment.knobs.as_dict(),
            cpus=wanted.cpus,
            relative_speed=wanted.relative_speed,
            module_paths=desired.module_paths,
            search_path=tuple(sys.path),
        )
        return DeploymentRuntime(wanted.deployment, spec, loop, self._processes, wanted.batch_wait_s)

    def _retire(self, deployment: DeploymentRuntime) -> None:
        task = asyncio.get_running_loop().create_task(deployment.drain())
        self._retiring[deployment] = task
        task.add_done_callback(lambda _: self._retiring.pop(deployment, None))


def _run_key(desired: DesiredState, wanted: DesiredDeployment) -> _RunKey:
    """What replicas have in common that can take each other's place."""
    anything = replace(wanted, replicas=0, memory_bytes=0.0, batch_wait_s=0.0)
    return desired.mode, anything, (desired.module_paths, desired.recordings)
