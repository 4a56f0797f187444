"""The plans that take more than others and keep an objective with more margin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.dominance import ParetoArchive, nondominated
from circinus.planning.placement_search import CHEAPEST, FASTEST, PlacementSearch
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.plan_metrics import PlanMetrics
from circinus.planning.plan_search import cheapest_option_plans, configuration_batches
from circinus.planning.search_space import Limits, SearchSpace

FloatArray = NDArray[np.floating]

_CELLS_AT_A_TIME = 64
"""Placements whose allocations are searched together: few, as what the first ones find leaves little of the others."""


@dataclass(frozen=True, eq=False)
class HighMarginPlans:
    """n plans with their points, none of which beats another."""

    plans: PlanArrays
    points: FloatArray
    """(n, coordinates) see `Measure.points`."""

    def with_others(self, plans: PlanArrays, points: FloatArray) -> HighMarginPlans:
        """These and others, without those that any other one beats."""
        together = PlanArrays.joined(self.plans, plans)
        all_points = np.concatenate([self.points, points])
        kept = nondominated(all_points)
        return HighMarginPlans(together.take(kept), all_points[kept])

    def without(self, others: PlanArrays) -> HighMarginPlans:
        """These without the very plans of others."""
        known = set(map(bytes, others.keys))
        kept = np.array([bytes(key) not in known for key in self.plans.keys], dtype=np.bool_)
        return HighMarginPlans(self.plans.take(kept), self.points[kept])


def high_margin_plans(
    space: SearchSpace, configurations: IntArray, limits: Limits, max_labels: int, measure: PlanMetrics
) -> HighMarginPlans:
    """The plans that keep `limits` and that no other one beats when margins count as well.

    Args:
        space: what to search.
        configurations: ascending indexes into those of the space.
        limits: what plans must keep to.
        max_labels: most labels of one configuration to follow at a time.
        measure: what counts. At tolerance 0 no plan is lost.
    """
    known = HighMarginPlans(PlanArrays.none(space), np.zeros((0, len(measure.columns) + 2)))
    for group in configuration_batches(space, configurations):
        cells = PlacementSearch(space, group).run(limits, max_labels * len(group), Counter())
        cheapest_s = space.percentile.upper(cells.latency_s[:, CHEAPEST])
        best = measure.points(group[cells.prefix], cells.least, space.percentile.upper(cells.latency_s[:, FASTEST]))
        plans, kept = cheapest_option_plans(space, group, cells, limits)
        known = known.with_others(plans, measure.points(plans.configuration, plans.resources, cheapest_s[kept]))
        for part in _parts(best):
            part = part[~ParetoArchive(known.points).beats(measure.with_tolerance(best[part]))]
            if len(part):
                search = AllocationSearch(space, group, cells.take(part), limits)
                plans, latency_s = search.with_margin(ParetoArchive(known.points), measure)
                known = known.with_others(plans, measure.points(plans.configuration, plans.resources, latency_s))
    return known


def _parts(best: FloatArray) -> list[IntArray]:
    """Placements that are searched together, those that may be the cheapest first."""
    order = np.argsort(best[:, 0], kind="stable")
    return [order[start : start + _CELLS_AT_A_TIME] for start in range(0, len(order), _CELLS_AT_A_TIME)]


def select_high_margin(found: HighMarginPlans, cost_column: int, max_plans: int) -> IntArray:
    """At most `max_plans` of the plans: the fastest and the most accurate, then in turn the one that is farthest from
    all that are kept, when cost (its logarithm), latency and accuracy count alike.

    Args:
        found: the plans.
        cost_column: the resource column that cost is looked up in.
        max_plans: how many.

    Returns:
        Indexes, ascending.
    """
    count = len(found.points)
    if count <= max_plans:
        return np.arange(count)
    cost = found.plans.resources[:, cost_column]
    spread = _scaled(np.column_stack([np.log(np.maximum(cost, _LEAST_COST)), found.points[:, -2:]]))
    latency, accuracy = found.points[:, -2], found.points[:, -1]
    extremes = [np.lexsort((cost, accuracy, latency))[0], np.lexsort((cost, latency, accuracy))[0]]
    chosen = list(dict.fromkeys(int(index) for index in extremes))[:max_plans]
    away = np.full(count, np.inf)
    for index in chosen:
        away = np.minimum(away, _distance(spread, index))
    while len(chosen) < max_plans:
        away[chosen] = -1.0
        chosen.append(int(away.argmax()))
        away = np.minimum(away, _distance(spread, chosen[-1]))
    return np.array(sorted(chosen), dtype=np.int64)


_LEAST_COST = 1e-6
"""US dollars per hour that stand for nothing where logarithms are taken."""


def _distance(spread: FloatArray, index: int) -> FloatArray:
    return np.asarray(((spread - spread[index]) ** 2).sum(axis=1))


def _scaled(values: FloatArray) -> FloatArray:
    """Each column from 0 to 1."""
    width = values.max(axis=0) - values.min(axis=0)
    return np.asarray((values - values.min(axis=0)) / np.where(width > 0, width, 1.0))
