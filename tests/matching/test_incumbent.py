"""Matching again beside what runs, against every answer there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, half_share_of, seeds
from circinus.errors import PlanningError
from circinus.estimation import MergedLoad, PlanCandidate
from circinus.matching import Incumbent, Matching, MatchSettings, PlanDiff, match, plan_all_queries
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.planning import Frontier
from circinus.specification import Deployment, Infrastructure, LatencySlo, Query, QueryPlan, Slos, Specification
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE, UNFITTED
from raised import raises_code
from random_matchings import (
    Instance,
    all_answers,
    candidate,
    checked_cost,
    deployment,
    frontiers_of,
    infrastructure,
    random_instance,
    reestimate,
    use,
)
from split_plans import KEEPING_USD_PER_H, split_plans

Plans = dict[str, QueryPlan]
SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=half_share_of(80))
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


@settings(max_examples=half_share_of(48))
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
    for seed in (1, 2, 5, 3, 11, 8, 9, 10, 4, 7, 6, 0)[: half_share_of(12)]:
        specification, profiles = random_specification(seed)
        first, frontiers = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
        # Beaten by the plan it has: the same at other utilisation targets.
        others = ((a, c.plan) for a in first.assignments for c in frontiers[a.query].plans)
        for query, plan in islice(((a.query, p) for a, p in others if p != a.chosen.plan), 1):
            running = Incumbent({query: plan}, churn_price_usd_per_h=1e6)
            again, _ = plan_all_queries(
                specification, profiles, incumbent=running, settings=UNFITTED, explain_rejections=()
            )
            stayed += plans_of(again).get(query) == plan
    assert stayed


def test_what_a_change_does_not_save_enough_for_is_said() -> None:
    said = set()
    for seed in seeds(60):
        instance = random_instance(seed, cost_slos=0.0)
        before = some_answer(instance, seed)
        found = matched(instance, Incumbent(before, churn_price_usd_per_h=5.0))
        for assignment in found.assignments:
            if before.get(assignment.query) == assignment.chosen.plan:
                assert "unchanged from the previous plan" in assignment.reason
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
    first, _, *others = sorted(found.assignments, key=lambda a: a.query)
    other = replace(first.chosen, plan=replace(first.chosen.plan, pipeline="another"))
    ran = replace(found, assignments=(replace(first, chosen=other), replace(first, query="gone"), *others))
    said = PlanDiff.between(ran, found)
    assert (said.changed, said.new, said.removed, said.stopped) == ((names[0],), (names[1],), ("gone",), ())
    assert str(said) == f"1 of {len(names) - 1} queries of the previous plan get another ({names[0]}), 1 new, 1 removed"
    assert PlanDiff.between(found, found).empty
    resized, *kept = found.deployments
    less, more = len(resized.nodes), len(resized.nodes) + 1
    said = PlanDiff.between(replace(found, deployments=(replace(resized, nodes=(0,) * more), *kept)), found)
    assert (said.replicas, said.changed) == ({resized.deployment.name: (more, less)}, ())
    assert not said.empty
    assert str(said).endswith(f" {more} -> {less}")


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


def _one_pool() -> tuple[Infrastructure, dict[str, tuple[PlanCandidate, ...]], CandidateSource]:
    """Return three queries that are all served only if the first leaves its plan, and plans on running deployments.

    The last query runs on one deployment of each of the others, or on a deployment that leaves no room.
    """
    infra = infrastructure([("edge", 1, 4.0, 16.0, 1.0)])
    shared, other, second, third = (deployment("a", knob, "edge") for knob in range(4))
    tail, last = deployment("b", 0, "edge"), deployment("b", 1, "edge")
    plans = {
        "first": (
            candidate("first", [use(shared, 0.3, infra), use(tail, 0.3, infra)]),
            candidate("first", [use(other, 0.3, infra, memory_gib=8.0), use(tail, 0.3, infra)]),
        ),
        "second": (candidate("second", [use(second, 0.3, infra), use(last, 0.3, infra)]),),
        "third": (candidate("third", [use(third, 0.3, infra), use(deployment("b", 2, "edge"), 0.3, infra)]),),
    }

    class Composed(CandidateSource):
        def on_deployments(self, query: Query, running: Sequence[Deployment]) -> Sequence[PlanCandidate]:
            if query.name == "third" and {shared, last} <= set(running):
                return [candidate("third", [use(shared, 0.3, infra), use(last, 0.3, infra)])]
            uses = {"first": {other, tail}}.get(query.name)
            return [plans[query.name][1]] if uses is not None and uses <= set(running) else []

    return infra, plans, Composed()


@pytest.mark.parametrize(("most", "weight", "more"), [(None, 3.0, None), (0, 2.0, 3.0), (1, 3.0, None)])
def test_running_plans_cost_no_weight_unless_changes_are_limited(
    most: int | None, weight: float, more: float | None
) -> None:
    infra, plans, source = _one_pool()
    queries = [Query(name=name, pipeline="p", source="home", rate_per_s=1.0) for name in plans]
    frontiers = {q.name: Frontier(q, plans[q.name], {}, (), (), "") for q in queries}
    running = Incumbent({"first": plans["first"][1].plan, "second": plans["second"][0].plan}, 1.0, most)
    found = match(frontiers, infra, reestimate, source=source, settings=PATIENT, incumbent=running)
    assert found.satisfied_weight == weight
    assert found.weight_with_more_changes == more
    assert found.weight_bound == 3.0


@pytest.mark.parametrize(("limit_s", "weight"), [(0.4, 1.0), (0.2, 0.0)])
def test_the_bound_on_the_weight_counts_a_running_plan_that_is_too_slow_at_its_targets_if_it_stays(
    limit_s: float, weight: float
) -> None:
    infra = infrastructure([("edge", 1, 4.0, 16.0, 1.0)])
    running = candidate("q", [use(deployment("a", 0, "edge"), 0.3, infra)], latency_s=0.5)
    slos = Slos(latency=LatencySlo(limit_s=limit_s))
    query = Query(name="q", pipeline="p", source="home", rate_per_s=1.0, slos=slos)

    def faster(plan: PlanCandidate, _: MergedLoad) -> PlanCandidate:
        """Estimate a plan as sized: its replicas are utilized less."""
        return replace(plan, estimate=replace(plan.estimate, latency_s=Interval(0.3, 0.3, 0.3)))

    class Running(CandidateSource):
        def running_plan(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
            return running

    found = match(
        {"q": Frontier(query, (), {}, (), (), "too slow")},
        infra,
        faster,
        source=Running(),
        settings=PATIENT,
        incumbent=Incumbent({"q": running.plan}),
    )
    assert found.satisfied_weight == found.weight_bound == weight


def test_a_smaller_weight_of_higher_priority_is_not_announced_as_found_with_more_changes() -> None:
    infra = infrastructure([("edge", 1, 4.0, 16.0, 1.0)])
    plans = {
        name: (candidate(name, [use(deployment("a", knob, "edge", cpus=4.0), 0.3, infra)]),)
        for knob, name in enumerate(("low", "high"))
    }
    low = Query(name="low", pipeline="p", source="home", rate_per_s=1.0, weight=2.0)
    high = low.model_copy(update={"name": "high", "weight": 1.0, "priority": 1})
    frontiers = {q.name: Frontier(q, plans[q.name], {}, (), (), "") for q in (low, high)}
    kept = Incumbent({"low": plans["low"][0].plan}, 1.0, 0)
    found = match(frontiers, infra, reestimate, source=CandidateSource(), settings=PATIENT, incumbent=kept)
    assert [a.query for a in found.assignments] == ["low"]
    assert found.weight_with_more_changes is None


def test_planning_from_what_runs_serves_what_planning_from_scratch_does() -> None:
    for seed in range(half_share_of(8)):
        specification, profiles = random_specification(seed, queries=6, cpus=4.0, nodes=1)
        before, _ = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
        changed = _with_one_change(specification, np.random.default_rng(seed))
        fresh, _ = plan_all_queries(changed, profiles, settings=PATIENT, explain_rejections=())
        again, _ = plan_all_queries(
            changed, profiles, settings=PATIENT, incumbent=Incumbent.of(before), explain_rejections=()
        )
        assert again.satisfied_weight >= fresh.satisfied_weight - 1e-9
        assert again.weight_with_more_changes is None


def _with_one_change(specification: Specification, rng: np.random.Generator) -> Specification:
    """Return the specification with another rate, latency SLO, price or number of nodes, or without a query."""
    queries, infra = list(specification.queries), specification.required_infrastructure
    pools, which, where = list(infra.pools), int(rng.integers(len(queries))), int(rng.integers(len(infra.pools)))
    query, pool, factor = queries[which], pools[where], float(rng.choice([0.4, 2.5]))
    match rng.choice(["rate", "latency", "price", "node", "gone"]):
        case "rate":
            queries[which] = query.model_copy(update={"rate_per_s": query.rate_per_s * factor})
        case "latency":
            assert query.slos.latency is not None
            latency = query.slos.latency.with_limit(query.slos.latency.limit_s * factor)
            queries[which] = query.model_copy(update={"slos": query.slos.model_copy(update={"latency": latency})})
        case "price":
            pools[where] = pool.model_copy(update={"price_usd_per_h": pool.price_usd_per_h * factor})
        case "node":
            pools[where] = pool.model_copy(update={"nodes": pool.nodes - 1})
        case _:
            del queries[which]
    return replace(
        specification, queries=tuple(queries), infrastructure=infra.model_copy(update={"pools": tuple(pools)})
    )


@pytest.mark.parametrize("seed", [5, 4, 6, 7, 10, 11][: half_share_of(6)])
def test_a_running_split_plan_stays_at_a_high_price_unless_it_is_forbidden(seed: int) -> None:
    controlled, profiles, plans = split_plans(seed)
    specification, price = controlled.specification, KEEPING_USD_PER_H
    settings = MatchSettings(divides_requests=False, fits_targets=False)  # no further ones
    kept = [a for a in controlled.matching.assignments if plans.get(a.query) == a.chosen.plan]
    running = Incumbent.of(controlled.matching, change_usd_per_h=price, max_changes=0)
    again, _ = plan_all_queries(specification, profiles, settings=settings, incumbent=running)
    assert PlanDiff.between(controlled.matching, again).empty
    for assignment in kept:
        assert assignment.ladder is not None
        assert assignment.ladder.rungs[assignment.ladder.chosen].candidate.plan == plans[assignment.query]
        assert [part.plan for part in assignment.chosen.parts] == [p.plan for p in plans[assignment.query].parts]
    free, _ = plan_all_queries(specification, profiles, settings=settings, incumbent=Incumbent.of(controlled.matching))
    assert free.cost_usd_per_h <= controlled.matching.cost_usd_per_h + 1e-9
    names = {a.query for a in kept}
    undone = {q: s for q, s in PlanDiff.between(controlled.matching, free).divided.items() if q in names}
    assert undone == {a.query: ((0.6, 0.4), (1.0,)) for a in kept if not plans_of(free)[a.query].is_split}
    queries = tuple(query.model_copy(update={"split": False}) for query in specification.queries)
    whole, _ = plan_all_queries(replace(specification, queries=queries), profiles, settings=settings, incumbent=running)
    assert not any(assignment.chosen.plan.is_split for assignment in whole.assignments)
