"""Planners of the literature in a small contest."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from benchmarks.baselines.planners import PUBLISHED
from benchmarks.baselines.planners.inferline import INFERLINE
from benchmarks.baselines.planners.ipa import IPA
from benchmarks.baselines.planners.optuna_greedy import OPTUNA_GREEDY
from benchmarks.baselines.planners.paper import PAPER
from benchmarks.baselines.planners.proteus import Proteus
from benchmarks.baselines.planners.videostorm import VideoStorm
from benchmarks.evaluation.contest import Market, Planned, Planner
from benchmarks.evaluation.judging import judged

from circinus.matching import Matching
from small_arenas import tiny_contest

PLANNERS: tuple[Planner, ...] = (INFERLINE, IPA, OPTUNA_GREEDY, PAPER)

_contest = cache(tiny_contest)


@cache
def _planned(planner: Planner) -> Planned:
    return planner.plan(_contest(), 0)


def _plans(matching: Matching) -> list[tuple[str, object]]:
    return [(assignment.query, assignment.chosen.plan) for assignment in matching.assignments]


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_what_is_served_keeps_accuracy_and_fits(planner: Planner) -> None:
    matching = _planned(planner).matching
    judgement = judged(_contest(), matching, 1)  # raises if a node or link is overfull
    assert judgement.goodput > 0
    assert all(verdict.accuracy_held for verdict in judgement.verdicts)
    served = [assignment.query for assignment in matching.assignments]
    refused = [rejection.query for rejection in matching.rejections]
    assert sorted(served + refused) == sorted(query.name for query in _contest().specification.queries)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_a_limit_that_no_plan_keeps_is_not_promised(planner: Planner) -> None:
    impossible = {q.name for q in _contest().specification.queries if q.slos.latency and q.slos.latency.limit_s < 0.01}
    assert len(impossible) == 3
    assert not impossible & {assignment.query for assignment in _planned(planner).matching.assignments}


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_equal_seeds_give_equal_plans(planner: Planner) -> None:
    again, planned = planner.plan(_contest(), 0), _planned(planner)
    assert _plans(again.matching) == _plans(planned.matching)
    assert again.profiled_s == planned.profiled_s > 0


@pytest.mark.parametrize("planner", [*PUBLISHED, PAPER, OPTUNA_GREEDY], ids=lambda planner: planner.name)
def test_links_that_carry_only_results_back_do_not_exclude_the_cloud(planner: Planner) -> None:
    contest = _contest()
    infrastructure = contest.specification.required_infrastructure
    results_back = {"reverse_allowed_traffic": "results"}
    links = tuple(link.model_copy(update=results_back) for link in infrastructure.links)
    narrow = infrastructure.model_copy(update={"links": links})
    planned = planner.plan(replace(contest, specification=replace(contest.specification, infrastructure=narrow)), 0)
    plans = [part.plan for a in planned.matching.assignments for part in a.chosen.plan.parts]
    assert "cloud" in {pool for plan in plans for _, pool in plan.placement}


@pytest.mark.parametrize("planner", [IPA, Proteus(), VideoStorm()], ids=lambda planner: planner.name)
def test_more_cpus_that_save_work_serve_more(planner: Planner) -> None:
    contest = tiny_contest(rate_per_s=10.0)
    ratios = {(1.0, 1): 1.0, (2.0, 1): 0.2}
    pipeline, truth = contest.specification.pipelines["tiny"], contest.truth["tiny"]
    sizes = tuple(operator.model_copy(update={"cpus": (1.0, 2.0)}) for operator in pipeline.operators)
    pipelines = {"tiny": pipeline.model_copy(update={"operators": sizes})}
    sized = replace(
        contest,
        specification=replace(contest.specification, pipelines=pipelines),
        truth={"tiny": truth.with_operators(lambda operator: replace(operator, batch_ratio=ratios))},
    )
    matching = planner.plan(sized, 0).matching
    assert judged(sized, matching, 1).goodput > 0  # raises if a node or link is overfull
    assert matching.satisfied_weight > planner.plan(contest, 0).matching.satisfied_weight
    assert 2.0 in {used.deployment.allocation.cpus for used in matching.deployments}


def test_percentiles_hold_that_were_simulated() -> None:
    judgement = judged(_contest(), _planned(INFERLINE).matching, 2)
    assert all(verdict.latency_held for verdict in judgement.verdicts)


def test_integer_programme_keeps_a_query_in_one_tier() -> None:
    tier_of = {pool.name: pool.tier for pool in _contest().specification.required_infrastructure.pools}
    for assignment in _planned(IPA).matching.assignments:
        assert len({tier_of[pool] for _, pool in assignment.chosen.plan.placement}) == 1


def test_increments_spare_measurements() -> None:
    market = Market(_contest(), shares_prefixes=True)
    market.complete("tiny")
    assert _planned(PAPER).profiled_s < market.seconds
