"""Rejected queries are decided on at the sizes that deployments really have, by plan and by admit alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest

from budget import half_share_of, share_of
from circinus.errors import PlanningError
from circinus.estimation import Estimate
from circinus.matching import Matching, MatchSettings, admit_query, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.admission_control import AdmissionFit
from circinus.matching.explanation.slo_relaxation import relax_slo, with_slos
from circinus.matching.incumbent import Incumbent
from circinus.matching.second_look import second_look
from circinus.matching.settings import MATCHING
from circinus.matching.sizing import is_doubtful
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier, plan_queries, search_space
from circinus.planning.settings import DOUBTFUL_EXCESS, RunningLoad
from circinus.profiling import PipelineProfile
from circinus.specification import LatencySlo, Query, QueryPlan, SloKind, Slos, Specification
from circinus.testing.random_instances import random_specification
from planning_instances import UNFITTED


def _planned(seed: int, without: str = "") -> tuple[Specification, dict[str, PipelineProfile], Matching]:
    """Return a specification, its profiles and its plans, maybe without those of a query."""
    specification, profiles = random_specification(seed, queries=6)
    others = replace(specification, queries=tuple(query for query in specification.queries if query.name != without))
    matching, _ = plan_all_queries(others, profiles, settings=UNFITTED, explain_rejections=())
    return specification, profiles, matching


_planned_once = cache(_planned)
_planned_once_with_few_targets = cache(_planned)


@pytest.mark.parametrize(("seed", "query"), [(5, "q3"), (128, "q2"), (129, "q3"), (117, "q1")][: share_of(8)])
def test_a_query_is_served_on_deployments_that_are_utilized_less_than_their_targets(seed: int, query: str) -> None:
    specification, profiles, matching = _planned_once(seed)
    assert not plan_queries(specification, profiles)[query].candidates, "too slow at its utilization targets"
    slos = {q.name: q.slos for q in specification.queries}
    assert query in [assignment.query for assignment in matching.assignments]
    assert not any(a.chosen.estimate.violations(slos[a.query], sized=True) for a in matching.assignments)
    by_cost = [(a.query, other) for a in matching.assignments for other in a.alternatives if other.obstacle == "cost"]
    assert not any(other.estimate.violations(slos[name], sized=other.is_sized) for name, other in by_cost)


@cache
def _beside_others(seed: int) -> tuple[AdmissionPlanner, Query]:
    """Return a planner of the plans of three queries, and a fourth query."""
    specification, profiles = random_specification(seed, queries=4)
    *most, last = specification.queries
    ran, _ = plan_all_queries(
        replace(specification, queries=tuple(most)), profiles, settings=UNFITTED, explain_rejections=()
    )
    return AdmissionPlanner.of(specification, profiles, ran), last


def test_a_plan_too_slow_at_its_targets_is_found_where_a_cheaper_one_is_slower_still() -> None:
    planner, last = _beside_others(5)
    asked, ran = with_slos(last, relax_slo(last.slos, SloKind.LATENCY, 0.5)), planner.matching
    specification = replace(planner.specification, queries=(*planner.specification.queries[:-1], asked))
    admission, after = admit_query(specification, planner.profiles, ran, last.name)
    assert admission.assignment is not None
    chosen = admission.assignment.chosen
    assert not chosen.estimate.violations(asked.slos, sized=True)
    assert planner.plans.estimate_of(last.name, chosen.plan).estimate.violations(asked.slos)
    assert all(candidate.plan != chosen.plan for candidate in planner.isolated_plans(asked))
    assert [a.chosen.plan for a in after.assignments] == [*(a.chosen.plan for a in ran.assignments), chosen.plan]


def test_admissions_of_a_query_with_other_slos_share_its_options_at_the_final_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planner, last = _beside_others(13)
    planner = planner.with_matching(planner.matching)
    compiled, loads = search_space.compile_at_any_slos, list[RunningLoad | None]()

    def counted(*arguments: Any) -> search_space.SearchSpace:
        loads.append(arguments[-1])
        return compiled(*arguments)

    monkeypatch.setattr(search_space, "compile_at_any_slos", counted)
    for change in (0.0, 0.5, 1.0):
        planner.admitted(with_slos(last, relax_slo(last.slos, SloKind.LATENCY, change)), short=True)
    assert [load for load in loads if load is not None] == [planner.running.load]


def _with_pins(specification: Specification, *names: str) -> Specification:
    queries = (q.model_copy(update={"pin": ()}) if q.name in names else q for q in specification.queries)
    return replace(specification, queries=tuple(queries))


@pytest.mark.parametrize(("seed", "query"), [(5, "q3"), (20, "q2"), (82, "q4")][: share_of(3)])
def test_a_pinned_query_is_served_as_sized_even_where_others_would_leave_no_room(seed: int, query: str) -> None:
    specification, profiles = random_specification(seed, queries=6)
    pinned = _with_pins(specification, query)
    matching, frontiers = plan_all_queries(pinned, profiles, settings=UNFITTED, explain_rejections=())
    assert not frontiers[query].candidates
    assert query in [assignment.query for assignment in matching.assignments]
    assert len(matching.assignments) + len(matching.rejections) == len(specification.queries)
    assert matching.satisfied_weight <= matching.weight_bound <= matching.total_weight
    assert matching.total_weight == sum(q.weight for q in specification.queries)


@pytest.mark.parametrize(
    ("seed", "pins", "code", "location"),
    [
        (4, ("q0", "q1", "q2", "q4", "q5"), "query.pins_conflict", "queries q0 and q1"),
        (0, ("q4",), "query.pinned_infeasible", "query q4"),
        (1, ("q0", "q1", "q2", "q3", "q4", "q5"), "query.pinned_infeasible", "query q2"),
    ][: half_share_of(16)],
)
@pytest.mark.usefixtures("few_targets")
def test_pinned_queries_that_a_second_look_refuses_are_an_error(
    seed: int, pins: tuple[str, ...], code: str, location: str
) -> None:
    specification, profiles = random_specification(seed, queries=6)
    with pytest.raises(PlanningError) as caught:
        plan_all_queries(_with_pins(specification, *pins), profiles, settings=UNFITTED, explain_rejections=())
    assert (caught.value.code, caught.value.location) == (code, location)


def test_probabilities_of_plans_as_sized_are_of_the_limit_that_was_asked_for() -> None:
    """Such plans are listed for a wider limit, which most of them meet."""
    specification, profiles, matching = _planned_once(129)
    plans = AdmissionPlanner.of(specification, profiles, matching).plans
    (served,) = [assignment for assignment in matching.assignments if assignment.query == "q3"]
    assert served.ladder is not None
    for rung in served.ladder.rungs:
        own = plans.estimate_of("q3", rung.candidate.plan)
        assert rung.candidate.estimate.slo_probability == own.estimate.slo_probability
    (chosen,) = [rung.candidate.estimate for rung in served.ladder.rungs if rung.candidate.plan == served.chosen.plan]
    assert chosen.slo_probability is not None
    (slos,) = [query.slos for query in specification.queries if query.name == "q3"]
    assert chosen.violations(slos)


@pytest.mark.thorough
def test_what_plan_rejects_is_rejected_by_admit() -> None:
    rejected = 0
    for seed in (17, 27, 20, 4, 28, 0)[: half_share_of(6)]:
        specification, profiles, matching = _planned_once(seed)
        for rejection in matching.rejections:
            admission, after = admit_query(specification, profiles, matching, rejection.query)
            assert admission.rejection is not None
            assert after is matching
            relaxes_several = admission.rejection.unrelaxable and admission.rejection.relaxation is not None
            assert relaxes_several or admission.rejection.binding == rejection.binding
            rejected += 1
    assert rejected


@pytest.mark.usefixtures("few_targets")
def test_a_bound_that_misses_narrowly_is_decided_by_a_simulation() -> None:
    specification, profiles, matching = _planned_once_with_few_targets(101)
    (served,) = [a.chosen for a in matching.assignments if a.query == "q5"]
    (slos,) = [query.slos for query in specification.queries if query.name == "q5"]
    assert served.estimate.simulated
    assert served.estimate.caveats
    assert not served.estimate.violations(slos, sized=True)
    rest = replace(matching, assignments=tuple(a for a in matching.assignments if a.query != "q5"))
    planner = AdmissionPlanner.of(specification, profiles, rest)
    formula = planner.plans.estimate_of("q5", served.plan)
    assert formula.estimate.violations(slos)
    assert formula.estimate.excess(slos) > 0
    assert is_doubtful(formula, slos)


@pytest.mark.usefixtures("few_targets")
def test_the_cheapest_plan_that_a_simulation_confirms_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    specification, profiles, matching = _planned_once_with_few_targets(101)
    rest = replace(matching, assignments=tuple(a for a in matching.assignments if a.query != "q5"))
    (asked,) = [query for query in specification.queries if query.name == "q5"]
    planner = AdmissionPlanner.of(specification, profiles, rest)
    true_excess = Estimate.excess

    def excess(estimate: Estimate, slos: Slos, *, sized: bool = False) -> float:
        actual = true_excess(estimate, slos, sized=sized)
        return actual if actual > DOUBTFUL_EXCESS else 0.2 / (1 + estimate.cost_usd_per_h.value)

    monkeypatch.setattr(Estimate, "excess", excess)  # the dearest plan is the nearest to the limit
    admission, _ = planner.admit(asked)
    assert admission.assignment is not None
    assert admission.fit is not None
    prepared, fit = admission.fit
    assert fit.unconfirmed
    assert admission.simulations > 1
    running = planner.running.with_reestimate(planner.plans.with_query(asked).reestimate)
    doubtful = {
        candidate.plan: float(prepared.marginal_costs.added_usd_per_h[position])
        for position, candidate in enumerate(prepared.problem.candidates)
        if isinstance(running.try_candidate(prepared, position, asked.slos, doubtful=True), AdmissionFit)
    }
    assert doubtful[fit.plan.plan] == pytest.approx(min(doubtful.values()))
    assert max(doubtful.values()) > min(doubtful.values()) + EQUAL_USD_PER_H
    shown = [alternative for alternative in admission.assignment.alternatives if alternative.plan in doubtful]
    assert {alternative.obstacle for alternative in shown} == {"cost"}


def test_a_query_that_misses_by_far_is_not_simulated() -> None:
    specification, profiles, rest = _planned_once(5, "q3")
    (asked,) = [query for query in specification.queries if query.name == "q3"]
    slos = asked.slos.model_copy(update={"latency": LatencySlo(limit_s=1e-3)})
    planner = AdmissionPlanner.of(specification, profiles, rest)
    admission, after = planner.admit(asked.model_copy(update={"slos": slos}))
    assert admission.rejection is not None
    assert admission.simulations == 0
    assert after is rest


@pytest.mark.parametrize(("seed", "query"), [(5, "q3"), (128, "q2"), (129, "q3"), (117, "q1")][: share_of(8)])
def test_plan_serves_as_much_as_admit_does(seed: int, query: str) -> None:
    specification, profiles, matching = _planned_once(seed)
    running = _planned_once(seed, query)[2]
    admission, admitted = admit_query(specification, profiles, running, query)
    assert admission.assignment is not None
    assert matching.satisfied_weight >= admitted.satisfied_weight


def test_a_running_plan_that_is_too_slow_at_its_targets_stays_beside_a_new_query() -> None:
    specification, profiles, before = _planned_once(5, "q1")
    assert not plan_queries(specification, profiles)["q3"].candidates
    running = Incumbent.of(before, max_changes=0)
    after, _ = plan_all_queries(specification, profiles, settings=UNFITTED, incumbent=running, explain_rejections=())
    assert {a.query: a.chosen.plan for a in after.assignments if a.query in running.plans} == running.plans


def _rejected(name: str) -> tuple[AdmissionPlanner, Query, dict[str, Frontier]]:
    """Return a planner of plans beside which a query is rejected, although it may be admitted."""
    specification, profiles, rest = _planned_once_with_few_targets(1, name)
    (query,) = [query for query in specification.queries if query.name == name]
    impossible = query.slos.model_copy(update={"latency": LatencySlo(limit_s=1e-3)})
    planner = AdmissionPlanner.of(specification, profiles, rest)
    rejection = planner.admit(query.model_copy(update={"slos": impossible}))[0].rejection
    assert rejection is not None
    matching = replace(rest, rejections=(*rest.rejections, rejection))
    return planner.with_matching(matching), query, dict(plan_queries(specification, profiles))


@pytest.mark.usefixtures("few_targets")
def test_a_second_look_keeps_the_running_plan_or_counts_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    planner, query, frontiers = _rejected("q1")

    def looked(
        running: QueryPlan, most: int | None, others: Mapping[str, QueryPlan] = MappingProxyType({})
    ) -> QueryPlan | None:
        incumbent = Incumbent({"q1": running, **others}, max_changes=most)
        found = second_look(planner, frontiers, incumbent).matching
        return next((a.chosen.plan for a in found.assignments if a.query == "q1"), None)

    def fits(plan: QueryPlan, beside: AdmissionPlanner) -> bool:
        return beside.admit(query, frontiers["q1"], only=plan)[0].assignment is not None

    cheapest = planner.admitted(query)
    assert cheapest is not None
    offered = {deployment for f in frontiers.values() for c in f.candidates for deployment in c.plan.deployments}
    plans = [c.plan for c in planner.plans.on_deployments(query, sorted(offered), any_latency=True)]
    plans.remove(cheapest.plan)
    nothing = replace(planner.matching, assignments=(), rejections=(), deployments=(), cost_usd_per_h=0.0)
    by_itself = planner.with_matching(nothing)
    fitting = next(plan for plan in plans if fits(plan, planner))
    unfit = next(plan for plan in plans if not fits(plan, planner) and fits(plan, by_itself))
    always_unfit = next(plan for plan in plans if not fits(plan, by_itself))
    assert looked(fitting, None) == looked(fitting, 0) == fitting
    assert looked(unfit, None) == looked(unfit, 1) == looked(always_unfit, 0) == cheapest.plan
    assert looked(unfit, 0) is None, "it could stay, but for queries that did not run"
    others = {a.query: a.chosen.plan for a in planner.matching.assignments}
    assert looked(unfit, 0, others) == cheapest.plan, "a plan that cannot stay next to the others is no change"
    monkeypatch.setattr("circinus.matching.second_look.MATCHING", replace(MATCHING, max_kept_trials=0))
    assert looked(unfit, 0, others) is None, "no admission has shown that the plan cannot stay"


def test_only_a_given_time_limit_limits_the_time_of_second_looks() -> None:
    assert MatchSettings().second_look_limit_s == math.inf
    assert MatchSettings(time_limit_s=3.0).second_look_limit_s == 3.0


@pytest.mark.parametrize(
    ("seed", "query", "limit"), [(5, "q3", "max_second_looks"), (101, "q5", "max_second_look_simulations")]
)
@pytest.mark.usefixtures("few_targets")
def test_a_rejection_beyond_a_limit_is_undecided(
    seed: int, query: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circinus.matching.second_look.MATCHING", replace(MATCHING, **{limit: 0}))
    specification, profiles = random_specification(seed, queries=6)
    matching, _ = plan_all_queries(specification, profiles, settings=UNFITTED, explain_rejections=())
    (rejection,) = [rejection for rejection in matching.rejections if rejection.query == query]
    assert rejection.undecided
    assert rejection.reason.count("circinus admit") == 1
    assert admit_query(specification, profiles, matching, query)[0].assignment is not None
