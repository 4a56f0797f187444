"""Which configurations to measure: the search over knobs that profiling asks."""

from circinus.planning.exploration.explorer import PlanExplorer, Stopping, explorer_of

__all__ = ["PlanExplorer", "Stopping", "explorer_of"]
