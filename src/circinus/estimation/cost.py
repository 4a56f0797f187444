"""Cost of a query: its share of its deployments, and its transfers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import ge, sub
from typing import TypeVar

from circinus.arrays import FloatArray
from circinus.estimation.estimate import DeploymentUse, LinkUse
from circinus.estimation.merged_load import MergedLoad, replicas_for
from circinus.specification import DirectedLink, Pool
from circinus.statistics.interval import Interval

_Amount = TypeVar("_Amount", float, FloatArray)

_BYTES_PER_GB = 1e9
_SECONDS_PER_H = 3600.0


def usd_per_h_for_bytes(link: DirectedLink, bytes_per_s: _Amount) -> _Amount:
    """Return the price of sending `bytes_per_s` over `link`."""
    return bytes_per_s * (_SECONDS_PER_H / _BYTES_PER_GB * link.price_usd_per_gb)


def transfer_usd_per_h(links: Iterable[LinkUse]) -> float:
    """Return the price of the transfers of a query."""
    return sum((usd_per_h_for_bytes(use.link, use.bytes_per_s) for use in links), 0.0)


_ROUNDING = 1e-9


def dedicated_usd_per_h(uses: Iterable[DeploymentUse], pools: Mapping[str, Pool]) -> float:
    """Return the price of the whole replicas, or of the whole nodes, that the query needs if it shares nothing."""
    total, on_nodes = 0.0, defaultdict[str, list[tuple[DeploymentUse, int]]](list)
    for use in uses:
        replicas = replicas_for(use.busy_replicas, use.deployment.allocation.utilization_target)
        replicas += use.demand.spare_replicas
        if pools[use.deployment.pool].bills_nodes:
            on_nodes[use.deployment.pool].append((use, replicas))
        else:
            total += use.demand.cost_usd_per_h * replicas
    return total + sum(pools[name].paid_usd_per_h * _nodes(pools[name], counted) for name, counted in on_nodes.items())


def _nodes(pool: Pool, counted: Iterable[tuple[DeploymentUse, int]]) -> int:
    """Return the nodes on which replicas are put one by one, largest first, and at least those that always run."""
    free: list[list[float]] = []
    for use, replicas in sorted(counted, key=lambda entry: -entry[0].demand.cost_usd_per_h):
        shares = [needed / of_node for needed, of_node in zip(use.demand.amounts, pool.amounts, strict=True) if of_node]
        first = 0
        for _ in range(replicas):
            node = next((n for n in range(first, len(free)) if all(map(ge, free[n], shares))), len(free))
            if node == len(free):
                free.append([1.0 + _ROUNDING] * len(shares))
            free[node][:] = map(sub, free[node], shares)
            first = node + 1 if use.demand.spare_replicas else node
    usable = math.ceil(len(free) / (1.0 - pool.headroom) - _ROUNDING)  # the headroom stays free on average
    return min(max(usable, pool.base_nodes), max(pool.nodes, len(free)))


def fully_shared_usd_per_h(uses: Iterable[DeploymentUse]) -> float:
    """Return the price of the fractional replicas that the query uses if all deployments are fully shared.

    On nodes that are paid whole, it is the price that they reserve: of a node that is fully shared, what is paid.
    """
    return sum(use.demand.cost_usd_per_h * use.fractional_replicas for use in uses)


def share_usd_per_h(uses: Iterable[DeploymentUse], conditions: MergedLoad) -> float:
    """Return the query's share, by busy seconds, of the price of its sized deployments."""
    total = 0.0
    for use in uses:
        load = conditions.deployments[use.deployment]
        if load.busy_replicas > 0:
            share = use.busy_replicas / load.busy_replicas
        else:  # unmeasurably short service times: share by requests
            share = use.traffic.rate_per_s / load.traffic.rate_per_s
        total += use.demand.cost_usd_per_h * load.replicas * share
    return total


def query_cost(
    uses: tuple[DeploymentUse, ...],
    transfers_usd_per_h: float,
    conditions: MergedLoad | None,
    pools: Mapping[str, Pool],
) -> Interval:
    """Return the query's cost with its bounds (see `Estimate.cost_usd_per_h`).

    A share can exceed the dedicated price if the requests of other queries require one more replica; the share is then
    the upper bound.
    """
    lower = fully_shared_usd_per_h(uses) + transfers_usd_per_h
    upper = dedicated_usd_per_h(uses, pools) + transfers_usd_per_h
    value = upper if conditions is None else share_usd_per_h(uses, conditions) + transfers_usd_per_h
    return Interval(value, min(lower, value), max(upper, value))
