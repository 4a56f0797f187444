"""One query's search space as arrays: the options of every operator and the transfers between all sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.estimation.cost import usd_per_h_for_bytes
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.merged_load import ArrivalModel
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator
from circinus.estimation.transfer import (
    link_delay_s,
    link_queue_key,
    link_station,
    path_between,
    pessimistic_link_factor,
    pessimistic_link_wait_s,
)
from circinus.planning.allocation_options import OptionTable, option_table
from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.profile_arrays import INPUT_INDEX, ProducerRows, ProfileArrays
from circinus.planning.resource_columns import ResourceColumns
from circinus.planning.settings import SearchSettings
from circinus.queueing.waiting_time import gi_g_c_wait
from circinus.specification import DirectedLink, Network, Query

FloatArray = NDArray[np.floating]


_LEAST_TARGET = 0.02
"""Of utilisations."""


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Everything about one query that its search needs. Sites and pools are numbered."""

    query: Query
    arrays: ProfileArrays
    columns: ResourceColumns
    percentile: PercentileEstimator
    source: int
    """The site of the query."""
    pool_sites: IntArray
    """(pools,)"""
    options: tuple[OptionTable, ...]
    """For each operator, in topological order."""
    transfer_s: tuple[FloatArray, ...]
    """For each producer (rows, sites, sites, scenarios) seconds from site to site."""
    transfer_resources: tuple[FloatArray, ...]
    """For each producer (rows, sites, sites, columns) what sending its output takes."""
    limit_s: float
    """The query's latency limit; infinite without one."""
    latency_tolerance_s: float
    """Latencies that differ by less count as equal."""


def compile_query(query: Query, network: Network, arrays: ProfileArrays, settings: SearchSettings) -> SearchSpace:
    """Lay out the search space of `query`; `arrays` must be compiled for the grid of its risk."""
    pools = network.pools_for(query.source)
    sites = tuple(dict.fromkeys((query.source, *(pool.site for pool in pools))))
    paths = {
        (i, j): path_between(network, source, target)
        for i, source in enumerate(sites)
        for j, target in enumerate(sites)
        if i != j
    }
    links = tuple(dict.fromkeys(link for path in paths.values() for link in path))
    columns = ResourceColumns(pools, links, settings.usable_link_share)
    latency = query.slos.latency
    limit_s = np.inf if latency is None else latency.limit_s
    targets = utilization_targets(query, settings.utilization_targets)
    slack_s = np.inf if latency is None else settings.tolerance * latency.limit_s
    transfers = [_transfers(producer, paths, len(sites), columns, query, arrays) for producer in arrays.producers]
    return SearchSpace(
        query=query,
        arrays=arrays,
        columns=columns,
        percentile=latency_percentile(query),
        source=0,
        pool_sites=np.array([sites.index(pool.site) for pool in pools], dtype=np.int64),
        options=tuple(
            option_table(
                rows,
                columns,
                arrays.percentile.grid,
                query=query,
                utilization_targets=targets,
                slack_s=slack_s,
                pool=query.pinned_pool(rows.spec.name),
            )
            for rows in arrays.operators
        ),
        transfer_s=tuple(seconds for seconds, _ in transfers),
        transfer_resources=tuple(resources for _, resources in transfers),
        limit_s=limit_s,
        latency_tolerance_s=slack_s,
    )


def _transfers(
    producer: ProducerRows,
    paths: dict[tuple[int, int], tuple[DirectedLink, ...]],
    sites: int,
    columns: ResourceColumns,
    query: Query,
    arrays: ProfileArrays,
) -> tuple[FloatArray, FloatArray]:
    """(rows, sites, sites, scenarios) seconds, and (rows, sites, sites, columns) resources, of sending an output."""
    sizes = producer.scenarios_bytes
    seconds = np.zeros((len(sizes), sites, sites, arrays.percentile.grid.count), dtype=sizes.dtype)
    resources = np.zeros((len(sizes), sites, sites, columns.count))
    bytes_per_s = query.rate_per_s * producer.mean_bytes
    coming, first = ArrivalModel.of(query), producer is arrays.producers[INPUT_INDEX]
    crossing = {}
    for link in columns.links:
        draws = arrays.percentile.grid.exponentials(link_queue_key(link)).astype(sizes.dtype)
        wait_s = _waits(link, producer, query.rate_per_s, coming, columns.usable_link_share, draws, first=first)
        crossing[link] = link_delay_s(link, sizes, wait_s)
    for (source, target), path in paths.items():
        for link in path:
            seconds[:, source, target] += crossing[link]
            resources[:, source, target, columns.link(columns.links.index(link))] += bytes_per_s
            usd_per_h = usd_per_h_for_bytes(link, bytes_per_s)
            resources[:, source, target, columns.shared_cost] += usd_per_h
            resources[:, source, target, columns.alone_cost] += usd_per_h
    return seconds, resources


def _waits(
    link: DirectedLink,
    producer: ProducerRows,
    rate_per_s: float,
    coming: ArrivalModel,
    utilization: float,
    draws: FloatArray,
    *,
    first: bool,
) -> FloatArray:
    """(rows, scenarios) seconds that a query's values wait for a link that is so busy."""
    mean_s, factor = producer.mean_bytes / link.bandwidth_bytes_per_s, producer.mean_factor
    if coming.is_poisson(first=first):
        factor = np.asarray(pessimistic_link_factor(factor, rate_per_s * mean_s, utilization))
        always = utilization * factor >= 1
        busy = np.where(always, utilization, utilization * factor)
        wait_s = gi_g_c_wait(1, busy, mean_s * factor, producer.scv, service_skew=producer.skew).at(draws)
        wait_s[always] = UNBOUNDED
        return wait_s
    rows = zip(mean_s.tolist(), producer.scv.tolist(), producer.skew.tolist(), factor.tolist(), strict=True)
    traffics = [
        coming.traffic(rate_per_s, mean, mean**2 * (1 + scv), mean**3 * skew, first=first, mean_factor=times)
        for mean, scv, skew, times in rows
    ]
    waits_s = [pessimistic_link_wait_s(link_station(traffic, utilization), draws) for traffic in traffics]
    return np.stack(waits_s).astype(draws.dtype)


def utilization_targets(query: Query, targets: Sequence[float]) -> tuple[float, ...]:
    """What deployments of a query may be sized to: for one whose requests come in bursts also such that they are no
    busier in a burst than others are all the time."""
    come = ArrivalModel.of(query).modulation
    if come is None:
        return tuple(targets)
    peak = come.rates_per_s[come.burst] / come.rate_per_s
    lower = {max(_LEAST_TARGET, round(target / peak, 2)) for target in targets}
    return tuple(sorted({*targets, *lower}))


@dataclass(frozen=True, eq=False)
class Limits:
    """A latency limit and a capacity for every resource column."""

    latency_s: float
    """For the upper bound of the percentile; infinite: none."""
    capacity: FloatArray
    """(columns,)"""

    @classmethod
    def of(cls, space: SearchSpace, *, latency: bool = True, cost: bool = True) -> Limits:
        """Those of the space's query; without its latency or cost objective where that is to give way."""
        capacity = space.columns.capacity.copy()
        slo = space.query.slos.cost
        if cost and slo is not None:
            capacity[space.columns.shared_cost] = slo.limit_usd_per_h
        return cls(space.limit_s if latency else np.inf, capacity)

    def satisfied(self, resources: FloatArray) -> NDArray[np.bool_]:
        """(n,) which of (n, columns) keep every capacity."""
        return np.asarray((resources <= self.capacity * (1 + DOMINANCE_TOLERANCE)).all(axis=1))
