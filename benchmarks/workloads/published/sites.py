"""Infrastructure of the published traces: places with devices and an edge site each, and one cloud."""

from __future__ import annotations

from benchmarks.search.arena import TIERS
from circinus.specification import Infrastructure

PLACES = 4
CPUS = 4
"""CPUs of every node; a replica uses one."""
NODES = {"device": 8, "edge": 4, "cloud": 3}
"""Nodes of a place's device pool, of its edge site, and of the cloud. The three tiers have similar capacities: 12.8,
14.1 and 12 reference seconds per second."""
_ROUND_TRIP_S = {"device": 0.002, "edge": 0.02}
"""Round-trip time to the next tier: a local and a wide-area network."""
_MIB = 2**20


def infrastructure(places: int = PLACES) -> Infrastructure:
    """Return tiers with the published speeds, memory and uplinks, and the prices of the arenas.

    The devices of a place have an uplink to its edge site, which has an uplink to the cloud; all queries of the place
    share both. Devices serve only their own place, edge sites and the cloud serve all.

    Args:
        places: number of places.
    """
    device, edge, cloud = TIERS
    numbers = range(places)
    return Infrastructure.model_validate(
        {
            "name": "places",
            "sites": [*(f"place-{n}" for n in numbers), *(f"edge-{n}" for n in numbers), "cloud"],
            "pools": [
                *(_pool(device.name, f"place-{n}", f"device-{n}") for n in numbers),
                *(_pool(edge.name, f"edge-{n}", f"edge-{n}") for n in numbers),
                _pool(cloud.name, "cloud", "cloud"),
            ],
            "links": [
                *(_link(f"place-{n}", f"edge-{n}", device.name) for n in numbers),
                *(_link(f"edge-{n}", "cloud", edge.name) for n in numbers),
            ],
        }
    )


def _pool(tier_name: str, site: str, name: str) -> dict[str, object]:
    tier = next(tier for tier in TIERS if tier.name == tier_name)
    return {
        "name": name,
        "site": site,
        "tier": tier.name,
        "nodes": NODES[tier.name],
        "cpus": CPUS,
        "memory": tier.memory_mib * _MIB,
        "hardware": {"class": tier.name, "relative_speed": tier.speed},
        "price": CPUS * tier.usd_per_busy_h,
    }


def _link(source: str, target: str, tier_name: str) -> dict[str, object]:
    tier = next(tier for tier in TIERS if tier.name == tier_name)
    return {
        "from": source,
        "to": target,
        "bandwidth": tier.uplink_bytes_per_s,
        "round_trip": _ROUND_TRIP_S[tier.name],
    }
