"""Spare replicas on nodes that may be interrupted, and the share of requests that interruptions still delay.

Interruptions of a node are a Poisson process, and its replicas are back after a recovery time. So a node is gone for a
share of the time, independently of other nodes, and the number of nodes gone is binomial. Replicas with spare ones are
spread over nodes.
While no more nodes are gone than replicas are spare, as many replicas run as promises are computed with. Beyond, work
piles up at most as fast as it arrives, and is done at the speed of replicas less the utilization. So a shortage that
lasts a time S delays requests for at most S / (1 - utilization); all of them count as late, as do requests that the
replicas of an interrupted node were serving.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation.percentiles import ScenarioGrid
from circinus.specification import Pool

_S_PER_H = 3600.0


def spare_replicas(pool: Pool, startup_s: float | None, service_s: float, utilization: float) -> tuple[int, float]:
    """Return the number of spare replicas of a deployment, and the share of its requests that count as late.

    Both hold for any number of replicas that the pool may hold. They are 0 where nodes stay. The number of spare
    replicas exceeds that of nodes where no number is enough.

    Args:
        pool: of the deployment.
        startup_s: of a replica, after that of the node; None if not measured: it counts as 0.
        service_s: mean time that a replica serves a batch.
        utilization: greatest utilization without the spare replicas.
    """
    spot = pool.spot
    if spot is None:
        return 0, 0.0
    per_s = spot.interruptions_per_h / _S_PER_H
    recovery_s = pool.node_startup_s + (startup_s or 0.0)
    return _spare_replicas(pool.nodes, per_s, recovery_s, spot.allowed_shortage, service_s, utilization)


@lru_cache(maxsize=4096)
def _spare_replicas(
    nodes: int, per_s: float, recovery_s: float, allowed: float, service_s: float, utilization: float
) -> tuple[int, float]:
    gone = per_s * recovery_s / (1 + per_s * recovery_s)
    exactly = (1 - gone) ** nodes
    more, spare = 1 - exactly, 0
    while spare <= nodes and more / (1 - utilization) > allowed:
        exactly *= (nodes - spare) / (spare + 1) * gone / (1 - gone)
        more, spare = max(more - exactly, 0.0), spare + 1
    return spare, min(more / (1 - utilization) + per_s * service_s, 1.0)


@lru_cache(maxsize=1024)
def late_scenarios(grid: ScenarioGrid, operator: str, late_share: float) -> IntArray:
    """Return the scenarios of requests that interruptions delay at an operator: at least their share, rounded up."""
    uniforms = -np.expm1(-grid.exponentials(f"interruptions {operator}"))
    return np.argsort(-uniforms, kind="stable")[: int(np.ceil(late_share * grid.count - 1e-9))]
