"""The resources that plans are compared by, as columns of an array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circinus.specification import DirectedLink, Pool

FloatArray = NDArray[np.floating]

AMOUNTS = ("cpus", "memory_bytes", "gpus", "gpu_memory_bytes")
"""What a node has and a replica takes."""


@dataclass(frozen=True)
class ResourceColumns:
    """The columns: every amount of every pool, fully shared and alone; every link's bytes a second; cost likewise.

    *Fully shared* counts the exact fraction of replicas that the query keeps at the utilisation target, *alone* the
    whole replicas that it would need by itself. The first columns are the CPUs of the pools: those tell most
    pairs of plans apart.
    """

    pools: tuple[Pool, ...]
    links: tuple[DirectedLink, ...]
    usable_link_share: float

    @property
    def count(self) -> int:
        """Number of columns."""
        return 2 * len(AMOUNTS) * len(self.pools) + len(self.links) + 2

    def shared(self, pool: int) -> slice:
        """The columns of what is taken from a pool, fully shared."""
        return slice(pool, len(AMOUNTS) * len(self.pools), len(self.pools))

    def alone(self, pool: int) -> slice:
        """The columns of what is taken from a pool, alone."""
        return slice(len(AMOUNTS) * len(self.pools) + pool, 2 * len(AMOUNTS) * len(self.pools), len(self.pools))

    def link(self, link: int) -> int:
        """The column of a link: bytes a second."""
        return 2 * len(AMOUNTS) * len(self.pools) + link

    @property
    def shared_cost(self) -> int:
        """The column of the cost fully shared, transfers included."""
        return self.count - 2

    @property
    def alone_cost(self) -> int:
        """The column of the cost alone, transfers included."""
        return self.count - 1

    @cached_property
    def capacity(self) -> FloatArray:
        """(count,) the most that a single query can take; infinite where only other queries would set a limit."""
        capacity = np.full(self.count, np.inf)
        for index, pool in enumerate(self.pools):
            node = [pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes]
            capacity[self.alone(index)] = np.multiply(node, pool.nodes)
        for index, link in enumerate(self.links):
            capacity[self.link(index)] = self.usable_link_share * link.bandwidth_bytes_per_s
        return capacity
