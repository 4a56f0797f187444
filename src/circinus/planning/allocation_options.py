"""Allocation options of each operator in each pool: CPUs, batch size and utilization target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation.interruptions import late_scenarios, spare_replicas
from circinus.estimation.merged_load import ArrivalModel, min_replicas_array, station_load
from circinus.estimation.percentiles import UNBOUNDED, ScenarioGrid
from circinus.estimation.stage_latency import (
    ElementTimes,
    elementwise_max_s,
    operator_queue_key,
    pessimistic_station_time,
    stations_at_target,
)
from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.profile_arrays import OperatorRows
from circinus.planning.resource_columns import RESOURCES, ResourceColumns
from circinus.planning.settings import RunningLoad
from circinus.queueing.arrivals import MarkovModulatedPoisson
from circinus.queueing.burst_response import BurstyLoad, unbatched_waits_s
from circinus.queueing.response_time import MIDPOINTS
from circinus.queueing.station_model import MAX_SIMULATED, LoadedStation
from circinus.queueing.waiting_time import gi_g_c_wait
from circinus.specification import Allocation, OperatorSpec, Pool, Query


@dataclass(frozen=True, eq=False)
class OptionTable:
    """Allocation options of one operator. Arrays are (rows, pools, options, ...); rows are the operator's prefixes."""

    allocations: tuple[Allocation, ...]
    available: BoolArray
    """(rows, pools, options) eligible, fitting, and not dropped."""
    node_s: FloatArray
    """(..., scenarios) waiting plus service time."""
    resources: FloatArray
    """(..., resource columns)"""
    ineligible: int
    """Number of options dropped because no node, or not the whole pool, can hold them."""
    compute: Callable[[BoolArray, Callable[[], None]], None]
    """Computes the times of given rows that have no formula, in place; see `of_rows`."""
    dominated: int = 0
    """Number of options dropped because another option in the pool dominates them."""

    def of_rows(self, selected: BoolArray, check_time: Callable[[], None] = lambda: None) -> OptionTable:
        """Return the table with the options of selected rows only; times without a formula are computed once a row."""
        self.compute(selected, check_time)
        return replace(self, available=self.available & selected[:, None, None])

    def without_dominated(self, slack_s: float) -> OptionTable:
        """Return the table without options that another one in the pool dominates.

        An option does not count as faster for a gain of up to `slack_s` in every scenario; the slack is infinite if
        latency does not matter.
        """
        efficient = _undominated(self.available, self.node_s, self.resources, slack_s)
        dominated = int(self.available.sum() - efficient.sum())
        return replace(self, available=efficient, dominated=self.dominated + dominated)

    @cached_property
    def usable(self) -> BoolArray:
        """(rows, pools) whether any option is available."""
        return np.asarray(self.available.any(axis=2))

    @cached_property
    def fastest_s(self) -> FloatArray:
        """(rows, pools, scenarios) minimum over options in each scenario; infinite without an option."""
        return np.asarray(np.where(self.available[..., None], self.node_s, np.inf).min(axis=2))

    @cached_property
    def slowest_s(self) -> FloatArray:
        """(rows, pools, scenarios) maximum over options in each scenario."""
        return np.asarray(np.where(self.available[..., None], self.node_s, 0.0).max(axis=2))

    @cached_property
    def min_resources(self) -> FloatArray:
        """(rows, pools, columns) minimum usage over options, column by column."""
        minimum = np.where(self.available[..., None], self.resources, np.inf).min(axis=2)
        return np.asarray(np.where(self.usable[..., None], minimum, 0.0))

    @cached_property
    def cheapest(self) -> IntArray:
        """(rows, pools) option of lowest usage: in every column if one dominates, else in the sum of scaled columns."""
        scale = np.maximum(self.resources.max(axis=2, keepdims=True), np.finfo(np.float64).tiny)
        usage = (self.resources / scale).sum(axis=3)
        return np.asarray(np.where(self.available, usage, np.inf).argmin(axis=2))

    @cached_property
    def cheapest_s(self) -> FloatArray:
        """(rows, pools, scenarios) time with the option of lowest usage."""
        return np.take_along_axis(self.node_s, self.cheapest[..., None, None], axis=2)[:, :, 0]


