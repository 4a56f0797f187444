"""Plans that are late at their utilization targets, but not at the final sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from benchmarks.workloads.recorded import recorded

from budget import HANG_LIMIT_S
from circinus.matching import Incumbent, Matching, MatchSettings, TenantShare, plan_all, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, Query, Specification

QUERIES = 48


@cache
def _instance() -> tuple[Specification, dict[str, PipelineProfile]]:
    """Return queries that are late if they run alone on the only pool, which is small."""
    trace, truth = recorded("meeting")
    pool = {
        "name": "slow", "site": "home", "tier": "edge", "nodes": 1, "cpus": 2.5, "memory": "16GiB",
        "hardware": {"class": "slow", "relative_speed": 0.5}, "price": 0.1,
    }  # fmt: skip
    places = Infrastructure.model_validate({"name": "places", "sites": ["home"], "pools": [pool]})
    slos = {"latency": {"percentile": 95, "limit": 0.5}}
    queries = tuple(
        Query.model_validate(
            {"name": f"q{n}", "pipeline": "meeting", "source": "home", "rate": 2.0 / QUERIES, "slos": slos}
        )
        for n in range(QUERIES)
    )
    return Specification({"meeting": trace.pipeline}, places, queries), {"meeting": truth}


def _matching(*, considers_late_plans: bool = True, incumbent: Incumbent | None = None) -> Matching:
    specification, profiles = _instance()
    settings = MatchSettings(time_limit_s=HANG_LIMIT_S, considers_late_plans=considers_late_plans)
    matching, frontiers = plan_all_queries(
        specification, profiles, settings=settings, incumbent=incumbent, explain_rejections=()
    )
    assert not any(frontier.candidates for frontier in frontiers.values())
    return matching


_planned = cache(_matching)


@pytest.mark.thorough
def test_queries_share_replicas_that_are_too_slow_for_one() -> None:
    alone, together = _planned(considers_late_plans=False), _planned()
    assert alone.satisfied_weight < together.satisfied_weight == QUERIES
    slos = _instance()[0].queries[0].slos
    assert not [a.query for a in together.assignments if a.chosen.estimate.violations(slos, sized=True)]
    assert together.weight_bound == QUERIES


def test_running_plans_that_are_late_alone_are_kept() -> None:
    before = _planned()
    again = _matching(incumbent=replace(Incumbent.of(before), max_changes=0))
    assert {a.query: a.chosen.plan for a in again.assignments} == {a.query: a.chosen.plan for a in before.assignments}
    assert _matching(incumbent=Incumbent.of(before)).satisfied_weight == before.satisfied_weight


def test_running_plans_do_not_keep_late_ones_out() -> None:
    """What runs was planned without them, as for fewer queries."""
    running = Incumbent.of(_planned(considers_late_plans=False))
    assert _matching(incumbent=running).satisfied_weight == QUERIES


def test_more_weight_takes_nothing_from_what_tenants_are_guaranteed() -> None:
    alone, together = _planned(considers_late_plans=False), _planned()
    planner = AdmissionPlanner.of(*_instance(), matching=replace(alone, tenants=(_share(0.6),)))
    assert plan_all._heavier(planner, replace(together, tenants=(_share(0.5),))) is planner
    assert plan_all._heavier(planner, replace(together, tenants=(_share(0.6),))).matching.served == together.served


def _share(share: float) -> TenantShare:
    return TenantShare("clinic", satisfied_weight=share, total_weight=1.0, guaranteed_share=0.6)
