"""One deployment: a queue in order of arrival, and replicas that take batches from it when they are free."""

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
"""An item that this many replicas ended with is given up: it may well be what ends them."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


class DeploymentRuntime:
    """Keeps as many replicas as are wanted, and gives them what waits, batch by batch (`BatchQueue` says when)."""

    def __init__(
        self,
        deployment: Deployment,
        spec: ReplicaSpec,
        loop: asyncio.AbstractEventLoop,
        processes: ForkServerClient,
        batch_wait_s: float = 0.0,
    ) -> None:
        self.deployment = deployment
        self.wanted = 0
        self._spec = spec
        self._loop = loop
        self._processes = processes
        self._stages: dict[int, ReplayStage] = {}
        self._queue = BatchQueue(deployment.allocation.batch_size, batch_wait_s)
        self._alarm: asyncio.TimerHandle | None = None
        """Rings when the batch that a free replica waits for begins."""
        self._dispatches_soon = False
        self._replicas: list[ReplicaHandle] = []
        self._idle: list[ReplicaHandle] = []
        self._leaving: set[ReplicaHandle] = set()
        self._requests = 0
        self._served = BatchHistory()
        self._restarts = 0
        self._starts = 0
        self._starting_s = 0.0
        """Seconds that so many replicas took until they could take work, together."""
        self._message = ""
        self._pause_s = 0.0
        """Before the next replacement; grows as long as replicas end without having done anything."""
        self._restoring: asyncio.Task[None] | None = None
        self._journeys = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def scale_up(self, replicas: int) -> None:
        """Start what is missing to `replicas`, and return when all are ready.

        Raises:
            ServingError: one could not be started.
        """
        self.wanted = max(self.wanted, replicas)
        await self._start_missing()

    def scale_down(self, replicas: int) -> None:
        """Keep no more than `replicas`: rather ready, busy and old ones. A busy one that goes ends its batch first."""
        self.wanted = replicas
        newest_first = reversed(self._replicas)
        least_needed_first = sorted(newest_first, key=lambda replica: (replica.is_ready, bool(replica.batch)))
        for replica in least_needed_first[: max(len(self._replicas) - replicas, 0)]:
            self._replicas.remove(replica)
            self._leaving.add(replica)
            if replica in self._idle:
                self._idle.remove(replica)
            replica.drain()

    def set_batch_wait(self, batch_wait_s: float) -> None:
        """From now on the oldest waiting item may wait this long for its batch to fill."""
        self._queue.batch_wait_s = batch_wait_s
        self._dispatch()

    async def drain(self) -> None:
        """When no request needs it any more, end all replicas and wait until they have ended."""
        await self._unused.wait()
        await self.end()

    async def end(self) -> None:
        """Give up what waits or is being processed, end all replicas and wait until they have ended."""
        if self._restoring is not None:
            self._restoring.cancel()
        self._give_up("the engine was closed")
        for replica in [*self._replicas, *self._leaving]:
            batch, replica.batch = replica.batch, []
            for work in batch:
                work.failed("the engine was closed")
            if batch or not replica.is_ready:
                replica.kill()
        self.scale_down(0)
        await asyncio.gather(*(replica.ended() for replica in self._leaving))

    def acquire(self) -> None:
        """A request that may need this deployment is on its way."""
        self._journeys += 1
        self._unused.clear()

    def release(self) -> None:
        """Such a request is over."""
        self._journeys -= 1
        if self._journeys == 0:
            self._unused.set()

    def add_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        """Let the replicas answer from `stages` too."""
        self._stages.update(stages)
        for replica in self._replicas:
            replica.send_recordings(stages)

    def enqueue(self, work: QueuedItem) -> None:
        """Put an item into the queue, which is in order of when items were due."""
        self._requests += 1
        self._queue.put(work)
        self._dispatch_all_together()

    def status(self) -> DeploymentStatus:
        """As it is now."""
        ready = [replica for replica in self._replicas if replica.is_ready]
        return DeploymentStatus(
            deployment=self.deployment,
            replicas_wanted=self.wanted,
            replicas_ready=len(ready),
            queue_length=len(self._queue),
            requests=self._requests,
            restarts=self._restarts,
            message=self._message,
            min_batches_served=min((replica.batches_done for replica in ready), default=None),
            startup_s=self._starting_s / self._starts if self._starts else None,
            batches=self._served.count,
            recent_batches=self._served.recent,
        )

    def _start(self) -> ReplicaHandle:
        replica = ReplicaHandle(
            self._spec, self._loop, self._processes, self._replica_idle, self._replica_ended, self._served.record
        )
        if self._stages:
            replica.send_recordings(self._stages)
        self._replicas.append(replica)
        return replica

    def _replica_idle(self, replica: ReplicaHandle) -> None:
        if replica.batches_done:
            self._pause_s = 0.0
        else:
            self._starts += 1
            self._starting_s += replica.startup_s
        self._idle.append(replica)
        self._dispatch_all_together()

    def _dispatch_all_together(self) -> None:
        """When all is there that comes now: the outputs of one batch come one after the other, but may go together.

        Nothing goes together in batches of one. A replay waits all the same: of what comes now, what was due first is
        first.
        """
        if self._spec.replays or self.deployment.allocation.batch_size > 1:
            self._dispatch_soon()
        else:
            self._dispatch()

    def _dispatch_soon(self) -> None:
        if not self._dispatches_soon:
            self._dispatches_soon = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Begin every batch whose time has come, and wake up when that of the next one comes."""
        self._dispatches_soon = False
        self._cancel_alarm()
        if not self._queue:
            return
        self._idle = [replica for replica in self._idle if replica.reachable]
        while self._idle:
            replica = min(self._idle, key=lambda replica: replica.free_s)
            begin_s, now_s = self._queue.next_batch_at_s(replica.free_s), self._loop.time()
            if begin_s is None:
                return
            if begin_s > now_s:
                self._alarm = self._loop.call_at(begin_s, self._dispatch)
                return
            self._idle.remove(replica)
            if not self._spec.replays:
                # A replay goes by when replica and items were there, not by when that was noticed: then the lateness
                # of a busy machine does not add up in its queues. What computes begins only now.
                begin_s = now_s
            replica.process(self._queue.take(begin_s), begin_s)

    def _replica_ended(self, replica: ReplicaHandle, ending: ProcessExit) -> None:
        if replica in self._idle:
            self._idle.remove(replica)
        self._leaving.discard(replica)
        for work in replica.batch:
            work.replica_losses += ending.by_itself
            if work.replica_losses >= MAX_REPLICA_LOSSES:
                work.failed(f"{MAX_REPLICA_LOSSES} replicas ended while they processed it; the last one {ending.how}")
        self._queue.put_back(work for work in replica.batch if work.replica_losses < MAX_REPLICA_LOSSES)
        if replica in self._replicas:
            self._replicas.remove(replica)
            if replica.was_ready:
                self._message = f"a replica {ending.how}"
                self._restore()
        self._dispatch_soon()  # not at once: others may be found to have ended with it

    def _restore(self) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = self._loop.create_task(self._replace_missing())

    async def _replace_missing(self) -> None:
        while self.wanted > len(self._replicas):
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self._restarts += max(self.wanted - len(self._replicas), 0)
            try:
                await self._start_missing()
            except ServingError as error:
                self._message = str(error)
                if not any(replica.is_ready for replica in self._replicas):
                    self._give_up(f"no replica is left, and a new one does not start: {error}")

    async def _start_missing(self) -> None:
        """Start what is missing to `wanted` and wait until all of it is ready, or one is not going to be."""
        started = [self._start() for _ in range(self.wanted - len(self._replicas))]
        if started:
            ready = [replica.ready for replica in started]
            await asyncio.wait(ready, return_when=asyncio.FIRST_EXCEPTION)
            for error in (future.exception() for future in ready if future.done()):
                if error is not None:
                    raise error

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _give_up(self, reason: str) -> None:
        self._cancel_alarm()
        for work in self._queue.clear():
            work.failed(reason)
