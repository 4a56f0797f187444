"""Matching again beside what runs, against every answer there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, examples, seeds, share_of
from circinus.errors import PlanningError
from circinus.matching import Incumbent, Matching, MatchSettings, PlanDiff, match, plan_all_queries
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.specification import QueryPlan
from circinus.testing.random_instances import random_specification
from raised import raises_code
from random_matchings import Instance, all_answers, checked_cost, frontiers_of, random_instance, reestimate

Plans = dict[str, QueryPlan]
SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=examples(80))
PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


def matched(instance: Instance, running: Incumbent | None = None, *, by_prices: bool = False) -> Matching:
    return match(
        frontiers_of(instance),
        instance.infrastructure,
        reestimate,
        solver=LagrangianSolver() if by_prices else None,
        settings=PATIENT,
        incumbent=running,
    )


def plans_of(found: Matching) -> Plans:
    return {a.query: a.chosen.plan for a in found.assignments}


def some_answer(instance: Instance, seed: int) -> Plans:
    """Any answer that holds."""
    answers = [plans for _, _, plans in all_answers(instance)]
    plans = answers[int(np.random.default_rng(seed).integers(len(answers)))]
    return {plan.query: plan.plan for plan in plans}


def changes(before: Plans, after: Plans) -> int:
    return sum(after.get(query) != plan for query, plan in before.items())


def best(instance: Instance, before: Plans, change_usd_per_h: float, most: int | None = None) -> tuple[float, float]:
    """(weight, cost with what changes count) of the best of all answers with few changes."""
    found = []
    for weight, cost, plans in all_answers(instance):
        changed = changes(before, {plan.query: plan.plan for plan in plans})
        if most is None or changed <= most:
            found.append((round(weight, 9), -(cost + change_usd_per_h * changed)))
    weight, counted = max(found)
    return weight, -counted


@FEW
@given(seed=SEEDS, change_usd_per_h=st.sampled_from([0.0, 0.02, 0.1, 0.5, 3.0]))
def test_cost_and_changes_are_least_over_all_answers_of_most_weight(seed: int, change_usd_per_h: float) -> None:
    instance = random_instance(seed)
    before = some_answer(instance, seed)
    found = matched(instance, Incumbent(before, change_usd_per_h))
    weight, counted = best(instance, before, change_usd_per_h)
    assert found.optimal
    assert found.satisfied_weight == pytest.approx(weight, abs=1e-6)
    changed = changes(before, plans_of(found))
    assert found.cost_usd_per_h + change_usd_per_h * changed == pytest.approx(counted, abs=1e-5)
    assert found.cost_bound_usd_per_h <= min(
        cost for answer, cost, _ in all_answers(instance) if round(answer, 9) >= weight
    ) + 1e-6  # fmt: skip


@FEW
@given(seed=SEEDS)
def test_without_a_price_there_is_no_change_for_nothing(seed: int) -> None:
    instance = random_instance(seed)
    before = some_answer(instance, seed)
    found = matched(instance, Incumbent(before))
    weight, cost = best(instance, before, 0.0)
    fewest = min(
        changes(before, {plan.query: plan.plan for plan in plans})
        for answer, paid, plans in all_answers(instance)
        if round(answer, 9) == weight and paid <= cost + 1e-9
    )
    assert changes(before, plans_of(found)) <= fewest


@pytest.mark.slow
@FEW
@example(seed=2, most=0, by_prices=True)  # nobody is served
@given(seed=SEEDS, most=st.integers(0, 3), by_prices=st.booleans())
def test_no_more_changes_than_allowed_and_the_best_with_so_many(seed: int, most: int, by_prices: bool) -> None:
    instance = random_instance(seed)
    before = some_answer(instance, seed)
    found = matched(instance, Incumbent(before, max_changes=most), by_prices=by_prices)
    assert changes(before, plans_of(found)) <= most
    weight, counted = best(instance, before, 0.0, most)
    assert found.satisfied_weight <= weight + 1e-6
    if not by_prices or found.optimal:
        assert found.satisfied_weight == pytest.approx(weight, abs=1e-6)
        assert found.cost_usd_per_h == pytest.approx(counted, abs=1e-5)


@FEW
@given(
    seed=SEEDS,
    time_limit_s=st.sampled_from([0.0, HANG_LIMIT_S]),
    by_prices=st.booleans(),
    most=st.none() | st.integers(0, 2),
)
def test_the_answer_is_never_worse_than_keeping_what_runs(
    seed: int, time_limit_s: float, by_prices: bool, most: int | None
) -> None:
    instance = random_instance(seed, queries=4)
    before = some_answer(instance, seed)
    kept = [c for plans in instance.candidates.values() for c in plans if before.get(c.query) == c.plan]
    cost = checked_cost(instance, tuple(kept))
    assert cost is not None
    found = match(
        frontiers_of(instance),
        instance.infrastructure,
        reestimate,
        solver=LagrangianSolver() if by_prices else None,
        settings=MatchSettings(time_limit_s=time_limit_s),
        incumbent=Incumbent(before, 0.05, most),
    )
    changed = changes(before, plans_of(found))
    weight = sum(query.weight for query in instance.queries if query.name in before)
    assert most is None or changed <= most
    assert found.satisfied_weight >= weight - 1e-9
    if found.satisfied_weight <= weight + 1e-9:
        assert found.cost_usd_per_h + 0.05 * changed <= cost + 1e-5


@settings(max_examples=examples(48))
@given(seed=SEEDS, by_prices=st.booleans())
def test_nothing_changes_where_nothing_changed(seed: int, by_prices: bool) -> None:
    instance = random_instance(seed, queries=5)
    first = matched(instance)
    again = matched(instance, Incumbent.of(first), by_prices=by_prices)
    assert plans_of(again) == plans_of(first)
    assert again.cost_usd_per_h == pytest.approx(first.cost_usd_per_h)


def test_a_plan_that_is_possible_no_more_does_not_count() -> None:
    for seed in seeds(40):
        instance = random_instance(seed)
        before = some_answer(instance, seed)
        if not before:
            continue
        lost = min(before)
        left = {q: tuple(c for c in plans if c.plan != before.get(lost)) for q, plans in instance.candidates.items()}
        poorer = replace(instance, candidates=left)
        found = matched(poorer, Incumbent(before, max_changes=0))
        after = plans_of(found)
        assert changes({q: plan for q, plan in before.items() if q != lost}, after) == 0


def test_what_cannot_stay_together_may_change_beside_the_bound() -> None:
    """A node is gone: who has to go goes, and the others stay."""
    shrunk = 0
    for seed in seeds(60):
        instance = random_instance(seed, queries=4)
        before = plans_of(matched(instance))
        pools = tuple(pool.model_copy(update={"nodes": 1}) for pool in instance.infrastructure.pools)
        smaller = replace(instance, infrastructure=instance.infrastructure.model_copy(update={"pools": pools}))
        kept = tuple(c for plans in instance.candidates.values() for c in plans if before.get(c.query) == c.plan)
        found = matched(smaller, Incumbent(before, max_changes=0))
        changed = changes(before, plans_of(found))
        if checked_cost(smaller, kept) is None:
            shrunk += 1
            assert changed > 0
        else:
            assert changed == 0
    assert shrunk


def test_a_plan_that_is_not_on_the_frontier_any_more_stays() -> None:
    stayed = 0
    for seed in (1, 2, 5, 3, 11, 8, 9, 10, 4, 7, 6, 0)[: share_of(12)]:
        specification, profiles = random_specification(seed)
        first, frontiers = plan_all_queries(specification, profiles, settings=PATIENT)
        for assignment in first.assignments:
            others = [c.plan for c in frontiers[assignment.query].plans]
            # Beaten by the plan it has: the same at other utilisation targets.
            plan = next((p for p in others if p != assignment.chosen.plan), None)
            if plan is None:
                continue
            running = Incumbent({assignment.query: plan}, churn_price_usd_per_h=1e6)
            again, _ = plan_all_queries(specification, profiles, incumbent=running, settings=PATIENT)
            if plans_of(again).get(assignment.query) == plan:
                stayed += 1
    assert stayed


def test_what_a_change_does_not_save_enough_for_is_said() -> None:
    said = set()
    for seed in seeds(60):
        instance = random_instance(seed, cost_slos=0.0)
        before = some_answer(instance, seed)
        found = matched(instance, Incumbent(before, churn_price_usd_per_h=5.0))
        for assignment in found.assignments:
            if before.get(assignment.query) == assignment.chosen.plan:
                assert "already running" in assignment.reason
            said |= {alternative.reason.partition(" in total, ")[2] for alternative in assignment.alternatives}
    assert "which is below the churn price" in said


@pytest.mark.parametrize(
    ("price", "most", "code"),
    [
        (-1.0, None, "planning.invalid_churn_price"),
        (float("nan"), None, "planning.invalid_churn_price"),
        (0.0, -1, "planning.invalid_max_changes"),
    ],
)
def test_numbers_without_meaning_are_refused(price: float, most: int | None, code: str) -> None:
    with raises_code(PlanningError, code):
        Incumbent({}, price, most)


def test_changes_are_counted_and_named() -> None:
    instance = random_instance(7, queries=5)
    found = matched(instance)
    names = sorted(a.query for a in found.assignments)
    assert len(names) >= 3
    before = plans_of(found)
    other = replace(before[names[0]], pipeline="another")
    ran = {**before, names[0]: other, "gone": other}
    del ran[names[1]]
    said = PlanDiff.between(ran, found)
    assert (said.changed, said.new, said.removed, said.stopped) == ((names[0],), (names[1],), ("gone",), ())
    assert str(said) == f"1 of {len(names) - 1} running queries get another plan ({names[0]}), 1 new, 1 removed"


def test_with_few_changes_the_bounds_are_those_of_all_answers() -> None:
    for seed in seeds(40):
        instance = random_instance(seed)
        before = some_answer(instance, seed)
        found = matched(instance, Incumbent(before, max_changes=0))
        answers = [(weight, cost) for weight, cost, _ in all_answers(instance)]
        assert found.weight_bound >= max(weight for weight, _ in answers) - 1e-9
        as_much = [cost for weight, cost in answers if weight >= found.satisfied_weight - 1e-9]
        assert found.cost_bound_usd_per_h <= min(as_much) + 1e-9
        assert not found.optimal
