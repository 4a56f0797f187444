"""The engine of one machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.errors import ServingError
from circinus.profiling.wire import packed
from circinus.serving.audit_samples import AuditSamples
from circinus.serving.engine import (
    Audits,
    DesiredDeployment,
    DesiredState,
    EngineStatus,
    Mode,
    Request,
    Response,
    RouteStage,
)
from circinus.serving.local.capacity import Machine, check_machine
from circinus.serving.local.deployment import RunningDeployment
from circinus.serving.local.links import LinkEmulator
from circinus.serving.local.processes import ReplicaProcesses
from circinus.serving.local.route import CompiledRoute, Journey
from circinus.serving.packed_response import PackedResponse, unpack
from circinus.serving.query_counts import QueryCounts
from circinus.serving.replicas.messages import Payload, RecordedStage, ReplicaSpec
from circinus.serving.replicas.recorded import recorded_stages
from circinus.serving.state_check import check_state
from circinus.serving.state_file import desired_fingerprint
from circinus.spec import Network

_RunKey = tuple[Mode, DesiredDeployment, tuple[object, ...]]


@dataclass(frozen=True)
class _Force:
    """What is in force."""

    mode: Mode = Mode.REAL
    running: Mapping[_RunKey, RunningDeployment] = field(default_factory=dict)
    routes: Mapping[str, CompiledRoute] = field(default_factory=dict)
    state: str = ""


class LocalEngine:
    """`Engine` on this machine, inside the calling process and its event loop; replicas are processes of their own.

    Links are emulated with shared bandwidth and delay, slower hardware by its relative speed. All calls must come from
    one event loop.
    """

    def __init__(self, machine: Machine | None = None) -> None:
        """An engine that runs nothing yet.

        Args:
            machine: what mode `real` may use; by default this machine.
        """
        self._machine = machine or Machine.here()
        self._force = _Force()
        self._applying = asyncio.Lock()
        self._processes: ReplicaProcesses | None = None
        self._links: LinkEmulator | None = None
        self._starting: tuple[RunningDeployment, ...] = ()
        self._retiring: dict[RunningDeployment, asyncio.Task[None]] = {}
        self._journeys: set[Journey] = set()
        self._recording_ids: dict[tuple[str, RouteStage], int] = {}
        self._counts = QueryCounts()
        self._audits = AuditSamples()
        self._closed = False

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`. Requests under way finish on the route they began on."""
        async with self._applying:
            self._links = self._links or LinkEmulator(asyncio.get_running_loop())
            check_state(desired)
            check_machine(desired, self._machine)
            stages = await asyncio.to_thread(recorded_stages, desired) if desired.mode is Mode.REPLAY else {}
            if self._closed:
                raise ServingError("the engine was closed; start another")
            await self._change(desired, stages)

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`."""
        value = packed(request.value) if self._force.mode is Mode.REAL else None
        answer = await self.submit_packed(request.query, request.item_key, value, request.input_bytes)
        return unpack(answer)

    async def submit_packed(
        self, query: str, item_key: str, value: Payload | None, input_bytes: float
    ) -> PackedResponse:
        """`submit` with the input and the outputs pickled; the input is not looked at by a replaying engine."""
        compiled = self._force.routes.get(query)
        if compiled is None or self._links is None:
            known = ", ".join(self._force.routes) or "none"
            raise ServingError(f"found no route for query {query!r}; queries with a route: {known}")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[PackedResponse] = loop.create_future()

        def on_done(response: PackedResponse) -> None:
            if not answer.done():  # the caller may have given up
                answer.set_result(response)

        def on_failed(reason: str) -> None:
            if not answer.done():
                answer.set_exception(ServingError(reason))

        journey = Journey(compiled, item_key, self._links, loop, on_done, on_failed)
        self._journeys.add(journey)
        self._counts.entered(query)
        value = value if self._force.mode is Mode.REAL else None
        try:
            journey.begin(value, input_bytes)
            found = await answer
            self._counts.answered(query, found.latency_s)
            share = compiled.route.audited_share
            self._audits.answered(query, share, item_key, compiled.configuration, value, found.outputs)
            return found
        except BaseException:  # also being cancelled
            self._counts.failed(query)
            raise
        finally:
            journey.abandon()
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

    async def audits(self) -> Audits:
        """As `Audited.audits`."""
        return self._audits.hand_over()

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

    async def _change(self, desired: DesiredState, stages: Mapping[tuple[str, RouteStage], RecordedStage]) -> None:
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
                    group.create_task(deployment.grow(replicas[key]))
        except BaseException as error:  # whatever it is, also being cancelled: what ran before stays as it was
            for key, deployment in running.items():
                if key in sizes_before:
                    deployment.shrink(sizes_before[key])
                else:
                    self._retire(deployment)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        finally:
            self._starting = ()
        self._force = _Force(desired.mode, running, routes, desired_fingerprint(desired))
        waits_s = {wanted.deployment: wanted.batch_wait_s for wanted in desired.deployments}
        for key, deployment in running.items():
            deployment.shrink(replicas[key])
            deployment.wait_for_batches(waits_s[deployment.deployment])
        for key, deployment in before.running.items():
            if key not in running:
                self._retire(deployment)

    def _compile(
        self,
        desired: DesiredState,
        running: Mapping[_RunKey, RunningDeployment],
        stages: Mapping[tuple[str, RouteStage], RecordedStage],
    ) -> Mapping[str, CompiledRoute]:
        network = Network(desired.infrastructure)
        by_deployment = {deployment.deployment: deployment for deployment in running.values()}
        for (pipeline, stage), recorded in stages.items():
            number = self._recording_ids.setdefault((pipeline, stage), len(self._recording_ids))
            by_deployment[stage.deployment].learn({number: recorded})
        routes = {}
        for route in desired.routes:
            recordings = {
                stage.operator: self._recording_ids[route.pipeline, stage]
                for stage in route.stages
                if (route.pipeline, stage) in stages
            }
            routes[route.query] = CompiledRoute.compile(route, network, by_deployment, recordings)
        return routes

    def _new_deployment(self, desired: DesiredState, wanted: DesiredDeployment) -> RunningDeployment:
        loop = asyncio.get_running_loop()
        if self._processes is None:
            self._processes = ReplicaProcesses(loop)
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
        return RunningDeployment(wanted.deployment, spec, loop, self._processes, wanted.batch_wait_s)

    def _retire(self, deployment: RunningDeployment) -> None:
        task = asyncio.get_running_loop().create_task(deployment.retire())
        self._retiring[deployment] = task
        task.add_done_callback(lambda _: self._retiring.pop(deployment, None))


def _run_key(desired: DesiredState, wanted: DesiredDeployment) -> _RunKey:
    """What replicas have in common that can take each other's place."""
    anything = replace(wanted, replicas=0, memory_bytes=0.0, batch_wait_s=0.0)
    return desired.mode, anything, (desired.module_paths, desired.recordings)
