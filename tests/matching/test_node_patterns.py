from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, examples, seeds
from circinus.matching.explanation.shadow_prices import shadow_prices
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import greedy
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.node_patterns import node_patterns
from circinus.planning.bin_packing import pack
from random_matchings import best_answer, random_instance

_SHARE = st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5, 0.6, 1.0])


@settings(max_examples=examples(200))
@given(
    kinds=st.lists(st.tuples(_SHARE, _SHARE), min_size=1, max_size=3, unique=True),
    count=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    nodes=st.integers(1, 2),
)
def test_replicas_pack_exactly_where_patterns_hold_them(
    kinds: list[tuple[float, float]], count: list[int], nodes: int
) -> None:
    demand, replicas = np.array(kinds), np.array(count[: len(kinds)])
    patterns = node_patterns(demand, np.ones(2))
    assert patterns is not None
    held = any(
        (np.sum(chosen, axis=0) >= replicas).all() for chosen in combinations_with_replacement(list(patterns), nodes)
    )
    assert held == (pack(demand, replicas, np.ones(2), nodes).nodes is not None)


def test_too_many_patterns_are_not_listed() -> None:
    assert node_patterns(np.array([[0.01], [0.012], [0.013], [0.017]]), np.ones(1)) is None


@pytest.mark.parametrize("seed", seeds(10))
def test_whole_replicas_on_nodes_bound_the_cost_closer_than_shares_do(seed: int) -> None:
    instance = random_instance(seed, queries=4)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    weight, cost = best_answer(instance)
    found = MilpSolver().solve(problem, (), HANG_LIMIT_S, [greedy(problem)], is_large=True)
    assert found.weight_bounds[0] >= weight - 1e-9
    if problem.priority_levels.weight_of(found.chosen) == pytest.approx(weight):
        in_shares = shadow_prices(problem, found.chosen, 0).cost_bound_usd_per_h
        assert in_shares - 1e-6 <= found.cost_bound_usd_per_h <= cost + 1e-6
