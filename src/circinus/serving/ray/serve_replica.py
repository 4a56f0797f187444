"""Ray Serve application of one deployment: its replicas."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circinus.operators.host import thread_limits
from circinus.operators.pickling import Payload
from circinus.operators.protocol import Emission
from circinus.serving.ray.settings import REPLICA
from circinus.serving.replicas.compute_executor import ComputeExecutor
from circinus.serving.replicas.replay_executor import ReplayExecutor
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ReplicaSpec
from circinus.serving.settings import SERVING


class OperatorReplica:
    """Replica of one operator. It ends with its process, and Ray Serve starts another."""

    def __init__(self, spec: ReplicaSpec, store: Path | None) -> None:
        """Load the operator.

        Args:
            spec: specification of the replica.
            store: profile store to replay from.

        Raises:
            Exception: any error of the operator while it loads.
        """
        # For libraries that the operator loads; Ray has limited libraries loaded earlier.
        os.environ.update(thread_limits(spec.cpus))
        self._store = store
        self._loaded: set[str] = set()
        self._has_served = False
        self._executor: ComputeExecutor | ReplayExecutor = (
            ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)
        )
        self._ready_s = time.time()

    def ready(self) -> tuple[str, float]:
        """Return the replica's id in Ray Serve, and when it was ready, in seconds since 1970."""
        from ray import serve

        return serve.get_replica_context().replica_id.unique_id, self._ready_s

    def process(
        self, items: Sequence[BatchItem], payloads: Sequence[Payload], limit_s: float | None = None
    ) -> tuple[BatchResult, list[bytes]]:
        """Process a batch; return its result and outputs. End the process after the limit, whatever it waits for."""
        if limit_s is not None:
            limit_s = limit_s if self._has_served else max(limit_s, SERVING.first_batch_limit_s)
            # Neither Python nor the clock of the operator can delay it.
            faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
        try:
            return self._process(items, payloads)
        finally:
            if limit_s is not None:
                faulthandler.cancel_dump_traceback_later()
            self._has_served = True

    def _process(self, items: Sequence[BatchItem], payloads: Sequence[Payload]) -> tuple[BatchResult, list[bytes]]:
        if isinstance(self._executor, ReplayExecutor):
            self._load_recordings(self._executor, items)
        result, outputs = self._executor.answer(Batch(time.monotonic(), tuple(items)), payloads)
        return result, [bytes(output) for output in outputs]

    def _load_recordings(self, executor: ReplayExecutor, items: Sequence[BatchItem]) -> None:
        for name in dict.fromkeys(item.recording for item in items):
            if isinstance(name, str) and name not in self._loaded:
                from circinus.serving.ray.recording_key import RecordingKey

                assert self._store is not None, "a replay has a store"
                executor.add_recordings({name: RecordingKey.read(name).load(self._store)})
                self._loaded.add(name)


def build_replica_application(args: dict[str, Any]) -> Any:
    """Build the application from the arguments that `circinus.serving.ray.serve_config` writes."""
    from ray import serve

    arguments = dict(args["spec"])
    arguments["module_paths"] = tuple(Path(path) for path in arguments["module_paths"])
    if emission := arguments.get("emission"):
        arguments["emission"] = Emission(emission["max_elements"], tuple(emission["branches"]))
    spec = ReplicaSpec(**arguments)
    store = Path(args["store"]) if args.get("store") else None
    # One batch at a time; an operator that fails to load once would fail again.
    deployed = serve.deployment(OperatorReplica, name=REPLICA, max_ongoing_requests=1, max_constructor_retry_count=1)
    return deployed.bind(spec, store)
