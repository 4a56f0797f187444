"""Exploring considers one pool of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from circinus.planning.sampler.pool_kinds import one_pool_of_each_kind
from circinus.specification import Infrastructure, Network, Query

_DEVICE = {"tier": "device", "nodes": 2, "cpus": 1, "memory": "1GiB", "hardware": {"class": "a", "relative_speed": 0.1}}
_EDGE = _DEVICE | {"tier": "edge", "hardware": {"class": "b", "relative_speed": 0.3}, "price": "$0.1/h"}
_CLOUD = _DEVICE | {"tier": "cloud", "hardware": {"class": "c", "relative_speed": 1.0}, "price": "$1/h"}


def _places(count: int = 4, **of_last_edge: Any) -> Network:
    numbers = range(count)
    edges = [_EDGE] * (count - 1) + [_EDGE | of_last_edge]
    pools = [_DEVICE | {"name": f"device-{n}", "site": f"place-{n}"} for n in numbers]
    pools += [edge | {"name": f"edge-{n}", "site": f"edge-{n}"} for n, edge in enumerate(edges)]
    links = [{"from": f"place-{n}", "to": f"edge-{n}", "bandwidth": "10Mbit/s", "round_trip": "2ms"} for n in numbers]
    links += [{"from": f"edge-{n}", "to": "cloud", "bandwidth": "50Mbit/s", "round_trip": "20ms"} for n in numbers]
    sites = [*(f"place-{n}" for n in numbers), *(f"edge-{n}" for n in numbers), "cloud"]
    document = {"name": "places", "sites": sites, "pools": [*pools, _CLOUD | {"name": "cloud", "site": "cloud"}]}
    return Network(Infrastructure.model_validate(document | {"links": links}))


def _kept(network: Network, **fields: Any) -> list[str]:
    query = Query.model_validate(
        {"name": "q", "pipeline": "p", "source": "place-1", "rate": 1.0, "slos": {"cost": {"limit": 1.0}}} | fields
    )
    return [pool.name for pool in one_pool_of_each_kind(network, query).pools_for(query.source)]


def test_the_own_edge_and_one_of_the_others_are_kept() -> None:
    assert _kept(_places()) == ["device-1", "edge-0", "edge-1", "cloud"]


@pytest.mark.parametrize(
    "different", [{"nodes": 3}, {"price": "$0.2/h"}, {"hardware": {"class": "b", "relative_speed": 0.2}}]
)
def test_pools_of_other_nodes_prices_or_speeds_are_kept(different: dict[str, Any]) -> None:
    assert _kept(_places(**different)) == ["device-1", "edge-0", "edge-1", "edge-3", "cloud"]


def test_pools_behind_another_link_are_kept() -> None:
    whole = _places().infrastructure
    links = (*whole.links[:-1], whole.links[-1].model_copy(update={"round_trip_s": 0.05}))
    network = Network(whole.model_copy(update={"links": links}))
    assert _kept(network) == ["device-1", "edge-0", "edge-1", "edge-3", "cloud"]


def test_pinned_pools_are_kept() -> None:
    assert _kept(_places(), pin=[{"name": "o", "pool": "edge-3"}]) == [
        "device-1",
        "edge-0",
        "edge-1",
        "edge-3",
        "cloud",
    ]
