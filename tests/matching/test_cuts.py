from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.matching.cuts import sizing_cut
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.specification import Query
from random_matchings import candidate, deployment, infrastructure, packs, use

_KIND = st.tuples(st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0]), st.sampled_from([0.5, 1.0, 2.0, 3.0]))


def problem_of(kinds: list[tuple[float, float]], nodes: int, *, operators: int | None = None) -> Problem:
    """One pool of nodes with 4 CPUs and 4 GiB; query i has one plan, on deployment i (modulo `operators`)."""
    infra = infrastructure([("edge", nodes, 4.0, 4.0, 1.0)])
    queries, plans = [], {}
    for index, (cpus, memory) in enumerate(kinds):
        name = f"q{index}"
        queries.append(Query(name=name, pipeline="p", source="home", rate_per_s=1.0))
        number = index if operators is None else index % operators
        plans[name] = [candidate(name, [use(deployment("a", number, "edge", cpus), 0.5, infra, memory)])]
    return build_problem(queries, plans, infra)


def fits(problem: Problem, replicas: np.ndarray) -> bool:
    items = [tuple(demand[:2] / problem.node_capacity[0][:2]) for demand in problem.demand]
    return packs([items[d] for d, count in enumerate(replicas) for _ in range(count)], int(problem.nodes[0]))


@settings(max_examples=examples(300))
@given(
    kinds=st.lists(_KIND, min_size=1, max_size=4),
    nodes=st.integers(1, 3),
    counts=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_a_packing_cut_removes_what_did_not_pack_and_nothing_that_does(
    kinds: list[tuple[float, float]], nodes: int, counts: list[int]
) -> None:
    problem = problem_of(kinds, nodes)
    chosen = np.full(len(kinds), -1)
    replicas = np.array(counts[: len(problem.deployments)])
    usage = replace(problem.usage_of(chosen), replicas=replicas, used=replicas > 0)
    found, cuts = pack_pools(problem, usage)
    assert bool(cuts) == (not fits(problem, replicas))
    if not cuts:
        assert {d: len(where) for d, where in found.items()} == {d: c for d, c in enumerate(replicas) if c}
        return
    (cut,) = cuts
    assert cut.valid
    assert not cut.is_satisfied(problem, chosen, usage)
    for other in product(range(4), repeat=len(problem.deployments)):
        candidate_usage = replace(usage, replicas=np.array(other))
        if not cut.is_satisfied(problem, chosen, candidate_usage):
            assert not fits(problem, np.array(other))


def test_a_packing_cut_covers_larger_replicas_too() -> None:
    """What says that three replicas of 3 CPUs do not go on two nodes says it of 3.5 CPUs as well."""
    problem = problem_of([(3.0, 0.5), (3.0, 1.0), (3.0, 2.0), (3.5, 3.0)], 2)
    order = [d.knobs.as_dict()["k"] for d in problem.deployments]
    replicas = np.array([1 if k < 3 else 0 for k in order])
    chosen = np.full(4, -1)
    usage = replace(problem.usage_of(chosen), replicas=replicas, used=replicas > 0)
    _, (cut,) = pack_pools(problem, usage)
    assert not cut.is_satisfied(problem, chosen, replace(usage, replicas=np.array([3 if k == 3 else 0 for k in order])))


def test_a_sizing_cut_holds_as_soon_as_the_neighbours_are_others() -> None:
    problem = problem_of([(1.0, 0.5)] * 4, 4, operators=2)  # q0 and q2 share a deployment, q1 and q3 another
    chosen = np.array([0, 1, 2, -1])
    cut = sizing_cut(problem, chosen, 0, "too late", exact=True)
    assert cut.present.tolist() == [2]
    assert cut.absent.tolist() == []
    usage = problem.usage_of(chosen)
    assert not cut.is_satisfied(problem, chosen, usage)
    assert not cut.is_satisfied(problem, np.array([0, -1, 2, 3]), usage), "strangers do not matter"
    assert cut.is_satisfied(problem, np.array([0, 1, -1, -1]), usage)
    assert cut.is_satisfied(problem, np.array([-1, 1, 2, -1]), usage)
    alone = sizing_cut(problem, np.array([0, 1, -1, -1]), 0, "too dear", exact=True)
    assert alone.absent.tolist() == [2]
    assert not alone.is_satisfied(problem, np.array([0, -1, -1, -1]), usage)
    assert alone.is_satisfied(problem, np.array([0, -1, 2, -1]), usage)


def test_a_plan_that_was_given_up_is_given_up_among_any_neighbours() -> None:
    problem = problem_of([(1.0, 0.5)] * 2, 4, operators=1)
    cut = sizing_cut(problem, np.array([0, 1]), 0, "too late", exact=False)
    assert not cut.valid
    usage = problem.usage_of(np.array([0, -1]))
    assert not cut.is_satisfied(problem, np.array([0, -1]), usage)
    assert cut.is_satisfied(problem, np.array([-1, 1]), usage)