def option_table(
    rows: OperatorRows,
    columns: ResourceColumns,
    grid: ScenarioGrid,
    *,
    query: Query,
    utilization_targets: Sequence[float],
    pool: str | None = None,
    running: RunningLoad | None = None,
    rates_per_s: FloatArray | None = None,
) -> OptionTable:
    """Return all options of one operator at the arrivals of `query`, in `pool` only if one is given.

    Rows have the query's rate, or (rows,) `rates_per_s` of their own.

    Options are at their utilization targets, or at their final sizes beside a running load.

    Times of batched options and of arrivals that are not Poisson are missing until `OptionTable.of_rows`.
    """
    combinations = list(product(range(len(rows.sizes)), sorted(utilization_targets, reverse=True)))
    allocations = tuple(Allocation(*rows.sizes[size], target) for size, target in combinations)
    targets = np.array([a.utilization_target for a in allocations])
    batch_sizes = np.array([a.batch_size for a in allocations])
    hardware = [pool.hardware for pool in columns.pools]
    ratio = rows.full_batch_ratios_on(hardware)[..., [size for size, _ in combinations]]
    slowdown = ratio * rows.slowness_in(hardware)[..., None]
    batch_s = rows.mean_s[:, None, None] * slowdown
    rates_per_s = np.full(len(rows.profiles), query.rate_per_s) if rates_per_s is None else rates_per_s
    offered_load = rates_per_s[:, None, None] * batch_s / batch_sizes
    mean_factor = rows.mean_factor[:, None, None]
    running_busy: FloatArray | None = None
    spare, late_share = _spare_replicas(rows, columns, allocations, batch_s)
    if running is None:
        replicas = min_replicas_array(offered_load, targets)
        fractional, added, utilization = offered_load / targets, replicas + spare, targets
    else:
        running_replicas, running_busy = _running_replicas(rows, columns, query.pipeline, allocations, running)
        total_load = offered_load + running_busy
        total = np.maximum(min_replicas_array(total_load, targets) + spare, running_replicas)
        fractional = added = total - running_replicas
        replicas = total - spare
        utilization = total_load / replicas
    resources, fitting = _resources(rows, columns, allocations, fractional, added, spare > 0)
    servers = np.where(fitting, replicas, 1.0)  # avoid slow computations for millions of replicas that no pool holds
    overloaded = utilization * mean_factor >= 1
    # Replicas share the elements of a request, see `station_load`.
    parts = np.where(rows.has_elements[:, None, None], servers * batch_sizes, 1.0)
    wait = gi_g_c_wait(
        np.where(rows.has_elements[:, None, None], 1.0, servers),
        np.where(overloaded, utilization, utilization * mean_factor),
        batch_s * mean_factor / parts,
        rows.scv[:, None, None],
        service_skew=rows.skew[:, None, None],
    )
    dtype = rows.scenarios_s.dtype
    exponentials = grid.exponentials(operator_queue_key(rows.spec.name)).astype(dtype)
    node_s = wait.at(exponentials)
    if rows.has_runs:
        waits_batch = rows.spec.batch_wait_s * (batch_sizes > 1)
        node_s += (rows.has_elements[:, None, None] * waits_batch)[..., None].astype(dtype)
        node_s *= rows.has_run[:, None, None, :]
        own_s = rows.scenarios_s[:, None, None, :] * (slowdown / parts)[..., None].astype(dtype)
        node_s += np.maximum(own_s, rows.min_times_in(hardware)[:, :, [size for size, _ in combinations]], dtype=dtype)
    else:
        node_s += rows.scenarios_s[:, None, None, :] * slowdown[..., None].astype(dtype)
    node_s[np.broadcast_to(overloaded, batch_s.shape)] = UNBOUNDED
    _add_interruptions(node_s, late_share, grid, rows.spec.name)
    eligible = np.array([pool in (None, p.name) and _allows(rows.spec, p) for p in columns.pools], dtype=np.bool_)
    available = fitting & eligible[None, :, None]
    is_missing = np.ones(len(available), dtype=np.bool_)

    def compute(selected: BoolArray, check_time: Callable[[], None]) -> None:
        missing = available & (selected & is_missing)[:, None, None]
        sizes = _Sizes(replicas, np.broadcast_to(utilization, batch_s.shape), running_busy)
        _apply_queueing_models(
            node_s, missing, rows, columns, grid, query, rates_per_s, allocations, batch_s, sizes, check_time
        )
        _add_interruptions(node_s, late_share, grid, rows.spec.name)
        is_missing[selected] = False

    ineligible = int((~fitting & eligible[None, :, None]).sum())
    return OptionTable(allocations, available, node_s, resources, ineligible, compute)


