"""Search space of one query as arrays: options of every operator, and transfers between all sites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation.cost import usd_per_h_for_bytes
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.merged_load import ArrivalModel
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator
from circinus.estimation.transfer import (
    link_delay_s,
    link_queue_key,
    link_station,
    pessimistic_link_factor,
    pessimistic_link_wait_s,
)
from circinus.planning.allocation_options import OptionTable, option_table
from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.profile_arrays import INPUT_INDEX, ProducerRows, ProfileArrays
from circinus.planning.resource_columns import ResourceColumns
from circinus.planning.settings import RunningLoad, SearchSettings
from circinus.queueing.waiting_time import gi_g_c_wait
from circinus.specification import DirectedLink, Infrastructure, Network, Pool, Query

_MIN_TARGET = 0.02
"""Minimum utilization target."""

_SIZED_TARGETS = 0.1, 0.2, 0.3, 0.5, 0.6
"""Further targets at the final sizes beside a running load, where more replicas may be what meets a latency SLO."""
_MIN_UTILIZATION = 1e-9
"""Lower limit of a divisor, for links without traffic."""
_KEPT_SPACES = 8
"""Number of search spaces that the arrays of a profile keep. Most of planning a query is listing its options, which
relaxations of its SLOs, second looks and queries with equal arrivals share."""


_Paths = dict[tuple[int, int], tuple[DirectedLink, ...] | None]
"""Links from site to site, by their numbers; None without a path."""


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Arrays of one query for its plan search. Sites and pools are numbered."""

    query: Query
    arrays: ProfileArrays
    columns: ResourceColumns
    percentile: PercentileEstimator
    source: int
    """Index of the query's site."""
    pool_sites: IntArray
    """(pools,)"""
    options: tuple[OptionTable, ...]
    """Options of each operator, in topological order."""
    transfer_s: tuple[FloatArray, ...]
    """(rows, sites, sites, scenarios) seconds from site to site, by producer; infinite without a path."""
    transfer_resources: tuple[FloatArray, ...]
    """(rows, sites, sites, columns) resources to send an output, by producer."""
    connected: tuple[BoolArray, ...]
    """(sites, sites) whether there is a path for an output, by producer."""
    limit_s: float = np.inf
    """Latency limit of the query; infinite without a latency SLO."""
    latency_tolerance_s: float = np.inf
    """Latency differences up to this are ignored."""


def compile_query(
    query: Query,
    network: Network,
    arrays: ProfileArrays,
    settings: SearchSettings,
    check_time: Callable[[], None] = lambda: None,
    configurations: IntArray | None = None,
) -> SearchSpace:
    """Build the search space of `query`; `arrays` must be compiled for the scenario grid of its risk.

    Args:
        query: query to plan.
        network: network of the infrastructure.
        arrays: compiled profile of its pipeline.
        settings: settings of the search.
        check_time: called between parts of the work; may raise an exception to give it up.
        configurations: configurations to search, all by default; others have options only as far as they share rows.
    """
    space, latency = _at_any_slos(query, network, arrays, settings), query.slos.latency
    searched = arrays.rows if configurations is None else arrays.rows[configurations]
    tables = (
        table.of_rows(np.isin(np.arange(len(table.available)), searched[:, operator + 1]), check_time)
        for operator, table in enumerate(space.options)
    )
    slack_s = np.inf if latency is None else settings.tolerance * latency.limit_s
    return replace(
        space,
        query=query,
        percentile=latency_percentile(query),
        options=tuple(table.without_dominated(slack_s) for table in tables),
        limit_s=np.inf if latency is None else latency.limit_s + latency.tolerance,
        latency_tolerance_s=slack_s,
    )


