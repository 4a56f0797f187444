"""Price of accuracy promises for requests to come, compared with promises for the measured items only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import circinus as c
from benchmarks.promises.applications import Application
from circinus.specification import Population


@dataclass(frozen=True)
class Caution:
    """Plans of an application, from the same measurements, with promises for requests and for items."""

    weight_for_requests: float
    """Weight served with promises for requests to come."""
    weight_for_items: float
    """Weight served with promises for the items of the data set."""
    queries_of_both: int
    """Number of queries that both serve; the costs are of plans of these alone."""
    usd_per_h_for_requests: float
    usd_per_h_for_items: float


def caution(application: Application) -> Caution:
    """Plan an application with promises for either population, then the queries that both serve."""
    for_requests, for_items = (_plan(application, population) for population in ("requests", "items"))
    both = set(for_requests) & set(for_items)
    costs = [
        _plan(application, population, both).cost_usd_per_h if both else 0.0 for population in ("requests", "items")
    ]
    return Caution(
        for_requests.matching.satisfied_weight, for_items.matching.satisfied_weight, len(both), costs[0], costs[1]
    )


def _plan(application: Application, population: Population, only: set[str] | None = None) -> c.Plan:
    specification = application.specification
    pipelines = {
        name: pipeline.model_copy(update={"dataset": pipeline.dataset.model_copy(update={"population": population})})
        for name, pipeline in specification.pipelines.items()
    }
    queries = tuple(query for query in specification.queries if only is None or query.name in only)
    return application.workspace(replace(specification, pipelines=pipelines, queries=queries)).plan()
