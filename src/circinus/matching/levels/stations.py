"""Loads that whole replicas of a deployment carry while they keep a level of wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.estimation import DeploymentUse
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.estimation.merged_load import station_load
from circinus.estimation.percentiles import UNBOUNDED, ScenarioGrid
from circinus.estimation.stage_latency import operator_queue_key, pessimistic_station_time
from circinus.estimation.traffic import RequestStream
from circinus.estimation.transfer import link_queue_key, link_station, pessimistic_link_wait_s
from circinus.queueing.waiting_time import gi_g_c_wait
from circinus.specification import DirectedLink

_UTILIZATIONS = 24
"""Utilizations of a table with a formula; loads between them are interpolated."""
_SIMULATED_UTILIZATIONS = 6
"""Utilizations of a table by sample paths, which take some milliseconds each."""
_LEVEL_QUANTILE = 0.95
"""Quantile of the wait that a grid of levels is about."""
_HALVINGS, _LINK_HALVINGS = 9, 4
"""How often the loosest wait of a grid halves down to the strictest, and the usable share of a link."""
_MARGIN = 1.001
"""Factor on a wait that becomes a level, for rounding."""


@dataclass(frozen=True, eq=False)
class WaitTable:
    """Waits at a deployment, by its number of replicas and their utilization."""

    sizes: IntArray
    """(C,) replicas, ascending, without spare ones."""
    utilization: FloatArray
    """(U,) ascending."""
    waits_s: FloatArray
    """(C, U, n) seconds beyond the service time of a full batch, in every scenario."""

    @classmethod
    def of(
        cls, use: DeploymentUse, service_s: FloatArray, grid: ScenarioGrid, sizes: IntArray, limit: float
    ) -> WaitTable:
        """Compute the waits of requests like those of a use.

        Args:
            use: of the deployment; its rate is scaled to each load.
            service_s: (n,) service times of a full batch.
            grid: of the scenarios.
            sizes: (C,) replicas.
            limit: highest utilization.
        """
        traffic, draws = use.traffic, grid.exponentials(operator_queue_key(use.deployment.operator))
        is_poisson = len(use.fill_ratios) == 1 and traffic.jitter_s is None and traffic.modulation is None
        if traffic.mean_s <= 0:
            return cls(sizes, np.array([limit]), np.zeros((len(sizes), 1, grid.count)))
        if is_poisson and not traffic.has_elements:
            utilization = np.linspace(limit / _UTILIZATIONS, limit, _UTILIZATIONS)
            busy = utilization * traffic.mean_factor
            wait = gi_g_c_wait(
                sizes[:, None].astype(np.float64),
                np.where(busy < 1, busy, utilization)[None, :],
                np.full((1, 1), traffic.mean_s * traffic.mean_factor),
                np.full((1, 1), traffic.scv),
                service_skew=np.full((1, 1), traffic.skew),
            )
            waits_s = wait.at(draws)
            waits_s[:, busy >= 1] = UNBOUNDED
            return cls(sizes, utilization, waits_s)
        utilization = np.linspace(limit / _SIMULATED_UTILIZATIONS, limit, _SIMULATED_UTILIZATIONS)
        anchors = np.flatnonzero(np.diff(np.floor(np.log2(sizes)), prepend=-1.0))
        # More servers at an equal utilization wait less: sizes between two anchors get the waits of the smaller.
        rows = np.stack([_simulated_s(use, service_s, draws, int(sizes[a]), utilization) for a in anchors])
        return cls(sizes, utilization, rows[np.searchsorted(anchors, np.arange(len(sizes)), side="right") - 1])


def _simulated_s(
    use: DeploymentUse, service_s: FloatArray, draws: FloatArray, servers: int, utilization: FloatArray
) -> FloatArray:
    waits_s = np.full((len(utilization), len(draws)), UNBOUNDED)
    for row, share in enumerate(utilization.tolist()):
        traffic = use.traffic.within(share * servers * len(use.fill_ratios) / use.traffic.mean_s)
        try:
            station = station_load(servers, traffic, use.fill_ratios, use.batch_wait_s)
            time = pessimistic_station_time(station, 1.0, draws)
        except PlanningError:  # overloaded at the longest service times
            continue
        waits_s[row] = time.added_s + service_s * (time.factor - 1.0)
    return waits_s


@dataclass(frozen=True, eq=False)
class StationLevels:
    """Levels of a deployment, from strict to loose."""

    sizes: IntArray
    """(C,) replicas, without spare ones."""
    capacity: FloatArray
    """(K, C) largest load in busy replicas at which each level is kept; 0 if it is at none."""
    minimum: FloatArray
    """(K, C) minimum load: batches that wait to fill are slower below it."""
    waits_s: FloatArray
    """(K, n) slowest wait of any size at each level; without rows if levels are limits of single queries."""
    limits_s: FloatArray
    """(K,) quantile of the wait at each level; empty likewise."""
    start: int = 0
    """A level that a good answer had; else the strictest."""
    fastest_s: FloatArray | None = None
    """(K, n) waits that requests have at least where a level is not kept, whatever the size."""

    def optimistic(self) -> StationLevels:
        """Return levels with waits that requests have at least if no stricter level is kept."""
        assert self.fastest_s is not None
        return replace(self, waits_s=np.vstack([np.zeros((1, self.fastest_s.shape[1])), self.fastest_s[:-1]]))

    @classmethod
    def on_grid(cls, table: WaitTable, steps: int, around: tuple[int, float] | None = None) -> StationLevels:
        """Return levels down from the wait of a single replica at the highest utilization to a 512th of it.

        Args:
            table: waits of the deployment.
            steps: number of levels in which the wait halves.
            around: replicas, without spare ones, and their load, whose wait is a further level.
        """
        quantile = np.quantile(table.waits_s, _LEVEL_QUANTILE, axis=2)
        finite = quantile[quantile < UNBOUNDED]
        top = max(float(finite.max(initial=0.0)), 0.0)
        limits = top * _halving(_HALVINGS, steps) if top > 0 else np.zeros(1)
        start = 0
        if around is not None and top > 0:
            row = int(np.searchsorted(table.sizes, around[0], side="right")) - 1
            wait_s = np.interp(around[1] / table.sizes[row], table.utilization, quantile[row])
            around_s = min(float(wait_s) * _MARGIN, top)
            limits = np.unique([*limits, around_s])
            start = int(np.searchsorted(limits, around_s))
        capacity, minimum, waits_s, fastest_s = [], [], [], []
        for limit_s in limits.tolist():
            largest, smallest, last = _loads(quantile, limit_s, table)
            rows = np.arange(len(table.sizes))
            reached = quantile[rows, last]
            scale = limit_s / np.where((reached > 0) & (largest > 0), reached, limit_s if limit_s > 0 else 1.0)
            own = table.waits_s[rows, last] * np.clip(scale, 1.0, 2.0)[:, None]
            kept = largest > 0
            capacity.append(largest)
            minimum.append(smallest)
            fastest_s.append(table.waits_s[rows, last].min(axis=0))
            waits_s.append(own[kept].max(axis=0) if kept.any() else np.full(table.waits_s.shape[2], UNBOUNDED))
        return cls(
            table.sizes, np.array(capacity), np.array(minimum), np.array(waits_s), limits, start, np.array(fastest_s)
        )

    @classmethod
    def of_link(
        cls,
        link: DirectedLink,
        traffic: RequestStream,
        grid: ScenarioGrid,
        usable: float,
        steps: int,
        around: float | None,
    ) -> StationLevels:
        """Return levels of a link, a station with one replica, down from its usable share to a 16th of it.

        Args:
            link: directed.
            traffic: transfers like those that it will have.
            grid: of the scenarios.
            usable: share of its bandwidth.
            steps: number of levels in which the share halves.
            around: share of its bandwidth that is a further level.
        """
        shares = usable * _halving(_LINK_HALVINGS, steps)
        start = 0
        if around is not None and 0 < around < usable:
            own = min(around * _MARGIN, usable)
            shares = np.unique([*shares, own])
            start = int(np.searchsorted(shares, own))
        draws = grid.exponentials(link_queue_key(link))
        waits_s = np.array([pessimistic_link_wait_s(link_station(traffic, float(share)), draws) for share in shares])
        limits_s, capacity = np.quantile(waits_s, _LEVEL_QUANTILE, axis=1), shares[:, None]
        return cls(np.ones(1, dtype=np.int64), capacity, np.zeros_like(capacity), waits_s, limits_s, start, waits_s)

    @classmethod
    def of_limits(
        cls, table: WaitTable, plans: Sequence[CompiledPlan], limits_s: Sequence[float]
    ) -> tuple[StationLevels, IntArray]:
        """Return the exact levels of plans with a single operator, and (plans,) the level of each; -1 if none is kept.

        Args:
            table: waits of the deployment.
            plans: of the queries that may use it.
            limits_s: latency limit of each plan.
        """
        own = [_limit_loads(table, *pair) for pair in zip(plans, limits_s, strict=True)]
        largest = np.array([loads[0] for loads in own]).reshape(len(own), len(table.sizes))
        smallest = np.array([loads[1] for loads in own]).reshape(len(own), len(table.sizes))
        order = np.argsort(largest.sum(axis=1), kind="stable")
        order = order[largest[order].max(axis=1) > 0]
        level = np.full(len(own), -1, dtype=np.int64)
        starts = list[int]()
        for position, plan in enumerate(order.tolist()):
            before = order[position - 1] if position else -1
            if before < 0 or not np.allclose(largest[plan], largest[before], rtol=1e-6):
                starts.append(position)
            level[plan] = len(starts) - 1
        # A level is kept for every looser one, too.
        capacity = np.array([largest[order[start:]].min(axis=0) for start in starts])
        minimum = np.array([smallest[order[start:]].max(axis=0) for start in starts])
        shape = len(starts), len(table.sizes)
        none = np.zeros((0, table.waits_s.shape[2]))
        return cls(table.sizes, capacity.reshape(shape), minimum.reshape(shape), none, np.zeros(0)), level


def _halving(halvings: int, steps: int) -> FloatArray:
    """Return factors up to 1 that double in some steps, and halve so often."""
    return np.asarray(2.0 ** np.arange(-halvings, 1 / steps / 2, 1 / steps))


def _limit_loads(table: WaitTable, plan: CompiledPlan, limit_s: float) -> tuple[FloatArray, FloatArray]:
    """Return (C,) the largest and the minimum load at which the bound of a plan is within a limit."""
    sizes, points, scenarios = table.waits_s.shape
    if np.isinf(limit_s):
        return table.sizes * table.utilization[-1], np.zeros(sizes)
    waits_s = table.waits_s.reshape(sizes * points, scenarios)
    latency_s = plan.composed_s([(waits_s, 1.0)], lambda transfer: transfer.guaranteed_s)
    bound_s = plan.percentile.upper(latency_s).reshape(sizes, points)
    largest, smallest, _ = _loads(bound_s, limit_s, table)
    return largest, smallest


def _loads(values: FloatArray, limit: float, table: WaitTable) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return (C,) the largest and the minimum load with (C, U) values within a limit, and the last such point."""
    within: BoolArray = values <= limit * (1 + 1e-9)
    rows, utilization = np.arange(len(values)), table.utilization
    last = len(utilization) - 1 - within[:, ::-1].argmax(axis=1)
    following = np.minimum(last + 1, len(utilization) - 1)
    low, high = values[rows, last], values[rows, following]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(high > low, (limit - low) / (high - low), 0.0)
    share = np.clip(np.nan_to_num(share), 0.0, 1.0)
    largest = utilization[last] + share * (utilization[following] - utilization[last])
    first = within.argmax(axis=1)
    smallest = np.where(first > 0, utilization[first], 0.0)
    any_within = within.any(axis=1)
    return (
        np.where(any_within, largest * table.sizes, 0.0),
        np.where(any_within, smallest * table.sizes, 0.0),
        np.where(any_within, last, 0),
    )
