"""Infrastructure: sites, tiers, pools of equal nodes, and the links between sites."""

from __future__ import annotations

from pydantic import Field

from circinus.spec.model import Name, SpecModel
from circinus.spec.units import Bytes, BytesPerS, DurationS, UsdPerGb, UsdPerH


class Site(SpecModel):
    """A place where inputs arise or machines stand."""

    name: Name


class HardwareClass(SpecModel):
    """A kind of machine, with its speed relative to the class that was profiled on."""

    name: Name = Field(alias="class")
    relative_speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Service times measured on the profiled class are divided by this."""


class Pool(SpecModel):
    """A set of equal nodes at one site and tier. All amounts are those of one node."""

    name: Name
    site: Name
    tier: Name
    nodes: int = Field(default=1, ge=0)
    cpus: float = Field(gt=0, allow_inf_nan=False)
    memory_bytes: Bytes = Field(alias="memory")
    gpus: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory of one node."""
    hardware: HardwareClass
    price_usd_per_h: UsdPerH = Field(default=0.0, alias="price")
    """Price of one whole node for an hour."""
    private: bool | None = None
    """Whether only queries whose source is this site may run here; by default so on the tier `device`."""

    def serves_only_its_site(self) -> bool:
        """Whether queries from other sites are kept out."""
        return self.tier == "device" if self.private is None else self.private


class Link(SpecModel):
    """A network path between two sites, shared by all traffic between them, with its own bandwidth each way."""

    source: Name = Field(alias="from")
    target: Name = Field(alias="to")
    bandwidth_bytes_per_s: BytesPerS = Field(alias="bandwidth", gt=0)
    """Bandwidth in the direction from -> to."""
    reverse_bandwidth_bytes_per_s: BytesPerS | None = Field(default=None, alias="reverse_bandwidth")
    """Bandwidth in the direction to -> from; by default the same."""
    round_trip_s: DurationS = Field(default=0.0, alias="round_trip")
    price_usd_per_gb: UsdPerGb = Field(default=0.0, alias="price")
    """Price of traffic in either direction."""


class Infrastructure(SpecModel):
    """Everything there is to run on."""

    name: Name
    tiers: tuple[Name, ...] = ("device", "edge", "cloud")
    """The levels, from nearest to the input to farthest."""
    sites: tuple[Site, ...] = Field(min_length=1)
    pools: tuple[Pool, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()

    def pool(self, name: str) -> Pool:
        """The pool called `name`; KeyError when there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)
