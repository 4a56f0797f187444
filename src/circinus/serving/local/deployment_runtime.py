"""Runtime of one deployment: its replicas, and the dispatcher that gives them batches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path

from circinus.errors import ServingError
from circinus.operators.fork_server_client import ForkServerClient, ProcessExit
from circinus.serving.applications import Application
from circinus.serving.engine import DeploymentStatus
from circinus.serving.local.replica_handle import ReplicaHandle, start_failure
from circinus.serving.replicas.replica_protocol import ReplayStage
from circinus.serving.router.batch_queue import QueuedItem, timeout_reason
from circinus.serving.router.dispatcher import Dispatcher
from circinus.serving.settings import SERVING
from circinus.specification import Deployment


class DeploymentRuntime:
    """Deployment that keeps the desired number of replicas: the `ReplicaSet` of its dispatcher."""

    def __init__(
        self,
        name: str,
        application: Application,
        loop: asyncio.AbstractEventLoop,
        processes: ForkServerClient,
        output: Path | None = None,
        on_presence: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Create a runtime without replicas.

        Args:
            name: name among all runtimes.
            application: the deployment, and start-up parameters of its replicas.
            loop: event loop of all calls.
            processes: client of the fork server.
            output: folder of the operators' output.
            on_presence: called with True when a replica is ready, and with False when the last one has ended.
        """
        self.name = name
        self.desired_replicas = 0
        self._application = application
        self._loop = loop
        self._processes = processes
        self._output = output
        self._on_presence = on_presence
        self._stages: dict[int, ReplayStage] = {}
        target, replays = application.target, application.spec.replays
        batch_size = target.deployment.allocation.batch_size
        self.dispatcher = Dispatcher(self, loop, batch_size, target.batch_wait_s, replays=replays)
        self._replicas: list[ReplicaHandle] = []
        self._idle: list[ReplicaHandle] = []
        self._draining: set[ReplicaHandle] = set()
        self._restarts = 0
        self._timeouts = 0
        self._absent_since_s = 0.0
        """End of the last replica, while there is none."""
        self._starts = 0
        self._total_startup_s = 0.0
        """Total start-up time of the replicas counted in `_starts`."""
        self._message = ""
        self._memory_warning = ""
        self._backoff_s = 0.0
        """Delay of the next replacement, which doubles while replicas end without having processed a batch."""
        self._restore_task: asyncio.Task[None] | None = None

    @property
    def deployment(self) -> Deployment:
        """The deployment, whose utilization target may change."""
        return self._application.target.deployment

    async def scale_up(self, replicas: int) -> None:
        """Start replicas up to a number, and return when all are ready.

        Raises:
            ServingError: a replica could not be started.
        """
        self.desired_replicas = max(self.desired_replicas, replicas)
        await self._start_missing()

    def configure(self, application: Application) -> None:
        """Take over what changes without a restart, from an application with the name of the current one."""
        self._application = application
        self.scale_down(application.target.replicas)
        self.dispatcher.set_batch_wait(application.target.batch_wait_s)

    def scale_down(self, replicas: int) -> None:
        """Drain replicas down to a number; prefer to keep ready, busy and old ones.

        A busy replica ends its batch first.
        """
        self.desired_replicas = replicas
        newest_first = reversed(self._replicas)
        removal_order = sorted(newest_first, key=lambda replica: (replica.is_ready, bool(replica.batch)))
        for replica in removal_order[: max(len(self._replicas) - replicas, 0)]:
            self._remove(replica)

    async def end(self) -> None:
        """Fail all items, end all replicas and wait until they have ended."""
        if self._restore_task is not None:
            self._restore_task.cancel()
        self.dispatcher.fail_waiting("the engine was closed")
        for replica in [*self._replicas, *self._draining]:
            batch, replica.batch = replica.batch, []
            for item in batch:
                item.failed("the engine was closed")
            if batch or not replica.is_ready:
                replica.kill()
        self.scale_down(0)
        await asyncio.gather(*(replica.ended() for replica in self._draining))

    def add_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        """Add recordings for all replicas."""
        self._stages.update(stages)
        for replica in self._replicas:
            replica.send_recordings(stages)

    def idle_since_s(self) -> float | None:
        """Implement `ReplicaSet.idle_since_s`."""
        self._idle = sorted((replica for replica in self._idle if replica.reachable), key=attrgetter("free_s"))
        return self._idle[0].free_s if self._idle else None

    def process(self, batch: list[QueuedItem], start_s: float) -> None:
        """Implement `ReplicaSet.process`."""
        self._idle.pop(0).process(batch, start_s)

    def status(self) -> DeploymentStatus:
        """Return the current status."""
        ready = [replica for replica in self._replicas if replica.is_ready]
        return DeploymentStatus(
            deployment=self.deployment,
            target_replicas=self.desired_replicas,
            replicas_ready=len(ready),
            queue_length=len(self.dispatcher),
            requests=self.dispatcher.requests,
            restarts=self._restarts,
            message="; ".join(filter(None, (self._message, self._memory_warning))),
            min_batches_served=min((replica.batches_done for replica in ready), default=None),
            startup_s=self._total_startup_s / self._starts if self._starts else None,
            batches=self.dispatcher.history.count,
            recent_batches=self.dispatcher.history.recent,
            timeouts=self._timeouts,
        )

    def watch(self, elapsed_s: float) -> None:
        """Replace replicas that hang or whose memory has grown too large.

        Args:
            elapsed_s: time since the last call in which the engine ran.
        """
        target, memory_bytes = self._application.target, 0.0
        for replica in (*self._replicas, *self._draining):
            limit_s = self._limit_s(replica)
            if replica.is_stuck(elapsed_s):
                self._message = "the fork server was replaced, as it did not respond"
                self._processes.kill()  # its replicas end with it, and are replaced
                break
            if replica.is_hung(elapsed_s, limit_s):
                self._end_hung(replica, limit_s)
            elif replica.is_ready and not self._application.spec.replays:
                used_bytes = replica.memory_bytes()
                memory_bytes = max(memory_bytes, used_bytes)
                needed_bytes = max(target.memory_bytes, replica.base_memory_bytes)
                if used_bytes > SERVING.memory_limit * needed_bytes + SERVING.memory_margin_bytes:
                    self._message = f"a replica was replaced because its memory grew to {_mib(used_bytes)}"
                    self._remove(replica)
                    self._restore()
        self._memory_warning = ""
        if memory_bytes > SERVING.memory_warning * target.memory_bytes + SERVING.memory_margin_bytes:
            planned = _mib(target.memory_bytes)
            self._memory_warning = f"a replica uses {_mib(memory_bytes)} of memory, {planned} are planned"

    def _limit_s(self, replica: ReplicaHandle) -> float:
        """Return the time limit of the batch or of the start of a replica."""
        limit_s = self._application.target.batch_limit_s
        if not replica.was_ready:
            return SERVING.start_timeout_s
        if limit_s is None or not replica.batch:
            return math.inf
        return limit_s if replica.batches_done else max(limit_s, SERVING.first_batch_limit_s)

    def _end_hung(self, replica: ReplicaHandle, limit_s: float) -> None:
        if not replica.batch:
            replica.time_out(f"it did not load within {limit_s:g} s")
            return
        self._timeouts += 1
        self._message = f"a replica was replaced because a batch took longer than {limit_s:.3g} s"
        replica.time_out(timeout_reason(len(replica.batch), limit_s))

    def _remove(self, replica: ReplicaHandle) -> None:
        """End a replica after its batch."""
        self._replicas.remove(replica)
        self._draining.add(replica)
        if replica in self._idle:
            self._idle.remove(replica)
        replica.drain()

    def _start(self) -> ReplicaHandle:
        replica = ReplicaHandle(
            self._application.spec,
            self._loop,
            self._processes,
            self._replica_idle,
            self._replica_ended,
            self.dispatcher.history.record,
            self._output,
        )
        if self._stages:
            replica.send_recordings(self._stages)
        self._replicas.append(replica)
        return replica

    def _replica_idle(self, replica: ReplicaHandle) -> None:
        if replica.batches_done:
            self._backoff_s = 0.0
        else:
            self._starts += 1
            self._total_startup_s += replica.startup_s
            self._on_presence(True)
        self._idle.append(replica)
        self.dispatcher.dispatch()

    def _replica_ended(self, replica: ReplicaHandle, process_exit: ProcessExit) -> None:
        if replica in self._idle:
            self._idle.remove(replica)
        self._draining.discard(replica)
        self.dispatcher.put_back(replica.batch, process_exit.description, is_lost=process_exit.is_isolated)
        if replica in self._replicas:
            self._replicas.remove(replica)
            if replica.was_ready:
                if not replica.has_timed_out:
                    self._message = f"a replica {process_exit.description}"
                if not any(other.is_ready for other in self._replicas):
                    self._on_presence(False)
                self._restore()

    def _restore(self) -> None:
        if not any(replica.is_ready for replica in self._replicas):
            self._absent_since_s = self._loop.time()
        if self._restore_task is None or self._restore_task.done():
            self._restore_task = self._loop.create_task(self._replace_missing())

    async def _replace_missing(self) -> None:
        while self.desired_replicas > len(self._replicas):
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(max(2 * self._backoff_s, SERVING.restart_backoff_s), SERVING.max_restart_backoff_s)
            self._restarts += max(self.desired_replicas - len(self._replicas), 0)
            try:
                await self._start_missing()
            except ServingError as error:
                self._message = str(error)
                is_present = any(replica.is_ready for replica in self._replicas)
                if not is_present and self._loop.time() - self._absent_since_s > SERVING.max_absence_s:
                    self.dispatcher.fail_waiting(f"no replica is left, and a replacement could not start: {error}")

    async def _start_missing(self) -> None:
        """Start missing replicas, and wait until all, also those of other calls, are ready or one has failed."""
        if not self._processes.is_running:
            try:
                await asyncio.to_thread(self._processes.start)
            except OSError as cause:
                raise start_failure(self._application.spec.name, cause) from cause
        for _ in range(self.desired_replicas - len(self._replicas)):
            self._start()
        ready = [replica.ready for replica in self._replicas if not replica.ready.done()]
        if ready:
            await asyncio.wait(ready, return_when=asyncio.FIRST_EXCEPTION)
            for error in (future.exception() for future in ready if future.done()):
                if error is not None:
                    raise error


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
