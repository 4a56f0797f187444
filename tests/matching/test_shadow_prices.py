"""Prices say what binds, and what a unit more of it brings, as the relaxed matching with a unit more says too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from budget import seeds
from circinus.matching.explanation.shadow_prices import shadow_prices
from circinus.matching.lagrangian import DualObjective, dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import greedy
from circinus.matching.solvers.viable_candidates import viable_candidates
from random_matchings import best_answer, candidate, deployment, infrastructure, larger, random_instance, use


def _problem(seed: int, times: int) -> Problem:
    instance = larger(random_instance(seed, queries=60, candidates=6, cost_slos=0.0), times)
    return build_problem(instance.queries, instance.candidates, instance.infrastructure)


def _most_weight(problem: Problem) -> float:
    """Of the relaxed matching."""
    view = RelaxedView.of(problem, problem.priority_levels.weight, viable_candidates(problem, ()))
    fluid = view.scaled(np.ones(len(problem.deployments)))
    objective = DualObjective(1.0, 0.0)
    return dual_bound(fluid, objective, solve_lp_prices(fluid, objective).prices)


@pytest.mark.parametrize("seed", seeds(6))
def test_a_wider_pool_brings_what_its_prices_say(seed: int) -> None:
    problem = _problem(seed, 4)
    before, share = _most_weight(problem), 0.02
    found = {price.resource: price for price in shadow_prices(problem, greedy(problem), 0).prices}
    for pool, name in enumerate(problem.pools):
        rows = replace(problem.rows, limit=np.where(problem.rows.pool == pool, 1 + share, 1.0) * problem.rows.limit)
        gained = _most_weight(replace(problem, rows=rows)) - before
        own = [price for resource, price in found.items() if resource.startswith(f"pool {name}:")]
        said = sum(price.weight * price.capacity for price in own) * share
        # What comes of more is concave in it: never more than at the margin, and for a little nearly as much.
        assert 0.5 * said - 0.002 * before * share <= gained + 1e-4 * before
        assert gained <= said + 2e-3 * before * share + 1e-4 * before


def test_what_is_left_over_is_worth_nothing_and_what_binds_is_named() -> None:
    infra = infrastructure([("near", 1, 2.0, 64.0, 1.0)])
    deployed = deployment("a", 0, "near")
    plans = {f"q{n}": (candidate(f"q{n}", [use(deployed, 1.0, infra)]),) for n in range(4)}
    template = random_instance(0, queries=1, cost_slos=0.0).queries[0]
    queries = [template.model_copy(update={"name": name, "weight": 1.0}) for name in plans]
    problem = build_problem(queries, plans, infra)
    cpus, memory = shadow_prices(problem, greedy(problem), 0).prices
    assert (cpus.resource, cpus.unit, cpus.capacity, cpus.used) == ("pool near: cpus", "CPU", 2.0, 1.0)
    assert cpus.weight == pytest.approx(1.0, rel=0.01)
    assert memory.weight == memory.saving_usd_per_h == 0.0
    assert memory.unit == "GiB"
    assert memory.used == pytest.approx(1 / 64)

    one = build_problem(queries[:1], {"q0": plans["q0"]}, infra)
    assert all(price.weight == 0 for price in shadow_prices(one, greedy(one), 0).prices)


def test_without_any_plan_there_are_no_prices() -> None:
    infra = infrastructure([("near", 1, 2.0, 64.0, 1.0)])
    query = random_instance(0, queries=1).queries[0]
    found = shadow_prices(build_problem([query], {query.name: ()}, infra), np.array([-1]), 0)
    assert (found.prices, found.weight_bound, found.cost_bound_usd_per_h) == ((), 0.0, 0.0)


@pytest.mark.parametrize("seed", seeds(60))
def test_its_bounds_hold_for_whole_replicas(seed: int) -> None:
    instance = random_instance(seed, queries=4)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    found = shadow_prices(problem, greedy(problem), seed)
    weight, cost = best_answer(instance)
    assert found.weight_bound >= weight - 1e-9
    if problem.priority_levels.weight_of(greedy(problem)) == pytest.approx(weight):
        assert found.cost_bound_usd_per_h <= cost + 1e-9
