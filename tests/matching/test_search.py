from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from budget import HANG_LIMIT_S, seeds
from circinus.arrays import IntArray
from circinus.estimation import MergedLoad, PlanCandidate
from circinus.matching import match
from circinus.matching.cuts import Cut
from circinus.matching.priority_levels import IntegerWeights
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers import milp_solver
from circinus.matching.solvers.greedy import objective_key
from circinus.matching.solvers.highs import LpModel, LpRelaxation, solve_milp
from circinus.matching.solvers.milp_model import MatchingMilp
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solution
from circinus.specification import CostSlo, LatencySlo, Network, Query, Slos
from circinus.statistics.interval import Interval
from random_matchings import (
    Instance,
    best_answer,
    candidate,
    crossing,
    deployment,
    frontiers_of,
    infrastructure,
    random_instance,
    reestimate,
    use,
)


class Blind:
    """Takes the first candidate of every query, whatever was learnt."""

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[IntArray] = ()
    ) -> Solution:
        first = np.where(np.diff(problem.block) > 0, problem.block[:-1], -1)
        return Solution(
            first, np.full_like(first, -1), problem.priority_levels.weights_of(first * 0), 0.0, optimal=False
        )


class Countdown:
    """A clock that moves by a second each time somebody looks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_a_choice_that_overfills_a_pool_never_gets_past_the_check() -> None:
    infra = infrastructure([("edge", 1, 4.0, 16.0, 1.0)])
    queries = tuple(Query(name=f"q{i}", pipeline="p", source="home", rate_per_s=1.0) for i in range(3))
    candidates = {
        q.name: (candidate(q.name, [use(deployment("a", i, "edge", cpus=2.0), 0.5, infra)]),)
        for i, q in enumerate(queries)
    }
    with pytest.raises(AssertionError, match="more at pool edge"):
        match(frontiers_of(Instance(infra, queries, candidates)), infra, reestimate, solver=Blind())


def test_when_time_runs_out_queries_are_taken_out_until_the_rest_holds() -> None:
    """Alone the model costs each $0.5/h: only the query without a cost objective can stay."""
    infra = infrastructure([("edge", 2, 4.0, 16.0, 1.0)])
    limits = (0.2, None, 0.3)
    queries = tuple(
        Query(
            name=f"q{i}",
            pipeline="p",
            source="home",
            rate_per_s=1.0,
            slos=Slos(cost=None if limit is None else CostSlo(limit_usd_per_h=limit)),
        )
        for i, limit in enumerate(limits)
    )
    candidates = {
        q.name: (candidate(q.name, [use(deployment("a", i, "edge", cpus=2.0), 0.3, infra)]),)
        for i, q in enumerate(queries)
    }
    found = match(
        frontiers_of(Instance(infra, queries, candidates)), infra, reestimate, solver=Blind(), clock=Countdown()
    )
    assert [a.query for a in found.assignments] == ["q1"]
    assert not found.optimal
    assert "optimal" not in found.assignments[0].reason, "the matching alone says so, for all queries"
    assert {r.query: r.binding for r in found.rejections} == {"q0": ("cost",), "q2": ("cost",)}


def test_transfers_that_make_others_late_are_dropped_before_the_late_ones() -> None:
    """The light queries are late behind large transfers, of which the heaviest query has the fewest."""
    infra = infrastructure([("edge", 4, 8.0, 16.0, 1.0)])
    (link,) = Network(infra).path("home", "edge")
    slos = Slos(latency=LatencySlo(limit_s=0.6))
    large = {"heavy": 0.1, "large-0": 0.2, "large-1": 0.3}
    weights = {"heavy": 3.0, "large-0": 2.0, "large-1": 2.0} | {f"light-{i}": 1.0 for i in range(4)}
    queries, plans = [], {}
    for name, weight in weights.items():
        asked = slos if name.startswith("light") else Slos()
        queries.append(Query(name=name, pipeline="p", source="home", rate_per_s=1.0, weight=weight, slos=asked))
        sent = crossing(link, large.get(name, 0.001) * link.bandwidth_bytes_per_s)
        plans[name] = (candidate(name, [use(deployment("a", 1, "edge"), 0.1, infra)], [sent]),)

    def late_behind_large(made: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
        load = conditions.links[link]
        latency_s = 0.5 + load.rate_per_s * load.square_s2
        return replace(made, estimate=replace(made.estimate, latency_s=Interval.exact(latency_s)))

    frontiers = frontiers_of(Instance(infra, tuple(queries), plans))
    found = match(frontiers, infra, late_behind_large, solver=Blind(), clock=Countdown())
    assert found.served == weights.keys() - {"large-1"}


@pytest.mark.parametrize("seed", seeds(20))
def test_the_exact_solver_says_which_choice_is_safe(seed: int) -> None:
    instance = random_instance(seed, queries=5, candidates=5, cost_slos=0.9)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    choice = MilpSolver().solve(problem, [], HANG_LIMIT_S)
    usage = problem.usage_of(choice.feasible_incumbent)
    assert problem.fits(usage)
    for query, chosen in problem.served(choice.feasible_incumbent):
        share = problem.cost_share_usd_per_h(chosen, usage)
        assert share <= problem.cost_limit_usd_per_h[query] * (1 + 1e-6) + 1e-12
    assert problem.priority_levels.weight_of(choice.feasible_incumbent) <= choice.weight_bounds[0] + 1e-9


@pytest.mark.parametrize("seed", seeds(8))
def test_the_exact_solver_finds_the_best_without_any_relaxation_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where rounding keeps the solver from an optimum of the relaxation."""
    monkeypatch.setattr(LpRelaxation, "solve", lambda self, time_limit_s: None)
    instance = random_instance(seed, cost_slos=0.0)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    found = MilpSolver().solve(problem, [], HANG_LIMIT_S)
    weight, _ = best_answer(instance)
    assert found.weight_bounds[0] >= weight - 1e-9
    assert problem.priority_levels.weight_of(found.chosen) >= weight - 1e-9
    assert found.optimal


