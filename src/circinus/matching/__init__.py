"""All queries together: choosing at most one plan for each under the pools' and links' capacities."""

from circinus.matching.plan_set import (
    Alternative,
    Assignment,
    Matching,
    PlanSet,
    Rejection,
    Relaxation,
    SizedDeployment,
)

__all__ = ["Alternative", "Assignment", "Matching", "PlanSet", "Rejection", "Relaxation", "SizedDeployment"]
