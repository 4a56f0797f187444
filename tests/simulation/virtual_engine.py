"""The local engine's routes, deployments and links on virtual time, with replicas that answer as replaying ones do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import ServingError
from circinus.estimation.latest_start import latest_starts_s
from circinus.operators.fork_server_client import ForkServerClient
from circinus.profiling.item_runs import runs_of_items
from circinus.serving.applications import Application
from circinus.serving.desired_state import build_route
from circinus.serving.engine import DROPPED_LATE, DesiredDeployment
from circinus.serving.local import deployment_runtime as module
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.local.link_emulator import EmulatedRouter
from circinus.serving.replicas.replay_executor import ReplayExecutor, replay_runs
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, ReplayStage, ReplicaSpec
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.simulation import PlannedQuery
from circinus.simulation.model import Requests
from circinus.specification import Deployment, Network
from virtual_time import run


def _no_sleep(seconds: float) -> None:
    """Return at once; a mock for each batch would take most of the time."""


class _Replica:
    """Ready at once; ends a batch when a replaying replica would, and tells in the order of `Replica`."""

    reachable = is_ready = True
    busy_s = 0.0

    def __init__(
        self,
        spec: ReplicaSpec,
        loop: asyncio.AbstractEventLoop,
        _: object,
        on_idle: Callable[..., None],
        __: object,
        on_batch: Callable[..., None],
        ___: object = None,
    ) -> None:
        self._responder, self._loop = ReplayExecutor(spec), loop
        self._on_idle, self._on_batch = on_idle, on_batch
        self.ready = loop.create_future()
        self.batches_done = 0
        self.free_s = self.startup_s = 0.0
        loop.call_soon(self._become_ready)

    def send_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        self._responder.add_recordings(stages)

    def process(self, batch: list[QueuedItem], begin_s: float) -> None:
        items = tuple(BatchItem(work.item_key, 0, work.recording, work.path) for work in batch)
        with mock.patch.object(time, "sleep", new=_no_sleep):
            result, _ = self._responder.answer(Batch(begin_s, items), ())
        self._loop.call_at(result.end_s, self._done, batch, result, begin_s)

    def _become_ready(self) -> None:
        self.ready.set_result(None)
        self._on_idle(self)

    def _done(self, batch: list[QueuedItem], result: Any, begin_s: float) -> None:
        self.free_s = result.end_s
        self.batches_done += 1
        self._on_batch(batch, result, result.end_s - begin_s)
        self._on_idle(self)
        for work, its_result in zip(batch, result.results, strict=True):
            assert not its_result.error
            work.done(its_result, (), result.end_s)


def served(
    planned: Sequence[PlannedQuery],
    requests: Sequence[Requests],
    replicas: Mapping[Deployment, int],
    network: Network,
) -> list[FloatArray]:
    """(requests,) latencies of every query when the engine replays them; infinite for dropped requests."""

    async def serve() -> list[FloatArray]:
        loop = asyncio.get_running_loop()
        running = {}
        for one in planned:
            waits_s = {operator.name: operator.batch_wait_s for operator in one.pipeline.operators}
            for deployment in one.plan.deployments:
                if deployment not in running:
                    running[deployment] = _running(deployment, network, waits_s[deployment.operator])
                    await running[deployment].scale_up(replicas[deployment])
        router = EmulatedRouter(loop)
        router.dispatchers = {deployment.name: runtime.dispatcher for deployment, runtime in running.items()}
        router.routes = {
            one.query.name: [
                replace(_compiled(10 * number + index, part, network, running), part=index, share=share.share)
                for index, (part, share) in enumerate(zip(one.parts, one.plan.parts, strict=True))
            ]
            for number, one in enumerate(planned)
        }

        async def submit(query: str, item: int, input_bytes: float, latency_s: FloatArray, index: int) -> None:
            try:
                latency_s[index] = (await router.submit(query, str(item), None, input_bytes)).timings.latency_s
            except ServingError as error:
                if error.code != DROPPED_LATE:
                    raise

        tasks = []
        latencies = []
        for one, its in zip(planned, requests, strict=True):
            latency_s = np.full(len(its.items), np.inf)
            latencies.append(latency_s)
            for index, (arrival_s, item) in enumerate(zip(its.arrival_s.tolist(), its.items.tolist(), strict=True)):
                arguments = (one.query.name, item, float(one.profile.input_bytes[item]), latency_s, index)
                loop.call_at(arrival_s, lambda *them: tasks.append(loop.create_task(submit(*them))), *arguments)
        await asyncio.sleep(1e6)
        for task in tasks:
            task.result()
        return latencies

    # Simulations know no refusals, which change what is served under overload, but hardly how much.
    accepting = mock.patch.object(EmulatedRouter, "require_admission")
    with mock.patch.object(module, "ReplicaHandle", _Replica), accepting:
        return run(serve())


def _running(deployment: Deployment, network: Network, batch_wait_s: float) -> DeploymentRuntime:
    speed = network.infrastructure.pool(deployment.pool).hardware.speed
    spec = ReplicaSpec(deployment.name, True, "m:f", "", {}, 1.0, speed, (Path(),))
    processes = mock.create_autospec(ForkServerClient)
    target = DesiredDeployment(deployment, "m:f", 1, 1.0, 0.0, speed, batch_wait_s=batch_wait_s)
    application = Application(deployment.name, target, spec)
    return DeploymentRuntime(deployment.name, application, asyncio.get_running_loop(), processes)


def _compiled(
    number: int, planned: PlannedQuery, network: Network, running: Mapping[Deployment, DeploymentRuntime]
) -> CompiledRoute:
    starts_s = latest_starts_s(planned.query, planned.pipeline, planned.plan, planned.profile, network)
    route = build_route(planned.query, planned.plan, planned.pipeline, starts_s)
    recordings = {}
    for index, stage in enumerate(route.stages):
        recordings[stage.operator] = 1000 * number + index
        measured = planned.profile.operators[stage.operator]
        cpus = stage.deployment.allocation.cpus
        runs = {
            (str(item), path) if path else str(item): run
            for item, its_runs in enumerate(
                measured.runs or runs_of_items({}, measured.service_s, measured.output_bytes)
            )
            for path, run in replay_runs(its_runs, None, emits_many=stage.node.emits_many).items()
        }
        ratios = {size: ratio for (its_cpus, size), ratio in measured.batch_ratio.items() if its_cpus == cpus}
        running[stage.deployment].add_recordings({recordings[stage.operator]: ReplayStage(runs, ratios)})
    return CompiledRoute.compile(route, network, {deployment: deployment.name for deployment in running}, recordings)
