"""Split plans of random specifications, made by hand and kept by a high price of changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from budget import HANG_LIMIT_S
from circinus.control.managed_plans import ManagedPlans
from circinus.estimation import Estimate, PlanCandidate
from circinus.matching import Incumbent, MatchSettings, plan_all_queries
from circinus.planning import plan_queries
from circinus.specification import PlanShare, QueryPlan
from managed_plans import Profiles, planned

KEEPING_USD_PER_H = 100.0
"""Price of a change that no saving reaches."""


@cache
def split_plans(seed: int) -> tuple[ManagedPlans, Profiles, dict[str, QueryPlan]]:
    """Return managed plans of which some are split, their profiles, and a split plan of each query with several plans.

    Not all of the split plans fit.
    """
    controlled, profiles = planned(seed, queries=3)
    frontiers, rng, plans = plan_queries(controlled.specification, profiles), np.random.default_rng(seed), {}
    for assignment in controlled.matching.assignments:
        first = assignment.chosen.plan
        others = [c.plan for c in frontiers[assignment.query].candidates if c.plan != first]
        if others:
            other = others[int(rng.integers(len(others)))]
            plans[assignment.query] = QueryPlan.split([PlanShare(0.6, first), PlanShare(0.4, other)])
    patient = MatchSettings(time_limit_s=HANG_LIMIT_S)
    running = Incumbent(plans, churn_price_usd_per_h=KEEPING_USD_PER_H)
    matching, _ = plan_all_queries(controlled.specification, profiles, incumbent=running, settings=patient)
    return replace(controlled, matching=matching, deployments=matching.deployments), profiles, plans


def split_candidate(parts: list[tuple[float, PlanCandidate]], estimate: Estimate | None = None) -> PlanCandidate:
    """Return a split plan of parts that were estimated at their shares and have no deployment in common."""
    plan = QueryPlan.split(PlanShare(share, part.plan) for share, part in parts)
    ordered = [next(part for _, part in parts if part.plan == entry.plan) for entry in plan.parts]
    return PlanCandidate(
        query=ordered[0].query,
        plan=plan,
        estimate=estimate or ordered[0].estimate,
        deployments=tuple(use for part in ordered for use in part.deployments),
        links=tuple(use for part in ordered for use in part.links),
        transfer_cost_usd_per_h=sum(part.transfer_cost_usd_per_h for part in ordered),
        parts=tuple(ordered),
    )
