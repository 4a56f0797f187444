"""Station of equal servers behind one queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Station:
    """Equal servers behind one FCFS queue: the replicas of a deployment, or one direction of a link.

    A free server takes a batch. If a is the arrival of the oldest waiting request and f that of the request that fills
    the batch, it starts at min(a + wait, f), or later when a server becomes free, with all requests that have arrived.
    """

    name: str
    servers: int
    batch_time_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) time of a batch of 1, 2, ... relative to the mean unbatched time of its requests."""
    batch_wait_s: float = 0.0
    """Maximum wait of the oldest request for its batch to fill."""

    @property
    def batch_size(self) -> int:
        return len(self.batch_time_ratios)
