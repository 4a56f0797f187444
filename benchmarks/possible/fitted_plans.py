"""Lone queries at low rates on idle infrastructures, against the enumeration of all plans at their real load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.possible.instances import all_plans
from circinus.errors import PlanningError
from circinus.estimation import QueryEstimators, merge_loads
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Specification
from circinus.testing.random_instances import random_specification

_RATE_PER_S = 0.02
_TARGET = 0.7
"""Utilization of all plans; at such a load, it does not matter."""
_ROUNDING = 1e-6


def lone_queries(count: int, console: Console) -> PartResult:
    """Compare the cost of single queries with that of the cheapest plan that meets their SLOs alone."""
    ratios, unfitted, possible, unserved = list[float](), list[float](), 0, 0
    for seed in range(count):
        specification, profiles = random_specification(seed, queries=1)
        query = specification.queries[0]
        idle = query.model_copy(
            update={"rate_per_s": _RATE_PER_S, "slos": query.slos.model_copy(update={"cost": None})}
        )
        specification = replace(specification, queries=(idle,))
        cheapest_usd_per_h = min(_costs_usd_per_h(specification, profiles, idle), default=None)
        if cheapest_usd_per_h is None:
            continue
        possible += 1
        fitted = _planned(specification, profiles, MatchSettings())
        if not fitted.assignments:
            unserved += 1
            continue
        ratios.append(fitted.cost_usd_per_h / cheapest_usd_per_h)
        if ratios[-1] > 1.0 + _ROUNDING:
            console.print(f"instance {seed}: {ratios[-1]:.3f} times the cheapest")
        at_targets = _planned(specification, profiles, MatchSettings(fits_targets=False))
        unfitted.append(at_targets.cost_usd_per_h / cheapest_usd_per_h)
    note = f"of {possible} lone queries at {_RATE_PER_S}/s that some plan serves"
    dearer = sum(ratio > 1.0 + _ROUNDING for ratio in unfitted)
    return [
        Figure("lone queries served", 1.0 - unserved / possible, 1.0, "higher", "of queries", note),
        Figure("lone queries: cost over the optimum, worst", max(ratios), 1.05, "lower", "times", note),
        Figure(
            "lone queries at targets only, worst", max(unfitted), None, "lower", "times", f"{dearer} above the optimum"
        ),
        Figure("lone queries: median", float(np.median(ratios)), 1.02, "lower", "times", note),
    ], []


def _planned(specification: Specification, profiles: dict[str, PipelineProfile], settings: MatchSettings) -> Matching:
    return plan_all_queries(specification, profiles, settings=settings, explain_rejections=())[0]


def _costs_usd_per_h(
    specification: Specification, profiles: dict[str, PipelineProfile], query: Query
) -> Iterator[float]:
    """Yield the cost of every plan that meets the query's SLOs at its own load."""
    pipeline, network = specification.pipelines[query.pipeline], Network(specification.required_infrastructure)
    measured = {profile.configuration: profile for profile in profiles[query.pipeline].configurations}
    estimators = QueryEstimators(query, pipeline, network)
    for plan in all_plans(query, pipeline, measured, network, target=_TARGET):
        try:
            isolated = estimators.candidate(plan, measured.__getitem__)
            sized = estimators.candidate(plan, measured.__getitem__, merge_loads([isolated]))
        except PlanningError:  # it overloads a link
            continue
        if not sized.estimate.violations(query.slos, sized=True):
            yield sized.estimate.cost_usd_per_h.value
