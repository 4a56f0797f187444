"""Plans on levels keep their promises, and are those of a brute-force search over plans and replicas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from budget import HANG_LIMIT_S
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.levels.compiled_plans import compiled_plans
from circinus.matching.levels.judge import PlanJudge
from circinus.matching.levels.planner import LevelAnswer, LevelPlanner
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.priority_levels import PriorityLevels
from circinus.specification import Deployment, Query, Specification
from circinus.specification.infrastructure import Billing
from circinus.testing.random_instances import random_specification

Plans = Mapping[str, list[CompiledPlan]]


def _inputs(seed: int, *, queries: int, operators: int, nodes: int = 2) -> tuple[Specification, Plans]:
    specification, profiles = random_specification(seed, queries=queries, operators=operators, nodes=nodes)
    plans = compiled_plans(specification, PlanEstimates(specification, profiles))
    return specification, {name: list(own) for name, own in plans.items()}


def _planned(specification: Specification, plans: Plans) -> LevelAnswer:
    infrastructure = specification.required_infrastructure
    levels = PriorityLevels.of(specification.queries)
    return LevelPlanner(specification.queries, plans, infrastructure, levels, time_limit_s=HANG_LIMIT_S).answer()


def _weight(queries: tuple[Query, ...], served: Mapping[str, object]) -> float:
    return sum(query.weight for query in queries if query.name in served)


def _choices(plans: Plans, most: int) -> Iterator[tuple[dict[str, CompiledPlan], dict[Deployment, int]]]:
    for chosen in product(*([None, *own] for own in plans.values())):
        served = {name: plan for name, plan in zip(plans, chosen, strict=True) if plan is not None}
        uses = {use.deployment: use.demand.spare_replicas for plan in served.values() for use in plan.deployments}
        for replicas in product(range(1, most + 1), repeat=len(uses)):
            yield served, {d: count + uses[d] for d, count in zip(uses, replicas, strict=True)}


@pytest.mark.parametrize("seed", range(8))
def test_one_operator_as_well_as_all_choices_of_plans_and_replicas(seed: int) -> None:
    specification, plans = _inputs(seed, queries=2, operators=1, nodes=2)
    queries = specification.queries
    judge = PlanJudge(queries, specification.required_infrastructure)
    best = max(
        (_weight(queries, served), -verdict.cost_usd_per_h)
        for served, replicas in _choices(plans, most=3)
        if (verdict := judge.verdict(served, replicas)).is_kept
    )
    answer = _planned(specification, plans)
    assert _weight(queries, answer.plans) == best[0]
    assert answer.verdict.cost_usd_per_h <= -best[1] * 1.001 + 1e-9


@pytest.mark.parametrize(("seed", "operators"), [(0, 2), (1, 3), (2, 2)])
def test_answers_keep_all_promises_on_pools_that_are_paid_by_node_and_by_replica(seed: int, operators: int) -> None:
    specification, plans = _inputs(seed, queries=6, operators=operators)
    infrastructure = specification.required_infrastructure
    pools = tuple(
        pool.model_copy(update={"billing": Billing.NODE, "nodes": 4, "min_nodes": 0}) if number % 2 else pool
        for number, pool in enumerate(infrastructure.pools)
    )
    paid = infrastructure.model_copy(update={"pools": pools})
    for its in (infrastructure, paid):
        answer = _planned(Specification(specification.pipelines, its, specification.queries), plans)
        verdict = PlanJudge(specification.queries, its).verdict(answer.plans, answer.replicas)
        assert verdict.is_kept
        assert verdict.cost_usd_per_h == pytest.approx(answer.verdict.cost_usd_per_h)
        assert answer.plans


def test_a_heavy_query_of_low_priority_yields_to_a_light_one() -> None:
    specification, plans = _inputs(12, queries=6, operators=1, nodes=1)
    served = _planned(specification, plans).plans
    left_out = [query for query in specification.queries if query.name not in served and plans[query.name]]
    assert left_out  # for want of room
    none: dict[str, list[CompiledPlan]] = {name: [] for name in plans}
    alone = [q for q in left_out if _planned(specification, none | {q.name: list(plans[q.name])}).plans]
    assert alone
    first = alone[0].model_copy(update={"priority": 5})
    queries = tuple(first if query.name == first.name else query for query in specification.queries)
    again = _planned(Specification(specification.pipelines, specification.infrastructure, queries), plans)
    assert first.name in again.plans


def test_an_answer_to_begin_with_is_never_made_worse() -> None:
    specification, plans = _inputs(1, queries=6, operators=2)
    infrastructure, levels = specification.required_infrastructure, PriorityLevels.of(specification.queries)
    good = _planned(specification, plans)
    planner = LevelPlanner(specification.queries, plans, infrastructure, levels, time_limit_s=0.0)
    answer = planner.answer(good)
    assert set(answer.plans) == set(good.plans)
    assert answer.verdict.cost_usd_per_h <= good.verdict.cost_usd_per_h