def _at_any_slos(query: Query, network: Network, arrays: ProfileArrays, settings: SearchSettings) -> SearchSpace:
    """Return the search space without limits, with all options; the arrays keep the last ones for other SLOs."""
    running, infrastructure = settings.running, network.infrastructure
    has_latency = query.slos.latency is not None
    key = query.source, query.rate_per_s, query.arrivals, query.pin, has_latency, infrastructure, running
    space = arrays.spaces.pop(key, None)
    if space is None:
        owners = tuple(np.zeros(len(producer.mean_bytes), dtype=np.int64) for producer in arrays.producers)
        space = compile_at_any_slos(arrays, RowOwners((query,), (network,), owners), running)
    arrays.spaces[key] = space
    if len(arrays.spaces) > _KEPT_SPACES:
        del arrays.spaces[next(iter(arrays.spaces))]
    return space


@dataclass(frozen=True, eq=False)
class RowOwners:
    """Queries that rows of arrays belong to; they differ in rate, SLOs and names of sites only (`network_shape`)."""

    queries: tuple[Query, ...]
    networks: tuple[Network, ...]
    of_rows: tuple[IntArray, ...]
    """(rows,) index of the query, by producer."""


def network_shape(query: Query, network: Network) -> Hashable:
    """Return what search spaces have of the pools and links that a query may use: all but their names."""
    layout = _Layout.of(query, network)
    pools = [pool.model_copy(update={"name": "", "site": ""}) for pool in layout.pools]
    links = [replace(link, source="", target="") for link in layout.links]
    sites = [layout.sites.index(pool.site) for pool in layout.pools]
    number = {link: index for index, link in enumerate(layout.links)}
    numbers = [
        (ends, None if path is None else tuple(number[link] for link in path))
        for paths in (layout.of_values, layout.of_results)
        for ends, path in paths.items()
    ]
    return tuple(pools), tuple(sites), tuple(links), tuple(numbers)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Pools and links that a query may use."""

    pools: tuple[Pool, ...]
    sites: tuple[str, ...]
    of_values: _Paths
    of_results: _Paths
    links: tuple[DirectedLink, ...]

    @classmethod
    def of(cls, query: Query, network: Network) -> _Layout:
        pools = network.pools_for(query.source)
        sites = tuple(dict.fromkeys((query.source, *(pool.site for pool in pools))))
        of_values, of_results = (_paths(network, sites, results=results) for results in (False, True))
        links = tuple(
            dict.fromkeys(link for path in (*of_values.values(), *of_results.values()) for link in path or ())
        )
        return cls(pools, sites, of_values, of_results, links)


def compile_at_any_slos(arrays: ProfileArrays, owners: RowOwners, running: RunningLoad | None = None) -> SearchSpace:
    """Build the search space without limits, with all options, on the pools of the first query."""
    query, network = owners.queries[0], owners.networks[0]
    layouts = [_Layout.of(*pair) for pair in zip(owners.queries, owners.networks, strict=True)]
    layout, grid = layouts[0], arrays.percentile.grid
    targets = utilization_targets(query, network.infrastructure, running)
    columns = ResourceColumns(layout.pools, layout.links, network.infrastructure.usable_link_share, running)
    paths = [layout.of_values if consumers else layout.of_results for consumers in arrays.consumers]
    rates_per_s = np.array([query.rate_per_s for query in owners.queries])
    draws = [
        np.stack([grid.exponentials(link_queue_key(own.links[number])) for own in layouts])
        for number in range(len(layout.links))
    ]
    transfers = [
        _transfers(
            producer,
            its_paths,
            len(layout.sites),
            columns,
            query,
            rates_per_s[own],
            [of_link[own if len(layouts) > 1 else [0]] for of_link in draws],
            arrays,
            running,
        )
        for producer, its_paths, own in zip(arrays.producers, paths, owners.of_rows, strict=True)
    ]
    return SearchSpace(
        query=query,
        arrays=arrays,
        columns=columns,
        percentile=arrays.percentile,
        source=0,
        pool_sites=np.array([layout.sites.index(pool.site) for pool in layout.pools], dtype=np.int64),
        options=tuple(
            option_table(
                rows,
                columns,
                grid,
                query=query,
                utilization_targets=targets,
                pool=query.pinned_pool(rows.spec.name),
                running=running,
                rates_per_s=rates_per_s[own],
            )
            for rows, own in zip(arrays.operators, owners.of_rows[1:], strict=True)
        ),
        transfer_s=tuple(seconds for seconds, _ in transfers),
        transfer_resources=tuple(resources for _, resources in transfers),
        connected=tuple(np.isfinite(seconds[0, :, :, 0]) for seconds, _ in transfers),
    )


def _paths(network: Network, sites: Sequence[str], *, results: bool) -> _Paths:
    """Return the paths of results, or of inputs and intermediate values, between all different sites."""
    return {
        (i, j): network.path(source, target, results=results)
        for i, source in enumerate(sites)
        for j, target in enumerate(sites)
        if i != j
    }


def _transfers(
    producer: ProducerRows,
    paths: _Paths,
    sites: int,
    columns: ResourceColumns,
    query: Query,
    rates_per_s: FloatArray,
    link_draws: Sequence[FloatArray],
    arrays: ProfileArrays,
    running: RunningLoad | None,
) -> tuple[FloatArray, FloatArray]:
    """Return (rows, sites, sites, scenarios) seconds and (rows, sites, sites, columns) resources of transfers.

    Rows have (rows,) `rates_per_s`, and draws for the wait at each link: (rows, scenarios), or (1, scenarios) for all.
    """
    sizes = producer.scenarios_bytes
    seconds = np.zeros((len(sizes), sites, sites, arrays.percentile.grid.count), dtype=sizes.dtype)
    resources = np.zeros((len(sizes), sites, sites, columns.count))
    bytes_per_s = rates_per_s * producer.mean_bytes
    arrivals, is_input = ArrivalModel.of(query), producer is arrays.producers[INPUT_INDEX]
    draws = {link: own.astype(sizes.dtype) for link, own in zip(columns.links, link_draws, strict=True)}
    utilization = np.full((len(columns.links), len(sizes)), columns.usable_link_share)
    if running is not None:
        shares = [running.links.get(link, 0.0) + bytes_per_s / link.bandwidth_bytes_per_s for link in columns.links]
        utilization = np.clip(np.reshape(shares, utilization.shape), _MIN_UTILIZATION, utilization)
    waits_s = _waits(draws, producer, rates_per_s, arrivals, utilization, is_input=is_input)
    delay_s = {link: link_delay_s(link, sizes, wait_s) for link, wait_s in zip(columns.links, waits_s, strict=True)}
    for (source, target), path in paths.items():
        if path is None:
            seconds[:, source, target] = np.inf
            continue
        for link in path:
            seconds[:, source, target] += delay_s[link]
            resources[:, source, target, columns.link(columns.links.index(link))] += bytes_per_s
            usd_per_h = usd_per_h_for_bytes(link, bytes_per_s)
            resources[:, source, target, columns.shared_cost] += usd_per_h
            resources[:, source, target, columns.dedicated_cost] += usd_per_h
    return seconds, resources


def _waits(
    draws: Mapping[DirectedLink, FloatArray],
    producer: ProducerRows,
    rates_per_s: FloatArray,
    arrivals: ArrivalModel,
    utilization: FloatArray,
    *,
    is_input: bool,
) -> Sequence[FloatArray]:
    """Return for each link (rows, scenarios) seconds that a query's values wait for it at the given utilization.

    Args:
        draws: link -> (rows, scenarios) draws for its waits, or (1, scenarios).
        producer: of the values.
        rates_per_s: (rows,) rates.
        arrivals: its arrival model.
        utilization: (links, rows) utilization of every link.
        is_input: whether the values come directly from the source.
    """
    bandwidth_bytes_per_s = np.array([link.bandwidth_bytes_per_s for link in draws])
    mean_s, factor = producer.mean_bytes / bandwidth_bytes_per_s[:, None], producer.mean_factor
    if draws and arrivals.is_poisson(first=is_input):
        factor = np.asarray(pessimistic_link_factor(factor, rates_per_s * mean_s, utilization))
        overloaded = utilization * factor >= 1
        link_utilization = np.where(overloaded, utilization, utilization * factor)
        wait = gi_g_c_wait(1, link_utilization, mean_s * factor, producer.scv, service_skew=producer.skew)
        wait_s = wait.at(np.stack(list(draws.values())))
        wait_s[overloaded] = UNBOUNDED
        return list(wait_s)
    waits_s = []
    for of_link, shares, link_draws in zip(mean_s.tolist(), utilization.tolist(), draws.values(), strict=True):
        moments = producer.scv.tolist(), producer.skew.tolist(), factor.tolist(), rates_per_s.tolist()
        rows = zip(of_link, *moments, strict=True)
        traffics = [
            arrivals.traffic(
                rate_per_s, mean, mean**2 * (1 + scv), mean**3 * skew, first=is_input, mean_factor=mean_factor
            )
            for mean, scv, skew, mean_factor, rate_per_s in rows
        ]
        stations = (link_station(traffic, share) for traffic, share in zip(traffics, shares, strict=True))
        of_rows = [pessimistic_link_wait_s(station, link_draws[0]) for station in stations]
        waits_s.append(np.stack(of_rows).astype(link_draws.dtype))
    return waits_s


def utilization_targets(
    query: Query, infrastructure: Infrastructure, running: RunningLoad | None = None
) -> tuple[float, ...]:
    """Return the utilization targets of a query.

    Without a latency SLO, it is the highest possible utilization. Bursty queries get additional lower targets, at which
    utilization within a burst is not above the regular target. At the final sizes beside a running load, any number of
    replicas may be right, and targets of running deployments are shared.
    """
    targets, limit = set(infrastructure.utilization_targets), infrastructure.utilization_limit
    modulation = ArrivalModel.of(query).modulation
    if query.slos.latency is None:
        targets = {limit}
    elif modulation is not None:
        peak = modulation.rates_per_s[modulation.burst] / modulation.rate_per_s
        targets |= {max(_MIN_TARGET, round(target / peak, 2)) for target in targets}
    if running is not None:
        own = (deployment for deployment in running.deployments if deployment.pipeline == query.pipeline)
        further = (limit, *_SIZED_TARGETS, *(deployment.allocation.utilization_target for deployment in own))
        targets |= {target for target in further if target <= limit}
    return tuple(sorted(targets))


def shared_targets(queries: Sequence[Query], infrastructure: Infrastructure) -> dict[str, tuple[float, ...]]:
    """Return query -> targets of all queries on its pipeline, with which it may share deployments."""
    targets = defaultdict[str, set[float]](set)
    for query in queries:
        targets[query.pipeline].update(utilization_targets(query, infrastructure))
    return {query.name: tuple(sorted(targets[query.pipeline])) for query in queries}


@dataclass(frozen=True, eq=False)
class Limits:
    """Upper limits of latency and of every resource column."""

    latency_s: float
    """Limit of the percentile's upper bound; infinite if there is none."""
    capacity: FloatArray
    """(columns,)"""

    @classmethod
    def of(cls, space: SearchSpace, *, latency: bool = True, cost: bool = True) -> Limits:
        """Return the limits of the space's query, optionally without its latency or cost SLO."""
        capacity = space.columns.capacity.copy()
        slo = space.query.slos.cost
        if cost and slo is not None:
            capacity[space.columns.shared_cost] = slo.limit_usd_per_h + slo.tolerance
        return cls(space.limit_s if latency else np.inf, capacity)

    def satisfied(self, resources: FloatArray) -> BoolArray:
        """Return (n,) whether each of (n, columns) usages is within every capacity."""
        return np.asarray((resources <= self.capacity * (1 + DOMINANCE_TOLERANCE)).all(axis=1))
