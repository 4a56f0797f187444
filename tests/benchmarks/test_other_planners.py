"""Planners of the literature in a small contest."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from benchmarks.baselines.planners.inferline import INFERLINE
from benchmarks.baselines.planners.ipa import IPA
from benchmarks.baselines.planners.optuna_greedy import OPTUNA_GREEDY
from benchmarks.baselines.planners.paper import PAPER
from benchmarks.evaluation.contest import Contest, Market, Planned, Planner
from benchmarks.evaluation.judging import judged
from benchmarks.workloads.published.profiles import profiled
from benchmarks.workloads.published.sites import infrastructure

from circinus.matching import Matching
from circinus.specification import Query, Specification
from small_arenas import tiny_arena

PLANNERS: tuple[Planner, ...] = (INFERLINE, IPA, OPTUNA_GREEDY, PAPER)
LIMITS = (("p95 <= 0.5s", ">= 0.5"), ("p95 <= 2s", ">= 0.7"), ("p90 <= 5s", ">= 0.85"), ("p95 <= 1ms", ">= 0.5"))


@cache
def _contest() -> Contest:
    trace, profile = profiled(tiny_arena(np.random.default_rng(0)), "tiny")
    queries = tuple(
        Query(
            name=f"query-{number}",
            pipeline="tiny",
            source=f"place-{number % 4}",
            rate=0.5 + number % 3,
            slos={"latency": latency, "accuracy": accuracy},
            weight=1.0 + number % 2,
        )
        for number, (latency, accuracy) in enumerate(LIMITS * 3)
    )
    specification = Specification({"tiny": trace.pipeline}, infrastructure(), queries)
    return Contest("tiny", specification, {"tiny": profile}, {"tiny": trace})


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
