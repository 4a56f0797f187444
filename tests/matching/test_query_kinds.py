"""Queries that differ in name, weight, priority and tenant only share searches and estimates, under their own names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from circinus.matching.plan_estimates import PlanEstimates
from circinus.planning import plan_queries, planner
from circinus.planning.query_search import QuerySearch
from circinus.planning.settings import DEFAULT_SETTINGS
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Specification
from circinus.testing.random_instances import random_specification


def _with_twins(seed: int) -> tuple[Specification, dict[str, PipelineProfile], Sequence[tuple[Query, Query]]]:
    specification, profiles = random_specification(seed, queries=3)
    fields = {"weight": 7.0, "priority": 2, "tenant": "t"}
    twins = [(q, q.model_copy(update={"name": f"{q.name}-twin", **fields})) for q in specification.queries]
    queries = (*specification.queries, *(twin for _, twin in twins))
    return replace(specification, queries=queries), profiles, twins


def test_twins_share_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = Counter[str]()

    def counted(query: Query, *arguments: Any, **options: Any) -> QuerySearch:
        searched[query.name] += 1
        return QuerySearch(query, *arguments, **options)

    monkeypatch.setattr(planner, "QuerySearch", counted)
    specification, profiles, twins = _with_twins(5)
    frontiers = plan_queries(specification, profiles)
    assert set(searched) == {query.name for query, _ in twins}
    for query, twin in twins:
        alone = plan_queries(replace(specification, queries=(twin,)), profiles)[twin.name]
        assert frontiers[twin.name] == alone
        assert frontiers[query.name].query == query
        assert {candidate.query for candidate in frontiers[query.name].plans} <= {query.name}
    searched.clear()
    plans = PlanEstimates(specification, profiles)
    plans.adopt(frontiers)
    for query, twin in twins:
        first, second = (plans.replan(one, DEFAULT_SETTINGS) for one in (query, twin))
        assert {c.query for c in second.candidates} <= {twin.name}
        assert [c.plan for c in first.candidates] == [c.plan for c in second.candidates]
    assert set(searched) == {query.name for query, _ in twins}


@pytest.mark.parametrize("seed", [5, 13])
def test_estimates_of_twins_are_equal_but_for_the_name(seed: int) -> None:
    specification, profiles, twins = _with_twins(seed)
    frontiers, plans = plan_queries(specification, profiles), PlanEstimates(specification, profiles)
    plans.adopt(frontiers)
    compared = 0
    for query, twin in twins:
        for candidate in frontiers[query.name].candidates:
            own = plans.feasible_estimate(twin, candidate.plan)
            assert own is not None
            assert own.query == twin.name
            assert own.for_query(query.name) == candidate
            fresh = PlanEstimates(specification, profiles).estimate_of(twin.name, candidate.plan)
            assert fresh == own
            compared += 1
    assert compared
    query, twin = next((query, twin) for query, twin in twins if frontiers[query.name].candidates)
    plan = frontiers[query.name].candidates[0].plan
    plans.exclude(query.name, plan)
    assert plans.feasible_estimate(query, plan) is None
    assert plans.feasible_estimate(twin, plan) is not None, "exclusions are of one query"
