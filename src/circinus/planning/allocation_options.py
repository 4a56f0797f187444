"""The options of each operator in each pool: CPUs, batch size and utilisation target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray
from circinus.estimation.merged_load import ArrivalModel, min_replicas_array
from circinus.estimation.percentiles import UNBOUNDED
from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.stage_latency import (
    elementwise_max_s,
    operator_queue_key,
    pessimistic_station_time,
    stations_at_target,
)
from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.profile_arrays import OperatorRows
from circinus.planning.resource_columns import AMOUNTS, ResourceColumns
from circinus.queueing.waiting_time import gi_g_c_wait
from circinus.specification import Allocation, OperatorSpec, Pool, Query

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class OptionTable:
    """What one operator can be given. Arrays are (rows, pools, options, ...); rows are the operator's prefixes."""

    allocations: tuple[Allocation, ...]
    available: BoolArray
    """Whether the option is there: allowed, fitting, and not beaten by another in the same pool."""
    node_s: FloatArray
    """(..., scenarios) wait and service."""
    resources: FloatArray
    """(..., resource columns)"""
    ineligible: int
    """How many options were dropped because no node, or not the whole pool, can hold them."""
    dominated: int
    """How many options were dropped because another one in the same pool is nowhere worse."""

    @cached_property
    def usable(self) -> BoolArray:
        """(rows, pools) whether there is any option."""
        return np.asarray(self.available.any(axis=2))

    @cached_property
    def fastest_s(self) -> FloatArray:
        """(rows, pools, scenarios) the least of any option, scenario by scenario; infinite where there is none."""
        return np.asarray(np.where(self.available[..., None], self.node_s, np.inf).min(axis=2))

    @cached_property
    def slowest_s(self) -> FloatArray:
        """(rows, pools, scenarios) the most of any option, scenario by scenario."""
        return np.asarray(np.where(self.available[..., None], self.node_s, 0.0).max(axis=2))

    @cached_property
    def least(self) -> FloatArray:
        """(rows, pools, columns) the least that any option takes, column by column."""
        least = np.where(self.available[..., None], self.resources, np.inf).min(axis=2)
        return np.asarray(np.where(self.usable[..., None], least, 0.0))

    @cached_property
    def cheapest(self) -> NDArray[np.int64]:
        """(rows, pools) the option that takes least: in every column, where there is such a one."""
        scale = np.maximum(self.resources.max(axis=2, keepdims=True), np.finfo(np.float64).tiny)
        taken = (self.resources / scale).sum(axis=3)
        return np.asarray(np.where(self.available, taken, np.inf).argmin(axis=2))

    @cached_property
    def cheapest_s(self) -> FloatArray:
        """(rows, pools, scenarios) with the option that takes least."""
        return np.take_along_axis(self.node_s, self.cheapest[..., None, None], axis=2)[:, :, 0]


def option_table(
    rows: OperatorRows,
    columns: ResourceColumns,
    grid: ScenarioGrid,
    *,
    query: Query,
    utilization_targets: Sequence[float],
    slack_s: float,
    pool: str | None = None,
) -> OptionTable:
    """All options of one operator that are worth looking at.

    Args:
        rows: what was measured of the operator.
        columns: the pools open to the query, and the columns that resources are counted in.
        grid: the scenarios.
        query: whose requests are served.
        utilization_targets: to choose from.
        slack_s: an option counts as no faster than another when it gains at most this in every scenario; infinite
            when latency does not matter.
        pool: the only one that the operator may run in; None: any.
    """
    combinations = list(product(range(len(rows.sizes)), sorted(utilization_targets, reverse=True)))
    allocations = tuple(Allocation(*rows.sizes[size], target) for size, target in combinations)
    targets = np.array([a.utilization_target for a in allocations])
    batch_sizes = np.array([a.batch_size for a in allocations])
    ratio = rows.full_batch_ratio[:, [size for size, _ in combinations]]
    slowdown = ratio[:, None, :] * rows.slowness_in([pool.hardware for pool in columns.pools])[..., None]
    batch_s = rows.mean_s[:, None, None] * slowdown
    busy = query.rate_per_s * batch_s / batch_sizes
    replicas = min_replicas_array(busy, targets)
    resources, held = _resources(rows, columns, allocations, busy / targets, replicas)
    servers = np.where(held, replicas, 1.0)  # millions of replicas would take long, and no pool holds them
    factor = rows.mean_factor[:, None, None]
    busy_always = targets * factor >= 1
    wait = gi_g_c_wait(
        servers,
        np.where(busy_always, targets, targets * factor),
        batch_s * factor,
        rows.scv[:, None, None],
        service_skew=rows.skew[:, None, None],
    )
    dtype = rows.scenarios_s.dtype
    exponentials = grid.exponentials(operator_queue_key(rows.spec.name)).astype(dtype)
    node_s = wait.at(exponentials)
    node_s += rows.scenarios_s[:, None, None, :] * slowdown[..., None].astype(dtype)
    node_s[np.broadcast_to(busy_always, batch_s.shape)] = UNBOUNDED
    allowed = np.array([pool in (None, p.name) and _allows(rows.spec, p) for p in columns.pools], dtype=np.bool_)
    available = held & allowed[None, :, None]
    _follow_stations(node_s, available, rows, columns, grid, query, allocations, batch_s)
    unfit = int((~held & allowed[None, :, None]).sum())
    kept = _undominated(available, node_s, resources, slack_s)
    return OptionTable(allocations, kept, node_s, resources, unfit, int(available.sum() - kept.sum()))


