"""Matching of all queries: at most one plan for each query, within the capacities of pools and links."""

from circinus.matching.admission import Admission, admit_query
from circinus.matching.explanation.shadow_prices import ShadowPrice
from circinus.matching.incumbent import Incumbent
from circinus.matching.optimizer import match, plan_all_queries
from circinus.matching.plan_file import add_query, load_plan_set, make_plan_set, require_fresh, save_plan_set
from circinus.matching.plan_set import (
    Alternative,
    Assignment,
    Matching,
    PlanDiff,
    PlanFile,
    ProfileCoverage,
    Rejection,
    Relaxation,
    SizedDeployment,
    TenantShare,
)
from circinus.matching.settings import MatchSettings

__all__ = [
    "Admission",
    "Alternative",
    "Assignment",
    "Incumbent",
    "MatchSettings",
    "Matching",
    "PlanDiff",
    "PlanFile",
    "ProfileCoverage",
    "Rejection",
    "Relaxation",
    "ShadowPrice",
    "SizedDeployment",
    "TenantShare",
    "add_query",
    "admit_query",
    "load_plan_set",
    "make_plan_set",
    "match",
    "plan_all_queries",
    "require_fresh",
    "save_plan_set",
]
