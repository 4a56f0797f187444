"""One query: its frontier over configurations, placements and allocations."""

from circinus.planning.frontier import Frontier, NearMiss, SingleRelaxation
from circinus.planning.search import plan_queries, plan_query
from circinus.planning.settings import SearchSettings

__all__ = ["Frontier", "NearMiss", "SearchSettings", "SingleRelaxation", "plan_queries", "plan_query"]
