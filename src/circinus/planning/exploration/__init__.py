"""Which configurations to measure: the search over knobs that profiling asks."""

from circinus.planning.exploration.explorer import PlanExplorer, explorer_of
from circinus.planning.exploration.stopping import Stopping

__all__ = ["PlanExplorer", "Stopping", "explorer_of"]
