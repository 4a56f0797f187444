"""Names, addresses and routes of the namespaces of an infrastructure's sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circinus.specification import DirectedLink, Infrastructure, Network

MTU_BYTES = 9000
"""MTU of links: fewer and larger packets are less work for a relay in Python."""


@dataclass(frozen=True)
class LinkEnd:
    """Device where packets enter one direction of a link."""

    device: str
    namespace: str
    link: DirectedLink


@dataclass(frozen=True)
class SiteRoute:
    """Device through which packets from one site to another leave."""

    namespace: str
    device: str
    to_address: str


@dataclass(frozen=True)
class AddressPlan:
    """Names and addresses of a network, which are not created by the plan."""

    namespaces: Mapping[str, str]
    """Site -> its namespace."""
    addresses: Mapping[str, str]
    """Site -> its address, valid at all sites."""
    ends: tuple[tuple[LinkEnd, LinkEnd], ...]
    """Both ends of every link."""
    routes: tuple[SiteRoute, ...]

    @classmethod
    def of(cls, infrastructure: Infrastructure, prefix: str) -> AddressPlan:
        """Plan a namespace for each site, a pair of devices for each link, and routes along the paths of plans.

        Args:
            infrastructure: at most 250 sites.
            prefix: prefix of all names, at most 9 characters, unique on this machine.

        Raises:
            ValueError: there are too many sites, or the prefix is too long.
        """
        sites = [site.name for site in infrastructure.sites]
        if len(sites) > 250 or len(prefix) > 9:
            raise ValueError(
                f"at most 250 sites and a prefix of 9 characters are possible, got {len(sites)} and {prefix!r}"
            )
        namespaces = {site: f"{prefix}-{site}" for site in sites}
        addresses = {site: f"10.77.{number}.1" for number, site in enumerate(sites, start=1)}
        network = Network(infrastructure)
        directed = {(link.source, link.target): link for link in network.links}
        ends, devices = [], {}
        for number, link in enumerate(infrastructure.links):
            pair = []
            for letter, source, target in (("a", link.source, link.target), ("b", link.target, link.source)):
                device = devices[source, target] = f"{prefix}.{number}{letter}"
                pair.append(LinkEnd(device, namespaces[source], directed[source, target]))
            ends.append((pair[0], pair[1]))
        routes = []
        for source in sites:
            for target in sites:
                path = network.path(source, target)
                if source != target and path is not None:
                    device = devices[path[0].source, path[0].target]
                    routes.append(SiteRoute(namespaces[source], device, addresses[target]))
        return cls(namespaces, addresses, tuple(ends), tuple(routes))


def bucket_bytes(bandwidth_bytes_per_s: float) -> int:
    """Return the size of a token bucket: at least two packets or the bytes of 2 ms.

    The kernel may refill the bucket no more often than that.
    """
    return int(max(2 * MTU_BYTES, 0.002 * bandwidth_bytes_per_s))
