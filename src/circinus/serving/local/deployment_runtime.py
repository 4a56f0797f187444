"""Runtime of one deployment: a queue of items, and replicas that process batches of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from circinus.errors import ServingError
from circinus.serving.counters import BatchHistory
from circinus.serving.engine import DeploymentStatus
from circinus.serving.local.fork_server_client import ForkServerClient
from circinus.serving.local.replica_handle import ReplicaHandle
from circinus.serving.replicas.batch_queue import BatchQueue, QueuedItem
from circinus.serving.replicas.replica_protocol import ProcessExit, ReplayStage, ReplicaSpec
from circinus.specification import Deployment

MAX_REPLICA_LOSSES = 2
"""Number of replica losses after which an item fails, as it is the likely cause."""

_INITIAL_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0


class DeploymentRuntime:
    """Deployment that keeps the desired number of replicas, and gives them batches of its `BatchQueue`."""

    def __init__(
        self,
        name: str,
        deployment: Deployment,
        spec: ReplicaSpec,
        loop: asyncio.AbstractEventLoop,
        processes: ForkServerClient,
        batch_wait_s: float = 0.0,
    ) -> None:
        self.name = name
        self.deployment = deployment
        self.desired_replicas = 0
        self._spec = spec
        self._loop = loop
        self._processes = processes
        self._stages: dict[int, ReplayStage] = {}
        self._queue = BatchQueue(deployment.allocation.batch_size, batch_wait_s)
        self._timer: asyncio.TimerHandle | None = None
        """Timer of the next batch that an idle replica waits for."""
        self._dispatch_scheduled = False
        self._replicas: list[ReplicaHandle] = []
        self._idle: list[ReplicaHandle] = []
        self._draining: set[ReplicaHandle] = set()
        self._requests = 0
        self._history = BatchHistory()
        self._restarts = 0
        self._starts = 0
        self._total_startup_s = 0.0
        """Total start-up time of the replicas counted in `_starts`."""
        self._message = ""
        self._backoff_s = 0.0
        """Delay of the next replacement, which doubles while replicas end without having processed a batch."""
        self._restore_task: asyncio.Task[None] | None = None
        self._active_requests = 0
        self._no_requests = asyncio.Event()
        self._no_requests.set()

    async def scale_up(self, replicas: int) -> None:
        """Start replicas up to a number, and return when all are ready.

        Raises:
            ServingError: a replica could not be started.
        """
        self.desired_replicas = max(self.desired_replicas, replicas)
        await self._start_missing()

    def scale_down(self, replicas: int) -> None:
        """Drain replicas down to a number; prefer to keep ready, busy and old ones.

        A busy replica ends its batch first.
        """
        self.desired_replicas = replicas
        newest_first = reversed(self._replicas)
        removal_order = sorted(newest_first, key=lambda replica: (replica.is_ready, bool(replica.batch)))
        for replica in removal_order[: max(len(self._replicas) - replicas, 0)]:
            self._replicas.remove(replica)
            self._draining.add(replica)
            if replica in self._idle:
                self._idle.remove(replica)
            replica.drain()

    def set_batch_wait(self, batch_wait_s: float) -> None:
        """Change how long the oldest waiting item waits for its batch to fill."""
        self._queue.batch_wait_s = batch_wait_s
        self._dispatch()

    async def drain(self) -> None:
        """Wait until no request needs the deployment, then end all replicas and wait until they have ended."""
        await self._no_requests.wait()
        await self.end()

    async def end(self) -> None:
        """Fail all items, end all replicas and wait until they have ended."""
        if self._restore_task is not None:
            self._restore_task.cancel()
        self._fail_waiting("the engine was closed")
        for replica in [*self._replicas, *self._draining]:
            batch, replica.batch = replica.batch, []
            for item in batch:
                item.failed("the engine was closed")
            if batch or not replica.is_ready:
                replica.kill()
        self.scale_down(0)
        await asyncio.gather(*(replica.ended() for replica in self._draining))

    def acquire(self) -> None:
        """Register a request that may need this deployment."""
        self._active_requests += 1
        self._no_requests.clear()

    def release(self) -> None:
        """Release the deployment at the end of a registered request."""
        self._active_requests -= 1
        if self._active_requests == 0:
            self._no_requests.set()

    def add_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        """Add recordings for all replicas."""
        self._stages.update(stages)
        for replica in self._replicas:
            replica.send_recordings(stages)

    def enqueue(self, item: QueuedItem) -> None:
        """Insert an item into the queue in order of arrival."""
        self._requests += 1
        self._queue.put(item)
        self._dispatch_arrivals()

    def status(self) -> DeploymentStatus:
        """Return the current status."""
        ready = [replica for replica in self._replicas if replica.is_ready]
        return DeploymentStatus(
            deployment=self.deployment,
            target_replicas=self.desired_replicas,
            replicas_ready=len(ready),
            queue_length=len(self._queue),
            requests=self._requests,
            restarts=self._restarts,
            message=self._message,
            min_batches_served=min((replica.batches_done for replica in ready), default=None),
            startup_s=self._total_startup_s / self._starts if self._starts else None,
            batches=self._history.count,
            recent_batches=self._history.recent,
        )

    def _start(self) -> ReplicaHandle:
        replica = ReplicaHandle(
            self._spec, self._loop, self._processes, self._replica_idle, self._replica_ended, self._history.record
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
        self._idle.append(replica)
        self._dispatch_arrivals()

    def _dispatch_arrivals(self) -> None:
        """Dispatch after all simultaneous arrivals: the outputs of one batch arrive one by one, but may form one batch.

        With a batch size of 1 that is unnecessary, except in a replay, where the item due first must be first.
        """
        if self._spec.replays or self.deployment.allocation.batch_size > 1:
            self._dispatch_soon()
        else:
            self._dispatch()

    def _dispatch_soon(self) -> None:
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Begin every batch that is due, and set the timer of the next one."""
        self._dispatch_scheduled = False
        self._cancel_timer()
        if not self._queue:
            return
        self._idle = [replica for replica in self._idle if replica.reachable]
        while self._idle:
            replica = min(self._idle, key=lambda replica: replica.free_s)
            start_s, now_s = self._queue.next_batch_at_s(replica.free_s), self._loop.time()
            if start_s is None:
                return
            if start_s > now_s:
                self._timer = self._loop.call_at(start_s, self._dispatch)
                return
            self._idle.remove(replica)
            if not self._spec.replays:
                # Computation begins only now. A replay begins at the due time instead, so that the lateness of a busy
                # machine does not accumulate in its queues.
                start_s = now_s
            replica.process(self._queue.take(start_s), start_s)

    def _replica_ended(self, replica: ReplicaHandle, process_exit: ProcessExit) -> None:
        if replica in self._idle:
            self._idle.remove(replica)
        self._draining.discard(replica)
        for item in replica.batch:
            item.replica_losses += process_exit.is_isolated
            if item.replica_losses >= MAX_REPLICA_LOSSES:
                item.failed(
                    f"{MAX_REPLICA_LOSSES} replicas ended while processing it; the last one {process_exit.description}"
                )
        self._queue.put_back(item for item in replica.batch if item.replica_losses < MAX_REPLICA_LOSSES)
        if replica in self._replicas:
            self._replicas.remove(replica)
            if replica.was_ready:
                self._message = f"a replica {process_exit.description}"
                self._restore()
        self._dispatch_soon()  # not now: further replicas may have ended with it

    def _restore(self) -> None:
        if self._restore_task is None or self._restore_task.done():
            self._restore_task = self._loop.create_task(self._replace_missing())

    async def _replace_missing(self) -> None:
        while self.desired_replicas > len(self._replicas):
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(max(2 * self._backoff_s, _INITIAL_BACKOFF_S), _MAX_BACKOFF_S)
            self._restarts += max(self.desired_replicas - len(self._replicas), 0)
            try:
                await self._start_missing()
            except ServingError as error:
                self._message = str(error)
                if not any(replica.is_ready for replica in self._replicas):
                    self._fail_waiting(f"no replica is left, and a replacement could not start: {error}")

    async def _start_missing(self) -> None:
        """Start missing replicas, and wait until all are ready or one has failed."""
        started = [self._start() for _ in range(self.desired_replicas - len(self._replicas))]
        if started:
            ready = [replica.ready for replica in started]
            await asyncio.wait(ready, return_when=asyncio.FIRST_EXCEPTION)
            for error in (future.exception() for future in ready if future.done()):
                if error is not None:
                    raise error

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail_waiting(self, reason: str) -> None:
        self._cancel_timer()
        for item in self._queue.clear():
            item.failed(reason)
