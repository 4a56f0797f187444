"""Guarantees that override weights: pinned queries are served, and tenants get their shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.backfill import with_choice
from circinus.matching.match_run import MatchRun
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_set import TenantShare, tenant_shares
from circinus.matching.priority_levels import PriorityLevels
from circinus.planning import Frontier
from circinus.specification import Query, Tenant

_CONFLICT_TIME_FACTOR = 2.0
"""Time for finding a conflict among pinned queries, as a multiple of the time limit."""
_ROUNDING = 1e-9
"""Rounding tolerance of weight sums, as a share of a tenant's weight."""


class _DeadlineError(Exception):
    """No time is left to narrow down the conflict."""


def enforce_pins(
    state: MatchState,
    frontiers: Mapping[str, Frontier],
    run: MatchRun,
    rejection_reason: Callable[[MatchState, int], str],
) -> MatchState:
    """Return an answer in which every pinned query is served.

    Args:
        state: the answer for all queries; pinned ones have the highest priority in it.
        frontiers: of all queries.
        run: matches the pinned queries alone, and finds out which of them cannot be served together.
        rejection_reason: reason why a query is not served in an answer.

    Raises:
        PlanningError: there is none, or none was found in time; the location names a minimal set of queries that cannot
            be served together, as far as time allowed to narrow it down.
    """
    pinned = [query.name for query in state.queries if query.pin is not None]
    missing = [name for name in pinned if name not in served_queries(state)]
    if not missing:
        return state
    for name in missing:
        if not frontiers[name].candidates:
            raise PlanningError(
                f"the query is pinned but cannot be served: {frontiers[name].reason}",
                code="query.pinned_infeasible",
                location=f"query {name}",
                hint="Remove the pin or relax its SLOs.",
            )
    pinned_only = run(restrict_to=pinned)
    if served_queries(pinned_only) >= set(pinned):
        return _merge_pinned(state, pinned_only, missing[0], run)
    deadline_s = run.clock() + _CONFLICT_TIME_FACTOR * run.limit_s

    def are_jointly_servable(names: Collection[str]) -> bool:
        remaining_s = deadline_s - run.clock()
        if remaining_s <= 0:
            raise _DeadlineError
        return served_queries(run(restrict_to=names, limit_s=min(run.limit_s, remaining_s))) >= set(names)

    try:
        conflict = _minimal_conflict(pinned, are_jointly_servable)
        answer = run(restrict_to=conflict)
    except _DeadlineError:
        conflict, answer = tuple(pinned), pinned_only
    unserved = [index for index, q in enumerate(answer.queries) if q.name in set(conflict) - served_queries(answer)]
    if not unserved:  # this run served queries that the shorter one missed
        conflict, answer = tuple(pinned), pinned_only
        unserved = [index for index, q in enumerate(answer.queries) if q.name in set(pinned) - served_queries(answer)]
    reason = f"{answer.queries[unserved[0]].name}: {rejection_reason(answer, unserved[0])}"
    raise _conflict_error(conflict, answer, reason)


def _conflict_error(names: Sequence[str], answer: MatchState, reason: str) -> PlanningError:
    """Return the error for pinned queries that cannot all be served; `answer` serves as many of them as possible."""
    single = len(names) == 1
    location = f"query {names[0]}" if single else f"queries {', '.join(names[:-1])} and {names[-1]}"
    pinned = "the query is pinned but" if single else "the queries are pinned but"
    jointly = "" if single else " together"
    if not answer.optimal:
        return PlanningError(
            f"{pinned} no plan that serves {'it' if single else 'them'}{jointly} was found in time: {reason}",
            code="query.pinned_timeout",
            location=location,
            hint="Remove a pin, relax an SLO, or allow more time (--time-limit).",
        )
    minimal = "" if single else " (any smaller subset can)"
    return PlanningError(
        f"{pinned} cannot be served{jointly}{minimal}: {reason}",
        code="query.pinned_infeasible" if single else "query.pins_conflict",
        location=location,
        hint="Remove a pin or relax an SLO.",
    )


def _merge_pinned(state: MatchState, pinned_only: MatchState, name: str, run: MatchRun) -> MatchState:
    """Return the state with the plans of the pinned queries that are served alone; other queries are added later."""
    problem = state.problem
    chosen = np.full(len(problem.queries), -1, dtype=np.int64)
    for query, candidate in pinned_only.problem.served(assignment_of(pinned_only)):
        plan = pinned_only.problem.candidates[candidate].plan
        chosen[query] = next((c for c in problem.candidates_of(query) if problem.candidates[c].plan == plan), -1)
    merged = (
        with_choice(state, chosen)
        if set(served_queries(pinned_only)) == {problem.queries[q] for q, _ in problem.served(chosen)}
        else None
    )
    if merged is not None:
        return merged
    if run.running is not None and run.running.max_changes is not None:
        raise PlanningError(
            "the query is pinned, but serving it takes more changes of running plans than are allowed",
            code="query.pin_exceeds_max_changes",
            location=f"query {name}",
            hint="Allow more changes (--max-changes).",
        )
    raise PlanningError(
        "the query is pinned, but no matching that serves it together with the other queries was found in time",
        code="query.pinned_timeout",
        location=f"query {name}",
        hint="Allow more time (--time-limit).",
    )


