"""Backfill of a matching: adds unserved queries that still fit next to the sized deployments."""

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

_MAX_TRIED = 40
"""Maximum number of plans of a query that are tried, those with the lowest added cost."""


def sized_deployments(state: MatchState) -> tuple[SizedDeployment, ...]:
    """Return the deployments in use, sorted by name."""
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
    """Prepare a state for the admission of one more query.

    Args:
        state: an answer.
        infrastructure: a larger one than the state's; default the state's.
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


def backfill(state: MatchState, *, should_stop: Callable[[], bool]) -> MatchState:
    """Add unserved queries that fit next to the sized deployments, heaviest first.

    If time or whole replicas prevented a good choice, queries were dropped from it until the rest was feasible, which
    may leave capacity.

    Args:
        state: a feasible answer.
        should_stop: whether to stop.
    """
    problem, running = state.problem, running_state(state)
    unserved = [
        query for query in np.flatnonzero(assignment_of(state) < 0).tolist() if len(problem.candidates_of(query))
    ]
    failed: set[object] = set()
    for query in sorted(unserved, key=lambda query: (-problem.weight[query], query)):
        if should_stop():
            break
        candidates = problem.candidates_of(query)
        plans = tuple(problem.candidates[candidate].plan for candidate in candidates)
        if plans in failed:
            continue
        prepared = running.prepare(state.queries[query], [problem.candidates[candidate] for candidate in candidates])
        for position in prepared.cheapest_first[:_MAX_TRIED]:
            if not isinstance(running.try_candidate(prepared, position, state.queries[query].slos), AdmissionFit):
                continue
            chosen = assignment_of(state).copy()
            chosen[query] = candidates.start + position
            extended = with_choice(state, chosen)
            if extended is not None:
                state, failed = extended, set()
                running = running_state(state)
                break
        else:
            failed.add(plans)
    return state


def with_choice(state: MatchState, chosen: IntArray) -> MatchState | None:
    """Return the answer with another choice (Q,) of its candidates, without proofs, or None if it is infeasible."""
    assert state.choice is not None
    problem = state.problem
    usage = problem.usage_of(chosen)
    nodes, packing = pack_pools(problem, usage, widely=state.is_large)
    if packing or not problem.fits(usage):
        return None
    sizing = evaluate_sizing(problem, chosen, usage, state.slos, state.reestimate)
    change_limits = (cut.is_satisfied(problem, chosen, usage) for cut in state.cuts if isinstance(cut, ChurnCut))
    if sizing.violations or not all(change_limits):
        return None
    choice = replace(state.choice, chosen=chosen)
    # The cost bound was proved for another weight.
    return replace(
        state, choice=choice, usage=usage, nodes=nodes, sizing=sizing, optimal=False, cost_bound_usd_per_h=0.0
    )
