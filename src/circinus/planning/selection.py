"""Choosing which plans of a large frontier to keep."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.resources import ResourceColumns

IntArray = NDArray[np.int64]


def select_representatives(plans: PlanArrays, columns: ResourceColumns, max_plans: int) -> IntArray:
    """At most `max_plans` of the plans, for the matching to have a choice when resources are short.

    First the extremes: cheapest alone, cheapest fully shared, least use of each pool and link. Then in turn the
    cheapest plan of each placement and of each configuration, cheaper ones first. Then the cheapest of the rest.

    Returns:
        Indexes, by ascending cost alone.
    """
    cost = plans.resources[:, columns.alone_cost]
    by_cost = np.lexsort((plans.resources[:, columns.shared_cost], cost))
    if plans.count <= max_plans:
        return by_cost
    chosen: dict[int, None] = {}
    for column in _extreme_columns(columns):
        chosen[int(by_cost[plans.resources[by_cost, column].argmin()])] = None
    by_placement = by_cost[_first_of_each(plans.pools[by_cost])]
    by_configuration = by_cost[_first_of_each(plans.configuration[by_cost, None])]
    for pair in zip_longest(by_placement.tolist(), by_configuration.tolist()):
        chosen.update(dict.fromkeys(index for index in pair if index is not None))
    chosen.update(dict.fromkeys(by_cost.tolist()))
    kept = np.array(list(chosen)[:max_plans], dtype=np.int64)
    return kept[np.lexsort((plans.resources[kept, columns.shared_cost], cost[kept]))]


def _extreme_columns(columns: ResourceColumns) -> list[int]:
    found = [columns.alone_cost, columns.shared_cost]
    for pool in range(len(columns.pools)):
        found += range(*columns.shared(pool).indices(columns.count))
        found += range(*columns.alone(pool).indices(columns.count))
    return found + [columns.link(link) for link in range(len(columns.links))]


def _first_of_each(keys: IntArray) -> IntArray:
    """Where each distinct row of `keys` occurs first, ascending."""
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])
