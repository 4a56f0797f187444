"""Infrastructure: sites, tiers, pools of equal nodes, and the links between sites."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from circinus.specification.base_model import Count, Flag, Name, Number, SpecModel
from circinus.specification.diagnostics import Issue, describe, issue_error
from circinus.specification.document_validators import validate_topology
from circinus.specification.shorthands import KeyedByName, OneOrMany, require_unique
from circinus.specification.slo import Score
from circinus.specification.units import Bytes, BytesPerS, DurationS, UsdPerGb, UsdPerH


class Site(SpecModel):
    """A place where inputs arise or machines stand. Its name alone may be written."""

    name: Name

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        return {"name": given} if isinstance(given, str) else given


LOCAL_CLASS = "local"
"""The hardware class of the machine that profiles; its speed is 1 by definition."""


def _bounds(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise issue_error(describe(value), "the least and the greatest speed, such as [0.4, 0.5]")
    return value


class HardwareClass(SpecModel):
    """A kind of machine, with its speed relative to the class that was profiled on."""

    name: Name = Field(alias="class")
    """What the kind is called; `local` is the machine that profiles."""
    relative_speed: Annotated[Number, Field(gt=0)] | None = None
    """Service times measured on the profiled class are divided by this. Every class but `local` has to say it: a guess
    would turn into promises."""
    relative_speed_bounds: Annotated[tuple[Number, Number], BeforeValidator(_bounds)] | None = None
    """Between which two the speed surely is, where it is not known exactly; promises are made with the lower."""

    @property
    def speed(self) -> float:
        """The relative speed, as well as it is known."""
        return 1.0 if self.relative_speed is None else self.relative_speed

    @property
    def guaranteed_speed(self) -> float:
        """The relative speed that it surely has."""
        return self.speed if self.relative_speed_bounds is None else self.relative_speed_bounds[0]

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if not isinstance(content, HardwareClass):
            return
        if content.name == LOCAL_CLASS and content.relative_speed not in (None, 1.0):
            found, expected = f"{content.relative_speed:g}", "1, as this is the machine that profiles"
            yield Issue(("relative_speed",), found, expected, "give the class another name")
        elif content.relative_speed is None and content.name != LOCAL_CLASS:
            yield Issue(
                ("relative_speed",),
                "nothing",
                f"how fast {content.name} is, where the machine that profiles is 1",
                f"measure it there (circinus profile --calibrate), or call the class {LOCAL_CLASS}",
            )
        elif content.relative_speed_bounds is not None:
            least, greatest = content.relative_speed_bounds
            if not 0 < least <= content.speed <= greatest:
                expected = f"two numbers above 0 with the relative speed {content.speed:g} between them"
                yield Issue(("relative_speed_bounds",), f"[{least:g}, {greatest:g}]", expected)


class Pool(SpecModel):
    """A set of equal nodes at one site and tier. All amounts are those of one node."""

    name: Name
    site: Name
    """Where the nodes stand."""
    tier: Name
    """The level they belong to."""
    nodes: Count = Field(default=1, ge=0)
    """Number of nodes."""
    cpus: Number = Field(gt=0)
    """CPUs of one node."""
    memory_bytes: Bytes = Field(alias="memory", gt=0)
    """Memory of one node."""
    gpus: Number = Field(default=0.0, ge=0)
    """GPUs of one node."""
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory of one node."""
    hardware: HardwareClass
    price_usd_per_h: UsdPerH = Field(default=0.0, alias="price")
    """Price of one whole node for an hour."""
    headroom: Score = Field(default=0.0, ge=0, lt=1)
    """Share of all CPUs, memory and GPUs of the pool that plans leave free."""
    private: Flag | None = None
    """Whether only queries whose source is this site may run here; by default so on the tier `device`."""

    def is_private(self) -> bool:
        """Whether queries from other sites are kept out."""
        return self.tier == "device" if self.private is None else self.private


class Link(SpecModel):
    """A network path between two sites, shared by all traffic between them, with its own bandwidth each way."""

    source: Name = Field(alias="from")
    """One of the two sites."""
    target: Name = Field(alias="to")
    """The other site."""
    bandwidth_bytes_per_s: BytesPerS = Field(alias="bandwidth", gt=0)
    """Bandwidth in the direction from -> to."""
    reverse_bandwidth_bytes_per_s: Annotated[BytesPerS, Field(gt=0)] | None = Field(
        default=None, alias="reverse_bandwidth"
    )
    """Bandwidth in the direction to -> from; by default the same."""
    round_trip_s: DurationS = Field(default=0.0, alias="round_trip")
    """Time for a small packet there and back."""
    price_usd_per_gb: UsdPerGb = Field(default=0.0, alias="price")
    """Price of traffic in either direction."""


class Tenant(SpecModel):
    """Who shares the infrastructure, and what they are promised of it."""

    name: Name
    at_least: Score = Field(default=0.0, ge=0, le=1)
    """Share of the weight of the tenant's queries that is served before anybody else's, as far as it can be."""


class Infrastructure(SpecModel):
    """Everything there is to run on."""

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    tiers: Annotated[tuple[Name, ...], AfterValidator(require_unique("tier")), OneOrMany()] = Field(
        default=("device", "edge", "cloud"), min_length=1
    )
    """The levels, from nearest to the input to farthest."""
    sites: tuple[Site, ...] = Field(min_length=1)
    """The places."""
    pools: tuple[Pool, ...] = Field(min_length=1)
    """The machines."""
    links: tuple[Link, ...] = ()
    """The network between the places; a transfer takes the quickest way over them."""
    tenants: Annotated[tuple[Tenant, ...], KeyedByName(main="at_least")] = ()
    """Who shares it; in YAML a mapping from the tenant's name to the share that is promised, or a list."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_topology(content, default_tiers=cls.model_fields["tiers"].default)

    def pool(self, name: str) -> Pool:
        """The pool called `name`; KeyError when there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)


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
