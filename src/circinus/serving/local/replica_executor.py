"""Executor of a replica's process, and its messages: batches and results as plain tuples in the headers of frames.

Pickling of class names would take most of the time of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from circinus.operators.host import ReplyType
from circinus.operators.pickling import Payload
from circinus.serving.replicas.compute_executor import ComputeExecutor
from circinus.serving.replicas.replay_executor import ReplayExecutor
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult, ReplicaSpec

WireTuple = tuple[Any, ...]


def encode_batch(batch: Batch) -> WireTuple:
    """Encode a batch; the inverse of `decode_batch`."""
    return batch.start_s, [tuple(item) for item in batch.items]


def decode_batch(wire_tuple: WireTuple) -> Batch:
    """Decode a batch; the inverse of `encode_batch`."""
    start_s, items = wire_tuple
    return Batch(start_s, tuple(BatchItem(*item) for item in items))


def encode_result(result: BatchResult) -> WireTuple:
    """Encode a result; the inverse of `decode_result`."""
    return result.end_s, [tuple(item_result) for item_result in result.results], result.earlier


def decode_result(wire_tuple: WireTuple) -> BatchResult:
    """Decode a result; the inverse of `encode_result`."""
    end_s, results, earlier = wire_tuple
    return BatchResult(end_s, [ItemResult(*item_result) for item_result in results], earlier)


class ReplicaExecutor:
    """`Executor` of a replica: computes, or answers from recordings."""

    def __init__(self, spec: ReplicaSpec) -> None:
        """Load the operator, except for a replay.

        Raises:
            OperatorError: see `OperatorHost`.
        """
        self._executor = ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)

    def answer(self, header: Any, payloads: Sequence[Payload]) -> tuple[Any, Sequence[Payload]] | None:
        """See `Executor.answer`. The header is (recordings to add, None) or (None, batch)."""
        recordings, batch = header
        if isinstance(self._executor, ReplayExecutor) and recordings is not None:
            self._executor.add_recordings(recordings)
            return None
        result, outputs = self._executor.answer(decode_batch(batch), payloads)
        return (ReplyType.DONE.value, encode_result(result)), outputs
