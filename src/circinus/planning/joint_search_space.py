"""Search space that many queries share, so that few configurations of each are searched in one pass over arrays.

Most of a small search is the overhead of array operations. Queries are searched together that differ in rate, limits
and the names of their sites only: each has rows of its own in all arrays. Times are relative to the latency limit of
their query, and costs to its cost limit, so that all rows have equal limits. Deciding what to measure next for 12
queries takes about half the processor time that it takes query by query.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation.merged_load import ArrivalModel
from circinus.planning.profile_arrays import ProfileArrays
from circinus.planning.search_space import (
    Limits,
    RowOwners,
    SearchSpace,
    compile_at_any_slos,
    compile_query,
    network_shape,
)
from circinus.planning.settings import SearchSettings
from circinus.specification import Network, Query

_MAX_CONFIGURATIONS = 64
"""Number of configurations from which another pass is not slower."""
_UNLIMITED_SCALE = 1e-9
"""Scale of costs without a limit, which keeps them below 1."""


@dataclass(frozen=True, eq=False)
class JointSearchSpace:
    """Search space of the configurations of several queries."""

    space: SearchSpace
    limits: Limits
    rows: IntArray
    """(configurations,) index in the space."""
    queries: IntArray
    """(configurations,) index of the query."""
    configurations: IntArray
    """(configurations,) index in the arrays that the space was made from."""
    cost_scale: FloatArray
    """(configurations,) ratio of costs in the space to US dollars per hour."""


def joint_spaces(
    queries: Sequence[Query],
    networks: Sequence[Network],
    arrays: ProfileArrays,
    selected: Sequence[IntArray],
    settings: SearchSettings,
    check_time: Callable[[], None],
) -> Iterator[JointSearchSpace]:
    """Yield search spaces that together have the selected configurations of every query.

    Args:
        queries: q queries with the percentile and the risk that the arrays were compiled for.
        networks: of each query.
        arrays: compiled profile.
        selected: ascending indexes of configurations, by query.
        settings: settings of the search, without a running load.
        check_time: called between parts of the work; may raise an exception to give it up.
    """
    by_kind: dict[Hashable, list[list[int]]] = {}
    for q, (query, network) in enumerate(zip(queries, networks, strict=True)):
        if not len(selected[q]) or not network.pools_for(query.source):
            continue
        groups = by_kind.setdefault(_kind(query, network), [[]])
        if groups[-1] and sum(len(selected[other]) for other in [*groups[-1], q]) > _MAX_CONFIGURATIONS:
            groups.append([])
        groups[-1].append(q)
    for group in (group for groups in by_kind.values() for group in groups):
        check_time()
        own = [selected[q] for q in group]
        if len(group) == 1 or not _is_joint(queries[group[0]]):
            yield from _one_by_one(queries, networks, arrays, group, own, settings, check_time)
            continue
        part, owners = arrays.of_configurations(own)
        rows = RowOwners(tuple(queries[q] for q in group), tuple(networks[q] for q in group), owners)
        space, limits, scale = _joint(rows, part, settings, check_time)
        counts = [len(indexes) for indexes in own]
        scales = np.repeat(scale, counts)
        yield JointSearchSpace(
            space, limits, np.arange(sum(counts)), np.repeat(group, counts), np.concatenate(own), scales
        )


def _one_by_one(
    queries: Sequence[Query],
    networks: Sequence[Network],
    arrays: ProfileArrays,
    group: Sequence[int],
    selected: Sequence[IntArray],
    settings: SearchSettings,
    check_time: Callable[[], None],
) -> Iterator[JointSearchSpace]:
    """Yield the space of each query; queries that differ in SLOs only share options."""
    every = np.unique(np.concatenate(selected))
    part, _ = arrays.of_configurations([every])
    for q, own in zip(group, selected, strict=True):
        rows = np.searchsorted(every, own)
        space = compile_query(queries[q], networks[q], part, settings, check_time, rows)
        yield JointSearchSpace(space, Limits.of(space), rows, np.full(len(own), q), own, np.ones(len(own)))


def _is_joint(query: Query) -> bool:
    return not query.pin and ArrivalModel.of(query).is_poisson(first=True)


def _kind(query: Query, network: Network) -> Hashable:
    """Return a key that is equal for queries that can be searched together, or share options."""
    has_latency = query.slos.latency is not None
    if _is_joint(query):
        return has_latency, network_shape(query, network)
    return has_latency, query.source, query.rate_per_s, query.arrivals, query.pin


def _joint(
    rows: RowOwners, arrays: ProfileArrays, settings: SearchSettings, check_time: Callable[[], None]
) -> tuple[SearchSpace, Limits, FloatArray]:
    """Return the space of all rows, its limits, and (queries,) scales of costs."""
    space, queries, owners = compile_at_any_slos(arrays, rows), rows.queries, rows.of_rows
    limits_s = np.array([np.inf if (slo := q.slos.latency) is None else slo.limit_s + slo.tolerance for q in queries])
    time_scale = np.where(np.isfinite(limits_s), 1.0 / np.maximum(limits_s, 1e-12), 1.0)
    costs = [query.slos.cost for query in queries]
    limits_usd = [None if cost is None else cost.limit_usd_per_h + cost.tolerance for cost in costs]
    cost_scale = np.array([_UNLIMITED_SCALE if usd is None else 1.0 / max(usd, 1e-12) for usd in limits_usd])
    is_limited, columns = bool(np.isfinite(limits_s[0])), space.columns
    slack = settings.tolerance if is_limited else np.inf

    def scaled_resources(resources: FloatArray, own: IntArray) -> FloatArray:
        scaled, shape = resources.copy(), (len(own), *[1] * (resources.ndim - 1))
        scaled[..., columns.shared_cost :] *= cost_scale[own].reshape(shape)
        return scaled

    def scaled_times(times_s: FloatArray, own: IntArray) -> FloatArray:
        return times_s * time_scale[own].astype(times_s.dtype).reshape(len(own), *[1] * (times_s.ndim - 1))

    options = []
    for table, own in zip(space.options, owners[1:], strict=True):
        computed = table.of_rows(np.ones(len(own), dtype=np.bool_), check_time)
        scaled = replace(
            computed,
            node_s=scaled_times(computed.node_s, own),
            resources=scaled_resources(computed.resources, own),
        )
        options.append(scaled.without_dominated(slack))
    joint = replace(
        space,
        options=tuple(options),
        transfer_s=tuple(scaled_times(s, own) for s, own in zip(space.transfer_s, owners, strict=True)),
        transfer_resources=tuple(
            scaled_resources(r, own) for r, own in zip(space.transfer_resources, owners, strict=True)
        ),
        limit_s=1.0 if is_limited else np.inf,
        latency_tolerance_s=slack,
    )
    capacity = columns.capacity.copy()
    capacity[columns.shared_cost] = 1.0
    return joint, Limits(joint.limit_s, capacity), cost_scale
