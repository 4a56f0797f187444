"""A station: equal servers behind one queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Station:
    """Equal servers behind one queue, in order of arrival: the replicas of a deployment, or one direction of a link.

    A server that is free takes a batch: with the oldest waiting request there since a, and the one that fills the
    batch since f, it begins at min(a + wait, f), or when a server is free if that is later, with all that have come.
    """

    name: str
    servers: int
    batch_time_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) seconds of a batch of 1, 2, ... over the mean of what its requests would take alone."""
    batch_wait_s: float = 0.0
    """How long the oldest waiting request may wait for its batch to fill."""

    @property
    def batch_size(self) -> int:
        """Most requests in a batch."""
        return len(self.batch_time_ratios)
