"""Searches over one query's space: non-dominated, cheapest, fastest and high-margin plans.

`configurations` are ascending indexes into those of the space; `max_labels` limits the partial plans of one
configuration at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.dominance import DOMINANCE_TOLERANCE, GrowingArchive, nondominated
from circinus.planning.placement_search import CHEAPEST, FASTEST, PartialPlacements, PlacementSearch
from circinus.planning.plan_arrays import PlanArrays, PlanMetrics
from circinus.planning.search_space import Limits, SearchSpace

_LABELS_AT_A_TIME = 16_384
"""Maximum number of placements of the configurations that are searched as one batch."""

_SCARCE = 0.01
"""Share of the bandwidth of links up to which plans count alike where links are scarce."""

_CELLS_AT_A_TIME = 512
"""Number of placements whose allocations are searched as one batch."""


def min_latency_s(space: SearchSpace, configurations: IntArray) -> FloatArray:
    """Return (configurations,) lower bounds of the guaranteed latency over all placements."""
    bounds_s = np.zeros(len(space.arrays.configurations))
    for group in configuration_batches(space, configurations):
        bounds_s[group] = space.percentile.upper(PlacementSearch(space, group, only_fastest=True).lower_bounds_s())
    return bounds_s[configurations]


def nondominated_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, considered: Counter[str]
) -> PlanArrays:
    """Return the plans within `limits` that no other plan of the given configurations dominates in resources."""
    plans, archive = PlanArrays.none(space), GrowingArchive()
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), considered)
        considered["placements"] += cells.count
        plans = plans.merged_with(cheapest_option_plans(space, group, cells, limits)[0], archive)
        cells = cells.take(~archive.beats(cells.min_resources))
        considered["placements with several allocations to compare"] += cells.count
        order = np.argsort(cells.min_resources[:, space.columns.dedicated_cost], kind="stable")
        for start in range(0, len(order), _CELLS_AT_A_TIME):
            part = cells.take(order[start : start + _CELLS_AT_A_TIME])
            part = part.take(~archive.beats(part.min_resources))
            if part.count:
                plans = plans.merged_with(AllocationSearch(space, group, part, limits).cheapest(archive), archive)
    return plans


def cheapest_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, column: int
) -> dict[int, PlanArrays]:
    """Return for each configuration with a plan within `limits` the plan that minimizes a resource column."""
    best: dict[int, PlanArrays] = {}
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        for plans in _by_configuration(cheapest_option_plans(space, group, cells, limits)[0]):
            _keep_cheaper(best, plans, column)
        order = np.lexsort((cells.min_resources[:, column], cells.prefix))
        rank = np.arange(len(order)) - np.searchsorted(cells.prefix[order], cells.prefix[order])
        start, size = 0, 1
        while True:
            part = cells.take(order[(rank >= start) & (rank < start + size)])
            found = [best[index].resources[0, column] if index in best else np.inf for index in group.tolist()]
            part = part.take(part.min_resources[:, column] < np.array(found)[part.prefix])
            if not part.count:
                break
            for plans in _by_configuration(AllocationSearch(space, group, part, limits).undominated()):
                _keep_cheaper(best, plans.take(nondominated(plans.resources)), column)
            start, size = start + size, 4 * size  # the first is often the best, otherwise larger batches are faster
    return best


def _by_configuration(plans: PlanArrays) -> Iterator[PlanArrays]:
    return (plans.take(plans.configuration == index) for index in np.unique(plans.configuration))


def _keep_cheaper(best: dict[int, PlanArrays], plans: PlanArrays, column: int) -> None:
    candidate = plans.take(np.array([plans.resources[:, column].argmin()]))
    current = best.setdefault(int(candidate.configuration[0]), candidate)
    if candidate.resources[0, column] < current.resources[0, column]:
        best[int(candidate.configuration[0])] = candidate


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


def cost_by_situation(
    space: SearchSpace,
    configurations: IntArray,
    limits: Limits,
    max_labels: int,
    check_time: Callable[[], None] = lambda: None,
) -> FloatArray:
    """Return (configurations, 2 (2 + pools)) lower bounds of the cost of plans within `limits`, USD per hour.

    Columns: fully shared and dedicated, in each of the situations: with all pools, without each of the pools in turn,
    and with all pools but scarce links. Then a cost counts times the sum of the shares of links' usable bandwidth that
    a plan takes, at least `_SCARCE`. Costs are infinite without a plan.
    """
    bounds = np.full((len(space.arrays.configurations), *_situation_shape(space)), np.inf)
    for group in configuration_batches(space, configurations):
        check_time()
        cells = PlacementSearch(space, group, only_fastest=True).run(limits, max_labels * len(group), Counter())
        np.minimum.at(bounds, group[cells.prefix], _situation_costs(space, cells.min_resources, cells.pools))
    return bounds[configurations].reshape(len(configurations), -1)


def min_cost_by_situation(
    space: SearchSpace,
    configurations: IntArray,
    limits: Limits,
    max_labels: int,
    check_time: Callable[[], None] = lambda: None,
) -> FloatArray:
    """Return the costs of the cheapest plans, of which `cost_by_situation` returns lower bounds.

    Allocations are searched of the placements with the lowest bounds first, then of those that may still be cheaper.
    """
    costs = np.full((len(space.arrays.configurations), *_situation_shape(space)), np.inf)
    for group in configuration_batches(space, configurations):
        check_time()
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        plans, _ = cheapest_option_plans(space, group, cells, limits)
        np.minimum.at(costs, plans.configuration, _situation_costs(space, plans.resources, plans.pools))
        bounds, owners = _situation_costs(space, cells.min_resources, cells.pools), group[cells.prefix]
        rest = np.arange(cells.count)
        for is_last in (False, True):
            rest = rest[(bounds[rest] * (1 + DOMINANCE_TOLERANCE) < costs[owners[rest]]).any(axis=(1, 2))]
            searched = rest if is_last else rest[_has_lowest(owners[rest], bounds[rest])]
            rest = np.setdiff1d(rest, searched)
            for start in range(0, len(searched), _CELLS_AT_A_TIME):
                check_time()
                part = searched[start : start + _CELLS_AT_A_TIME]
                plans = AllocationSearch(space, group, cells.take(part), limits).undominated()
                np.minimum.at(costs, plans.configuration, _situation_costs(space, plans.resources, plans.pools))
    return costs[configurations].reshape(len(configurations), -1)


def _situation_shape(space: SearchSpace) -> tuple[int, int]:
    return 2 + len(space.columns.pools), 2


def _situation_costs(space: SearchSpace, resources: FloatArray, pools: IntArray) -> FloatArray:
    """Return (n, situations, 2) costs of n plans with (n, columns) resources in (n, operators) pools."""
    columns = space.columns
    links = slice(columns.link(0), columns.shared_cost)
    share = (resources[:, links] / columns.capacity[links]).sum(axis=1)
    situations, _ = _situation_shape(space)
    costs = np.repeat(resources[:, None, [columns.shared_cost, columns.dedicated_cost]], situations, axis=1)
    for pool in range(len(columns.pools)):
        costs[(pools == pool).any(axis=1), 1 + pool] = np.inf
    costs[:, -1] *= np.maximum(share, _SCARCE)[:, None]
    return costs


def _has_lowest(configuration: IntArray, bounds: FloatArray) -> BoolArray:
    """Return (n,) whether a placement has the lowest of the (n, situations, 2) bounds of its configuration in any."""
    lowest = np.zeros(len(bounds), dtype=np.bool_)
    for situation, kind in np.ndindex(bounds.shape[1:]):
        column = bounds[:, situation, kind]
        order = np.lexsort((column, configuration))
        first = order[np.unique(configuration[order], return_index=True)[1]]
        lowest[first[np.isfinite(column[first])]] = True
    return lowest


_MARGIN_CELLS_AT_A_TIME = 64
"""Number of placements whose allocations are searched as one batch; small, as plans of the first batches prune most
others."""


@dataclass(frozen=True, eq=False)
class HighMarginPlans:
    """The n mutually non-dominated plans, with their points."""

    plans: PlanArrays
    points: FloatArray
    """(n, coordinates) see `PlanMetrics.points`."""

    def merged_with(self, plans: PlanArrays, points: FloatArray, archive: GrowingArchive) -> HighMarginPlans:
        """Return the union with more plans, without dominated ones; `archive` has the points of all before."""
        retained, added = archive.merge(self.points, points)
        joined = PlanArrays.joined(self.plans.take(retained), plans.take(added))
        return HighMarginPlans(joined, np.concatenate([self.points[retained], points[added]]))

    def without(self, others: PlanArrays) -> HighMarginPlans:
        """Return the plans that are not in `others`."""
        excluded = set(map(bytes, others.keys))
        retained = np.array([bytes(key) not in excluded for key in self.plans.keys], dtype=np.bool_)
        return HighMarginPlans(self.plans.take(retained), self.points[retained])


def high_margin_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, measure: PlanMetrics
) -> HighMarginPlans:
    """Return the plans within `limits` that no other plan dominates in resources and margins."""
    front, archive = HighMarginPlans(PlanArrays.none(space), np.zeros((0, len(measure.columns) + 2))), GrowingArchive()
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        cheapest_s = space.percentile.upper(cells.latency_s[:, CHEAPEST])
        best = measure.points(
            group[cells.prefix], cells.min_resources, space.percentile.upper(cells.latency_s[:, FASTEST])
        )
        plans, mask = cheapest_option_plans(space, group, cells, limits)
        front = front.merged_with(
            plans, measure.points(plans.configuration, plans.resources, cheapest_s[mask]), archive
        )
        for part in _parts(best):
            part = part[~archive.beats(measure.with_tolerance(best[part]))]
            if len(part):
                search = AllocationSearch(space, group, cells.take(part), limits)
                plans, latency_s = search.with_margin(archive, measure)
                points = measure.points(plans.configuration, plans.resources, latency_s)
                front = front.merged_with(plans, points, archive)
    return front


def _parts(best: FloatArray) -> list[IntArray]:
    order = np.argsort(best[:, 0], kind="stable")
    return [order[start : start + _MARGIN_CELLS_AT_A_TIME] for start in range(0, len(order), _MARGIN_CELLS_AT_A_TIME)]


def select_high_margin(plans: HighMarginPlans, cost_column: int, max_plans: int) -> IntArray:
    """Return the ascending indexes of a diverse selection of the plans.

    The fastest and the most accurate plan come first, then repeatedly the plan farthest from all selected ones. Log
    cost, latency and accuracy have equal weight.
    """
    count = len(plans.points)
    if count <= max_plans:
        return np.arange(count)
    cost = plans.plans.resources[:, cost_column]
    scaled = _scaled(np.column_stack([np.log(np.maximum(cost, _MIN_COST)), plans.points[:, -2:]]))
    latency, accuracy = plans.points[:, -2], plans.points[:, -1]
    extremes = [np.lexsort((cost, accuracy, latency))[0], np.lexsort((cost, latency, accuracy))[0]]
    selected = list(dict.fromkeys(int(index) for index in extremes))[:max_plans]
    distance = np.full(count, np.inf)
    for index in selected:
        distance = np.minimum(distance, _distance(scaled, index))
    while len(selected) < max_plans:
        distance[selected] = -1.0
        selected.append(int(distance.argmax()))
        distance = np.minimum(distance, _distance(scaled, selected[-1]))
    return np.array(sorted(selected), dtype=np.int64)


_MIN_COST = 1e-6
"""Lower limit of costs before taking logarithms, US dollars per hour."""


def _distance(scaled: FloatArray, index: int) -> FloatArray:
    return np.asarray(((scaled - scaled[index]) ** 2).sum(axis=1))


def _scaled(values: FloatArray) -> FloatArray:
    width = values.max(axis=0) - values.min(axis=0)
    return np.asarray((values - values.min(axis=0)) / np.where(width > 0, width, 1.0))
