"""The network that an infrastructure's links form: which links a transfer between two sites crosses."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache

from circinus.spec.infrastructure import Infrastructure, Pool


@dataclass(frozen=True, order=True)
class DirectedLink:
    """One direction of a link. Traffic in the two directions does not compete."""

    source: str
    target: str
    bandwidth_bytes_per_s: float
    one_way_s: float
    """Half the round trip."""
    price_usd_per_gb: float

    @property
    def name(self) -> str:
        """A readable name, unique within an infrastructure."""
        return f"{self.source}->{self.target}"


class Network:
    """Shortest paths (by round trip, then by number of links, then by name) between the sites."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        self.infrastructure = infrastructure
        self._outgoing: dict[str, list[DirectedLink]] = {site.name: [] for site in infrastructure.sites}
        for link in infrastructure.links:
            forward, backward = link.bandwidth_bytes_per_s, link.reverse_bandwidth_bytes_per_s
            for source, target, bandwidth in (
                (link.source, link.target, forward),
                (link.target, link.source, forward if backward is None else backward),
            ):
                self._outgoing[source].append(
                    DirectedLink(source, target, bandwidth, link.round_trip_s / 2, link.price_usd_per_gb)
                )
        self._site_of = {pool.name: pool.site for pool in infrastructure.pools}
        self.path = lru_cache(maxsize=None)(self._path)

    @property
    def links(self) -> tuple[DirectedLink, ...]:
        """Both directions of every link."""
        return tuple(link for links in self._outgoing.values() for link in links)

    def site_of(self, pool: str) -> str:
        """The site of the pool called `pool`."""
        return self._site_of[pool]

    def _path(self, source: str, target: str) -> tuple[DirectedLink, ...] | None:
        """The links from one site to another, in order; empty for the same site, None when there is no way."""
        queue: list[tuple[float, int, str, tuple[DirectedLink, ...]]] = [(0.0, 0, source, ())]
        seen: set[str] = set()
        while queue:
            delay_s, hops, site, path = heapq.heappop(queue)
            if site == target:
                return path
            if site in seen:
                continue
            seen.add(site)
            for link in self._outgoing[site]:
                if link.target not in seen:
                    heapq.heappush(queue, (delay_s + link.one_way_s, hops + 1, link.target, (*path, link)))
        return None

    def accessible_pools(self, source: str) -> tuple[Pool, ...]:
        """The pools, with nodes or without, that are open to queries from site `source` and reachable both ways."""
        return tuple(
            pool
            for pool in self.infrastructure.pools
            if (pool.site == source or not pool.is_private())
            and self.path(source, pool.site) is not None
            and self.path(pool.site, source) is not None
        )

    def pools_for(self, source: str) -> tuple[Pool, ...]:
        """The pools that a query from site `source` may use: those open to it that have nodes."""
        return tuple(pool for pool in self.accessible_pools(source) if pool.nodes > 0)