def _spare_replicas(
    rows: OperatorRows, columns: ResourceColumns, allocations: Sequence[Allocation], batch_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (rows, pools, options) spare replicas, and shares of requests that count as late; see `spare_replicas`."""
    spare, late_share = np.zeros(batch_s.shape), np.zeros(batch_s.shape)
    for index, pool in enumerate(columns.pools):
        for row, profile in enumerate(rows.profiles) if pool.spot is not None else ():
            startup_s = profile.startup_on(pool.hardware)
            for option, allocation in enumerate(allocations):
                at = row, index, option
                spare[at], late_share[at] = spare_replicas(
                    pool, startup_s, float(batch_s[at]), allocation.utilization_target
                )
    return spare, late_share


def _add_interruptions(node_s: FloatArray, late_share: FloatArray, grid: ScenarioGrid, operator: str) -> None:
    """Make the share of the scenarios late that interruptions of nodes delay."""
    for row, column, option in np.argwhere(late_share > 0).tolist():
        late = late_scenarios(grid, operator, float(late_share[row, column, option]))
        node_s[row, column, option, late] = UNBOUNDED


def _running_replicas(
    rows: OperatorRows, columns: ResourceColumns, pipeline: str, allocations: Sequence[Allocation], running: RunningLoad
) -> tuple[FloatArray, FloatArray]:
    """Return (rows, pools, options) the number of running replicas of each option, and of those that are busy."""
    shape = len(rows.profiles), len(columns.pools), len(allocations)
    replicas, busy = np.zeros(shape), np.zeros(shape)
    operator, pools = rows.spec.name, {pool.name: index for index, pool in enumerate(columns.pools)}
    options = {allocation: index for index, allocation in enumerate(allocations)}
    for deployment, (count, busy_replicas) in running.deployments.items():
        pool, option = pools.get(deployment.pool), options.get(deployment.allocation)
        if (deployment.pipeline, deployment.operator) != (pipeline, operator) or pool is None or option is None:
            continue
        matching = [profile.prefix[operator] == deployment.knobs for profile in rows.profiles]
        replicas[matching, pool, option], busy[matching, pool, option] = count, busy_replicas
    return replicas, busy


@dataclass(frozen=True, eq=False)
class _Sizes:
    """Sizes of options. Arrays are (rows, pools, options)."""

    replicas: FloatArray
    utilization: FloatArray
    running_busy: FloatArray | None
    """Number of replicas that running plans keep busy, for final sizes, where batches fill at the actual load; None for
    utilization targets."""


def _apply_queueing_models(
    node_s: FloatArray,
    available: BoolArray,
    rows: OperatorRows,
    columns: ResourceColumns,
    grid: ScenarioGrid,
    query: Query,
    rates_per_s: FloatArray,
    allocations: Sequence[Allocation],
    batch_s: FloatArray,
    sizes: _Sizes,
    check_time: Callable[[], None],
) -> None:
    """Replace the times (rows, pools, options, scenarios) of batched options and of non-Poisson arrivals.

    Where batches fill most slowly with the query's requests only, even at a high utilization target, a lower one with
    as many replicas is not faster and costs more. It needs no model: it gets equal times, and is dominated.
    """
    arrivals, draws = ArrivalModel.of(query), grid.exponentials(operator_queue_key(rows.spec.name))
    targets, replicas = len(allocations) // len(rows.sizes), sizes.replicas
    unbatched = np.array([allocation.batch_size == 1 for allocation in allocations])
    divided = rows.has_elements[:, None, None]
    if arrivals.modulation is not None:
        at_once = available & (batch_s > 0) & unbatched & ~divided
        _apply_bursts(node_s, at_once, rows, columns, query.rate_per_s, arrivals.modulation, draws, sizes, batch_s)
        available = available & ~at_once
    is_first = np.array([not rows.spec.after and pool.site == query.source for pool in columns.pools], dtype=np.bool_)
    has_formula = np.array([arrivals.is_poisson(first=first) for first in is_first.tolist()], dtype=np.bool_)
    is_slower = np.zeros(available.shape, dtype=np.bool_)
    for row, column, option in np.argwhere(available & ~(has_formula[:, None] & (unbatched | divided))).tolist():
        check_time()
        if is_slower[row, column, option]:
            continue
        allocation, full_s = allocations[option], float(batch_s[row, column, option])
        square_s2, cube_s3 = full_s**2 * (1 + float(rows.scv[row])), full_s**3 * float(rows.skew[row])
        ratios = rows.fill_ratios_on(columns.pools[column].hardware)[row][option // targets]
        rate_per_s = float(rates_per_s[row])
        traffic = arrivals.traffic(
            rate_per_s,
            full_s,
            square_s2,
            cube_s3,
            first=bool(is_first[column]),
            mean_factor=float(rows.mean_factor[row]),
            has_elements=bool(rows.has_elements[row]),
        )
        batch_wait_s = rows.spec.batch_wait_s if len(ratios) > 1 else 0.0
        busy = rate_per_s * full_s / allocation.batch_size
        if sizes.running_busy is not None:
            others, servers = float(sizes.running_busy[row, column, option]), int(replicas[row, column, option])
            total = traffic.within(traffic.rate_per_s * (1 + others / busy if busy > 0 else 1.0))
            if others > 0:  # several streams are random together
                total = replace(total, jitter_s=None)
            stations: tuple[LoadedStation, ...] = (station_load(servers, total, ratios, batch_wait_s),)
        else:
            stations = stations_at_target(busy, traffic, ratios, batch_wait_s, allocation.utilization_target)
        slowdown = full_s / float(rows.mean_s[row]) if rows.mean_s[row] > 0 else 0.0
        unbatched_s = rows.scenarios_s[row] * (slowdown / ratios[-1])
        times = [pessimistic_station_time(s, ratios[-1], draws) for s in stations]
        elements = ElementTimes.of(rows.profiles[row], ratios, grid)
        own = unbatched_s, elements, slowdown / ratios[-1] * float(rows.inflation[row])
        node_s[row, column, option] = longest_s = elementwise_max_s(times, *own)
        if len(times) > 1 and (longest_s == elementwise_max_s(times[1:], *own)).all():
            lower = slice(option + 1, (option // targets + 1) * targets)
            is_slower[row, column, lower] = replicas[row, column, lower] == replicas[row, column, option]
            node_s[row, column, lower][is_slower[row, column, lower]] = longest_s


def _apply_bursts(
    node_s: FloatArray,
    selected: BoolArray,
    rows: OperatorRows,
    columns: ResourceColumns,
    rate_per_s: float,
    modulation: MarkovModulatedPoisson,
    draws: FloatArray,
    sizes: _Sizes,
    batch_s: FloatArray,
) -> None:
    """Replace the times of selected options (rows, pools, options), unbatched and under bursts, as the loop would."""
    uniforms, burst = -np.expm1(-draws), modulation.burst
    durations_s = modulation.durations_s[burst], modulation.durations_s[1 - burst]
    ratios = rows.full_batch_ratios_on([pool.hardware for pool in columns.pools])
    targets = batch_s.shape[2] // len(rows.sizes)
    for row, factor in enumerate(rows.mean_factor.tolist()):
        is_bounded = (sizes.utilization[row] * factor < MAX_SIMULATED) | (factor == 1)
        node_s[row][selected[row] & ~is_bounded] = UNBOUNDED
        pool, option = np.nonzero(selected[row] & is_bounded)
        if not len(option):
            continue
        service_s, replicas = batch_s[row, pool, option], sizes.replicas[row, pool, option]
        total_per_s = sizes.utilization[row, pool, option] * replicas / service_s
        extra_per_s = total_per_s - rate_per_s
        burst_per_s, low_per_s = (
            np.where(extra_per_s > 0, own_per_s + extra_per_s, own_per_s * (total_per_s / rate_per_s))
            for own_per_s in (modulation.rates_per_s[burst], modulation.rates_per_s[1 - burst])
        )
        longest_s = service_s * factor
        load = BurstyLoad(burst_per_s, low_per_s, durations_s, total_per_s, replicas / longest_s, float(rows.scv[row]))
        ratio = ratios[row, pool, option // targets]
        unbatched = (service_s / rows.mean_s[row] / ratio).astype(node_s.dtype)
        for index, waits_s in enumerate(unbatched_waits_s(load, replicas, longest_s, float(rows.skew[row]))):
            wait_s = np.interp(uniforms, MIDPOINTS, waits_s)
            own_s = ratio[index] * (rows.scenarios_s[row] * unbatched[index])
            node_s[row, pool[index], option[index]] = wait_s + own_s


def _allows(operator: OperatorSpec, pool: Pool) -> bool:
    return operator.allowed_tiers is None or pool.tier in operator.allowed_tiers


def _resources(
    rows: OperatorRows,
    columns: ResourceColumns,
    allocations: Sequence[Allocation],
    fractional: FloatArray,
    replicas: FloatArray,
    is_spread: BoolArray,
) -> tuple[FloatArray, BoolArray]:
    """Return the usage of every option, and whether the pool can hold its replicas (each on one node)."""
    resources = np.zeros((*replicas.shape, columns.count))
    fitting = np.ones(replicas.shape, dtype=np.bool_)
    for index, pool in enumerate(columns.pools):
        node = np.array(pool.amounts)
        replica = np.zeros((len(rows.memory_bytes), len(allocations), len(RESOURCES)))
        replica[..., 0] = [a.cpus for a in allocations]
        replica[..., 1] = rows.memory_bytes[:, None]
        replica[..., 2] = rows.spec.gpus
        replica[..., 3] = rows.gpu_memory_bytes[:, None]
        share = np.divide(replica, node, out=np.zeros_like(replica), where=node > 0)
        price = pool.paid_usd_per_h * (share[..., node > 0].mean(axis=2) if pool.bills_nodes else share.max(axis=2))
        replicas_per_node = np.divide(node, replica, out=np.full_like(replica, np.inf), where=replica > 0)
        per_node = np.floor(replicas_per_node.min(axis=2) + DOMINANCE_TOLERANCE)
        per_node = np.where(is_spread[:, index], np.minimum(per_node, 1), per_node)
        fitting[:, index] = replicas[:, index] <= per_node * pool.nodes
        resources[:, index, :, columns.shared(index)] = replica * fractional[:, index, :, None]
        resources[:, index, :, columns.dedicated(index)] = replica * replicas[:, index, :, None]
        resources[:, index, :, columns.shared_cost] = price * fractional[:, index]
        resources[:, index, :, columns.dedicated_cost] = price * replicas[:, index]
    return resources, fitting


def _undominated(available: BoolArray, node_s: FloatArray, resources: FloatArray, slack_s: float) -> BoolArray:
    """Return the available options that no other option of the same row and pool dominates; at least one remains."""
    efficient = available.copy()
    # An option may be slower than a retained one by one slack only.
    reverse_slack_s = slack_s if slack_s == np.inf else 0.0
    for later in range(1, available.shape[2]):
        for earlier in range(later):
            both = efficient[:, :, earlier] & efficient[:, :, later]
            efficient[:, :, later] &= ~(both & _dominates(earlier, later, both, node_s, resources, slack_s))
            both &= efficient[:, :, later]
            efficient[:, :, earlier] &= ~(both & _dominates(later, earlier, both, node_s, resources, reverse_slack_s))
    return efficient


def _dominates(
    first: int, second: int, mask: BoolArray, node_s: FloatArray, resources: FloatArray, slack_s: float
) -> BoolArray:
    """Return (rows, pools) whether option `first` uses no more and is not slower (within the slack) than `second`."""
    no_more = (resources[:, :, first] <= resources[:, :, second] * (1 + DOMINANCE_TOLERANCE)).all(axis=2) & mask
    if slack_s == np.inf or not no_more.any():
        return no_more
    slower_s = (node_s[:, :, first] - node_s[:, :, second]).max(axis=2)
    return np.asarray(no_more & (slower_s <= slack_s))
