"""Order of plans that cost as much and serve as much: as a person would choose among them.

Undivided requests come first, then fewer moves between sites, less traffic, fewer replicas, a larger margin to the
SLOs, operators closer to the source, and last a lower latency. The plan search orders plans of equal cost by what its
arrays know of it; the matching exchanges a query's plan for a better one of equal cost (`matching.tie_breaking`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation import PlanCandidate
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.resource_columns import RESOURCES, ResourceColumns
from circinus.specification import Infrastructure, Network, Query

_STEPS_PER_BYTE_PER_S = 1e3
_MIN_LIMIT = 1e-12
_MAX_STEPS = 1e15
"""Limit of rounded values, which may be infinite."""
_COST_DECIMALS = 12
"""Decimals of costs that sums in different orders agree on."""


class TieKey(NamedTuple):
    """Key of a plan, compared from the left; integers, so that sums over queries compare exactly."""

    parts: int
    """Number of plans among which the requests are divided."""
    moves: int
    """Changes of the site on the way from the source through the operators and back, summed over the parts."""
    millibytes_per_s: int
    """Traffic, counted on each link."""
    replicas: int
    shortfall_ppm: int
    """Negative margin to the nearest of the latency and accuracy SLOs, relative to the limit."""
    distance: int
    """Links between the source and the operators, summed over operators and parts."""
    latency_us: int
    """Upper bound of the latency."""

    def reason_after(self, better: TieKey) -> str:
        """Return the first respect in which the plan is worse than a better one."""
        reasons = (reason for reason, own, other in zip(_REASONS, self, better, strict=True) if own > other)
        return next(reasons, "and is equal in all that breaks ties")


_REASONS = (
    "with requests divided among more plans",
    "with more moves between sites",
    "with more traffic between sites",
    "with more replicas",
    "with a smaller margin to its SLOs",
    "farther from the source",
    "with a higher latency",
)


class TieOrder:
    """Order of the plans of some queries on a network."""

    def __init__(self, queries: Iterable[Query], infrastructure: Infrastructure) -> None:
        self._queries = {query.name: query for query in queries}
        self._network = Network(infrastructure)

    def key(self, candidate: PlanCandidate, replicas: int) -> TieKey:
        """Return the key of a plan that takes a number of replicas; the smaller of two keys comes first."""
        query, estimate = self._queries[candidate.query], candidate.estimate
        parts = [[self._network.site_of(stage.pool) for stage in part.estimate.stages] for part in candidate.unsplit]
        routes = [[query.source, *sites, query.source] for sites in parts]
        margins = [
            slo.margin(slo.worst(bounds)) / max(abs(slo.limit), _MIN_LIMIT)
            for slo, bounds in ((query.slos.latency, estimate.latency_s), (query.slos.accuracy, estimate.accuracy))
            if slo is not None
        ]
        return TieKey(
            parts=len(parts),
            moves=sum(site != following for route in routes for site, following in pairwise(route)),
            millibytes_per_s=_whole(sum(use.bytes_per_s for use in candidate.links) * _STEPS_PER_BYTE_PER_S),
            replicas=replicas,
            shortfall_ppm=-_whole(min(margins, default=0.0) * 1e6),
            distance=sum(len(self._network.path(query.source, site) or ()) for sites in parts for site in sites),
            latency_us=_whole(estimate.latency_s.upper * 1e6),
        )


def _whole(value: float) -> int:
    """Round a value within the limit; one that is not a number is 0."""
    return round(float(np.clip(np.nan_to_num(value), -_MAX_STEPS, _MAX_STEPS)))


def by_cost(plans: PlanArrays, columns: ResourceColumns, source: str) -> IntArray:
    """Return the indexes of plans by cost, dedicated before shared, then in the order of ties as far as it is known."""
    site_number = {
        site: number for number, site in enumerate(dict.fromkeys((source, *(p.site for p in columns.pools))))
    }
    pool_sites = np.array([site_number[pool.site] for pool in columns.pools], dtype=np.int64)
    home = np.zeros((plans.count, 1), dtype=np.int64)
    route = np.hstack([home, pool_sites[plans.pools], home])
    links = [columns.link(link) for link in range(len(columns.links))]
    cpus: FloatArray = sum(
        (plans.resources[:, columns.dedicated(pool)][:, RESOURCES.index("cpus")] for pool in range(len(columns.pools))),
        np.zeros(plans.count),
    )
    costs = (
        np.round(plans.resources[:, column], _COST_DECIMALS) for column in (columns.shared_cost, columns.dedicated_cost)
    )
    traffic = np.round(plans.resources[:, links].sum(axis=1) * _STEPS_PER_BYTE_PER_S)
    moves = (route[:, 1:] != route[:, :-1]).sum(axis=1)
    return np.lexsort((cpus, traffic, moves, *costs)).astype(np.int64)
