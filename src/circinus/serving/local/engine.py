"""Engine of one machine, inside the calling process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count
from pathlib import Path

from circinus.errors import ServingError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.operators.pickling import pickle_value
from circinus.serving.applications import Application, build_applications
from circinus.serving.engine import (
    AuditBatch,
    DesiredState,
    EngineStatus,
    Mode,
    Request,
    Response,
)
from circinus.serving.http_answers import address_text
from circinus.serving.http_requests import HttpRequests
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.local.capacity import MachineCapacity, require_capacity
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.local.http_server import HttpServer
from circinus.serving.local.link_emulator import EmulatedRouter
from circinus.serving.local.replica_executor import ReplicaExecutor
from circinus.serving.replicas.replay_executor import load_replay_stages
from circinus.serving.replicas.replica_protocol import ReplayStage
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.router.request_messages import PickledResponse
from circinus.serving.routes import RouteStage
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_fingerprint, validate_state
from circinus.specification import Deployment, Network


@dataclass(frozen=True)
class _DeployedState:
    """Deployments in use."""

    mode: Mode = Mode.REAL
    running: Mapping[str, DeploymentRuntime] = field(default_factory=dict)
    """Deployments by name of their application."""
    state: str = ""


class LocalEngine:
    """`Engine` on this machine, in the event loop of the calling process; replicas are separate processes.

    Links are emulated with shared bandwidth and delay, slower hardware by its relative speed. All calls must come from
    one event loop.
    """

    def __init__(self, machine: MachineCapacity | None = None, output: Path | None = None) -> None:
        """Create an engine without deployments.

        Args:
            machine: capacity for the mode `real`; by default that of this machine.
            output: folder of the operators' output; by default it goes to the standard error of this process.
        """
        self._output = output
        self._machine = machine or MachineCapacity.of_this_machine()
        self._deployed = _DeployedState()
        self._apply_lock = asyncio.Lock()
        self._processes: ForkServerClient | None = None
        self._starting: tuple[DeploymentRuntime, ...] = ()
        self._retiring: dict[DeploymentRuntime, asyncio.Task[None]] = {}
        self._recording_ids: dict[tuple[str, RouteStage], int] = {}
        self._numbers = count()
        self._http: HttpServer | None = None
        self._http_lock = asyncio.Lock()
        self._stopped_http: dict[HttpServer, asyncio.Task[None]] = {}
        self._closed = False
        self._watch_task: asyncio.Task[None] | None = None

    @cached_property
    def _router(self) -> EmulatedRouter:
        return EmulatedRouter(asyncio.get_running_loop())

    @cached_property
    def _requests(self) -> HttpRequests:
        return HttpRequests(self._router, asyncio.get_running_loop())

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`. Requests in flight finish on the route on which they began."""
        async with self._apply_lock:
            validate_state(desired)
            require_capacity(desired, self._machine)
            stages = await asyncio.to_thread(load_replay_stages, desired) if desired.mode is Mode.REPLAY else {}
            self._require_open()
            await self._change(desired, stages)

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Address (host, port) for requests over HTTP; None if there is none."""
        return None if self._http is None else (self._http.host, self._http.port)

    def require_tokens(self, tokens: HttpTokens) -> None:
        """Require these tokens of requests over HTTP from now on, instead of earlier ones."""
        self._requests.tokens = tokens

    async def listen_http(self, address: tuple[str, int] | None) -> None:
        """Take requests over HTTP at an address (host, port), with port 0 at any free port; None: at none.

        Running requests at the current address finish, up to `drain_timeout_s`.

        Raises:
            ServingError: the engine was closed, or the address cannot be listened at; the current one stays in use.
        """
        async with self._http_lock:
            self._require_open()
            if address is not None and address == self.http_address:
                return
            opened = None
            if address is not None:
                try:
                    opened = await HttpServer.open(self._requests.answer, *address)
                except OSError as error:
                    raise ServingError(
                        f"cannot listen for HTTP requests: {error.strerror or error}",
                        code="engine.http_address",
                        location=address_text(*address),
                        hint="Choose another address with --http, or none with --no-http.",
                    ) from error
            current, self._http = self._http, opened
            if current is not None:
                current.stop()
                task = asyncio.create_task(current.close(SERVING.drain_timeout_s))
                self._stopped_http[current] = task
                task.add_done_callback(lambda _: self._stopped_http.pop(current))

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`."""
        value = pickle_value(request.value) if self._deployed.mode is Mode.REAL else None
        return (await self.submit_pickled(replace(request, value=value))).unpickle()

    async def submit_pickled(self, request: Request) -> PickledResponse:
        """Submit a request with a pickled value. A replaying engine ignores the value."""
        value = request.value if self._deployed.mode is Mode.REAL else None
        return await self._router.submit(
            request.query, request.item_key, value, request.input_bytes, SERVING.default_deadline_s
        )

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`. Deployments that only finish earlier requests are left out."""
        running = tuple(self._deployed.running.values())
        return EngineStatus(
            mode=self._deployed.mode,
            deployments=tuple(runtime.status() for runtime in running),
            starting=tuple(runtime.status() for runtime in self._starting if runtime not in running),
            routes=tuple(query for query, parts in self._router.routes.items() if not parts[0].is_paused),
            state=self._deployed.state,
            queries=self._router.counters.status(),
            splits=self._router.splits(),
            output="" if self._output is None else str(self._output),
            http="" if self.http_address is None else f"http://{address_text(*self.http_address)}",
        )

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits`."""
        return self._router.audits.drain()

    async def close(self) -> None:
        """Implement `Engine.close`. Requests in flight fail."""
        self._closed = True
        async with self._http_lock:
            servers = [*self._stopped_http, *([] if self._http is None else [self._http])]
            self._http = None
        for server in servers:
            server.stop()
        self._fail_requests()  # before their connections end, so that clients over HTTP read why
        closing = (server.close(SERVING.http_close_grace_s) for server in servers)
        await asyncio.gather(*closing, *self._stopped_http.values())
        await asyncio.gather(*(deployment.end() for deployment in self._starting))  # a running apply fails
        async with self._apply_lock:
            running, self._deployed = self._deployed.running, _DeployedState(self._deployed.mode)
            self._fail_requests()
            for task in self._retiring.values():
                task.cancel()
            await asyncio.gather(*(deployment.end() for deployment in (*running.values(), *self._retiring)))
            if self._watch_task is not None:
                self._watch_task.cancel()
            if self._processes is not None:
                await asyncio.to_thread(self._processes.close)
                self._processes = None

    def _fail_requests(self) -> None:
        self._router.fail_requests(None, "the engine was closed")

    def _require_open(self) -> None:
        if self._closed:
            raise ServingError("the engine was closed", code="engine.closed", hint="Start another engine.")

    async def _change(self, desired: DesiredState, stages: Mapping[tuple[str, RouteStage], ReplayStage]) -> None:
        previous = self._deployed
        applications = build_applications(desired, {key: old.deployment for key, old in previous.running.items()})
        running = {app.name: previous.running.get(app.name) or self._new_deployment(app) for app in applications}
        previous_sizes = {key: deployment.desired_replicas for key, deployment in previous.running.items()}
        self._starting = tuple(running.values())
        try:
            by_deployment = {app.target.deployment: running[app.name] for app in applications}
            routes = self._compile(desired, by_deployment, stages)
            async with asyncio.TaskGroup() as group:
                for app in applications:
                    group.create_task(running[app.name].scale_up(app.target.replicas))
            self._require_open()
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
        self._deployed = _DeployedState(desired.mode, running, state_fingerprint(desired))
        self._router.routes = routes
        for app in applications:
            running[app.name].configure(app)
        for key, deployment in previous.running.items():
            if key not in running:
                self._retire(deployment)

    def _compile(
        self,
        desired: DesiredState,
        by_deployment: Mapping[Deployment, DeploymentRuntime],
        stages: Mapping[tuple[str, RouteStage], ReplayStage],
    ) -> Mapping[str, Sequence[CompiledRoute]]:
        network = Network(desired.infrastructure)
        for (pipeline, stage), recorded in stages.items():
            recording_id = self._recording_ids.setdefault((pipeline, stage), len(self._recording_ids))
            by_deployment[stage.deployment].add_recordings({recording_id: recorded})
        names = {deployment: runtime.name for deployment, runtime in by_deployment.items()}
        routes = {}
        for route in desired.routes:
            recordings = [
                {
                    stage.operator: self._recording_ids[route.pipeline, stage.unlimited]
                    for stage in part.stages
                    if (route.pipeline, stage.unlimited) in stages
                }
                for part in route.parts
            ]
            routes[route.query] = [
                CompiledRoute.compile(route, network, names, of_part, part) for part, of_part in enumerate(recordings)
            ]
        return routes

    def _new_deployment(self, application: Application) -> DeploymentRuntime:
        loop = asyncio.get_running_loop()
        if self._processes is None:
            self._processes = ForkServerClient(ReplicaExecutor)
        if self._watch_task is None:
            self._watch_task = loop.create_task(self._watch())
        name = f"{application.name}#{next(self._numbers)}"  # an earlier one may still finish requests
        presence = partial(self._router.set_presence, name)
        runtime = DeploymentRuntime(name, application, loop, self._processes, self._output, presence)
        self._router.dispatchers[name] = runtime.dispatcher
        return runtime

    async def _watch(self) -> None:
        """Watch all replicas until the engine is closed."""
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while True:
            await asyncio.sleep(SERVING.watch_period_s)
            elapsed_s, last_s = loop.time() - last_s, loop.time()
            for runtime in {*self._deployed.running.values(), *self._starting, *self._retiring}:
                runtime.watch(min(elapsed_s, 2 * SERVING.watch_period_s))

    def _retire(self, deployment: DeploymentRuntime) -> None:
        self._retiring[deployment] = asyncio.get_running_loop().create_task(self._drain(deployment))

    async def _drain(self, deployment: DeploymentRuntime) -> None:
        await self._router.drain(deployment.name)
        await deployment.end()
        self._router.set_presence(deployment.name, True)  # forget it
        del self._retiring[deployment], self._router.dispatchers[deployment.name]
