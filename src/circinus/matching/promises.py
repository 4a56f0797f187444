"""What is promised whatever else is worth more: pinned queries are served, and tenants get their shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from circinus.errors import PlanningError
from circinus.matching.answering import Answering
from circinus.matching.passes import State, chosen_of
from circinus.matching.plan_set import TenantShare
from circinus.matching.ranks import Ranks
from circinus.planning import Frontier
from circinus.spec import Query, Tenant

_ROUNDING = 1e-9
"""Share of a tenant's weight by which sums of weights may be off."""


def check_pins(
    state: State, frontiers: Mapping[str, Frontier], answer: Answering, why: Callable[[State, int], str]
) -> None:
    """Make sure that every pinned query is served.

    Args:
        state: the answer for all queries; pinned ones came first.
        frontiers: of all queries.
        answer: to find out which of the pinned queries cannot be served together.
        why: why a query is not served in an answer.

    Raises:
        PlanningError: one is not; the message names queries that cannot be served together, none of them too many.
    """
    pinned = [query.name for query in state.queries if query.pin is not None]
    missing = [name for name in pinned if name not in served(state)]
    if not missing:
        return
    for name in missing:
        if not frontiers[name].candidates:
            raise PlanningError(f"query {name}: found a pin, so that it must be served, but {frontiers[name].reason}")

    def together(names: Collection[str]) -> bool:
        return served(answer(only=names)) >= set(names)

    if together(pinned):
        raise PlanningError(
            f"query {missing[0]}: found a pin, so that it must be served, which takes more changes of what runs than "
            "are allowed; allow more of them"
        )
    conflict = _too_many(pinned, together)
    alone = answer(only=conflict)
    left_out = next(number for number, query in enumerate(alone.queries) if query.name in set(conflict) - served(alone))
    reason = f"{alone.queries[left_out].name}: {why(alone, left_out)}"
    if len(conflict) == 1:
        raise PlanningError(
            f"query {conflict[0]}: found a pin, so that it must be served, and no way to do so: {reason}"
        )
    names = f"{', '.join(conflict[:-1])} and {conflict[-1]}"
    raise PlanningError(
        f"queries {names}: found pins, so that they must be served, and no way to serve them together (without any one "
        f"of them there is one); {reason}; take a pin back, or change what it asks for"
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


def with_shares(state: State, tenants: Sequence[Tenant], answer: Answering) -> State:
    """An answer in which tenants get what they were promised, as far as that can be.

    Where one gets too little, all of the tenant's queries come first once; of those then served as many are held as
    the promise takes, those first that were served anyhow, and the others are matched beside them.

    Args:
        state: the answer without promises; its bounds hold for the one with them, too.
        tenants: with what they were promised.
        answer: to match again.
    """
    measure = partial(shares_of, tenants=[tenant for tenant in tenants if tenant.at_least > 0])
    known, held, settled = [state], set[str](), set[str]()
    while short := [s for s in measure(known[-1]) if not s.kept and s.tenant not in settled]:
        raised = {q.name for q in state.queries if q.tenant in {s.tenant for s in short}} - held
        trial = answer(held=held, raised=raised)
        now = {s.tenant: s for s in measure(trial)}
        kept = [s.tenant for s in short if now[s.tenant].kept]
        for tenant in kept:
            held |= _enough(trial, known[-1], now[tenant])
        if not kept:  # as much as there can be, beside what others were promised
            held |= served(trial) & {q.name for q in state.queries if q.tenant in {s.tenant for s in short}}
        settled |= set(kept or (s.tenant for s in short))
        known += [trial, answer(held=held)]
    if len(known) == 1:
        return state
    best = max(known, key=partial(_goodness, state=state, measure=measure))
    # As queries count without promises: bounds on that are bounds with them.
    problem = replace(best.problem, ranks=state.problem.ranks, weight=state.problem.weight)
    return replace(best, problem=problem, weight_bound=state.weight_bound, cost_bound_usd_per_h=0.0, optimal=False)


def shares_of(state: State, tenants: Sequence[Tenant]) -> tuple[TenantShare, ...]:
    """What every tenant that has queries gets."""
    there, found = served(state), []
    for tenant in tenants:
        theirs = [query for query in state.queries if query.tenant == tenant.name]
        if theirs:
            satisfied = sum(query.weight for query in theirs if query.name in there)
            found.append(TenantShare(tenant.name, satisfied, sum(query.weight for query in theirs), tenant.at_least))
    return tuple(found)


def served(state: State) -> set[str]:
    """The names of the queries that are served."""
    return {state.problem.queries[query] for query, _ in state.problem.served(chosen_of(state))}


def _enough(trial: State, before: State, share: TenantShare) -> set[str]:
    """Of the tenant's queries served in `trial` as many as the promise takes."""
    assert trial.usage is not None
    anyhow, problem = served(before), trial.problem
    keys: list[tuple[tuple[float, ...], Query]] = []
    for number, candidate in problem.served(chosen_of(trial)):
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
    found: State, state: State, measure: Callable[[State], Sequence[TenantShare]]
) -> tuple[bool, float, float, float]:
    """Pins first, then what is missing from promises, then weight and cost as without them."""
    assert found.usage is not None
    there, ranks = served(found), Ranks.of(state.queries)
    pins = all(query.name in there for query in state.queries if query.pin is not None)
    missing = sum(max(s.promised - s.share, 0.0) for s in measure(found) if not s.kept)
    weight = float(ranks.weight[chosen_of(found) >= 0].sum())
    return pins, -round(missing, 9), round(weight, 9), -found.usage.cost_usd_per_h
