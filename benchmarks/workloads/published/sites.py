"""Where the queries of the traces run: places with devices and an edge site each, and one cloud."""

from __future__ import annotations

from benchmarks.search.arena import TIERS
from circinus.specification import Infrastructure

PLACES = 4
CPUS = 4
"""Of every node; a replica is given one of them."""
NODES = {"device": 8, "edge": 4, "cloud": 3}
"""Of a place's devices, of its edge site, of the cloud. So the three tiers can do the same work, within a tenth: 12.8,
14.1 and 12 reference seconds a second."""
_ROUND_TRIP_S = {"device": 0.002, "edge": 0.02}
"""To the next tier: a local network, and a wide one."""
_MIB = 2**20


def infrastructure(places: int = PLACES) -> Infrastructure:
    """Speeds, memory and uplinks of the tiers are those the traces were published for, prices those of the arenas.

    A place's devices have an uplink to its edge site, which has one to the cloud; both are shared by all queries of the
    place. Devices serve only their own place; edge sites and the cloud serve everybody.

    Args:
        places: that many.
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