def _minimal_conflict(names: Sequence[str], are_jointly_servable: Callable[[Collection[str]], bool]) -> tuple[str, ...]:
    """Return a minimal subset of the names that cannot be served together.

    QuickXplain: Junker, "Preferred explanations and relaxations for over-constrained problems" (AAAI 2004).
    """

    def conflict(base: tuple[str, ...], base_grew: bool, remaining: tuple[str, ...]) -> tuple[str, ...]:
        if base_grew and not are_jointly_servable(base):
            return ()
        if len(remaining) == 1:
            return remaining
        half = len(remaining) // 2
        second_half = conflict((*base, *remaining[:half]), True, remaining[half:])
        first_half = conflict((*base, *second_half), bool(second_half), remaining[:half])
        return (*first_half, *second_half)

    return conflict((), False, tuple(names))


def enforce_tenant_shares(state: MatchState, tenants: Sequence[Tenant], run: MatchRun) -> MatchState:
    """Return an answer in which tenants get their guaranteed shares, as far as possible.

    If a tenant gets too little, the problem is solved once with all queries of the tenant preferred. Of the queries
    then served, just enough to meet the share become guaranteed (those served before first), and all other queries are
    matched again.

    Args:
        state: the answer without guarantees; its bounds remain valid with guarantees.
        tenants: with their shares.
        run: matches again.
    """
    guaranteed_tenants = [tenant for tenant in tenants if tenant.at_least > 0]

    def measure(answer: MatchState) -> tuple[TenantShare, ...]:
        return tenant_shares(answer.queries, served_queries(answer), guaranteed_tenants)

    answers, guaranteed, settled = [state], set[str](), set[str]()
    while short := [s for s in measure(answers[-1]) if not s.is_met and s.tenant not in settled]:
        preferred = {q.name for q in state.queries if q.tenant in {s.tenant for s in short}} - guaranteed
        trial = run(guaranteed=guaranteed, preferred=preferred)
        shares = {s.tenant: s for s in measure(trial)}
        met = [s.tenant for s in short if shares[s.tenant].is_met]
        for tenant in met:
            guaranteed |= _guaranteed_queries(trial, answers[-1], shares[tenant])
        if not met:  # give these tenants as much as the shares guaranteed so far leave
            guaranteed |= served_queries(trial) & {
                q.name for q in state.queries if q.tenant in {s.tenant for s in short}
            }
        settled |= set(met or (s.tenant for s in short))
        answers += [trial, run(guaranteed=guaranteed)]
    if len(answers) == 1:
        return state
    best = max(answers, key=partial(_ranking_key, state=state, measure=measure))
    # Bounds of the problem without guarantees hold for the constrained problem, too, so use its weights.
    problem = replace(best.problem, priority_levels=state.problem.priority_levels, weight=state.problem.weight)
    return replace(best, problem=problem, weight_bound=state.weight_bound, cost_bound_usd_per_h=0.0, optimal=False)


def served_queries(state: MatchState) -> set[str]:
    """Return the names of the served queries."""
    return {state.problem.queries[query] for query, _ in state.problem.served(assignment_of(state))}


def _guaranteed_queries(trial: MatchState, previous: MatchState, share: TenantShare) -> set[str]:
    """Return just enough of the tenant's queries that are served in `trial` to meet its share."""
    assert trial.usage is not None
    served_before, problem = served_queries(previous), trial.problem
    keys: list[tuple[tuple[float, ...], Query]] = []
    for index, candidate in problem.served(assignment_of(trial)):
        query = trial.queries[index]
        if query.tenant == share.tenant:
            cost = problem.cost_share_usd_per_h(candidate, trial.usage)
            keys.append(((-query.priority, float(query.name not in served_before), cost / query.weight, index), query))
    required_weight, total, selected = (
        share.guaranteed_share * share.total_weight - _ROUNDING * share.total_weight,
        0.0,
        list[Query](),
    )
    for _, query in sorted(keys, key=lambda entry: entry[0]):
        if total >= required_weight:
            break
        selected.append(query)
        total += query.weight
    for query in tuple(selected):  # a heavier query may have made lighter ones redundant
        if total - query.weight >= required_weight:
            selected.remove(query)
            total -= query.weight
    return {query.name for query in selected}


def _ranking_key(
    answer: MatchState, state: MatchState, measure: Callable[[MatchState], Sequence[TenantShare]]
) -> tuple[float, ...]:
    """Return the key by which answers are compared: pins, missing shares, then weight and cost."""
    assert answer.usage is not None
    served, levels = served_queries(answer), PriorityLevels.of(state.queries)
    pins = all(query.name in served for query in state.queries if query.pin is not None)
    shortfall = sum(max(s.guaranteed_share - s.share, 0.0) for s in measure(answer) if not s.is_met)
    cost = answer.problem.cost_with_churn_usd_per_h(answer.usage)
    return pins, -round(shortfall, 9), *levels.own_weights_of(assignment_of(answer)), -round(cost, 9)
