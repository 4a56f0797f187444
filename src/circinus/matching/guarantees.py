"""What is promised whatever else is worth more: pinned queries are served, and tenants get their shares."""

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

_PROBES = 2.0
"""Times the time limit, for finding out which pinned queries conflict."""
_ROUNDING = 1e-9
"""Share of a tenant's weight by which sums of weights may be off."""


class _LateError(Exception):
    """There is no time left to find out more."""


def enforce_pins(
    state: MatchState, frontiers: Mapping[str, Frontier], answer: MatchRun, why: Callable[[MatchState, int], str]
) -> MatchState:
    """An answer in which every pinned query is served.

    Args:
        state: the answer for all queries; pinned ones came first.
        frontiers: of all queries.
        answer: to serve the pinned queries alone, and to find out which of them cannot be served together.
        why: why a query is not served in an answer.

    Raises:
        PlanningError: there is none, or none was found in time; the message names queries that cannot be served
            together, none of them too many, as far as that was found out.
    """
    pinned = [query.name for query in state.queries if query.pin is not None]
    missing = [name for name in pinned if name not in served_queries(state)]
    if not missing:
        return state
    for name in missing:
        if not frontiers[name].candidates:
            raise PlanningError(f"query {name}: found a pin, so that it must be served, but {frontiers[name].reason}")
    alone = answer(restrict_to=pinned)
    if served_queries(alone) >= set(pinned):
        return _beginning_with(state, alone, missing[0], answer)
    until_s = answer.clock() + _PROBES * answer.limit_s

    def together(names: Collection[str]) -> bool:
        left_s = until_s - answer.clock()
        if left_s <= 0:
            raise _LateError
        return served_queries(answer(restrict_to=names, limit_s=min(answer.limit_s, left_s))) >= set(names)

    try:
        conflict = _too_many(pinned, together)
        found = answer(restrict_to=conflict)
    except _LateError:
        conflict, found = tuple(pinned), alone
    left_out = [number for number, q in enumerate(found.queries) if q.name in set(conflict) - served_queries(found)]
    if not left_out:  # what was not found in less time was found now
        conflict, found = tuple(pinned), alone
        left_out = [number for number, q in enumerate(found.queries) if q.name in set(pinned) - served_queries(found)]
    raise PlanningError(_conflict(conflict, found, f"{found.queries[left_out[0]].name}: {why(found, left_out[0])}"))


def _conflict(names: Sequence[str], found: MatchState, reason: str) -> str:
    """What to say of pinned queries of which `found` serves all that it can."""
    which = f"query {names[0]}" if len(names) == 1 else f"queries {', '.join(names[:-1])} and {names[-1]}"
    it, together = ("it", "") if len(names) == 1 else ("they", " together")
    what = f"{which}: found {'a pin' if len(names) == 1 else 'pins'}, so that {it} must be served{together}"
    advice = "take a pin back, or change what it asks for"
    if not found.optimal:
        return (
            f"{what}, and no way to do so within the time limit; {reason}; {advice}, or allow more time (--time-limit)"
        )
    only = " (without any one of them there is one)" if len(names) > 1 else ""
    return f"{what}, and there is no way to do so{only}; {reason}; {advice}"


def _beginning_with(state: MatchState, alone: MatchState, name: str, answer: MatchRun) -> MatchState:
    """The plans that serve the pinned queries alone; others are let in beside them."""
    problem = state.problem
    chosen = np.full(len(problem.queries), -1, dtype=np.int64)
    for query, candidate in alone.problem.served(assignment_of(alone)):
        plan = alone.problem.candidates[candidate].plan
        chosen[query] = next((c for c in problem.candidates_of(query) if problem.candidates[c].plan == plan), -1)
    found = (
        with_choice(state, chosen)
        if set(served_queries(alone)) == {problem.queries[q] for q, _ in problem.served(chosen)}
        else None
    )
    if found is not None:
        return found
    if answer.running is not None and answer.running.max_changes is not None:
        raise PlanningError(
            f"query {name}: found a pin, so that it must be served, which takes more changes of what runs than are "
            "allowed; allow more of them (--most-changes)"
        )
    raise PlanningError(
        f"query {name}: found a pin, so that it must be served, and no way to do so beside the others within the time "
        "limit; allow more time (--time-limit)"
    )


