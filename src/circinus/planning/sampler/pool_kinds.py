"""Pools that are alike for a query, of which exploring considers one.

A query that may use many sites mostly finds pools that differ in name only. Plans on them have equal latencies and
costs, so that costs of configurations need one pool of each kind.
"""

from __future__ import annotations

from collections.abc import Hashable

from circinus.specification import Network, Pool, Query


def one_pool_of_each_kind(network: Network, query: Query) -> Network:
    """Return the network with the first pool of each kind that the query may use; pinned pools are kept.

    Two pools are of one kind if they have equal nodes, hardware and prices, and links of equal speeds and prices lead
    to and from the query's source and all other pools. Plans on one of them are as good as plans on several, as no
    value crosses links between replicas in one pool.
    """
    pinned = {operator.pool for operator in query.pin or ()}
    kept: list[Pool] = []
    pools = network.pools_for(query.source)
    for pool in pools:
        if pool.name in pinned or not any(_has_equal_plans(pool, other, pools, query, network) for other in kept):
            kept.append(pool)
    return Network(network.infrastructure.model_copy(update={"pools": tuple(kept)}))


def _has_equal_plans(pool: Pool, other: Pool, pools: tuple[Pool, ...], query: Query, network: Network) -> bool:
    own = {"name": "any", "site": "any"}
    return pool.model_copy(update=own) == other.model_copy(update=own) and all(
        _ways(pool.site, site, network) == _ways(other.site, site, network)
        for site in [query.source, *(third.site for third in pools if third not in (pool, other))]
    )


def _ways(one: str, other: str, network: Network) -> Hashable:
    """Return the properties of the links there and back, for values and for results."""
    paths = [network.path(one, other), network.path(other, one), network.path(one, other, results=True)]
    return tuple(
        None if path is None else [(link.one_way_s, link.bandwidth_bytes_per_s, link.price_usd_per_gb) for link in path]
        for path in paths
    )
