"""Planning of single queries: Pareto frontiers over configurations, placements and allocations."""

from circinus.planning.frontier import BestEffortPlan, Frontier, NearMiss, SingleRelaxation
from circinus.planning.ladder import Ladder, Rung, ladder
from circinus.planning.planner import plan_queries, plan_query
from circinus.planning.settings import SearchSettings

__all__ = [
    "BestEffortPlan",
    "Frontier",
    "Ladder",
    "NearMiss",
    "Rung",
    "SearchSettings",
    "SingleRelaxation",
    "ladder",
    "plan_queries",
    "plan_query",
]
