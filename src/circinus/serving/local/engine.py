"""Engine of one machine, inside the calling process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

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
from circinus.serving.local.request_execution import LinkEmulator, RequestExecution
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.replicas.replay_executor import load_replay_stages
from circinus.serving.replicas.replica_protocol import ReplayStage, ReplicaSpec
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.state_serialization import state_fingerprint, validate_state
from circinus.specification import Network

_RunKey = tuple[Mode, DesiredDeployment, tuple[object, ...]]


@dataclass(frozen=True)
class _DeployedState:
    """Deployments and routes in use."""

    mode: Mode = Mode.REAL
    running: Mapping[_RunKey, DeploymentRuntime] = field(default_factory=dict)
    routes: Mapping[str, CompiledRoute] = field(default_factory=dict)
    state: str = ""


class LocalEngine:
    """`Engine` on this machine, in the event loop of the calling process; replicas are separate processes.

    Links are emulated with shared bandwidth and delay, slower hardware by its relative speed. All calls must come from
    one event loop.
    """

    def __init__(self, machine: MachineCapacity | None = None) -> None:
        """Create an engine without deployments.

        Args:
            machine: capacity for the mode `real`; by default that of this machine.
        """
        self._machine = machine or MachineCapacity.of_this_machine()
        self._deployed = _DeployedState()
        self._apply_lock = asyncio.Lock()
        self._processes: ForkServerClient | None = None
        self._links: LinkEmulator | None = None
        self._deployments: dict[str, DeploymentRuntime] = {}
        """Deployments by name, including those that only finish earlier requests."""
        self._starting: tuple[DeploymentRuntime, ...] = ()
        self._retiring: dict[DeploymentRuntime, asyncio.Task[None]] = {}
        self._executions: set[RequestExecution] = set()
        self._recording_ids: dict[tuple[str, RouteStage], int] = {}
        self._counters = RequestCounters()
        self._audits = AuditBuffer()
        self._numbers = count()
        self._closed = False

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`. Requests in flight finish on the route on which they began."""
        async with self._apply_lock:
            self._links = self._links or LinkEmulator(asyncio.get_running_loop())
            validate_state(desired)
            require_capacity(desired, self._machine)
            stages = await asyncio.to_thread(load_replay_stages, desired) if desired.mode is Mode.REPLAY else {}
            if self._closed:
                raise ServingError("the engine was closed", code="engine.closed", hint="Start another engine.")
            await self._change(desired, stages)

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`."""
        value = pickle_value(request.value) if self._deployed.mode is Mode.REAL else None
        return (await self.submit_pickled(replace(request, value=value))).unpickle()

    async def submit_pickled(self, request: Request) -> PickledResponse:
        """Submit a request with a pickled value. A replaying engine ignores the value."""
        query, item_key = request.query, request.item_key
        route = self._deployed.routes.get(query)
        if route is None or self._links is None:
            queries = ", ".join(self._deployed.routes) or "none"
            raise ServingError(
                f"the query has no route (queries with a route: {queries})",
                code="route.missing",
                location=f"query {query}",
            )
        loop = asyncio.get_running_loop()
        result: asyncio.Future[PickledResponse] = loop.create_future()

        def on_done(response: PickledResponse) -> None:
            if not result.done():  # the caller may have cancelled
                result.set_result(response)

        def on_failed(reason: str) -> None:
            if not result.done():
                result.set_exception(ServingError(reason, code="query.request_failed", location=f"query {query}"))

        execution = RequestExecution(route, self._deployments, item_key, self._links, loop, on_done, on_failed)
        self._executions.add(execution)
        self._counters.entered(query)
        value = request.value if self._deployed.mode is Mode.REAL else None
        try:
            execution.start(value, request.input_bytes)
            response = await result
            self._counters.answered(query, response.timings.latency_s)
            self._audits.record(query, route.audit_rate, item_key, route.configuration, value, response.outputs)
            return response
        except BaseException:  # including cancellation
            self._counters.failed(query)
            raise
        finally:
            execution.cancel()
            self._executions.discard(execution)

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`. Deployments that only finish earlier requests are left out."""
        return EngineStatus(
            mode=self._deployed.mode,
            deployments=tuple(deployment.status() for deployment in self._deployed.running.values()),
            routes=tuple(self._deployed.routes),
            state=self._deployed.state,
            queries=self._counters.status(),
        )

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits`."""
        return self._audits.drain()

    async def close(self) -> None:
        """Implement `Engine.close`. Requests in flight fail."""
        self._closed = True
        await asyncio.gather(*(deployment.end() for deployment in self._starting))  # a running apply fails
        async with self._apply_lock:
            running, self._deployed = self._deployed.running, _DeployedState(self._deployed.mode)
            for execution in tuple(self._executions):
                execution.fail("the engine was closed")
            for task in self._retiring.values():
                task.cancel()
            await asyncio.gather(*(deployment.end() for deployment in (*running.values(), *self._retiring)))
            if self._processes is not None:
                await self._processes.close()
                self._processes = None

    async def _change(self, desired: DesiredState, stages: Mapping[tuple[str, RouteStage], ReplayStage]) -> None:
        previous = self._deployed
        replicas = {_run_key(desired, target): target.replicas for target in desired.deployments}
        running = {
            key: previous.running.get(key) or self._new_deployment(desired, target)
            for key, target in zip(replicas, desired.deployments, strict=True)
        }
        previous_sizes = {key: deployment.desired_replicas for key, deployment in previous.running.items()}
        self._starting = tuple(running.values())
        try:
            routes = self._compile(desired, running, stages)
            async with asyncio.TaskGroup() as group:
                for key, deployment in running.items():
                    group.create_task(deployment.scale_up(replicas[key]))
        except BaseException as error:  # including cancellation: the previous state must be restored
            for key, deployment in running.items():
                if key in previous_sizes:
                    deployment.scale_down(previous_sizes[key])
                else:
                    self._retire(deployment)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        finally:
            self._starting = ()
        self._deployed = _DeployedState(desired.mode, running, routes, state_fingerprint(desired))
        waits_s = {target.deployment: target.batch_wait_s for target in desired.deployments}
        for key, deployment in running.items():
            deployment.scale_down(replicas[key])
            deployment.dispatcher.set_batch_wait(waits_s[deployment.deployment])
        for key, deployment in previous.running.items():
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
            recording_id = self._recording_ids.setdefault((pipeline, stage), len(self._recording_ids))
            by_deployment[stage.deployment].add_recordings({recording_id: recorded})
        names = {deployment.deployment: deployment.name for deployment in running.values()}
        routes = {}
        for route in desired.routes:
            recordings = {
                stage.operator: self._recording_ids[route.pipeline, stage]
                for stage in route.stages
                if (route.pipeline, stage) in stages
            }
            routes[route.query] = CompiledRoute.compile(route, network, names, recordings)
        return routes

    def _new_deployment(self, desired: DesiredState, target: DesiredDeployment) -> DeploymentRuntime:
        loop = asyncio.get_running_loop()
        if self._processes is None:
            self._processes = ForkServerClient(loop)
        spec = ReplicaSpec(
            name=target.deployment.name,
            replays=desired.mode is Mode.REPLAY,
            uses=target.uses,
            operator_version=target.operator_version,
            knobs=target.deployment.knobs.as_dict(),
            cpus=target.cpus,
            relative_speed=target.relative_speed,
            module_paths=desired.module_paths,
            search_path=tuple(sys.path),
        )
        name = f"{spec.name}#{next(self._numbers)}"
        runtime = DeploymentRuntime(name, target.deployment, spec, loop, self._processes, target.batch_wait_s)
        self._deployments[name] = runtime
        return runtime

    def _retire(self, deployment: DeploymentRuntime) -> None:
        task = asyncio.get_running_loop().create_task(deployment.drain())
        self._retiring[deployment] = task
        task.add_done_callback(partial(self._retired, deployment))

    def _retired(self, deployment: DeploymentRuntime, _: object) -> None:
        del self._retiring[deployment], self._deployments[deployment.name]


def _run_key(desired: DesiredState, target: DesiredDeployment) -> _RunKey:
    """Return a key that is equal for interchangeable replicas."""
    replica_settings = replace(target, replicas=0, memory_bytes=0.0, batch_wait_s=0.0)
    return desired.mode, replica_settings, (desired.module_paths, desired.recordings)
