"""Encoding of batches and results as plain tuples for the headers of frames.

Pickling of class names would take most of the time of a message.
"""

from __future__ import annotations

from typing import Any

from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult

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
