"""What `explain` and `plan` say of chosen plans, alternatives and rejections, matched for real on small instances."""

from __future__ import annotations

from printed import printed

from circinus.estimation import Candidate
from circinus.matching import Matching, match
from circinus.planning import Frontier, SingleRelaxation
from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.reporting.plan_table import plan_table
from circinus.spec import LatencySlo, Query, Slos
from random_matchings import candidate, deployment, infrastructure, reestimate, use

INFRA = infrastructure([("edge", 1, 4.0, 16.0, 1.0), ("far", 1, 4.0, 16.0, 2.0)])


def _query(name: str, latency_s: float = 0.7) -> Query:
    return Query(name=name, pipeline="p", source="home", rate="1/s", slos=Slos(latency=LatencySlo(limit_s=latency_s)))


def _frontier(asked: Query, *plans: Candidate, relaxations: tuple[SingleRelaxation, ...] = ()) -> Frontier:
    return Frontier(asked, plans, {}, (), relaxations, "" if plans else "no plan keeps all objectives")


def _matched(*frontiers: Frontier) -> Matching:
    return match({frontier.query.name: frontier for frontier in frontiers}, INFRA, reestimate)


def _plan(query: str, pool: str, *, operator: str = "a", fluid: float = 0.5) -> Candidate:
    return candidate(query, [use(deployment(operator, 0, pool), fluid, INFRA)])


def test_the_cost_of_an_alternative_is_labelled_as_that_of_the_query_alone() -> None:
    asked = _query("q")
    found = _matched(_frontier(asked, _plan("q", "edge"), _plan("q", "far")))
    (assignment,) = found.assignments
    (alternative,) = assignment.alternatives
    assert alternative.reason == "costs $0.25/h more in total"
    text = printed(assignment_explanation(assignment, asked))
    assert "alternatives, each estimated for this query alone with deployments as busy as they may get" in text
    assert "'more in total' counts what the others run already" in text
    assert "cost alone" in text
    assert "(fully shared)" in text
    alone, shared = alternative.estimate.cost_usd_per_h.upper, alternative.estimate.cost_usd_per_h.lower
    assert (alone, shared) == (0.5, 0.25)
    assert "$0.5/h" in text
    assert "($0.25/h)" in text


def test_a_tie_says_what_decided() -> None:
    asked = _query("q")
    found = _matched(_frontier(asked, _plan("q", "edge", fluid=0.5), _plan("q", "edge", fluid=0.4, operator="b")))
    (alternative,) = found.assignments[0].alternatives
    assert alternative.reason.startswith("costs the same: with weight and total cost equal, nothing else is compared")


def test_a_rejection_says_what_is_beside_the_others() -> None:
    asked = _query("q", latency_s=0.3)
    plan = candidate("q", [use(deployment("a", 0, "edge"), 0.5, INFRA)], latency_s=0.4007)
    found = _matched(_frontier(asked, relaxations=(SingleRelaxation("latency", 0.44, plan),)))
    (rejection,) = found.rejections
    assert "cheapest relaxation beside the other queries: latency p95 <= 300ms -> 441ms, with edge: a 0" in printed(
        rejection_explanation(rejection, asked)
    )
    assert "beside the others it would be served with latency p95 <= 300ms -> 441ms" in printed(
        plan_table(found, {"q": asked}), width=400
    )


def test_a_rejection_without_a_relaxation_says_so() -> None:
    asked = _query("q", latency_s=0.3)
    (rejection,) = _matched(_frontier(asked)).rejections
    text = printed(rejection_explanation(rejection, asked))
    assert "no relaxation of a single objective would let it in beside the other queries" in text


def test_a_query_without_objectives_has_none() -> None:
    asked = _query("q").model_copy(update={"slos": Slos()})
    found = _matched(_frontier(asked, _plan("q", "edge")))
    row = next(line for line in printed(plan_table(found, {"q": asked})).splitlines() if line.startswith("│ q "))
    assert "none" in row