def _too_many(names: Sequence[str], together: Callable[[Collection[str]], bool]) -> tuple[str, ...]:
    """Some of the names that cannot be served together although they could without any one of them.

    QuickXplain: Junker, "Preferred explanations and relaxations for over-constrained problems" (AAAI 2004).
    """

    def needed(base: tuple[str, ...], added: bool, rest: tuple[str, ...]) -> tuple[str, ...]:
        if added and not together(base):
            return ()
        if len(rest) == 1:
            return rest
        half = len(rest) // 2
        later = needed((*base, *rest[:half]), True, rest[half:])
        earlier = needed((*base, *later), bool(later), rest[:half])
        return (*earlier, *later)

    return needed((), False, tuple(names))


def enforce_tenant_shares(state: MatchState, tenants: Sequence[Tenant], answer: MatchRun) -> MatchState:
    """An answer in which tenants get what they were promised, as far as that can be.

    Where one gets too little, all of the tenant's queries come first once; of those then served as many are held as
    the promise takes, those first that were served anyhow, and the others are matched beside them.

    Args:
        state: the answer without promises; its bounds hold for the one with them, too.
        tenants: with what they were promised.
        answer: to match again.
    """
    promised = [tenant for tenant in tenants if tenant.at_least > 0]

    def measure(found: MatchState) -> tuple[TenantShare, ...]:
        return tenant_shares(found.queries, served_queries(found), promised)

    known, held, decided = [state], set[str](), set[str]()
    while short := [s for s in measure(known[-1]) if not s.kept and s.tenant not in decided]:
        raised = {q.name for q in state.queries if q.tenant in {s.tenant for s in short}} - held
        trial = answer(guaranteed=held, preferred=raised)
        now = {s.tenant: s for s in measure(trial)}
        kept = [s.tenant for s in short if now[s.tenant].kept]
        for tenant in kept:
            held |= _enough(trial, known[-1], now[tenant])
        if not kept:  # as much as there can be, beside what others were promised
            held |= served_queries(trial) & {q.name for q in state.queries if q.tenant in {s.tenant for s in short}}
        decided |= set(kept or (s.tenant for s in short))
        known += [trial, answer(guaranteed=held)]
    if len(known) == 1:
        return state
    best = max(known, key=partial(_goodness, state=state, measure=measure))
    # As queries count without promises: bounds on that are bounds with them.
    problem = replace(best.problem, priority_levels=state.problem.priority_levels, weight=state.problem.weight)
    return replace(best, problem=problem, weight_bound=state.weight_bound, cost_bound_usd_per_h=0.0, optimal=False)


def served_queries(state: MatchState) -> set[str]:
    """The names of the queries that are served."""
    return {state.problem.queries[query] for query, _ in state.problem.served(assignment_of(state))}


def _enough(trial: MatchState, before: MatchState, share: TenantShare) -> set[str]:
    """Of the tenant's queries served in `trial` as many as the promise takes."""
    assert trial.usage is not None
    anyhow, problem = served_queries(before), trial.problem
    keys: list[tuple[tuple[float, ...], Query]] = []
    for number, candidate in problem.served(assignment_of(trial)):
        query = trial.queries[number]
        if query.tenant == share.tenant:
            cost = problem.cost_share_usd_per_h(candidate, trial.usage)
            keys.append(((-query.priority, float(query.name not in anyhow), cost / query.weight, number), query))
    wanted, total, kept = share.promised * share.total_weight - _ROUNDING * share.total_weight, 0.0, list[Query]()
    for _, query in sorted(keys, key=lambda entry: entry[0]):
        if total >= wanted:
            break
        kept.append(query)
        total += query.weight
    for query in tuple(kept):  # light ones that a heavier one later made needless
        if total - query.weight >= wanted:
            kept.remove(query)
            total -= query.weight
    return {query.name for query in kept}


def _goodness(
    found: MatchState, state: MatchState, measure: Callable[[MatchState], Sequence[TenantShare]]
) -> tuple[float, ...]:
    """Pins first, then what is missing from promises, then weight and cost as without them."""
    assert found.usage is not None
    there, ranks = served_queries(found), PriorityLevels.of(state.queries)
    pins = all(query.name in there for query in state.queries if query.pin is not None)
    missing = sum(max(s.promised - s.share, 0.0) for s in measure(found) if not s.kept)
    cost = found.problem.cost_with_churn_usd_per_h(found.usage)
    return pins, -round(missing, 9), *ranks.own_weights_of(assignment_of(found)), -round(cost, 9)
