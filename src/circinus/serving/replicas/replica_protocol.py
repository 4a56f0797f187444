"""What the engine and its replicas say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # replicas need nothing of the specification, and start faster without it
    from circinus.specification.base_model import Scalar


Payload = bytes | bytearray | memoryview
"""A packed value."""


class MessageType(StrEnum):
    """First word of a frame's header."""

    READY = "ready"
    """Replica: the operator is loaded."""
    FAILED = "failed"
    """Replica: it cannot be loaded; the second word says why."""
    RECORDINGS = "recordings"
    """Engine: answer from these (id -> `RecordedStage`) too."""
    WORK = "work"
    """Engine: process this `Batch`; the payloads are the inputs, item by item."""
    DONE = "done"
    """Replica: what became of the batch (a `BatchResult`); the payloads are the outputs."""


@dataclass(frozen=True)
class ReplicaSpec:
    """What a replica's process must know to start."""

    name: str
    """Of the deployment, for messages."""
    replays: bool
    """Whether it answers from recordings instead of computing."""
    uses: str
    operator_version: str
    """Expected of the operator's code; empty: any."""
    knobs: Mapping[str, Scalar]
    cpus: float
    relative_speed: float
    module_paths: tuple[Path, ...]
    search_path: tuple[str, ...]
    """`sys.path` of the engine, so that both find the same modules."""


@dataclass(frozen=True)
class ReplayRun:
    """What was recorded of one item at one stage."""

    service_s: float
    output_bytes: float
    output: bytes | None
    """Packed, where the stage is a sink."""


@dataclass(frozen=True)
class ReplayStage:
    """What was recorded under one prefix."""

    runs: Mapping[str, ReplayRun]
    """By item key."""
    batch_ratio: Mapping[int, float]
    """Batch size -> seconds for a full batch over the seconds of one of its items alone on the fewest CPUs."""


@dataclass(frozen=True)
class ProcessExit:
    """How the process of a replica ended."""

    how: str
    """Reads on from "a replica"."""
    by_itself: bool
    """Whether what it processed may be the reason; not where all replicas ended at once."""


class BatchItem(NamedTuple):
    """One item of a batch."""

    item_key: str
    inputs: int
    """Number of payloads that are its inputs."""
    recording: int | str | None
    """Id of the `RecordedStage` to answer from."""


class Batch(NamedTuple):
    """Items that are processed together."""

    begin_s: float
    """When its processing begins, by the machine's monotonic clock. In a replay that is when a replica and enough items
    were there, or the oldest had waited long enough: a busy machine may notice only later."""
    items: tuple[BatchItem, ...]


class ItemResult(NamedTuple):
    """What became of one item of a batch."""

    error: str
    """Empty where it went well."""
    service_s: float
    """Seconds of the batch in service."""
    busy_s: float
    """This item's even share of them."""
    output_bytes: float
    has_payload: bool


class BatchResult(NamedTuple):
    """What became of a batch."""

    end_s: float
    """When it was done, by the machine's monotonic clock; in a replay, when it would have been."""
    results: list[ItemResult]
    """Item by item."""
    earlier: int = 0
    """Batches that the replica had answered before."""
