"""Searching one query's space: the plans that take least, and the fastest plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.dominance import ParetoArchive
from circinus.planning.placement_search import CHEAPEST, FASTEST, PartialPlacements, PlacementSearch
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.search_space import Limits, SearchSpace

FloatArray = NDArray[np.floating]

_LABELS_AT_A_TIME = 16_384
"""Configurations are searched together as long as their placements come to no more than this."""

_CELLS_AT_A_TIME = 512
"""Placements whose allocations are searched together."""


def min_latency_s(space: SearchSpace, configurations: IntArray) -> FloatArray:
    """(configurations,) no plan of a configuration promises a latency below this, whatever its placement."""
    bounds_s = np.zeros(len(space.arrays.configurations))
    for group in configuration_batches(space, configurations):
        bounds_s[group] = space.percentile.upper(PlacementSearch(space, group).lower_bounds_s())
    return bounds_s[configurations]


def nondominated_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, considered: Counter[str]
) -> PlanArrays:
    """The plans that keep `limits` and take least: no plan of the given configurations beats any of them.

    Args:
        space: what to search.
        configurations: ascending indexes into those of the space.
        limits: what plans must keep to.
        max_labels: most labels of one configuration to follow at a time.
        considered: counts what was looked at and dropped.
    """
    known = PlanArrays.none(space)
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), considered)
        considered["placements"] += cells.count
        known = known.with_others(cheapest_option_plans(space, group, cells, limits)[0])
        cells = cells.take(~ParetoArchive(known.resources).beats(cells.least))
        considered["placements with several allocations to compare"] += cells.count
        order = np.argsort(cells.least[:, space.columns.alone_cost], kind="stable")
        for start in range(0, len(order), _CELLS_AT_A_TIME):
            part = cells.take(order[start : start + _CELLS_AT_A_TIME])
            part = part.take(~ParetoArchive(known.resources).beats(part.least))
            if part.count:
                known = AllocationSearch(space, group, part, limits).cheapest(known)
    return known


def cheapest_plan(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, column: int
) -> PlanArrays | None:
    """The one plan that keeps `limits` and takes least in a resource column; None where no plan keeps them.

    Args:
        space: what to search.
        configurations: ascending indexes into those of the space.
        limits: what plans must keep to.
        max_labels: most labels of one configuration to follow at a time.
        column: the resource column.
    """
    best: PlanArrays | None = None
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        best = _lesser(best, cheapest_option_plans(space, group, cells, limits)[0], column)
        order = np.argsort(cells.least[:, column], kind="stable")
        start, size = 0, 1
        while start < len(order):
            part = cells.take(order[start : start + size])
            if best is not None:
                part = part.take(part.least[:, column] < best.resources[0, column])
            if not part.count:
                break
            plans = AllocationSearch(space, group, part, limits).cheapest(PlanArrays.none(space))
            best = _lesser(best, plans, column)
            start, size = start + size, 4 * size  # the first is often the best; if not, one by one would take long
    return best


def _lesser(best: PlanArrays | None, plans: PlanArrays, column: int) -> PlanArrays | None:
    """The plan that takes least in `column`: `best` or one of `plans`."""
    if not plans.count:
        return best
    found = plans.take(np.array([plans.resources[:, column].argmin()]))
    return found if best is None or found.resources[0, column] < best.resources[0, column] else best


def fastest_plan(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int
) -> tuple[PlanArrays, float] | None:
    """The plan with the least upper bound of latency, and that bound in seconds; None where no plan keeps `limits`.

    Args:
        space: what to search.
        configurations: ascending indexes into those of the space.
        limits: what plans must keep to.
        max_labels: most labels of one configuration to follow at a time.
    """
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
                found = int(upper_s.argmin())
                if best is None or upper_s[found] < best[1]:
                    best = plans.take(np.array([found])), float(upper_s[found])
                    limits = Limits(best[1], limits.capacity)
    return best


def configuration_batches(space: SearchSpace, configurations: IntArray) -> Iterator[IntArray]:
    """Neighbouring configurations that are searched together, those with the least work first."""
    pools = [int(table.usable.any(axis=0).sum()) for table in space.options]
    placements = max(1.0, float(np.prod([float(count) for count in pools])))
    size = max(1, int(_LABELS_AT_A_TIME / placements))
    groups = [configurations[start : start + size] for start in range(0, len(configurations), size)]
    work_s = [float(_work_s(space, group).min()) for group in groups]
    for index in np.argsort(work_s, kind="stable"):
        yield groups[int(index)]


def _work_s(space: SearchSpace, configurations: IntArray) -> FloatArray:
    """(configurations,) mean seconds of service of one request."""
    rows = space.arrays.rows[configurations]
    return np.asarray(sum(operator.mean_s[rows[:, index + 1]] for index, operator in enumerate(space.arrays.operators)))


def cheapest_option_plans(
    space: SearchSpace, configurations: IntArray, cells: PartialPlacements, limits: Limits
) -> tuple[PlanArrays, NDArray[np.bool_]]:
    """The plans with the cheapest options, of those placements where these keep the limits; and which these are."""
    kept = space.percentile.within(cells.latency_s[:, CHEAPEST], limits.latency_s) & limits.satisfied(cells.cheapest)
    configuration, pools = configurations[cells.prefix[kept]], cells.pools[kept]
    rows = space.arrays.rows[configuration]
    options = [table.cheapest[rows[:, o + 1], pools[:, o]] for o, table in enumerate(space.options)]
    return PlanArrays(configuration, pools, np.column_stack(options), cells.cheapest[kept]), kept


def cost_by_pool_scenario(space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int) -> FloatArray:
    """(configurations, 2 (1 + pools)) no plan of a configuration that may keep `limits` costs less, USD per hour.

    Fully shared and alone, in all pools, and then without each of the pools in turn; infinite where there is no plan.

    Args:
        space: what to search.
        configurations: ascending indexes into those of the space.
        limits: what plans must keep to.
        max_labels: most labels of one configuration to follow at a time.
    """
    pools = len(space.columns.pools)
    found = np.full((len(space.arrays.configurations), 1 + pools, 2), np.inf)
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        costs = cells.least[:, [space.columns.shared_cost, space.columns.alone_cost]]
        for avoided in range(-1, pools):
            free = (cells.pools != avoided).all(axis=1)
            np.minimum.at(found[:, avoided + 1], group[cells.prefix[free]], costs[free])
    return found[configurations].reshape(len(configurations), -1)
