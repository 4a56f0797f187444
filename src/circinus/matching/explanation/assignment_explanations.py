"""Why each query got its plan, and what else there was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.admission_control import AdmissionControl
from circinus.matching.cuts import ChurnCut, CostShareCut, SizingCut
from circinus.matching.explanation.feasibility import Infeasibility, capacity_violation, check_feasibility
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_set import Alternative, Assignment
from circinus.matching.problem import Problem, Usage
from circinus.matching.solvers.greedy import MarginalCosts, marginal_costs
from circinus.planning import Frontier, Ladder, ladder
from circinus.specification import Deployment
from circinus.specification.formatting import format_usd_per_h

MOST_ALTERNATIVES = 5
"""Most rejected candidates that are shown for a query; near misses come on top."""

SAME_COST = 1e-9
"""US dollars per hour below which costs count as equal."""

_TIE = "costs the same: with weight and total cost equal, nothing else is compared, and the search met the other first"
_NO_GAIN = "costs the same, and another plan runs already"


@dataclass(frozen=True)
class CandidateComparison:
    """One candidate of a query beside the plans of the others."""

    candidate: int
    rank: tuple[int, float]
    """What could be had instead comes first, cheapest first; then what cannot, nearest first."""
    reason: str
    obstacle: Infeasibility | None
    """None: nothing but its cost is against it."""
    cheaper: bool = False
    """Whether it would lower the total cost if it fitted."""


def explain_assignments(state: MatchState, frontiers: Mapping[str, Frontier]) -> tuple[Assignment, ...]:
    """Every served query with its plan as finally sized, why it got it, and the best alternatives."""
    assert state.sizing is not None
    return tuple(
        Assignment(
            query=state.problem.queries[query],
            chosen=state.sizing.final[query],
            reason=_why(state, query, judged := compare_candidates(state, query)),
            alternatives=alternatives(state.problem, judged, frontiers[state.problem.queries[query]]),
            ladder=_ladder(state, frontiers[state.problem.queries[query]], candidate),
        )
        for query, candidate in state.problem.served(assignment_of(state))
    )


def _ladder(state: MatchState, frontier: Frontier, candidate: int) -> Ladder:
    """Of the plan that a query got, as it was promised before all were matched."""
    return ladder(frontier.query, frontier.plans, state.problem.candidates[candidate])


def alternatives(
    problem: Problem, judged: tuple[CandidateComparison, ...], frontier: Frontier
) -> tuple[Alternative, ...]:
    """The best judged candidates, one for each configuration and placement, and then the near misses."""
    shown: list[Alternative] = []
    seen = set()
    for judgement in judged:
        candidate = problem.candidates[judgement.candidate]
        kind = (candidate.plan.configuration, candidate.plan.placement)
        if kind not in seen and len(shown) < MOST_ALTERNATIVES:
            seen.add(kind)
            shown.append(Alternative(candidate.plan, candidate.estimate, judgement.reason))
    near = (Alternative(miss.candidate.plan, miss.candidate.estimate, miss.reason) for miss in frontier.near_misses)
    return (*shown, *near)


def compare_candidates(
    state: MatchState, query: int, room: AdmissionControl | None = None
) -> tuple[CandidateComparison, ...]:
    """All candidates that `query` did not get, best first.

    Args:
        state: an answer.
        query: which.
        room: what runs, for a query that is not served: it is looked at much sooner in there.
    """
    problem, chosen = state.problem, assignment_of(state)
    without = chosen.copy()
    without[query] = -1
    laid = marginal_costs(problem, query, problem.usage_of(without))
    got = int(chosen[query])
    paid = None if got < 0 else got - int(problem.block[query])
    tried = without.copy()
    judged: list[CandidateComparison] = []
    candidates = problem.candidates_of(query)
    alone = None if room is None else room.prepare(state.queries[query], [problem.candidates[c] for c in candidates])

    def looked_at(position: int) -> Infeasibility | Usage:
        if room is not None and alone is not None:
            found = room.try_candidate(alone, position, state.queries[query].slos)
            return found if isinstance(found, Infeasibility) else problem.usage_of(tried)
        examined = check_feasibility(problem, tried, state.slos, state.reestimate)
        return examined if isinstance(examined, Infeasibility) else examined.usage

    for position, candidate in enumerate(candidates):
        if candidate != got:
            tried[query] = candidate
            judgement = _judge_one(state, tried, candidate, laid, position, paid, looked_at)
            cheaper = paid is not None and laid.added_usd_per_h[position] < laid.added_usd_per_h[paid] - SAME_COST
            judged.append(replace(judgement, cheaper=bool(cheaper)))
    return tuple(sorted(judged, key=lambda judgement: judgement.rank))


def _judge_one(
    state: MatchState,
    tried: IntArray,
    candidate: int,
    laid: MarginalCosts,
    position: int,
    paid: int | None,
    looked_at: Callable[[int], Infeasibility | Usage],
) -> CandidateComparison:
    problem = state.problem
    if not laid.fits[position]:
        missing = capacity_violation(problem, problem.usage_of(tried))
        assert missing is not None
        return CandidateComparison(candidate, (1, missing.excess), missing.reason, missing)
    if paid is not None:
        more = float(laid.added_usd_per_h[position] - laid.added_usd_per_h[paid])
        counted = float(laid.counted_usd_per_h[position] - laid.counted_usd_per_h[paid])
        if more > SAME_COST and counted > -SAME_COST:
            return CandidateComparison(candidate, (0, counted), f"costs {format_usd_per_h(more)} more in total", None)
        if more < -SAME_COST and counted > -SAME_COST:
            words = f"costs {format_usd_per_h(-more)} less in total, less than a change of plan must save"
            return CandidateComparison(candidate, (0, counted), words, None)
        if counted > SAME_COST:
            return CandidateComparison(candidate, (0, counted), _NO_GAIN, None)
        if counted >= -SAME_COST:
            return CandidateComparison(candidate, (0, 0.0), _TIE, None)
    cut = next((c for c in state.cuts if isinstance(c, SizingCut | CostShareCut) and c.candidate == candidate), None)
    found = looked_at(position)
    if isinstance(found, Infeasibility):
        reason = cut.reason if cut is not None else found.reason
        return CandidateComparison(candidate, (1, found.excess), f"withdrawn: {reason}" if cut else reason, found)
    few = (c.is_satisfied(problem, tried, found) for c in state.cuts if isinstance(c, ChurnCut))
    if paid is not None and not all(few):
        return CandidateComparison(candidate, (0, -1.0), "would be one change of plan more than is allowed", None)
    return CandidateComparison(candidate, (0, -1.0), "was not reached before the time limit", None)


def _why(state: MatchState, query: int, judged: tuple[CandidateComparison, ...]) -> str:
    count = len(state.problem.candidates_of(query))
    words = ["its only plan" if count == 1 else f"least total cost of its {count} plans beside those of the others"]
    first = _comes_first(state, query)
    if first:
        words.insert(0, first)
    if state.problem.runs[assignment_of(state)[query]]:
        words.append("runs already")
    shared = _shared(state.problem, assignment_of(state), query)
    if shared:
        words.append("; ".join(f"shares {names} with {', '.join(others)}" for names, others in shared))
    cheaper = [j for j in judged if j.obstacle is not None and j.cheaper]
    if cheaper:
        words.append(f"the nearest of {len(cheaper)} plans that would cost less {_verb(cheaper[0].reason)}")
    if not state.optimal:
        words.append("not proved to be the best within the time limit")
    return "; ".join(words)


def _comes_first(state: MatchState, query: int) -> str:
    """Why a query came before others; empty where all are equal."""
    asked, rank = state.queries[query], state.problem.priority_levels.rank
    if asked.pin is not None:
        return "pinned, so served before all others"
    if rank[query] > rank.min() and asked.priority > min(other.priority for other in state.queries):
        return f"priority {asked.priority} comes before lower ones"
    return ""


def _verb(reason: str) -> str:
    return reason if reason.startswith("needs") else f"fails: {reason}"


def _shared(problem: Problem, chosen: IntArray, query: int) -> list[tuple[str, list[str]]]:
    """(operators and pools, other queries) of the deployments that the query shares, by who shares them."""
    by_others: dict[tuple[str, ...], list[Deployment]] = {}
    others_served = np.array([other for other, _ in problem.served(chosen) if other != query], dtype=np.int64)
    for deployment in problem.fractional_load.row(int(chosen[query]))[0]:
        sharing = others_served[problem.fractional_load.has(chosen[others_served], int(deployment))]
        others = tuple(problem.queries[other] for other in sharing)
        if others:
            by_others.setdefault(others, []).append(problem.deployments[deployment])
    return [
        (" and ".join(f"{d.operator} on {d.pool}" for d in deployments), list(others))
        for others, deployments in by_others.items()
    ]
