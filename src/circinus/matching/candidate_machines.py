"""Machines that may be bought: the infrastructure of a sizing, and the one with the chosen numbers of nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from circinus.errors import PlanningError
from circinus.matching.tolerances import COST_GAP_TOLERANCE
from circinus.specification import Infrastructure, Pool
from circinus.specification.diagnostics import did_you_mean
from circinus.specification.infrastructure import Billing

_OF_USERS = "device"
"""Tier of machines that users own."""
_MAX_COUNTS = 10_000
"""Maximum number of combinations of nodes to look through."""


def candidate_machines(
    infrastructure: Infrastructure, max_nodes: Mapping[str, int] | None = None, kept: Collection[str] = ()
) -> Infrastructure:
    """Return the infrastructure with the numbers of nodes left open and nodes paid whole.

    A pool has 0 nodes up to those of the specification, or from its `min` to its `max`. Pools of the tier `device`
    belong to users and stay as they are, unless `max_nodes` has them.

    Args:
        infrastructure: of the specification.
        max_nodes: pool -> greatest number of nodes, instead of that of the specification.
        kept: pools whose nodes all run and are paid, whatever plans use.

    Raises:
        PlanningError: a pool is unknown, or is both kept and chosen.
    """
    limits, names = max_nodes or {}, [pool.name for pool in infrastructure.pools]
    for name in (*limits, *kept):
        if name not in names:
            raise PlanningError(
                f"found pool {name}, expected one of {', '.join(names)}",
                code="size.unknown_pool",
                location="max_nodes" if name in limits else "keep",
                hint=did_you_mean(name, names).replace("did", "Did", 1),
            )
        if name in limits and name in kept:
            raise PlanningError(
                f"found pool {name} both kept and with a greatest number of nodes, expected one of the two",
                code="size.kept_and_chosen",
                location=f"infrastructure {infrastructure.name}",
            )

    def candidate(pool: Pool) -> Pool:
        if pool.name in kept:
            return pool.model_copy(update={"min_nodes": None, "billing": Billing.NODE})
        if pool.tier == _OF_USERS and pool.name not in limits:
            return pool
        nodes = limits.get(pool.name, pool.nodes)
        base = min(pool.min_nodes or 0, nodes)
        return pool.model_copy(update={"nodes": nodes, "min_nodes": base, "billing": Billing.NODE})

    return _with_pools(infrastructure, candidate)


def larger_machines(candidates: Infrastructure, factor: int) -> Infrastructure:
    """Return the candidates with a multiple of the greatest numbers of nodes."""
    chosen = [pool for pool in candidates.pools if pool.min_nodes is not None and pool.bills_nodes]
    return _limited(candidates, {pool.name: factor * pool.nodes for pool in chosen})


def chosen_machines(candidates: Infrastructure, nodes: Mapping[str, int]) -> Infrastructure:
    """Return the infrastructure with a fixed number of nodes of each elastic pool that is paid whole.

    Args:
        candidates: see `candidate_machines`.
        nodes: pool -> nodes that run.
    """

    def chosen(pool: Pool) -> Pool:
        if pool.min_nodes is None or not pool.bills_nodes:
            return pool
        return pool.model_copy(update={"nodes": nodes.get(pool.name, pool.base_nodes), "min_nodes": None})

    return _with_pools(candidates, chosen)


def paid_anyway_usd_per_h(candidates: Infrastructure) -> float:
    """Return the price of the nodes that always run, of pools whose nodes are paid whole."""
    return sum(pool.base_nodes * pool.paid_usd_per_h for pool in candidates.pools if pool.bills_nodes)


def cheaper_machines(candidates: Infrastructure, below_usd_per_h: float, most: int) -> list[Infrastructure] | None:
    """Return the largest machines whose nodes cost less than a price, the dearest first.

    All machines that cost less are part of some of these.

    Args:
        candidates: see `candidate_machines`.
        below_usd_per_h: price.
        most: maximum number to return.

    Returns:
        None if there are more.
    """
    pools = [pool for pool in candidates.pools if pool.is_elastic and pool.bills_nodes and pool.paid_usd_per_h > 0]
    limit_usd_per_h = below_usd_per_h * (1.0 - COST_GAP_TOLERANCE) - paid_anyway_usd_per_h(candidates)
    counts: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for pool in pools:
        affordable = int(max(limit_usd_per_h, 0.0) / pool.paid_usd_per_h) + 1
        more = range(min(pool.nodes - pool.base_nodes, affordable) + 1)
        counts = [
            (cost + count * pool.paid_usd_per_h, (*nodes, count))
            for cost, nodes in counts
            for count in more
            if cost + count * pool.paid_usd_per_h <= limit_usd_per_h
        ]
        if len(counts) > _MAX_COUNTS:
            return None
    largest = [
        (cost, nodes)
        for cost, nodes in counts
        if all(
            cost + pool.paid_usd_per_h > limit_usd_per_h or pool.base_nodes + count >= pool.nodes
            for pool, count in zip(pools, nodes, strict=True)
        )
    ]
    if len(largest) > most:
        return None
    return [
        _limited(candidates, {pool.name: pool.base_nodes + count for pool, count in zip(pools, nodes, strict=True)})
        for _, nodes in sorted(largest, reverse=True)
    ]


def has_open_spares(candidates: Infrastructure) -> bool:
    """Return whether spare replicas depend on numbers of nodes that are left open: those of spot pools."""
    return any(pool.spot is not None and pool.is_elastic for pool in candidates.pools)


def with_chosen_spot_nodes(candidates: Infrastructure, nodes: Mapping[str, int]) -> Infrastructure:
    """Return the candidates with no more nodes of spot pools than those that run: fewer nodes need fewer spares."""
    return _limited(
        candidates, {pool.name: max(nodes.get(pool.name, 0), pool.base_nodes) for pool in candidates.pools if pool.spot}
    )


def _limited(candidates: Infrastructure, nodes: Mapping[str, int]) -> Infrastructure:
    """Return the candidates with other greatest numbers of nodes of some pools."""
    return _with_pools(candidates, lambda pool: pool.model_copy(update={"nodes": nodes.get(pool.name, pool.nodes)}))


def _with_pools(infrastructure: Infrastructure, changed: Callable[[Pool], Pool]) -> Infrastructure:
    return infrastructure.model_copy(update={"pools": tuple(map(changed, infrastructure.pools))})
