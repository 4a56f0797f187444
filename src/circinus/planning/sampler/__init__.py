"""Sampler of knob configurations: selects the configurations that profiling measures."""

from circinus.planning.sampler.reservation_index import StoppingRule
from circinus.planning.sampler.sampler import PlanCostSampler, make_sampler

__all__ = ["PlanCostSampler", "StoppingRule", "make_sampler"]
