"""Columns of the resource usage arrays that plans are compared by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.settings import RunningLoad
from circinus.specification import DirectedLink, Pool

RESOURCES = ("cpus", "memory", "gpus", "gpu memory")
"""Resources of a node and of a replica, in the order of `Pool.amounts`."""


@dataclass(frozen=True)
class ResourceColumns:
    """Column layout: all amounts of all pools (fully shared, then dedicated), bandwidth of all links, cost (both).

    *Fully shared* counts the exact fraction of replicas that the query occupies at the utilization target, *dedicated*
    (`alone`) the whole replicas that it needs by itself. The CPUs of the pools come first because they discriminate
    best between plans.
    """

    pools: tuple[Pool, ...]
    links: tuple[DirectedLink, ...]
    usable_link_share: float
    running: RunningLoad | None = None
    """Load beside which plans are searched for."""

    @property
    def count(self) -> int:
        return 2 * len(RESOURCES) * len(self.pools) + len(self.links) + 2

    def shared(self, pool: int) -> slice:
        """Return the columns of a pool's amounts, fully shared."""
        return slice(pool, len(RESOURCES) * len(self.pools), len(self.pools))

    def dedicated(self, pool: int) -> slice:
        """Return the columns of a pool's amounts with dedicated replicas."""
        return slice(len(RESOURCES) * len(self.pools) + pool, 2 * len(RESOURCES) * len(self.pools), len(self.pools))

    def link(self, link: int) -> int:
        """Return the column of a link, in bytes per second."""
        return 2 * len(RESOURCES) * len(self.pools) + link

    @property
    def shared_cost(self) -> int:
        """Column of the cost if fully shared, transfers included."""
        return self.count - 2

    @property
    def dedicated_cost(self) -> int:
        """Column of the cost with dedicated replicas, transfers included."""
        return self.count - 1

    @cached_property
    def capacity(self) -> FloatArray:
        """(count,) maximum usage of a single query, less that of a running load.

        It is infinite for columns that only the sum over queries limits.
        """
        capacity = np.full(self.count, np.inf)
        for index, pool in enumerate(self.pools):
            capacity[self.dedicated(index)] = np.multiply(pool.amounts, pool.nodes)
        for index, link in enumerate(self.links):
            capacity[self.link(index)] = self.usable_link_share * link.bandwidth_bytes_per_s
        if self.running is None:
            return capacity
        for index, pool in enumerate(self.pools):
            capacity[self.dedicated(index)] -= self.running.pools.get(pool.name, 0.0)
        for index, link in enumerate(self.links):
            capacity[self.link(index)] -= self.running.links.get(link, 0.0) * link.bandwidth_bytes_per_s
        return np.asarray(np.maximum(capacity, 0.0))