@pytest.mark.parametrize("seed", [11, 22, *seeds(24)])
def test_reduced_costs_exclude_neither_an_optimum_nor_a_load(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing polishes the answer; at half the gap, 11 would lose its optimum, and loads of 22 exceed the gap."""
    monkeypatch.setattr(milp_solver, "_NEAR_SHARE", np.inf)
    monkeypatch.setattr(MatchingMilp, "forbidden", lambda self, columns: nullcontext())
    monkeypatch.setattr(milp_solver, "local_search", lambda problem, chosen, cuts: chosen)
    instance, excluded = random_instance(seed, queries=5, cost_slos=0.5, elastic=True), []
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    nothing = np.full(len(problem.queries), -1)
    found = MilpSolver().solve(problem, [], HANG_LIMIT_S, [nothing], is_large=True)
    monkeypatch.setattr(MatchingMilp, "forbid", lambda self, columns: excluded.extend(columns[self.continuous]))
    free = MilpSolver().solve(problem, [], HANG_LIMIT_S, [nothing], is_large=True)
    assert objective_key(problem, found.chosen) == pytest.approx(objective_key(problem, free.chosen))
    assert not any(excluded)


def test_a_programme_without_a_solution_or_without_time_has_no_answer() -> None:
    programme, objective = LpModel(upper=[1.0, 1.0]), np.ones(2)
    programme.add_row(np.arange(2), np.ones(2), 1.0, 1.5)
    assert LpRelaxation(programme, objective, 0).solve(0.0) is None
    programme.add_row(np.arange(2), np.ones(2), 3.0, np.inf)
    assert LpRelaxation(programme, objective, 0).solve(HANG_LIMIT_S) is None
    assert solve_milp(programme, objective, np.zeros(2), time_limit_s=HANG_LIMIT_S, gap=0.0, seed=0) == (None, -np.inf)


@pytest.mark.parametrize(
    ("weights", "unit"),
    [([1.0, 2.0, 3.0], 1.0), ([0.1, 0.2, 0.7], 0.1), ([1 / 3, 0.5], 1 / 6), ([2.5], 2.5)],
)
def test_weights_with_a_common_unit_are_counted_exactly(weights: list[float], unit: float) -> None:
    whole = IntegerWeights.of(np.array(weights))
    assert whole.unit == pytest.approx(unit)
    assert whole.rounding == 0.0
    assert whole.multiples.tolist() == [round(weight / unit) for weight in weights]
    assert whole.total(np.array([-1] * (len(weights) - 1) + [0])) == round(weights[-1] / unit)


def test_weights_without_a_common_unit_say_how_far_they_are_rounded() -> None:
    weights = np.array([np.pi, np.e, 1.0])
    whole = IntegerWeights.of(weights)
    assert np.abs(whole.multiples * whole.unit - weights).sum() <= whole.rounding <= 1e-4
