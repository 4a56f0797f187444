"""Goodput and cost of all planners, at each load and in each scope of tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evaluation.contest import Contest, Planner
from benchmarks.evaluation.judging import judged
from benchmarks.evaluation.product import Product

OURS = Product()
SCOPES: Mapping[str, tuple[str, ...]] = {
    "all tiers": ("device", "edge", "cloud"),
    "edge and cloud": ("edge", "cloud"),
    "cloud": ("cloud",),
    "edge": ("edge",),
}


def row_of(contest: Contest, scope: str, planner: Planner, seed: int) -> dict[str, Any]:
    """Return what one planner reaches in one scope of a contest."""
    within = contest.within(SCOPES[scope])
    planned = planner.plan(within, seed)
    judgement = judged(within, planned.matching, seed + 1)
    return {
        "contest": contest.name,
        "scope": scope,
        "planner": planner.name,
        "seed": seed,
        "queries": len(contest.specification.queries),
        "offered": sum(query.weight for query in contest.specification.queries),
        "promised": planned.matching.satisfied_weight,
        "goodput": judgement.goodput,
        "served": len(judgement.verdicts),
        "broken": judgement.broken,
        "too_close": judgement.too_close,
        "late": sum(not verdict.latency_held for verdict in judgement.verdicts),
        "inaccurate": sum(not verdict.accuracy_held for verdict in judgement.verdicts),
        "too_dear": sum(not verdict.cost_held for verdict in judgement.verdicts),
        "usd_per_h": dict(judgement.usd_per_h),
        "profiled_s": planned.profiled_s,
        "touched": planned.touched,
        "first_plan_s": planned.first_plan_s,
        "planning_s": planned.planning_s,
    }
