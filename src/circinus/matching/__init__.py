"""All queries together: choosing at most one plan for each under the pools' and links' capacities."""

from circinus.matching.admit import Admission, admit_query
from circinus.matching.answering import MatchSettings
from circinus.matching.changes import Changes
from circinus.matching.matcher import match, plan_all
from circinus.matching.plan_file import check_fresh, load_plan_set, make_plan_set, save_plan_set, with_query
from circinus.matching.plan_set import (
    Alternative,
    Assignment,
    Matching,
    PlanSet,
    Rejection,
    Relaxation,
    SizedDeployment,
    TenantShare,
)
from circinus.matching.resource_prices import ResourcePrice
from circinus.matching.running import Running

__all__ = [
    "Admission",
    "Alternative",
    "Assignment",
    "Changes",
    "MatchSettings",
    "Matching",
    "PlanSet",
    "Rejection",
    "Relaxation",
    "ResourcePrice",
    "Running",
    "SizedDeployment",
    "TenantShare",
    "admit_query",
    "check_fresh",
    "load_plan_set",
    "make_plan_set",
    "match",
    "plan_all",
    "save_plan_set",
    "with_query",
]
