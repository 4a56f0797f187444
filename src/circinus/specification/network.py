"""Network of an infrastructure: directions of its links, and shortest paths between its sites."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from circinus.specification.infrastructure import AllowedTraffic, Infrastructure, Link, Pool


@dataclass(frozen=True, order=True)
class DirectedLink:
    """Direction of a link. Traffic in opposite directions does not compete."""

    source: str
    target: str
    bandwidth_bytes_per_s: float
    one_way_s: float
    """Half of the round-trip time."""
    price_usd_per_gb: float
    allowed_traffic: AllowedTraffic = "all"

    def allows(self, *, results: bool) -> bool:
        """Return whether results of pipelines, or inputs and intermediate values, may cross."""
        return self.allowed_traffic == "all" or (results and self.allowed_traffic == "results")

    @property
    def name(self) -> str:
        """Readable name, unique within an infrastructure."""
        return f"{self.source}->{self.target}"


def _directions(link: Link) -> tuple[DirectedLink, DirectedLink]:
    """Return the directions of a link: from the first to the second site, and back."""
    bandwidth, price = link.reverse_bandwidth_bytes_per_s, link.reverse_price_usd_per_gb
    one_way_s = link.round_trip_s / 2
    forward = link.bandwidth_bytes_per_s, one_way_s, link.price_usd_per_gb, link.allowed_traffic
    backward = (
        link.bandwidth_bytes_per_s if bandwidth is None else bandwidth,
        one_way_s,
        link.price_usd_per_gb if price is None else price,
        link.reverse_allowed_traffic,
    )
    return DirectedLink(link.source, link.target, *forward), DirectedLink(link.target, link.source, *backward)


class Network:
    """Shortest paths (by round trip, then by number of links, then by name) between the sites."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        self.infrastructure = infrastructure
        self._outgoing: dict[str, list[DirectedLink]] = {site.name: [] for site in infrastructure.sites}
        for link in infrastructure.links:
            for direction in _directions(link):
                self._outgoing[direction.source].append(direction)
        self._site_of = {pool.name: pool.site for pool in infrastructure.pools}
        self._has_result_links = any(link.allowed_traffic == "results" for link in self.links)
        self.path = lru_cache(maxsize=None)(self._path)
        self._last_links = lru_cache(maxsize=None)(self._search)
        self.accessible_pools = lru_cache(maxsize=None)(self._accessible_pools)

    @property
    def links(self) -> tuple[DirectedLink, ...]:
        """All links, one for each direction."""
        return tuple(link for links in self._outgoing.values() for link in links)

    def site_of(self, pool: str) -> str:
        """Return the site of `pool`."""
        return self._site_of[pool]

    def _path(self, source: str, target: str, *, results: bool = False) -> tuple[DirectedLink, ...] | None:
        """Return the links from one site to another in order (empty for equal sites), or None if there is no path.

        Args:
            source: first site.
            target: last site.
            results: whether results of pipelines cross, rather than inputs and intermediate values.
        """
        last_links, links = self._last_links(source, results and self._has_result_links), list[DirectedLink]()
        if target not in last_links:
            return None
        while (link := last_links[target]) is not None:
            links.append(link)
            target = link.source
        return tuple(reversed(links))

    def _search(self, source: str, results: bool) -> Mapping[str, DirectedLink | None]:
        """Return each reachable site with the last link of the path to it, which is None for the source."""
        queue: list[tuple[float, int, str, tuple[DirectedLink, ...]]] = [(0.0, 0, source, ())]
        last_links: dict[str, DirectedLink | None] = {}
        while queue:
            delay_s, hops, site, path = heapq.heappop(queue)
            if site in last_links:
                continue
            last_links[site] = path[-1] if path else None
            for link in self._outgoing[site]:
                if link.target not in last_links and link.allows(results=results):
                    heapq.heappush(queue, (delay_s + link.one_way_s, hops + 1, link.target, (*path, link)))
        return last_links

    def _accessible_pools(self, source: str) -> tuple[Pool, ...]:
        """Return the pools, with or without nodes, that queries from `source` may use, reach, and get results from."""
        return tuple(
            pool
            for pool in self.infrastructure.pools
            if (pool.site == source or not pool.is_private())
            and pool.site in self._last_links(source, False)
            and source in self._last_links(pool.site, self._has_result_links)
        )

    def pools_for(self, source: str) -> tuple[Pool, ...]:
        """Return the accessible pools of queries from `source` that have nodes."""
        return tuple(pool for pool in self.accessible_pools(source) if pool.nodes > 0)
