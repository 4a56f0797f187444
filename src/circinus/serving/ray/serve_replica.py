"""The application of one deployment: its replicas."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circinus.profiling.measurement.thread_limits import thread_limits
from circinus.serving.ray.recording_key import RecordingKey
from circinus.serving.ray.settings import REPLICA
from circinus.serving.replicas.compute_executor import ComputeExecutor
from circinus.serving.replicas.replay_executor import ReplayExecutor
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, Payload, ReplicaSpec


class OperatorReplica:
    """One replica. Its process dies with it, and Ray Serve starts another."""

    def __init__(self, spec: ReplicaSpec, store: Path | None) -> None:
        """Load the operator.

        Args:
            spec: what it runs.
            store: the profile store that it answers from in a replay.

        Raises:
            Exception: whatever the operator raises while it loads.
        """
        os.environ.update(thread_limits(spec.cpus))  # for what the operator loads; Ray limited what is there already
        self._store = store
        self._known: set[str] = set()
        self._responder: ComputeExecutor | ReplayExecutor = (
            ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)
        )
        self._ready_s = time.time()

    def ready(self) -> tuple[str, float]:
        """What Ray Serve calls it, and since when it could take work, in seconds since 1970."""
        from ray import serve

        return serve.get_replica_context().replica_id.unique_id, self._ready_s

    def process(self, items: Sequence[BatchItem], payloads: Sequence[Payload]) -> tuple[BatchResult, list[bytes]]:
        """What became of a batch, and its outputs."""
        if isinstance(self._responder, ReplayExecutor):
            self._learn(self._responder, items)
        result, outputs = self._responder.answer(Batch(time.monotonic(), tuple(items)), payloads)
        return result, [bytes(output) for output in outputs]

    def _learn(self, responder: ReplayExecutor, items: Sequence[BatchItem]) -> None:
        for name in dict.fromkeys(item.recording for item in items):
            if isinstance(name, str) and name not in self._known:
                assert self._store is not None, "a replay names its store"
                responder.add_recordings({name: RecordingKey.read(name).load(self._store)})
                self._known.add(name)


def build_replica_application(args: dict[str, Any]) -> Any:
    """What Ray Serve builds from the arguments that `circinus.serving.ray.serve_config` writes."""
    from ray import serve

    told = dict(args["spec"])
    told["module_paths"] = tuple(Path(path) for path in told["module_paths"])
    spec = ReplicaSpec(**told, search_path=())
    store = Path(args["store"]) if args.get("store") else None
    # A batch at a time; and whoever cannot load its operator once will not at the twentieth time.
    deployed = serve.deployment(OperatorReplica, name=REPLICA, max_ongoing_requests=1, max_constructor_retry_count=1)
    return deployed.bind(spec, store)