def _follow_stations(
    node_s: FloatArray,
    available: BoolArray,
    rows: OperatorRows,
    columns: ResourceColumns,
    grid: ScenarioGrid,
    query: Query,
    allocations: Sequence[Allocation],
    batch_s: FloatArray,
) -> None:
    """Replace the times (rows, pools, options, scenarios) of options whose requests do not come one by one and at
    random, or that serve in batches: each is a station of its own."""
    coming, draws = ArrivalModel.of(query), grid.exponentials(operator_queue_key(rows.spec.name))
    targets = len(allocations) // len(rows.sizes)
    for row, column, option in np.argwhere(available).tolist():
        first = not rows.spec.after and columns.pools[column].site == query.source
        allocation, full_s = allocations[option], float(batch_s[row, column, option])
        if allocation.batch_size == 1 and coming.is_poisson(first=first):
            continue
        square_s2, cube_s3 = full_s**2 * (1 + float(rows.scv[row])), full_s**3 * float(rows.skew[row])
        ratios = rows.fill_ratios[row][option // targets]
        stations = stations_at_target(
            query.rate_per_s * full_s / allocation.batch_size,
            coming.traffic(
                query.rate_per_s, full_s, square_s2, cube_s3, first=first, mean_factor=float(rows.mean_factor[row])
            ),
            ratios,
            rows.spec.batch_wait_s if len(ratios) > 1 else 0.0,
            allocation.utilization_target,
        )
        slowdown = full_s / float(rows.mean_s[row]) if rows.mean_s[row] > 0 else 0.0
        alone_s = rows.scenarios_s[row] * (slowdown / ratios[-1])
        times = [pessimistic_station_time(s, ratios[-1], draws) for s in stations]
        node_s[row, column, option] = elementwise_max_s(times, alone_s)


def _allows(operator: OperatorSpec, pool: Pool) -> bool:
    return operator.allowed_tiers is None or pool.tier in operator.allowed_tiers


def _resources(
    rows: OperatorRows,
    columns: ResourceColumns,
    allocations: Sequence[Allocation],
    fluid: FloatArray,
    replicas: FloatArray,
) -> tuple[FloatArray, BoolArray]:
    """What every option takes, and whether the pool can hold its replicas (alone, each whole on one node)."""
    resources = np.zeros((*replicas.shape, columns.count))
    held = np.ones(replicas.shape, dtype=np.bool_)
    for index, pool in enumerate(columns.pools):
        node = np.array([pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes])
        replica = np.zeros((len(rows.memory_bytes), len(allocations), len(AMOUNTS)))
        replica[..., 0] = [a.cpus for a in allocations]
        replica[..., 1] = rows.memory_bytes[:, None]
        replica[..., 2] = rows.spec.gpus
        replica[..., 3] = rows.spec.gpu_memory_bytes
        share = np.divide(replica, node, out=np.zeros_like(replica), where=node > 0)
        price = pool.price_usd_per_h * share.max(axis=2)
        times = np.divide(node, replica, out=np.full_like(replica, np.inf), where=replica > 0)
        per_node = np.floor(times.min(axis=2) + DOMINANCE_TOLERANCE)
        held[:, index] = replicas[:, index] <= per_node * pool.nodes
        resources[:, index, :, columns.shared(index)] = replica * fluid[:, index, :, None]
        resources[:, index, :, columns.alone(index)] = replica * replicas[:, index, :, None]
        resources[:, index, :, columns.shared_cost] = price * fluid[:, index]
        resources[:, index, :, columns.alone_cost] = price * replicas[:, index]
    return resources, held


def _undominated(available: BoolArray, node_s: FloatArray, resources: FloatArray, slack_s: float) -> BoolArray:
    """Which available options no other one of the same row and pool beats; never none where there was one."""
    kept = available.copy()
    way_back_s = slack_s if slack_s == np.inf else 0.0  # so that an option loses against a kept one by one slack only
    for later in range(1, available.shape[2]):
        for earlier in range(later):
            both = kept[:, :, earlier] & kept[:, :, later]
            kept[:, :, later] &= ~(both & _beats(earlier, later, both, node_s, resources, slack_s))
            both &= kept[:, :, later]
            kept[:, :, earlier] &= ~(both & _beats(later, earlier, both, node_s, resources, way_back_s))
    return kept


def _beats(
    one: int, other: int, where: BoolArray, node_s: FloatArray, resources: FloatArray, slack_s: float
) -> BoolArray:
    """(rows, pools) whether option `one` takes no more and is no slower (by more than the slack) than `other`."""
    no_more = (resources[:, :, one] <= resources[:, :, other] * (1 + DOMINANCE_TOLERANCE)).all(axis=2) & where
    if slack_s == np.inf or not no_more.any():
        return no_more
    slower_s = (node_s[:, :, one] - node_s[:, :, other]).max(axis=2)
    return np.asarray(no_more & (slower_s <= slack_s))
