"""Messages between the engine and its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from circinus.operators.protocol import ONE, Emission

if TYPE_CHECKING:  # replicas start faster without the specification
    from circinus.specification.base_model import Scalar
    from circinus.specification.dataflow import RunPath


Emitted = tuple[int, float]
"""Index of the branch (`NO_BRANCH` for none) and size in bytes of an output."""


@dataclass(frozen=True)
class ReplicaSpec:
    """Start-up parameters of a replica."""

    name: str
    """Name of the deployment, for messages."""
    replays: bool
    """True for a replica that returns recorded outputs instead of computing."""
    uses: str
    operator_version: str
    """Required version of the operator; empty for any."""
    knobs: Mapping[str, Scalar]
    cpus: float
    relative_speed: float
    module_paths: tuple[Path, ...]
    batch_ratio: tuple[tuple[int, float], ...] = ()
    """Batch time ratios for replays by batch size; empty to use the recorded ones."""
    emission: Emission = ONE
    """What the operator returns for each input."""


@dataclass(frozen=True)
class ReplayRun:
    """Recorded run of one item, or of one of its elements, at one stage."""

    service_s: float
    output_bytes: float
    output: bytes | None
    """Pickled output of a sink; None for other stages."""
    emitted: tuple[Emitted, ...] | None = None
    """Outputs; None for one without a branch."""
    outputs: tuple[bytes, ...] = ()
    """Pickled outputs of a sink, if `emitted` is given."""


@dataclass(frozen=True)
class ReplayStage:
    """Recordings of a stage under one configuration prefix."""

    runs: Mapping[str | tuple[str, RunPath], ReplayRun]
    """Item key, or item key and path of an element -> recording."""
    batch_ratio: Mapping[int, float]
    """Batch size -> time of a full batch over that of a batch of one on the fewest CPUs."""


class BatchItem(NamedTuple):
    """Item of a batch."""

    item_key: str
    inputs: int
    """Number of payloads of the item."""
    recording: int | str | None
    """Id of the `ReplayStage` to answer from."""
    path: RunPath = ()
    """Path of the element; empty for the item itself."""


class Batch(NamedTuple):
    """Items that a replica processes together."""

    start_s: float
    """Start of processing, by the monotonic clock of the machine.

    In a replay it is the due time, when a replica and enough items were available or the oldest had waited long enough;
    a busy machine may notice that only later.
    """
    items: tuple[BatchItem, ...]


class ItemResult(NamedTuple):
    """Result of one item of a batch."""

    error: str
    """Error of the item; empty for success."""
    service_s: float
    """Time for which the whole batch kept its replica; on Ray, that of the operator."""
    busy_s: float
    """Item's share of this time, which is divided evenly."""
    output_bytes: float
    """Size of all outputs of the item."""
    has_payload: bool
    """Whether each output of the item has a payload."""
    emitted: tuple[Emitted, ...] | None = None
    """Outputs of the item; None for one without a branch."""

    @property
    def payloads(self) -> int:
        """Number of payloads of the item."""
        return 0 if not self.has_payload else 1 if self.emitted is None else len(self.emitted)


class BatchResult(NamedTuple):
    """Result of a batch."""

    end_s: float
    """End of the batch by the monotonic clock of the machine; in a replay, the due time of the end."""
    results: list[ItemResult]
    """Results in the order of the items."""
    earlier: int = 0
    """Number of batches that the replica had processed before."""

    def lasting(self, occupied_s: float) -> BatchResult:
        """Return the result with the time for which the batch kept its replica, which includes the engine's own."""
        share_s = occupied_s / max(len(self.results), 1)
        results = [one if one.error else one._replace(service_s=occupied_s, busy_s=share_s) for one in self.results]
        return self._replace(results=results)
