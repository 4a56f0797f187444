"""Priorities, pins and tenants' shares: who is served first, against the enumeration of all answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prices_alone import prices_alone

from budget import HANG_LIMIT_S, half_share_of, seeds, share_of
from circinus.errors import PlanningError
from circinus.matching import MatchSettings, match
from circinus.matching.cuts import Cut
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import greedy, is_feasible
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solution
from circinus.specification import Query, Tenant
from random_matchings import Instance, all_answers, frontiers_of, larger, packed_optimum, random_instance, reestimate

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)
COSTLY = (0, 19, 20, 29, 39, 60, 65, 72, 92, 95, 97)
"""Seeds of instances in which what tenants were promised costs weight."""


def query(number: int, weight: float = 1.0, priority: int = 0) -> Query:
    return Query(name=f"q{number}", pipeline="p", source="home", rate_per_s=1.0, weight=weight, priority=priority)


def with_priorities(instance: Instance, seed: int, levels: int = 3) -> Instance:
    rng = np.random.default_rng(seed)
    queries = tuple(q.model_copy(update={"priority": int(rng.integers(levels))}) for q in instance.queries)
    return Instance(instance.infrastructure, queries, instance.candidates)


def by_priority(queries: tuple[Query, ...], served: set[str]) -> tuple[float, ...]:
    """Satisfied weight of each priority, the highest first."""
    levels = sorted({q.priority for q in queries}, reverse=True)
    return tuple(
        round(sum(q.weight for q in queries if q.priority == level and q.name in served), 9) for level in levels
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([1.0, 2.0, 0.5, 1.25]), st.booleans(), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_weights_compare_level_by_level(drawn: list[tuple[int, float, bool, bool]]) -> None:
    queries = [query(i, weight, priority) for i, (priority, weight, _, _) in enumerate(drawn)]
    levels = PriorityLevels.of(queries)
    one, other = (np.array([0 if entry[2 + k] else -1 for entry in drawn]) for k in range(2))
    served = [{queries[i].name for i in np.flatnonzero(chosen >= 0)} for chosen in (one, other)]
    assert [levels.weights_of(chosen) for chosen in (one, other)] == [
        by_priority(tuple(queries), names) for names in served
    ]
    assert [levels.multiples_of(one) > levels.multiples_of(other)] == [
        levels.weights_of(one) > levels.weights_of(other)
    ]
    bounds = max(levels.weights_of(one), levels.weights_of(other))
    limit = levels.bound(one, bounds)
    assert levels.weight_of(one) - 1e-9 <= limit <= float(levels.weight.sum()) + 1e-9
    if levels.weights_of(one) == bounds:
        assert limit == pytest.approx(levels.weight_of(one))
    order = sorted(range(len(queries)), key=lambda i: (queries[i].priority, queries[i].weight))
    assert (np.diff(levels.importance[order]) >= 0).all()


@given(st.integers(0, 10**6))
def test_no_choice_with_as_much_of_the_higher_levels_exceeds_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    levels = PriorityLevels.of(
        [query(i, float(rng.choice([1.0, 2.0, 0.5])), int(rng.integers(3))) for i in range(count)]
    )
    one, other = (np.where(rng.random(count) < 0.5, 0, -1) for _ in range(2))
    weights = [levels.weights_of(chosen) for chosen in (one, other)]
    if all(more >= less for less, more in zip(weights[0][:-1], weights[1][:-1], strict=True)):
        assert sum(weights[1]) <= levels.bound(one, max(weights)) + 1e-9


def test_hundreds_of_levels_of_thousands_of_queries_are_told_apart() -> None:
    queries = [query(i, weight=1.0 + i % 7 / 1000, priority=i % 400) for i in range(4000)]
    levels = PriorityLevels.of(queries)
    everything = np.zeros(4000, dtype=np.int64)
    without = everything.copy()
    without[0] = -1
    assert levels.count == 400
    assert levels.weights_of(everything) > levels.weights_of(without)
    assert levels.bound(without, levels.weights_of(everything)) == pytest.approx(levels.weight_of(everything))


def test_a_bound_of_a_level_holds_only_below_proved_levels() -> None:
    bounds, limits = (3.0, 2.0, 1.0), (4.0, 4.0, 4.0)
    assert PriorityLevels.lexicographic_bound(bounds, (True, True, False), limits) == bounds
    assert PriorityLevels.lexicographic_bound(bounds, (True, False, True), limits) == (3.0, 2.0, 4.0)
    assert PriorityLevels.lexicographic_bound(bounds, (False, True, True), limits) == (3.0, 4.0, 4.0)


def test_a_bound_is_rounded_as_weights_are() -> None:
    """Three times 0.35 is less than 1.05 by one bit, which must not decide about the lower level."""
    levels = PriorityLevels.of([query(i, 0.35, 5 if i < 3 else 0) for i in range(14)])
    weights = levels.weights_of(np.where(np.arange(14) < 11, 0, -1))
    bound = PriorityLevels.lexicographic_bound((3 * 0.35, 11 * 0.35), (True, False), levels.total_weights)
    assert max(bound, weights) == bound == (1.05, 3.85)


@pytest.mark.parametrize("solver", [None, LagrangianSolver()], ids=["exact", "by prices"])
@pytest.mark.parametrize("block", range(6))
def test_priorities_are_strict(solver: LagrangianSolver | None, block: int) -> None:
    for seed in range(block * 8, block * 8 + half_share_of(8)):
        instance = with_priorities(random_instance(seed, queries=4), seed)
        found = match(frontiers_of(instance), instance.infrastructure, reestimate, solver=solver, settings=PATIENT)
        best = max(
            (by_priority(instance.queries, {plan.query for plan in plans}), -round(cost, 7))
            for _, cost, plans in all_answers(instance)
        )
        served = {assignment.query for assignment in found.assignments}
        assert by_priority(instance.queries, served) == pytest.approx(best[0]), seed
        assert found.cost_usd_per_h == pytest.approx(-best[1], abs=1e-6), seed
        assert found.satisfied_weight == pytest.approx(sum(best[0]))
        assert found.satisfied_weight <= found.weight_bound + 1e-9 <= found.total_weight + 2e-9


@pytest.mark.parametrize("seed", seeds(3))
def test_of_many_queries_lower_priorities_are_chosen_as_well_as_by_the_exact_solver(seed: int) -> None:
    instance = with_priorities(larger(random_instance(seed, queries=24, candidates=6), 2), seed)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    found, exact = LagrangianSolver().solve(problem, (), HANG_LIMIT_S), packed_optimum(problem)
    assert exact.optimal
    assert _served(problem, found.chosen) == pytest.approx(_served(problem, exact.chosen))
    assert found.weight_bounds >= problem.priority_levels.weights_of(exact.chosen)


@pytest.mark.parametrize("seed", seeds(4))
def test_of_many_queries_no_answer_is_worse_than_the_greedy_one_in_the_order_of_priorities(seed: int) -> None:
    instance = with_priorities(larger(random_instance(seed, queries=60, candidates=6), 4), seed)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    found = prices_alone().solve(problem, (), HANG_LIMIT_S)
    assert is_feasible(problem, found.chosen, ())
    assert _served(problem, found.chosen) >= _served(problem, greedy(problem))


def _served(problem: Problem, chosen: np.ndarray) -> list[float]:
    """Satisfied weight of each rank, the highest first."""
    ranks = problem.priority_levels
    return [float(ranks.weight[queries[chosen[queries] >= 0]].sum()) for queries in ranks.descending]


def _answers(instance: Instance) -> list[tuple[frozenset[str], float, float]]:
    """(served, weight, cost) of every answer."""
    return [
        (frozenset(plan.query for plan in plans), round(weight, 9), cost)
        for weight, cost, plans in all_answers(instance)
    ]


def _changed(instance: Instance, changes: dict[str, dict[str, object]], tenants: tuple[Tenant, ...] = ()) -> Instance:
    queries = tuple(q.model_copy(update=changes.get(q.name, {})) for q in instance.queries)
    return Instance(instance.infrastructure.model_copy(update={"tenants": tenants}), queries, instance.candidates)


def test_pinned_queries_are_served_or_those_that_conflict_are_named() -> None:
    served = refused = 0
    for seed in range(half_share_of(60)):
        drawn = random_instance(seed, queries=4)
        rng = np.random.default_rng(seed)
        pinned = {q.name for q in drawn.queries if rng.random() < 0.6}
        instance = _changed(drawn, {name: {"pin": ()} for name in pinned})
        answers = _answers(instance)
        possible = [answer for answer in answers if pinned <= answer[0]]
        if possible:
            served += 1
            found = match(frontiers_of(instance), instance.infrastructure, reestimate, settings=PATIENT)
            assert pinned <= {assignment.query for assignment in found.assignments}
            assert found.satisfied_weight == pytest.approx(max(weight for _, weight, _ in possible))
            continue
        refused += 1
        with pytest.raises(PlanningError) as caught:
            match(frontiers_of(instance), instance.infrastructure, reestimate, settings=PATIENT)
        assert caught.value.code in {"query.pinned_infeasible", "query.pins_conflict"}
        named = {name for name in pinned if name in caught.value.location.replace(",", " ").split()}
        assert caught.value.code == "query.pinned_infeasible" or len(named) > 1
        assert named
        assert not any(named <= served for served, _, _ in answers)
        assert all(any(named - {name} <= served for served, _, _ in answers) for name in named)
    assert served
    assert refused


def _missing(instance: Instance, served: frozenset[str]) -> float:
    """Sum over tenants of the share of their weight that lacks to what was promised."""
    missing = 0.0
    for tenant in instance.infrastructure.tenants:
        theirs = [q for q in instance.queries if q.tenant == tenant.name]
        if theirs:
            got = sum(q.weight for q in theirs if q.name in served) / sum(q.weight for q in theirs)
            missing += max(tenant.at_least - got, 0.0)
    return round(missing, 9)


def _with_tenants(seed: int) -> Instance:
    """Those of `b` weigh less, so that without a promise they would often come last."""
    rng = np.random.default_rng(seed)
    shares = {"a": float(rng.choice([0.0, 0.4])), "b": float(rng.choice([0.3, 0.6, 1.0]))}
    drawn = random_instance(seed, queries=4)
    whose = {q.name: str(rng.choice(list(shares))) for q in drawn.queries}
    weight = {q.name: q.weight * (0.4 if whose[q.name] == "b" else 1.0) for q in drawn.queries}
    tenants = tuple(Tenant(name=name, at_least=share) for name, share in shares.items())
    return _changed(drawn, {name: {"tenant": whose[name], "weight": weight[name]} for name in whose}, tenants)


def test_tenants_get_what_they_were_promised_where_that_can_be() -> None:
    """And where that costs weight, mostly no more than it has to: who is held is found in a few tries."""
    costly, best = 0, 0
    relevant = COSTLY[: share_of(len(COSTLY))]
    for seed in sorted({*relevant, *range(half_share_of(100))}):
        instance = _with_tenants(seed)
        found = match(frontiers_of(instance), instance.infrastructure, reestimate, settings=PATIENT)
        served = frozenset(assignment.query for assignment in found.assignments)
        weights = {q.name: q.weight for q in instance.queries}
        answers = [
            (_missing(instance, there), -round(sum(weights[name] for name in there), 9))
            for there, _, _ in _answers(instance)
        ]
        least_missing, most_weight = min(answers)
        assert found.satisfied_weight <= found.weight_bound + 1e-9
        assert all(share.is_met == (share.share >= share.guaranteed_share - 1e-9) for share in found.tenants)
        if least_missing == 0:
            assert _missing(instance, served) == 0, seed
        if most_weight > min(weight for _, weight in answers):
            costly += 1
            best += _missing(instance, served) == least_missing and found.satisfied_weight >= -most_weight - 1e-9
    assert costly >= len(relevant)
    assert best >= 0.9 * costly


@dataclass(frozen=True)
class Forgetful:
    """Serves nobody where all are asked for, and as much as can be where some are."""

    exact: MilpSolver = field(default_factory=MilpSolver)

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[np.ndarray] = ()
    ) -> Solution:
        """As if time had run out with many queries."""
        found = self.exact.solve(problem, cuts, time_limit_s, starts)
        if (np.diff(problem.block) > 0).all():
            nobody = np.full(len(problem.queries), -1, dtype=np.int64)
            return replace(found, chosen=nobody, feasible_incumbent=nobody, cost_bound_usd_per_h=0.0, optimal=False)
        return found


def test_pins_that_were_missed_for_want_of_time_are_served_all_the_same() -> None:
    """First by themselves, then with whoever fits beside them."""
    more = 0
    for seed in seeds(40):
        drawn = random_instance(seed, queries=4)
        pinned = [q.name for q in drawn.queries[:2]]
        instance = _changed(drawn, {name: {"pin": ()} for name in pinned})
        if not any(set(pinned) <= there for there, _, _ in _answers(instance)):
            continue
        if not all(instance.candidates[q.name] for q in instance.queries):
            continue
        found = match(frontiers_of(instance), instance.infrastructure, reestimate, solver=Forgetful(), settings=PATIENT)
        there = {assignment.query for assignment in found.assignments}
        assert set(pinned) <= there
        assert not found.optimal
        more += len(there) > 2
    assert more


@pytest.mark.slow
def test_of_many_queries_pins_are_served_within_a_short_time_or_refused_in_words() -> None:
    drawn = larger(random_instance(14, queries=45, candidates=6), 3)
    names = [q.name for q in drawn.queries if drawn.candidates[q.name]][::3]
    instance = _changed(drawn, {name: {"pin": ()} for name in names})
    began_with, code = {}, ""
    try:
        found = match(
            frontiers_of(instance), instance.infrastructure, reestimate, settings=MatchSettings(time_limit_s=0.2)
        )
        began_with = {assignment.query: assignment for assignment in found.assignments}
    except PlanningError as error:
        code = error.code
    assert set(names) <= set(began_with) or code.startswith("query.pin")
