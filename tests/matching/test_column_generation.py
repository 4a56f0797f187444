"""Plans that capped frontiers leave out enter where they pay less at the prices, and lift the bound to that of all."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from budget import HANG_LIMIT_S, half_share_of
from circinus.estimation import PlanCandidate
from circinus.matching import MatchSettings, match
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.column_generation import dual_prices, generate_columns
from circinus.matching.explanation.shadow_prices import shadow_prices
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.planning import Frontier, plan_queries
from circinus.planning.settings import SearchSettings
from circinus.specification import Query, QueryPlan
from circinus.testing.random_instances import random_specification

SEEDS = (10, 1, 0, 4, 2, 3, 5, 6, 7, 8, 9, 11)[: half_share_of(12)]
"""In the first, what enters lifts the bound and is chosen."""


def _planned(seed: int, max_plans: int) -> tuple[PlanEstimates, dict[str, Frontier], partial]:
    specification, profiles = random_specification(seed, queries=12, cpus=4.0, nodes=1)
    settings = SearchSettings(max_plans=max_plans, near_misses=0, max_margin_plans=0, tolerance=0.0)
    frontiers = dict(plan_queries(specification, profiles, settings))
    assert specification.infrastructure is not None
    compiled = partial(build_problem, specification.queries, infrastructure=specification.infrastructure)
    return PlanEstimates(specification, profiles), frontiers, compiled


def _bound(compiled: partial, candidates: dict) -> float:
    return shadow_prices(compiled(candidates), np.full(12, -1), 0).weight_bound


def test_what_was_left_out_enters_where_it_is_worth_more() -> None:
    lifted = 0
    for seed in SEEDS:
        plans, frontiers, compiled = _planned(seed, 2)
        listed = {name: frontier.candidates for name, frontier in frontiers.items()}
        priced = generate_columns(
            listed, frontiers, plans.feasible_estimate, compiled, should_stop=lambda: False, seed=0
        )
        assert all(tuple(priced[name][: len(found)]) == found for name, found in listed.items())
        everything = {name: frontier.candidates for name, frontier in _planned(seed, 10_000)[1].items()}
        assert all({c.plan for c in priced[name]} <= {c.plan for c in everything[name]} for name in listed)
        few, more, most = (_bound(compiled, candidates) for candidates in (listed, priced, everything))
        assert few - 1e-6 <= more <= most + 1e-6
        lifted += more > few + 1e-6
    assert lifted


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_plan_that_entered_pays_less_than_all_that_are_listed(seed: int) -> None:
    plans, frontiers, compiled = _planned(seed, 2)
    prices = dual_prices(compiled({name: frontier.candidates for name, frontier in frontiers.items()}), 0)
    for frontier in frontiers.values():
        left_out = frontier.unlisted
        if prices is None or left_out is None:
            continue
        paid = left_out.takes @ left_out._vector(prices)
        for plan in left_out.lowest_reduced_cost(prices, 3):
            assert plan not in {candidate.plan for candidate in frontier.candidates}
            candidate = plans.feasible_estimate(frontier.query, plan)
            assert candidate is None or candidate.plan == plan
        count = int((paid[~left_out.listed] < paid[left_out.listed].min()).sum())
        assert len(left_out.lowest_reduced_cost(prices, 10_000)) == count


def test_nothing_enters_without_time() -> None:
    plans, frontiers, compiled = _planned(0, 2)
    listed = {name: frontier.candidates for name, frontier in frontiers.items()}
    assert (
        generate_columns(listed, frontiers, plans.feasible_estimate, compiled, should_stop=lambda: True, seed=0)
        == listed
    )


class _Unlisted(CandidateSource):
    def __init__(self, plans: PlanEstimates) -> None:
        self._plans = plans

    def feasible_estimate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        return self._plans.feasible_estimate(query, plan)


def test_a_matching_may_choose_what_no_frontier_listed() -> None:
    chosen = 0
    for seed in SEEDS:
        plans, frontiers, _ = _planned(seed, 2)
        specification, _ = random_specification(seed, queries=12, cpus=4.0, nodes=1)
        assert specification.infrastructure is not None
        patient = MatchSettings(time_limit_s=HANG_LIMIT_S, considers_all_plans=False, fits_targets=False)
        found, plain = (
            match(frontiers, specification.infrastructure, plans.reestimate, source=source, settings=patient)
            for source in (_Unlisted(plans), None)
        )
        assert found.satisfied_weight >= plain.satisfied_weight - 1e-9
        if plain.optimal:
            assert plain.satisfied_weight == found.satisfied_weight
            assert plain.cost_usd_per_h == pytest.approx(found.cost_usd_per_h)
        else:
            assert any(frontier.unlisted is not None for frontier in frontiers.values())
        assert plain.weight_bound >= found.satisfied_weight - 1e-9
        listed = {c.plan for frontier in frontiers.values() for c in frontier.candidates}
        chosen += any(assignment.chosen.plan not in listed for assignment in found.assignments)
    assert chosen
