"""Searches over one query's space: non-dominated plans, cheapest plan and fastest plan.

`configurations` are ascending indexes into those of the space; `max_labels` limits the partial plans of one
configuration at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.dominance import ParetoArchive
from circinus.planning.placement_search import CHEAPEST, FASTEST, PartialPlacements, PlacementSearch
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.search_space import Limits, SearchSpace

_LABELS_AT_A_TIME = 16_384
"""Maximum number of placements of the configurations that are searched as one batch."""

_CELLS_AT_A_TIME = 512
"""Number of placements whose allocations are searched as one batch."""


def min_latency_s(space: SearchSpace, configurations: IntArray) -> FloatArray:
    """Return (configurations,) lower bounds of the guaranteed latency over all placements."""
    bounds_s = np.zeros(len(space.arrays.configurations))
    for group in configuration_batches(space, configurations):
        bounds_s[group] = space.percentile.upper(PlacementSearch(space, group).lower_bounds_s())
    return bounds_s[configurations]


def nondominated_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, considered: Counter[str]
) -> PlanArrays:
    """Return the plans within `limits` that no other plan of the given configurations dominates in resources."""
    plans = PlanArrays.none(space)
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), considered)
        considered["placements"] += cells.count
        plans = plans.merged_with(cheapest_option_plans(space, group, cells, limits)[0])
        cells = cells.take(~ParetoArchive(plans.resources).beats(cells.min_resources))
        considered["placements with several allocations to compare"] += cells.count
        order = np.argsort(cells.min_resources[:, space.columns.dedicated_cost], kind="stable")
        for start in range(0, len(order), _CELLS_AT_A_TIME):
            part = cells.take(order[start : start + _CELLS_AT_A_TIME])
            part = part.take(~ParetoArchive(plans.resources).beats(part.min_resources))
            if part.count:
                plans = AllocationSearch(space, group, part, limits).cheapest(plans)
    return plans


def cheapest_plan(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, column: int
) -> PlanArrays | None:
    """Return the plan within `limits` that minimizes a resource column, or None if no plan satisfies the limits."""
    best: PlanArrays | None = None
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        best = _cheaper(best, cheapest_option_plans(space, group, cells, limits)[0], column)
        order = np.argsort(cells.min_resources[:, column], kind="stable")
        start, size = 0, 1
        while start < len(order):
            part = cells.take(order[start : start + size])
            if best is not None:
                part = part.take(part.min_resources[:, column] < best.resources[0, column])
            if not part.count:
                break
            plans = AllocationSearch(space, group, part, limits).cheapest(PlanArrays.none(space))
            best = _cheaper(best, plans, column)
            start, size = start + size, 4 * size  # the first is often the best, otherwise larger batches are faster
    return best


def _cheaper(best: PlanArrays | None, plans: PlanArrays, column: int) -> PlanArrays | None:
    if not plans.count:
        return best
    candidate = plans.take(np.array([plans.resources[:, column].argmin()]))
    return candidate if best is None or candidate.resources[0, column] < best.resources[0, column] else best


def fastest_plan(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int
) -> tuple[PlanArrays, float] | None:
    """Return the plan with the lowest upper bound of latency and that bound in seconds, or None without a plan."""
    best: tuple[PlanArrays, float] | None = None
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        bounds_s = space.percentile.upper(cells.latency_s[:, FASTEST])
        for cell in np.argsort(bounds_s, kind="stable"):
            if best is not None and bounds_s[cell] >= best[1]:
                break
            plans, latency_s = AllocationSearch(space, group, cells.take(cell[None]), limits).fastest()
            if plans.count:
                upper_s = space.percentile.upper(latency_s)
                fastest = int(upper_s.argmin())
                if best is None or upper_s[fastest] < best[1]:
                    best = plans.take(np.array([fastest])), float(upper_s[fastest])
                    limits = Limits(best[1], limits.capacity)
    return best


def configuration_batches(space: SearchSpace, configurations: IntArray) -> Iterator[IntArray]:
    """Yield batches of neighbouring configurations to search together, in ascending order of service time."""
    pools = [int(table.usable.any(axis=0).sum()) for table in space.options]
    placements = max(1.0, float(np.prod([float(count) for count in pools])))
    size = max(1, int(_LABELS_AT_A_TIME / placements))
    groups = [configurations[start : start + size] for start in range(0, len(configurations), size)]
    work_s = [float(_work_s(space, group).min()) for group in groups]
    for index in np.argsort(work_s, kind="stable"):
        yield groups[int(index)]


def _work_s(space: SearchSpace, configurations: IntArray) -> FloatArray:
    """Return (configurations,) mean service seconds of one request."""
    rows = space.arrays.rows[configurations]
    return np.asarray(sum(operator.mean_s[rows[:, index + 1]] for index, operator in enumerate(space.arrays.operators)))


def cheapest_option_plans(
    space: SearchSpace, configurations: IntArray, cells: PartialPlacements, limits: Limits
) -> tuple[PlanArrays, BoolArray]:
    """Return the plans with the cheapest options that are within the limits, and a mask of their placements."""
    mask = space.percentile.within(cells.latency_s[:, CHEAPEST], limits.latency_s) & limits.satisfied(cells.cheapest)
    configuration, pools = configurations[cells.prefix[mask]], cells.pools[mask]
    rows = space.arrays.rows[configuration]
    options = [table.cheapest[rows[:, o + 1], pools[:, o]] for o, table in enumerate(space.options)]
    return PlanArrays(configuration, pools, np.column_stack(options), cells.cheapest[mask]), mask


def cost_by_pool_scenario(space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int) -> FloatArray:
    """Return (configurations, 2 (1 + pools)) lower bounds of the cost of plans within `limits`, USD per hour.

    Columns: fully shared and dedicated, first with all pools, then without each of the pools in turn; infinite without
    a plan.
    """
    pools = len(space.columns.pools)
    bounds = np.full((len(space.arrays.configurations), 1 + pools, 2), np.inf)
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        costs = cells.min_resources[:, [space.columns.shared_cost, space.columns.dedicated_cost]]
        for avoided in range(-1, pools):
            avoids_pool = (cells.pools != avoided).all(axis=1)
            np.minimum.at(bounds[:, avoided + 1], group[cells.prefix[avoids_pool]], costs[avoids_pool])
    return bounds[configurations].reshape(len(configurations), -1)
