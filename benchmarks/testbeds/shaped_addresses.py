"""Which names, addresses and routes the namespaces of an infrastructure's sites get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circinus.specification import DirectedLink, Infrastructure, Network

MTU_BYTES = 9000
"""Of the links: fewer and larger packets are less work for a relay in Python."""


@dataclass(frozen=True)
class LinkEnd:
    """Where packets enter one direction of a link."""

    device: str
    namespace: str
    link: DirectedLink


@dataclass(frozen=True)
class SiteRoute:
    """Where packets from one site to another leave the site."""

    namespace: str
    device: str
    to_address: str


@dataclass(frozen=True)
class AddressPlan:
    """Names and addresses; nothing is made by it."""

    namespaces: Mapping[str, str]
    """Site -> its namespace."""
    addresses: Mapping[str, str]
    """Site -> the address that it is reached by from everywhere."""
    ends: tuple[tuple[LinkEnd, LinkEnd], ...]
    """Both ends of every link."""
    routes: tuple[SiteRoute, ...]

    @classmethod
    def of(cls, infrastructure: Infrastructure, prefix: str) -> AddressPlan:
        """A namespace for each site, a pair of devices for each link, and routes along the paths that plans count with.

        Args:
            infrastructure: up to 250 sites.
            prefix: of all names, of at most 9 characters; of no other network on this machine.

        Raises:
            ValueError: there are more sites, or longer names, than that.
        """
        sites = [site.name for site in infrastructure.sites]
        if len(sites) > 250 or len(prefix) > 9:
            raise ValueError(f"found {len(sites)} sites and prefix {prefix!r}, expected 250 and 9 characters at most")
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
    """What a token bucket lets pass at once: at least two packets, or what comes in two milliseconds, as the kernel may
    look at it no more often."""
    return int(max(2 * MTU_BYTES, 0.002 * bandwidth_bytes_per_s))
