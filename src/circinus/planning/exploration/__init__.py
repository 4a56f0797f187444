"""Which configurations to measure: the search over knobs that profiling asks."""

from circinus.planning.exploration.choice import Stopping
from circinus.planning.exploration.explorer import PlanExplorer, explorer_of

__all__ = ["PlanExplorer", "Stopping", "explorer_of"]
