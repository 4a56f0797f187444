"""An answer as it would run: its deployments, room beside them, and who can still be let in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.bin_packing import pack_pools
from circinus.matching.cuts import ChurnCut
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_set import SizedDeployment
from circinus.matching.sizing import evaluate_sizing
from circinus.specification import Infrastructure

_TRIED = 40
"""Plans of a query that are looked at whether they hold beside the others, those that add least cost."""


def sized_deployments(state: MatchState) -> tuple[SizedDeployment, ...]:
    """The deployments in use, in the order of their names."""
    problem, usage, nodes = state.problem, state.usage, state.nodes
    assert usage is not None
    assert nodes is not None
    assert state.sizing is not None
    return tuple(
        SizedDeployment(
            deployment=problem.deployments[index],
            demand=problem.demand_of(int(index)),
            nodes=nodes[int(index)],
            utilization=state.sizing.conditions.deployments[problem.deployments[index]].utilization,
        )
        for index in np.flatnonzero(usage.used)
    )


def running_state(state: MatchState, infrastructure: Infrastructure | None = None) -> AdmissionControl:
    """What one more query would meet.

    Args:
        state: an answer.
        infrastructure: another one than the state's, with more room.
    """
    assert state.sizing is not None
    served = list(state.problem.served(assignment_of(state)))
    return AdmissionControl(
        [state.queries[query] for query, _ in served],
        {state.problem.queries[query]: state.problem.candidates[candidate] for query, candidate in served},
        sized_deployments(state),
        state.infrastructure if infrastructure is None else infrastructure,
        state.reestimate,
        state.usable_link_share,
        {state.problem.queries[query]: final.estimate.latency_s.upper for query, final in state.sizing.final.items()}
        if state.estimated
        else None,
    )


def backfill(state: MatchState, *, enough: Callable[[], bool]) -> MatchState:
    """The answer with whoever is not served and yet fits beside it as it would run, the heaviest first.

    Where time or whole replicas kept a choice from being made well, some of it was taken out until the rest held: that
    may leave room for others.

    Args:
        state: an answer that holds.
        enough: whether to stop.
    """
    problem, room = state.problem, running_state(state)
    out = [query for query in np.flatnonzero(assignment_of(state) < 0).tolist() if len(problem.candidates_of(query))]
    failed: set[object] = set()
    for query in sorted(out, key=lambda query: (-problem.weight[query], query)):
        if enough():
            break
        candidates = problem.candidates_of(query)
        kind = tuple(problem.candidates[candidate].plan for candidate in candidates)
        if kind in failed:
            continue
        laid = room.prepare(state.queries[query], [problem.candidates[candidate] for candidate in candidates])
        for position in laid.cheapest_first[:_TRIED]:
            if not isinstance(room.try_candidate(laid, position, state.queries[query].slos), AdmissionFit):
                continue
            chosen = assignment_of(state).copy()
            chosen[query] = candidates.start + position
            wider = with_choice(state, chosen)
            if wider is not None:
                state, failed = wider, set()
                room = running_state(state)
                break
        else:
            failed.add(kind)
    return state


def with_choice(state: MatchState, chosen: IntArray) -> MatchState | None:
    """The answer with another choice (Q,) of its candidates, of which nothing is proved; None: that does not hold."""
    assert state.choice is not None
    problem = state.problem
    usage = problem.usage_of(chosen)
    nodes, packing = pack_pools(problem, usage, widely=state.is_large)
    if packing or not problem.fits(usage):
        return None
    sizing = evaluate_sizing(problem, chosen, usage, state.slos, state.reestimate)
    few = (cut.is_satisfied(problem, chosen, usage) for cut in state.cuts if isinstance(cut, ChurnCut))
    if sizing.broken or not all(few):
        return None
    choice = replace(state.choice, chosen=chosen)
    # What was proved of the cost was of another weight.
    return replace(
        state, choice=choice, usage=usage, nodes=nodes, sizing=sizing, optimal=False, cost_bound_usd_per_h=0.0
    )
