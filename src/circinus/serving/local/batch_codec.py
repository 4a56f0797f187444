"""Batches and their results as plain tuples, as which they travel in the headers of frames.

Pickled as they are, the names of their types would take much of the time of a hop to write and to look up.
"""

from __future__ import annotations

from typing import Any

from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult

Plain = tuple[Any, ...]


def encode_batch(batch: Batch) -> Plain:
    """What `batch_of` makes a batch again."""
    return batch.begin_s, [tuple(item) for item in batch.items]


def decode_batch(plain: Plain) -> Batch:
    """What `plain_batch` was given."""
    begin_s, items = plain
    return Batch(begin_s, tuple(BatchItem(*item) for item in items))


def encode_result(result: BatchResult) -> Plain:
    """What `result_of` makes a result again."""
    return result.end_s, [tuple(its_result) for its_result in result.results], result.earlier


def decode_result(plain: Plain) -> BatchResult:
    """What `plain_result` was given."""
    end_s, results, earlier = plain
    return BatchResult(end_s, [ItemResult(*its_result) for its_result in results], earlier)
