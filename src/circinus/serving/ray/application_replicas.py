"""Replicas of one application of Ray Serve, as many as it has concurrent batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Protocol

from circinus.errors import CircinusError
from circinus.operators.pickling import Payload
from circinus.serving.engine import TIMED_OUT, DeploymentStatus, DesiredDeployment
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult
from circinus.serving.router.batch_queue import QueuedItem, end_batch, timeout_reason
from circinus.serving.router.dispatcher import Dispatcher


class ReplicaLostError(CircinusError):
    """Replica that ended or became unreachable while it had a batch."""


class ReplicaClient(Protocol):
    """Transport of batches to replicas."""

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload], limit_s: float | None
    ) -> tuple[BatchResult, Sequence[Payload]]:
        """Process a batch on a free replica of an application; payloads are the inputs in the order of items.

        The replica ends if it takes longer than the limit.

        Raises:
            ReplicaLostError: the replica was lost while it had the batch.
        """
        ...


class ApplicationReplicas:
    """`ReplicaSet` of an application, among whose replicas Ray Serve chooses."""

    def __init__(
        self, application: str, target: DesiredDeployment, client: ReplicaClient, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.dispatcher = Dispatcher(self, loop, target.deployment.allocation.batch_size, target.batch_wait_s)
        self._target = target
        self._application = application
        self._client = client
        self._loop = loop
        self._losses = 0
        self._timeouts = 0
        self._last_loss = ""
        self._batches: set[asyncio.Task[None]] = set()

    @property
    def is_unused(self) -> bool:
        """True if no item is queued or in service."""
        return not self._batches and not len(self.dispatcher)

    def configure(self, target: DesiredDeployment) -> None:
        """Change the number of replicas, and how long the oldest item waits for its batch to fill."""
        self._target = target
        self.dispatcher.set_batch_wait(target.batch_wait_s)

    def status(self) -> DeploymentStatus:
        """Return the status, without what only Ray Serve knows."""
        return DeploymentStatus(
            deployment=self._target.deployment,
            target_replicas=self._target.replicas,
            replicas_ready=0,
            queue_length=len(self.dispatcher),
            requests=self.dispatcher.requests,
            restarts=self._losses,
            message=self._last_loss,
            batches=self.dispatcher.history.count,
            recent_batches=self.dispatcher.history.recent,
            timeouts=self._timeouts,
        )

    @property
    def desired_replicas(self) -> int:
        """Number of replicas, of which some may start."""
        return self._target.replicas

    def idle_since_s(self) -> float | None:
        """Implement `ReplicaSet.idle_since_s`: any replica may be the next one, so it counts as always idle."""
        return 0.0 if len(self._batches) < self._target.replicas else None

    def process(self, batch: list[QueuedItem], start_s: float) -> None:
        """Implement `ReplicaSet.process`."""
        # Own context: Ray Serve cancels tasks that were created in the context of a disconnected request.
        task = self._loop.create_task(self._process(batch), context=Context())
        self._batches.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self.dispatcher.dispatch()
        if not task.cancelled():
            task.result()  # reports a bug instead of hiding it

    async def _process(self, batch: list[QueuedItem]) -> None:
        items = [item.batch_item for item in batch]
        payloads = [value for item in batch for value in item.inputs]
        begin_s, limit_s = self._loop.time(), self._target.batch_limit_s  # Serve does not tell when a replica begins
        try:
            result, outputs = await self._client.process(self._application, items, payloads, limit_s)
        except ReplicaLostError as error:
            self._losses += 1
            if limit_s is not None and self._loop.time() - begin_s >= limit_s:
                self._timeouts += 1
                self._last_loss = f"a replica was replaced because a batch took longer than {limit_s:.3g} s"
                for item in batch:
                    item.failed(timeout_reason(len(batch), limit_s), TIMED_OUT)
                return
            self._last_loss = f"a replica was lost: {error}"
            self.dispatcher.put_back(batch, f"was lost: {error}", is_lost=True)
        except asyncio.CancelledError:
            self.dispatcher.put_back(batch)
            raise
        except Exception as error:  # any failure must fail the requests; otherwise their callers wait forever
            for item in batch:
                item.failed(f"{type(error).__name__}: {error}")
        else:
            end_s = self._loop.time()
            self.dispatcher.history.record(batch, result, end_s - begin_s)
            end_batch(batch, result, outputs, end_s)
