"""Which configurations to measure: the search over knobs that profiling asks."""

from circinus.planning.exploration.explorer import PlanCostSampler, make_sampler
from circinus.planning.exploration.stopping import StoppingRule

__all__ = ["PlanCostSampler", "StoppingRule", "make_sampler"]
