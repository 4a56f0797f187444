"""High-margin plans: plans that use more resources than others and meet an SLO with a larger margin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.dominance import ParetoArchive, nondominated
from circinus.planning.placement_search import CHEAPEST, FASTEST, PlacementSearch
from circinus.planning.plan_arrays import PlanArrays, PlanMetrics
from circinus.planning.plan_search import cheapest_option_plans, configuration_batches
from circinus.planning.search_space import Limits, SearchSpace

_CELLS_AT_A_TIME = 64
"""Number of placements whose allocations are searched as one batch; small, as plans of the first batches prune most
others."""


@dataclass(frozen=True, eq=False)
class HighMarginPlans:
    """The n mutually non-dominated plans, with their points."""

    plans: PlanArrays
    points: FloatArray
    """(n, coordinates) see `PlanMetrics.points`."""

    def merged_with(self, plans: PlanArrays, points: FloatArray) -> HighMarginPlans:
        """Return the union with more plans, without dominated ones."""
        all_plans = PlanArrays.joined(self.plans, plans)
        all_points = np.concatenate([self.points, points])
        retained = nondominated(all_points)
        return HighMarginPlans(all_plans.take(retained), all_points[retained])

    def without(self, others: PlanArrays) -> HighMarginPlans:
        """Return the plans that are not in `others`."""
        excluded = set(map(bytes, others.keys))
        retained = np.array([bytes(key) not in excluded for key in self.plans.keys], dtype=np.bool_)
        return HighMarginPlans(self.plans.take(retained), self.points[retained])


def high_margin_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, measure: PlanMetrics
) -> HighMarginPlans:
    """Return the plans within `limits` that no other plan dominates in resources and margins."""
    front = HighMarginPlans(PlanArrays.none(space), np.zeros((0, len(measure.columns) + 2)))
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        cheapest_s = space.percentile.upper(cells.latency_s[:, CHEAPEST])
        best = measure.points(
            group[cells.prefix], cells.min_resources, space.percentile.upper(cells.latency_s[:, FASTEST])
        )
        plans, mask = cheapest_option_plans(space, group, cells, limits)
        front = front.merged_with(plans, measure.points(plans.configuration, plans.resources, cheapest_s[mask]))
        for part in _parts(best):
            part = part[~ParetoArchive(front.points).beats(measure.with_tolerance(best[part]))]
            if len(part):
                search = AllocationSearch(space, group, cells.take(part), limits)
                plans, latency_s = search.with_margin(ParetoArchive(front.points), measure)
                front = front.merged_with(plans, measure.points(plans.configuration, plans.resources, latency_s))
    return front


def _parts(best: FloatArray) -> list[IntArray]:
    order = np.argsort(best[:, 0], kind="stable")
    return [order[start : start + _CELLS_AT_A_TIME] for start in range(0, len(order), _CELLS_AT_A_TIME)]


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
