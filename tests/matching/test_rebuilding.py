"""Matchings that are built up at the final sizes."""

from __future__ import annotations

from benchmarks.possible.instances import Instance

from budget import HANG_LIMIT_S
from circinus.matching import MatchSettings, match
from circinus.matching.match_run import Answer
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.rebuilding import rebuild
from circinus.matching.solvers.greedy import objective_key
from circinus.planning import plan_queries


def _key(answer: Answer) -> tuple[float, ...]:
    return objective_key(answer.problem, answer.chosen, answer.solution.usage)


def test_an_answer_stays_if_fitted_plans_are_excluded() -> None:
    """As after a simulation that refuted one of them."""
    instance = Instance.with_latency_slos(125)
    specification = instance.specification
    plans, frontiers = PlanEstimates(specification, instance.profiles), plan_queries(specification, instance.profiles)
    plans.adopt(frontiers)
    answers = dict[str, Answer]()
    match(
        frontiers,
        specification.required_infrastructure,
        plans.reestimate,
        source=plans,
        settings=MatchSettings(time_limit_s=HANG_LIMIT_S),
        observer=answers.__setitem__,
    )
    before, rebuilt = answers["divide_requests"], answers["rebuild"]
    assert _key(rebuilt) > _key(before)
    excluded = 0
    for _, number in rebuilt.problem.served(rebuilt.chosen):
        candidate = rebuilt.problem.candidates[number]
        if candidate.plan not in {plan.plan for plan in frontiers[candidate.query].plans}:
            plans.exclude(candidate.query, candidate.plan)
            excluded += 1
            assert _key(rebuild(before)) >= _key(before)
    assert excluded
