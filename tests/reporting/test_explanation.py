"""Texts of `explain` and `plan` on selected plans, alternatives and rejections, from real matchings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from printed import printed

from circinus.estimation import PlanCandidate, SloProbabilities
from circinus.matching import Matching, ProfileCoverage, Relaxation, ShadowPrice, match
from circinus.matching.explanation.candidate_comparisons import (
    alternatives,
    infeasible,
    near_miss_comparisons,
    nearest_first,
)
from circinus.matching.explanation.rejections import explain_rejection
from circinus.matching.feasibility import Infeasibility
from circinus.matching.plan_set import Advice
from circinus.planning import BestEffortPlan, Frontier, NearMiss
from circinus.planning.frontier import MEASUREMENTS, MeasuredItems
from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.reporting.html_report.frontier_chart import LADDER, compared_plans
from circinus.reporting.plan_table import best_effort_text, format_probability, plan_table, price_table
from circinus.specification import AccuracySlo, BurstyArrivals, LatencySlo, Query, SloKind, Slos
from circinus.specification.formatting import format_duration, format_latency_bound, format_usd_per_h
from random_matchings import candidate, deployment, infrastructure, reestimate, use

INFRA = infrastructure([("edge", 1, 4.0, 16.0, 1.0), ("far", 1, 4.0, 16.0, 2.0)])


def _query(name: str, latency_s: float = 0.7) -> Query:
    return Query(name=name, pipeline="p", source="home", rate="1/s", slos=Slos(latency=LatencySlo(limit_s=latency_s)))


def _frontier(asked: Query, *plans: PlanCandidate) -> Frontier:
    return Frontier(asked, plans, {}, (), (), "" if plans else "no plan meets all SLOs")


def _matched(*frontiers: Frontier) -> Matching:
    return match({frontier.query.name: frontier for frontier in frontiers}, INFRA, reestimate)


def _plan(query: str, pool: str, *, operator: str = "a", fluid: float = 0.5) -> PlanCandidate:
    return candidate(query, [use(deployment(operator, 0, pool), fluid, INFRA)])


def test_the_cost_of_an_alternative_is_that_of_its_reason() -> None:
    """A query that shares a deployment saves nothing by leaving it, whatever the other plan costs alone."""
    asked, other = _query("q"), _query("other")
    frontiers = _frontier(asked, _plan("q", "edge"), _plan("q", "far")), _frontier(other, _plan("other", "edge"))
    assignment = _matched(*frontiers).assignments[0]
    (alternative,) = assignment.alternatives
    assert (alternative.obstacle, alternative.added_usd_per_h) == ("cost", 0.5)
    assert alternative.reason == "costs $0.50/h more in total"
    (row,) = (
        line for line in printed(assignment_explanation(assignment, asked)).splitlines() if line.startswith("a on far ")
    )
    assert "+$0.50/h" in row


def test_arrivals_are_named_unless_they_are_independent() -> None:
    asked = _query("q")
    (assignment,) = _matched(_frontier(asked, _plan("q", "edge"))).assignments
    assert printed(assignment_explanation(assignment, asked)).splitlines()[0].rstrip() == "q  p from home, 1/s"
    bursty = asked.model_copy(update={"arrivals": BurstyArrivals()})
    first = printed(assignment_explanation(assignment, bursty)).splitlines()[0].rstrip()
    assert first == "q  p from home, 1/s (bursty, 4 times the rate for 10s every 60s)"


def test_a_proof_is_one_among_plans_at_utilization_targets() -> None:
    """The query without such a plan may be served by a second look."""
    served, rejected = _query("q"), _query("r")
    found = _matched(_frontier(served, _plan("q", "edge")), _frontier(rejected))
    assert found.optimal
    text = printed(plan_table(found, {"q": served, "r": rejected}), width=400)
    assert text.startswith("1 of 2 queries served, weight 1 of 2,")
    assert "bounds over all undivided plans at utilization targets: proved optimal among them" in text


def test_a_tie_says_what_decided() -> None:
    asked = _query("q")
    found = _matched(_frontier(asked, _plan("q", "edge", fluid=0.5), _plan("q", "edge", fluid=0.4, operator="b")))
    (alternative,) = found.assignments[0].alternatives
    assert alternative.reason == "costs the same, and is equal in all that breaks ties"


def test_a_rejection_says_what_would_admit_it() -> None:
    asked, plan = _query("q", latency_s=0.3), _plan("q", "edge")
    slos = asked.slos.model_copy(update={"latency": LatencySlo(limit_s=0.441)})
    relaxation = Relaxation(slos, plan.plan, plan.estimate, "latency p95 <= 300ms -> 441ms")
    (rejected,) = _matched(_frontier(asked)).rejections
    advised = replace(rejected, relaxation=relaxation, advice=(Advice("with a risk of 0.1", risk=0.1),))
    text = printed(rejection_explanation(advised, asked), width=400)
    assert (
        "relaxation found that admits the query beside the running plans, which stay: latency p95 <= 300ms -> 441ms"
        in text
    )
    assert "with a risk of 0.1" in text


def test_no_relaxation_is_only_denied_after_a_search() -> None:
    asked = _query("q", latency_s=0.3)
    (rejected,) = _matched(_frontier(asked)).rejections
    assert "relaxation" not in printed(rejection_explanation(rejected, asked))
    searched = replace(rejected, unrelaxable=True)
    assert "no relaxation of a single SLO was found" in printed(rejection_explanation(searched, asked), width=400)


def test_a_rejection_without_a_promised_plan_says_what_is_best_so_far() -> None:
    asked = _query("q", latency_s=0.3)
    best = BestEffortPlan(_plan("q", "edge"), probability=0.8313, items=24, population=200)
    (rejection,) = _matched(replace(_frontier(asked), best_effort=best)).rejections
    text = (
        "best plan so far: edge: a k=0; in isolation, at its utilization targets, it meets the SLOs with probability "
        "0.83, estimated from 24 of 200 items"
    )
    assert text in printed(rejection_explanation(rejection, asked), width=400)


@pytest.mark.parametrize(
    ("threshold", "items", "unmeasured", "is_shown"),
    [(0.91, 24, 0, True), (0.91, 200, 0, False), (0.95, 24, 0, False), (0.85, 24, 0, False), (0.91, 24, 9, False)],
)
def test_profiling_is_advised_where_more_items_may_meet_the_accuracy_slo(
    threshold: float, items: int, unmeasured: int, is_shown: bool
) -> None:
    asked = _query("q").model_copy(update={"slos": Slos(accuracy=AccuracySlo(threshold=threshold))})
    best = BestEffortPlan(_plan("q", "edge"), probability=0.8, items=items, population=200)
    found = _matched(replace(_frontier(asked), best_effort=best))
    coverage = {"p": ProfileCoverage(8, 0, unmeasured)}
    text = printed(plan_table(found, {"q": asked}, coverage=coverage), width=200)
    assert ("`circinus profile`" in text) == is_shown


@pytest.mark.parametrize(("latency_s", "is_missed"), [(0.2, True), (0.7, False)])
def test_a_probable_plan_without_a_guarantee_says_which_bound_misses(latency_s: float, is_missed: bool) -> None:
    best, asked = BestEffortPlan(_plan("q", "edge"), 0.999, 200, 200), _query("q", latency_s)
    assert bool(best.candidate.estimate.violations(asked.slos)) == is_missed
    assert (f"> {latency_s * 1e3:g}ms" in best_effort_text(best, asked)) == is_missed


def test_a_rejection_for_want_of_room_has_no_best_plan_so_far() -> None:
    asked = _query("q")
    best = BestEffortPlan(_plan("q", "edge"), 0.8, 24, 200)
    frontier = replace(_frontier(asked, _plan("q", "edge", fluid=50.0)), best_effort=best)
    assert _matched(frontier).rejections[0].best_so_far is None


def test_the_ladder_shows_what_each_step_saves_and_changes() -> None:
    asked = _query("q")
    smaller = candidate("q", [use(deployment("a", 1, "edge"), 0.25, INFRA)], latency_s=0.55)
    found = _matched(_frontier(asked, _plan("q", "edge"), smaller, _plan("q", "far", fluid=0.7)))
    (assignment,) = found.assignments
    assert assignment.ladder is not None
    text = printed(assignment_explanation(assignment, asked), width=300)
    note, _, _, *rows = text.split("ladder:")[1].split("nearest")[0].splitlines()[1:]
    (summary,) = (
        line for line in printed(plan_table(found, {"q": asked}), width=300).splitlines() if line.startswith("q ")
    )
    estimate = assignment.chosen.estimate
    for figure in (format_latency_bound(estimate.latency_s.upper), format_usd_per_h(estimate.cost_usd_per_h.value)):
        assert figure in note
        assert figure in summary
    assert (len(assignment.ladder.rungs), assignment.ladder.chosen) == (2, 0)
    assert "selected plan" in rows[0]
    assert "a k=1 " in rows[1]
    assert "250 ms" in rows[0]
    assert "$0.125/h" in rows[0]
    assert "125 ms" in rows[1]


def test_no_rung_above_the_selected_plan_is_one_to_step_down_to() -> None:
    asked = _query("q")
    (assignment,) = _matched(_frontier(asked, _plan("q", "edge"), _plan("q", "far", fluid=0.1))).assignments
    assert assignment.ladder is not None
    bottom = replace(assignment.ladder, chosen=len(assignment.ladder.rungs) - 1)
    text = printed(assignment_explanation(replace(assignment, ladder=bottom), asked), width=400)
    assert f"takes {format_duration(bottom.rungs[-1].cpu_s_per_request)} per request" in text
    places = [plan.place for plan in compared_plans(replace(assignment, ladder=bottom), "accuracy")]
    assert LADDER not in places, "the report agrees"


@pytest.mark.parametrize("used", [0.5, 1.0])
@pytest.mark.parametrize("binding", [(), ("pool edge: cpus",)])
def test_a_resource_without_a_price_is_named_where_it_is_full_or_short(used: float, binding: tuple[str, ...]) -> None:
    found = _matched(_frontier(_query("q"), _plan("q", "edge")), _frontier(_query("r")))
    (rejection,) = found.rejections
    full = ShadowPrice("pool edge: cpus", "CPU", 4.0, used, 0.0, 0.0)
    short = replace(found, prices=(full,), rejections=(replace(rejection, binding=binding),))
    text = printed(price_table(short), width=300)
    assert (f"pool edge: cpus is {used:.0%} allocated" in text) == (used == 1.0 or bool(binding))
    assert ("r would need more" in text) == bool(binding)


@pytest.mark.parametrize(("bound", "is_useful"), [(0.9, True), (0.11, True), (0.09, False), (0.0, False)])
def test_a_bound_on_the_cost_that_says_nothing_is_left_out(bound: float, is_useful: bool) -> None:
    asked = _query("q")
    found = replace(_matched(_frontier(asked, _plan("q", "edge"))), optimal=False)
    found = replace(found, cost_bound_usd_per_h=bound * found.cost_usd_per_h)
    assert ("cost gap at most" in printed(plan_table(found, {"q": asked}), width=200)) == is_useful


def test_probabilities_are_not_rounded_to_certainty() -> None:
    assert [format_probability(value) for value in (0.0, 0.001, 0.834, 0.9951, 1.0)] == [
        "0.00",
        "< 0.01",
        "0.83",
        "> 0.99",
        "1.00",
    ]


@pytest.mark.parametrize(
    ("obstacle", "alone_is_named"),
    [
        (Infeasibility((SloKind.LATENCY,), "too slow", 0.2, is_sized=True, query="q"), False),
        (Infeasibility((SloKind.LATENCY,), "too slow", 0.2, is_sized=True, query="r"), False),
        (Infeasibility(("pool edge: cpus",), "needs 1 CPU more at pool edge", 1.0, is_shortage=True), True),
        (Infeasibility(("pool edge: whole replicas on nodes",), "its replicas do not fit"), True),
    ],
)
def test_limits_of_a_query_alone_are_only_named_where_there_is_no_room_for_it(
    obstacle: Infeasibility, alone_is_named: bool
) -> None:
    """Next to a latency on running deployments, another one on deployments of its own would contradict it."""
    frontier = Frontier(_query("q"), (), {}, (), (), "no plan; alone", isolated_limits="; alone")
    rejection = explain_rejection(frontier, [infeasible(_plan("q", "edge"), obstacle)], neighbours="the others")
    assert (frontier.isolated_limits in rejection.reason) == alone_is_named
    assert obstacle.description("q", sizes_named=True) in rejection.reason
    assert rejection.binding == obstacle.binding
    (alternative,) = rejection.alternatives
    assert alternative.misses_as_sized == (obstacle.query == "q")
    assert alternative.full_reason == obstacle.description("q")
    unmeasured = replace(frontier, binding=(MEASUREMENTS,))
    rejection = explain_rejection(unmeasured, [infeasible(_plan("q", "edge"), obstacle)], neighbours="the others")
    assert rejection.binding == (MEASUREMENTS,)


def test_the_likeliest_plan_is_the_nearest_and_the_best_so_far() -> None:
    """Its bound misses the limit by more than that of the other plan.

    A plan that only lacks room or makes others late comes before both, and one that costs too much after them, whatever
    its probability.
    """
    asked = _query("q", latency_s=0.3)
    plans = {pool: _plan("q", pool) for pool in ("edge", "far")}
    likely, unlikely = (
        replace(plan, estimate=replace(plan.estimate, slo_probability=SloProbabilities.of(latency, 0.9, 1.0)))
        for plan, latency in ((plans["edge"], 0.8), (plans["far"], 0.1))
    )
    short = infeasible(_plan("q", "edge"), Infeasibility(("pool edge: cpus",), "needs 1 CPU", 0.2, is_shortage=True))
    judged = [
        infeasible(plan, Infeasibility((SloKind.LATENCY,), "slow", excess, sized=plan.estimate))
        for plan, excess in ((unlikely, 0.1), (likely, 0.5))
    ]
    probability = SloProbabilities.of(0.8, 0.9, 0.0)
    dear = infeasible(
        likely, Infeasibility((SloKind.COST,), "dear", sized=replace(likely.estimate, slo_probability=probability))
    )
    others = infeasible(plans["far"], Infeasibility((SloKind.LATENCY,), "slow", 0.9, is_sized=True, query="r"))
    slow = Infeasibility((SloKind.LATENCY,), "slow and large", 0.05, sized=unlikely.estimate)
    both = replace(infeasible(unlikely, slow), lacking=("pool far: cpus",))
    entries = nearest_first([both, dear, *judged, others, short])
    assert [entry.candidate for entry in entries[:3]] == [short.candidate, plans["far"], likely]
    assert entries[3:] == [judged[0], both, dear], "of two as likely, the one that only misses its limit"
    best = BestEffortPlan(unlikely, 0.09, 24, 200, more_items=7)
    items = {likely.plan.configuration: MeasuredItems(96, 50)}
    frontier = replace(_frontier(asked), best_effort=best, measured_items=items)
    rejection = explain_rejection(frontier, judged, neighbours="the others")
    assert rejection.alternatives[0].plan == likely.plan
    assert rejection.best_so_far is not None
    assert (rejection.best_so_far.candidate.plan, rejection.best_so_far.is_sized) == (likely.plan, True)
    assert rejection.best_so_far.probability == pytest.approx(0.72)
    assert (rejection.best_so_far.items, rejection.best_so_far.more_items) == (96, 50)
    for alternative, is_own in ((rejection.alternatives[0], True), (rejection.alternatives[1], False)):
        shown = replace(_matched(frontier), rejections=(replace(rejection, alternatives=(alternative,)),))
        text = printed(plan_table(shown, {"q": asked}), width=200)
        assert ("about 50 more items" in text) == is_own, "items are those of the named plan"
    best = BestEffortPlan(likely, 0.72, 24, 200)  # more measurements may guarantee it, if not as sized
    crowded = replace(judged[1], lacking=("pool edge: cpus",))
    for compared, expected in (([crowded], best), ([dear], None)):
        rejection = explain_rejection(replace(_frontier(asked), best_effort=best), compared, neighbours="the others")
        assert rejection.best_so_far == expected


def test_a_configuration_and_placement_are_one_alternative_as_sized_and_at_targets() -> None:
    as_sized, at_targets = (
        candidate("q", [use(deployment("a", 0, "edge", target=target), 0.5, INFRA)]) for target in (0.4, 0.7)
    )
    elsewhere = NearMiss(_plan("q", "far"), (SloKind.LATENCY,), "slow")
    misses = (NearMiss(at_targets, (SloKind.LATENCY,), "slower"), elsewhere)
    compared = [infeasible(as_sized, Infeasibility((SloKind.LATENCY,), "slow", is_sized=True))]
    frontier = replace(_frontier(_query("q")), near_misses=misses)
    shown = alternatives(compared, near_miss_comparisons(frontier, ()))
    assert [alternative.plan for alternative in shown] == [as_sized.plan, elsewhere.candidate.plan]
