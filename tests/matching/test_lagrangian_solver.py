"""The solver for many queries against the enumeration of all answers, the exact solver, and its own promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from prices_alone import prices_alone

from budget import HANG_LIMIT_S, half_share_of, seeds
from circinus.matching import MatchSettings, match
from circinus.matching.lagrangian.relaxation import RelaxedView, replica_scaling
from circinus.matching.match_run import Answer
from circinus.matching.plan_space_bounds import plan_space_bounds
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import IncrementalSolution, greedy, is_feasible
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.matching.solvers.viable_candidates import viable_candidates
from random_matchings import Instance, best_answer, frontiers_of, larger, packed_optimum, random_instance, reestimate


def _problem(instance: Instance) -> Problem:
    return build_problem(instance.queries, instance.candidates, instance.infrastructure)


@pytest.mark.parametrize("seed", range(half_share_of(120)))
def test_small_matchings_are_as_good_as_the_best_of_all(seed: int) -> None:
    """Whole replicas, nodes, shares of cost and final latencies included."""
    instance = random_instance(seed, queries=4)
    answers = dict[str, Answer]()
    found = match(
        frontiers_of(instance),
        instance.infrastructure,
        reestimate,
        solver=LagrangianSolver(),
        settings=MatchSettings(time_limit_s=HANG_LIMIT_S),
        observer=answers.__setitem__,
    )
    weight, cost = best_answer(instance)
    weight_bound, cost_bound_usd_per_h = plan_space_bounds(answers["search"])
    assert weight_bound >= weight - 1e-9
    assert cost_bound_usd_per_h <= cost + 1e-9
    assert found.satisfied_weight == pytest.approx(weight)
    assert found.cost_usd_per_h == pytest.approx(cost)
    assert found.weight_bound >= weight - 1e-9


@pytest.mark.parametrize("seed", range(half_share_of(12)))
def test_it_is_no_worse_than_the_exact_solver_or_the_greedy_answer(seed: int) -> None:
    problem = _problem(larger(random_instance(seed, queries=24, candidates=6), 2))
    found, exact = LagrangianSolver().solve(problem, (), HANG_LIMIT_S), packed_optimum(problem)
    assert is_feasible(problem, found.feasible_incumbent, ())
    assert IncrementalSolution(problem, found.chosen).key >= IncrementalSolution(problem, greedy(problem)).key
    if exact.optimal:
        assert problem.priority_levels.weight_of(found.chosen) == pytest.approx(
            problem.priority_levels.weight_of(exact.chosen)
        )
        assert found.weight_bounds[0] >= problem.priority_levels.weight_of(exact.chosen) - 1e-9
        if found.optimal:
            assert problem.usage_of(found.chosen).cost_usd_per_h == pytest.approx(
                problem.usage_of(exact.chosen).cost_usd_per_h, rel=1e-5
            )


@pytest.mark.parametrize("seed", range(half_share_of(8)))
def test_many_queries_are_served_better_by_prices_alone_than_greedily(seed: int) -> None:
    problem = _problem(larger(random_instance(seed, queries=100, candidates=6), 7))
    quick = greedy(problem)
    found = prices_alone().solve(problem, (), HANG_LIMIT_S)
    assert is_feasible(problem, found.chosen, ())
    assert problem.priority_levels.weight_of(found.chosen) > problem.priority_levels.weight_of(quick)
    assert problem.priority_levels.weight_of(found.chosen) <= found.weight_bounds[0] + 1e-9
    assert 0 < found.cost_bound_usd_per_h <= problem.usage_of(found.chosen).cost_usd_per_h


def test_without_time_there_is_an_answer() -> None:
    problem = _problem(larger(random_instance(1, queries=60), 4))
    found = LagrangianSolver().solve(problem, (), 0.0)
    assert is_feasible(problem, found.chosen, ())
    assert 0 < problem.priority_levels.weight_of(found.chosen) <= found.weight_bounds[0]


def test_queries_that_are_alike_are_one_class() -> None:
    instance = random_instance(3, queries=2)
    renamed = {}
    queries = []
    for copy in range(5):
        for query in instance.queries:
            name = f"{query.name}-{copy}"
            queries.append(query.model_copy(update={"name": name}))
            renamed[name] = tuple(
                type(made)(name, made.plan, made.estimate, made.deployments, made.links, made.transfer_cost_usd_per_h)
                for made in instance.candidates[query.name]
            )
    problem = build_problem(queries, renamed, instance.infrastructure)
    view = RelaxedView.of(problem, problem.priority_levels.weight, viable_candidates(problem, ()))
    assert sorted(len(members) for members in view.queries) == [5] * len(view.queries)
    fluid = view.scaled(np.ones(len(problem.deployments)))
    assert fluid.queries == sum(len(members) for members in view.queries)


def test_the_fluid_view_takes_what_the_problem_takes() -> None:
    for seed in seeds(20):
        problem = _problem(random_instance(seed, queries=5))
        view = RelaxedView.of(problem, problem.priority_levels.weight, np.ones(len(problem.candidates), dtype=bool))
        fluid = view.scaled(np.ones(len(problem.deployments)))
        for row, queries in enumerate(view.queries):
            for position, candidate in enumerate(problem.candidates_of(int(queries[0]))):
                columns, load = problem.fractional_load.row(candidate)
                links, volume = problem.traffic.row(candidate)
                rows = problem.rows.coefficients[:, columns] @ load / problem.rows.limit
                crossed = np.zeros(len(problem.links))
                crossed[links] = volume / problem.link_capacity_bytes_per_s[links]
                taken = np.concatenate([rows, crossed])
                assert fluid.amounts[row, position].sum() == pytest.approx(taken.sum())
                np.testing.assert_allclose(fluid.amounts[row, position][view.slot[taken > 0]], taken[taken > 0])
                cost = problem.price_usd_per_h[columns] @ load + problem.transfer_cost_usd_per_h[candidate]
                assert fluid.cost_usd_per_h[row, position] == pytest.approx(cost)


def test_loads_are_stretched_to_whole_replicas() -> None:
    problem = _problem(random_instance(0, queries=5))
    usage = problem.usage_of(greedy(problem))
    found = replica_scaling(problem, usage.fractional_load, usage.replicas, np.full(len(problem.deployments), 7.0))
    np.testing.assert_allclose(found[usage.used] * usage.fractional_load[usage.used], usage.replicas[usage.used])
    assert (found[~usage.used] == 7.0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "time_limit_s"), [(None, 1.0), (prices_alone(), HANG_LIMIT_S)], ids=["in another process", "here"]
)
def test_more_queries_than_the_exact_solver_takes_go_by_prices(
    solver: LagrangianSolver | None, time_limit_s: float
) -> None:
    """From frontiers to packed and sized deployments; what holds whatever is found in the time."""
    instance = larger(random_instance(5, queries=42, candidates=3, cost_slos=0.0), 2)
    found = match(
        frontiers_of(instance),
        instance.infrastructure,
        reestimate,
        solver=solver,
        settings=MatchSettings(time_limit_s=time_limit_s),
    )
    assert 0 < found.satisfied_weight <= found.weight_bound <= found.total_weight
    assert 0 < found.cost_bound_usd_per_h <= found.cost_usd_per_h
    served = {assignment.query for assignment in found.assignments}
    rejected = {rejection.query for rejection in found.rejections}
    assert served | rejected == {query.name for query in instance.queries}
    assert not served & rejected
    plans = tuple(assignment.chosen for assignment in found.assignments)
    for pool in instance.infrastructure.pools:
        for node in range(pool.nodes):
            here = [
                sized.demand
                for sized in found.deployments
                for place in sized.nodes
                if sized.deployment.pool == pool.name and place == node
            ]
            assert sum(demand.cpus for demand in here) <= pool.cpus * (1 + 1e-6)
            assert sum(demand.memory_bytes for demand in here) <= pool.memory_bytes * (1 + 1e-6)
    assert sum(plan.estimate.cost_usd_per_h.value for plan in plans) == pytest.approx(found.cost_usd_per_h)


def test_queries_that_are_alike_are_rejected_alike() -> None:
    instance = random_instance(7, queries=1, cost_slos=0.0)
    query = instance.queries[0]
    plan = instance.candidates[query.name][0]
    queries = [query.model_copy(update={"name": f"copy{n}"}) for n in range(12)]
    copies = {one.name: (replace(plan, query=one.name),) for one in queries}
    many = Instance(instance.infrastructure, tuple(queries), copies)
    found = match(frontiers_of(many), many.infrastructure, reestimate)
    assert len(found.rejections) > 1
    assert len({rejection.query for rejection in found.rejections}) == len(found.rejections)
    assert len({rejection.reason for rejection in found.rejections}) == 1
