"""Guarantees that override weights: pinned queries are served, and tenants get their shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.backfill import with_choice
from circinus.matching.explanation.rejections import rejection_reason
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Matching, Rejection, TenantShare, tenant_shares
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.search import search
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.planning import Frontier
from circinus.specification import Query, Specification


class _DeadlineError(Exception):
    """No time is left to narrow down the conflict."""


def enforce_pins(answer: Answer) -> Answer:
    """Return an answer in which every pinned query is served, or as many as possible if settings do not require all.

    Pinned queries have the highest priority. If some are not served, they are matched alone, at last to find out which
    of them cannot be served together. Plans count at their utilization targets.

    Raises:
        PlanningError: there is none, or none was found in time, and all are required; the location names a minimal set
            of queries that cannot be served together, as far as time allowed to narrow it down.
    """
    run, required = answer.run, answer.run.settings.requires_pins
    pinned = [q.name for q in run.queries if q.pin is not None and (required or run.frontiers[q.name].candidates)]
    missing = [name for name in pinned if name not in answer.served]
    if not missing:
        return answer
    for name in missing:
        if not run.frontiers[name].candidates:
            raise PlanningError(
                f"the query is pinned but cannot be served at utilization targets: {run.frontiers[name].reason}",
                code="query.pinned_infeasible",
                location=f"query {name}",
                hint="Remove the pin or relax its SLOs.",
            )
    pinned_only = search(run, restrict_to=pinned)
    if pinned_only.served >= set(pinned):
        return _merge_pinned(answer, pinned_only, missing[0])
    if not required:
        return answer
    deadline_s = run.clock() + MATCHING.conflict_time_factor * run.search_limit_s

    def are_jointly_servable(names: Collection[str]) -> bool:
        remaining_s = deadline_s - run.clock()
        if remaining_s <= 0:
            raise _DeadlineError
        return search(run, restrict_to=names, limit_s=min(run.search_limit_s, remaining_s)).served >= set(names)

    conflict, partial_answer = tuple(pinned), pinned_only
    with suppress(_DeadlineError):
        minimal = _minimal_conflict(pinned, are_jointly_servable)
        narrowed = search(run, restrict_to=minimal)
        if not narrowed.served >= set(minimal):  # else this search served queries that the shorter one missed
            conflict, partial_answer = minimal, narrowed
    unserved = next(i for i, q in enumerate(run.queries) if q.name in set(conflict) - partial_answer.served)
    reason = f"{run.queries[unserved].name}: {rejection_reason(partial_answer, unserved)}"
    raise _conflict_error(conflict, partial_answer, reason)


def with_others_rejected(matching: Matching, specification: Specification) -> Matching:
    """Return the matching of some queries as one of all: the others are rejected, and nothing is proved."""
    served = matching.served
    total_weight = sum(query.weight for query in specification.queries)
    others = (query.name for query in specification.queries if query.name not in served)
    return replace(
        matching,
        rejections=tuple(Rejection(name, "pinned queries precede it", (), None) for name in others),
        total_weight=total_weight,
        weight_bound=total_weight,
        optimal=False,
        cost_at_targets_usd_per_h=None,
        cost_bound_usd_per_h=0.0,
        tenants=tenant_shares(specification.queries, served, specification.required_infrastructure.tenants),
    )


def pins_error(
    refused: Sequence[Rejection], listed: Mapping[str, Frontier], match: Callable[[Mapping[str, Frontier]], object]
) -> PlanningError:
    """Return the error for pinned queries that a second look refused, with their conflict at utilization targets.

    Args:
        refused: their rejections as sized.
        listed: query name -> its plans at utilization targets, of queries that have any.
        match: matches queries, of which all pinned ones are required.
    """
    conflict, conflicting = None, list[Rejection]()
    if any(rejection.query in listed for rejection in refused):
        try:
            match(listed)
        except PlanningError as error:
            names = error.location.replace(",", " ").split()
            conflict, conflicting = error, [rejection for rejection in refused if rejection.query in names]
    (rejection, *_) = conflicting or refused
    reason = "not all plans were tried within the limits" if rejection.undecided else rejection.reason
    code = "query.pinned_timeout" if rejection.undecided else "query.pinned_infeasible"
    if conflict is None or not conflicting:  # at utilization targets, other queries conflict, or none
        message, location = f"the query is pinned but cannot be served: {reason}", f"query {rejection.query}"
        return PlanningError(
            message, code=code, location=location, hint="Remove the pin, relax its SLOs, or allow more changes."
        )
    message = f"{conflict.message}; as sized, query {rejection.query}: {reason}"
    code = code if rejection.undecided else conflict.code
    return PlanningError(message, code=code, location=conflict.location, hint=conflict.hint)


def _conflict_error(names: Sequence[str], answer: Answer, reason: str) -> PlanningError:
    """Return the error for pinned queries of which `answer` serves as many as possible among its candidates."""
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
        f"{pinned} cannot be served{jointly} by the plans considered at utilization targets{minimal}: {reason}",
        code="query.pinned_infeasible" if single else "query.pins_conflict",
        location=location,
        hint="Remove a pin or relax an SLO.",
    )


def _merge_pinned(answer: Answer, pinned_only: Answer, name: str) -> Answer:
    """Return the answer with the plans of the pinned queries that are served alone; other queries are added later."""
    problem, incumbent = answer.problem, answer.run.incumbent
    chosen = np.full(len(problem.queries), -1, dtype=np.int64)
    for query, candidate in pinned_only.problem.served(pinned_only.chosen):
        plan = pinned_only.problem.candidates[candidate].plan
        chosen[query] = next((c for c in problem.candidates_of(query) if problem.candidates[c].plan == plan), -1)
    merged = with_choice(answer, chosen)
    if merged is not None and merged.served == pinned_only.served:
        return merged
    if not answer.run.settings.requires_pins:
        return answer
    if incumbent is not None and incumbent.max_changes is not None:
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


def enforce_tenant_shares(answer: Answer) -> Answer:
    """Return an answer in which tenants get their guaranteed shares, as far as possible.

    If a tenant gets too little, the problem is solved once with all queries of the tenant preferred. Of the queries
    then served, just enough to meet the share become guaranteed (those served before first), and all other queries are
    matched again. The bounds of the answer without guarantees remain valid.
    """
    run = answer.run
    guaranteed_tenants = [tenant for tenant in run.infrastructure.tenants if tenant.at_least > 0]

    def measure(other: Answer) -> tuple[TenantShare, ...]:
        return tenant_shares(run.queries, other.served, guaranteed_tenants)

    answers, guaranteed, settled = [answer], set[str](), set[str]()
    while short := [s for s in measure(answers[-1]) if not s.is_met and s.tenant not in settled]:
        tenant_queries = {q.name for q in run.queries if q.tenant in {s.tenant for s in short}}
        trial = search(run, guaranteed=guaranteed, preferred=tenant_queries - guaranteed)
        shares = {s.tenant: s for s in measure(trial)}
        met = [s.tenant for s in short if shares[s.tenant].is_met]
        for tenant in met:
            guaranteed |= _guaranteed_queries(trial, answers[-1], shares[tenant])
        if not met:  # give these tenants as much as the shares guaranteed so far leave
            guaranteed |= trial.served & tenant_queries
        settled |= set(met or (s.tenant for s in short))
        answers += [trial, search(run, guaranteed=guaranteed)]
    if len(answers) == 1:
        return answer
    best = max(answers, key=partial(_ranking_key, measure=measure))
    # Bounds of the problem without guarantees hold for the constrained problem, too, so use its weights.
    problem = replace(best.problem, priority_levels=answer.problem.priority_levels)
    return replace(best, problem=problem, weight_bounds=answer.weight_bounds, cost_bound_usd_per_h=0.0, optimal=False)


def _guaranteed_queries(trial: Answer, previous: Answer, share: TenantShare) -> set[str]:
    """Return just enough of the tenant's queries that are served in `trial` to meet its share."""
    problem = trial.problem
    keys: list[tuple[tuple[float, ...], Query]] = []
    for index, candidate in problem.served(trial.chosen):
        query = trial.run.queries[index]
        if query.tenant == share.tenant:
            cost = problem.cost_share_usd_per_h(candidate, trial.solution.usage)
            keys.append(
                ((-query.priority, float(query.name not in previous.served), cost / query.weight, index), query)
            )
    required_weight, total, selected = (
        share.guaranteed_share * share.total_weight - WEIGHT_TOLERANCE * share.total_weight,
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


def _ranking_key(answer: Answer, measure: Callable[[Answer], Sequence[TenantShare]]) -> tuple[float, ...]:
    """Return the key by which answers are compared: pins, missing shares, then weight and cost."""
    queries = answer.run.queries
    pins = all(query.name in answer.served for query in queries if query.pin is not None)
    shortfall = sum(max(s.guaranteed_share - s.share, 0.0) for s in measure(answer) if not s.is_met)
    problem = replace(answer.problem, priority_levels=PriorityLevels.of(queries))
    return pins, -round(shortfall, 9), *objective_key(problem, answer.chosen, answer.solution.usage)
