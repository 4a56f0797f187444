"""Plans of queries that miss their latency limits by formula, and not in a simulation."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
from benchmarks.workloads.recorded import recorded

from budget import HANG_LIMIT_S
from circinus.matching import Incumbent, Matching, MatchSettings, plan_all, plan_all_queries
from circinus.specification import Infrastructure, Query, Specification

HASTY_S, PATIENT_S = 2.0, 20.0
"""Latency limits: by formula, values wait too long for the first one on a link that is used as far as it may be."""
IMPOSSIBLE_S = 1.3
"""Latency limit that hasty queries miss in a simulation, too."""


def _matching(
    hasty_s: float = HASTY_S, *, raises_limits: bool = True, incumbent: Incumbent | None = None
) -> tuple[Specification, Matching]:
    trace, truth = recorded("meeting")
    bandwidth = 2.0 * float(truth.configurations[0].input_bytes.mean())
    cloud = {
        "name": "cloud", "site": "cloud", "tier": "cloud", "nodes": 4, "cpus": 8, "memory": "16GiB",
        "hardware": {"class": "local"}, "price": 1.0,
    }  # fmt: skip
    link = {"from": "home", "to": "cloud", "bandwidth": bandwidth, "round_trip": 0.01}
    places = Infrastructure.model_validate(
        {"name": "places", "sites": ["home", "cloud"], "pools": [cloud], "links": [link]}
    )
    queries = tuple(
        Query.model_validate(
            {"name": f"q{number}", "pipeline": "meeting", "source": "home", "rate": 0.25, "weight": weight,
             "slos": {"latency": {"percentile": 95, "limit": limit_s}}}
        )
        for number, (weight, limit_s) in enumerate([(2, hasty_s)] * 3 + [(1, PATIENT_S)] * 3)
    )  # fmt: skip
    specification = Specification({"meeting": trace.pipeline}, places, queries)
    settings = MatchSettings(time_limit_s=HANG_LIMIT_S, raises_limits=raises_limits)
    matching, _ = plan_all_queries(
        specification, {"meeting": truth}, settings=settings, incumbent=incumbent, explain_rejections=()
    )
    return specification, matching


def _violations(specification: Specification, matching: Matching) -> list[str]:
    slos = {query.name: query.slos for query in specification.queries}
    return [a.query for a in matching.assignments if a.chosen.estimate.violations(slos[a.query], sized=True)]


def test_queries_without_a_plan_at_their_own_limits_are_served() -> None:
    specification, raised = _matching()
    _, within = _matching(raises_limits=False)
    assert within.satisfied_weight < raised.satisfied_weight <= raised.weight_bound
    assert not _violations(specification, raised)
    _, again = _matching(incumbent=replace(Incumbent.of(raised), max_changes=0))
    assert {a.query: a.chosen.plan for a in again.assignments} == {a.query: a.chosen.plan for a in raised.assignments}


def test_plans_that_a_simulation_refutes_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_all, "DOUBTFUL_EXCESS", 2.0)
    asked = Mock(wraps=plan_all.check_by_simulation)
    monkeypatch.setattr(plan_all, "check_by_simulation", asked)
    specification, matching = _matching(IMPOSSIBLE_S)
    late = {name for call in asked.call_args_list for name in call.kwargs["unconfirmed"]}
    assert late == {"q0", "q1", "q2"}
    assert not late & set(matching.served)
    assert not _violations(specification, matching)
