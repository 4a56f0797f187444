"""Explanations of queries: plans that nearly meet the SLOs, relaxations of single SLOs, reasons of infeasibility."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.estimation.percentiles import UNBOUNDED
from circinus.estimation.slo_probability import comparable_miss
from circinus.planning.bin_packing import packs_in_isolation
from circinus.planning.frontier import MEASUREMENTS, BestEffortPlan, NearMiss, SingleRelaxation
from circinus.planning.pool_eligibility import (
    explain_ineligible_pools,
    explain_missing_capacity,
    explain_missing_path,
    explain_operator_ineligible,
)
from circinus.planning.violations import describe_violation
from circinus.specification import Network, Query, SloKind, Slos
from circinus.specification.formatting import (
    UNBOUNDED_S,
    format_score,
)

if TYPE_CHECKING:
    from circinus.planning.plan_arrays import PlanArrays
    from circinus.planning.query_search import QuerySearch

_POOLS = ("pools",)

_MAX_TRIED = 8
"""Maximum number of configurations whose plans are computed."""

MIN_CHANCE = 0.01
"""Minimum probability of meeting the SLOs for a best-effort plan."""


def best_effort_plan(search: QuerySearch) -> BestEffortPlan | None:
    """Return the plan most likely to meet all SLOs (`comparable_miss`), then nearest to a guarantee, then cheapest.

    Configurations are tried by ascending probability of missing the accuracy SLO (then by its excess and latency),
    until that probability alone exceeds the best plan's, up to a maximum number. The plan of a configuration is the
    cheapest one with a guaranteed latency, or otherwise the fastest one. The cost SLO is always met.

    Returns:
        None if no plan has a chance.
    """
    misses = np.array([comparable_miss(float(chance)) for chance in search.accuracy_probability])
    best_key = 1 - MIN_CHANCE, math.inf, math.inf
    best: BestEffortPlan | None = None
    for configuration in np.lexsort((search.violation, search.shortfall, misses))[:_MAX_TRIED].tolist():
        if misses[configuration] > best_key[0]:
            break
        column = search.space.columns.dedicated_cost
        (cheapest,) = search.min_usage_plans([configuration], column, cost=True)
        candidate = cheapest or search.fastest(np.array([configuration]))
        if candidate is None or candidate.estimate.slo_probability is None:
            continue
        estimate, joint = candidate.estimate, candidate.estimate.slo_probability.joint
        key = comparable_miss(joint), estimate.excess(search.query.slos), estimate.cost_usd_per_h.upper
        if key < best_key:
            measured = search.measured_items[candidate.plan.configuration]
            best_key = key
            best = BestEffortPlan(candidate, joint, measured.items, search.arrays.population, measured.more_items)
    return best


_MIN_POSITIVE = 1e-9


def near_misses(search: QuerySearch, without_cost: PlanArrays) -> tuple[NearMiss, ...]:
    """Return the best plan that misses exactly one SLO, for the configurations nearest to having a plan.

    For a configuration that misses the accuracy SLO: the cheapest plan that meets the other SLOs; for one that is too
    slow on every placement: the fastest plan; for one that costs too much: the cheapest plan.

    Returns:
        Nearest first by relative excess over the SLO, up to the number in the settings.
    """
    ranked = sorted(
        [*_inaccurate(search), *_slow(search), *_expensive(search, without_cost)],
        key=lambda miss: (miss[0], miss[2]),
    )
    ranked = ranked[: search.settings.max_ranked]
    misses: list[NearMiss] = []
    while ranked and (lacking := search.settings.near_misses - len(misses)):
        nearest, ranked = ranked[:lacking], ranked[lacking:]
        for (_, slo, _), candidate in zip(nearest, _best(search, nearest), strict=True):
            if candidate is not None and candidate.estimate.violations(search.query.slos) == (slo,):
                reason = describe_violation(candidate.estimate, search.query.slos.by_kind[slo])
                misses.append(NearMiss(candidate, (slo,), reason))
    return tuple(misses)


def _inaccurate(search: QuerySearch) -> list[tuple[float, SloKind, int]]:
    slo = search.query.slos.accuracy
    if slo is None:
        return []
    scale = max(abs(slo.threshold), _MIN_POSITIVE)
    return [
        (float(search.shortfall[index]) / scale, SloKind.ACCURACY, int(index))
        for index in np.flatnonzero((search.shortfall > 0) & (search.violation <= 0))
    ]


def _slow(search: QuerySearch) -> list[tuple[float, SloKind, int]]:
    too_slow = (search.shortfall <= 0) & (search.violation > 0) & np.isfinite(search.violation)
    return [(float(search.violation[index]), SloKind.LATENCY, int(index)) for index in np.flatnonzero(too_slow)]


def _expensive(search: QuerySearch, without_cost: PlanArrays) -> list[tuple[float, SloKind, int]]:
    slo = search.query.slos.cost
    if slo is None:
        return []
    plans, column = without_cost, search.space.columns.shared_cost
    candidates: list[tuple[float, SloKind, int]] = []
    for configuration in np.unique(plans.configuration):
        min_cost = float(plans.resources[plans.configuration == configuration, column].min())
        if not slo.is_met_by(min_cost):
            excess = min_cost / max(slo.limit_usd_per_h, _MIN_POSITIVE) - 1
            candidates.append((excess, SloKind.COST, int(configuration)))
    return candidates


def _best(search: QuerySearch, misses: Sequence[tuple[float, SloKind, int]]) -> list[PlanCandidate | None]:
    """Return the best plan of each (excess, violated SLO, configuration)."""
    columns, plans = search.space.columns, dict[tuple[SloKind, int], PlanCandidate | None]()
    by_slo: dict[SloKind, list[int]] = defaultdict(list)
    for _, slo, configuration in misses:
        by_slo[slo].append(configuration)
    for slo, configurations in by_slo.items():
        found: Iterable[PlanCandidate | None]
        if slo is SloKind.LATENCY:
            found = (search.fastest(np.array([configuration])) for configuration in configurations)
        elif slo is SloKind.ACCURACY:
            found = search.min_usage_plans(configurations, columns.dedicated_cost, cost=True)
        else:
            found = search.min_usage_plans(configurations, columns.shared_cost, cost=False)
        plans.update(zip([(slo, configuration) for configuration in configurations], found, strict=True))
    return [plans[slo, configuration] for _, slo, configuration in misses]


def single_relaxations(search: QuerySearch, without_cost: PlanArrays) -> tuple[SingleRelaxation, ...]:
    """Return, for each SLO that alone prevents a plan, the tightest limit at which there is one."""
    relaxations = []
    for kind, slo in search.query.slos.by_kind.items():
        candidate = _plan_without(search, kind, without_cost)
        if candidate is not None:
            relaxations.append(SingleRelaxation(kind, candidate.estimate.compared_value(slo), candidate))
    return tuple(relaxations)


def explain_infeasible(
    search: QuerySearch, network: Network, relaxations: tuple[SingleRelaxation, ...], promising: int
) -> tuple[str, tuple[str, ...]]:
    """Return why a query has no plan even with the whole infrastructure to itself, and `Frontier.binding`.

    Args:
        search: of the query.
        network: of the infrastructure.
        relaxations: SLOs that alone prevent a plan.
        promising: number of unmeasured configurations that may have a plan.
    """
    query = search.query
    if not search.space.columns.pools:
        return (
            f"no pool is open to queries from site {query.source}: {explain_ineligible_pools(query, network)}",
            _POOLS,
        )
    for rows, table in zip(search.arrays.operators, search.space.options, strict=True):
        pool = query.pinned_pool(rows.spec.name)
        if not table.usable.any() and pool is not None:
            return (
                f"operator {rows.spec.name} is pinned to pool {pool} but does not fit in it at the query's rate",
                _POOLS,
            )
        if not table.usable.any():
            ineligible = explain_operator_ineligible(rows, query, network)
            return f"operator {rows.spec.name} fits in no pool: {ineligible}", _POOLS
    too_few_items = _too_few_items(search)
    if too_few_items:
        return too_few_items, (MEASUREMENTS,)
    plan, more = "no plan", ""
    if promising:
        measured = len(search.arrays.configurations)
        plan = f"no plan of the {measured} measured configurations" if measured > 1 else "no measured plan"
        more = f"; {promising:,} configurations are unmeasured: `circinus profile` finds out whether any helps"
    if relaxations:
        text = f"{plan} meets all SLOs with deployments at their utilization targets"
        binding = tuple(relaxation.slo for relaxation in relaxations)
        return text + (_undecided(search) if SloKind.ACCURACY in binding else "") + more, binding
    if not search.fits():
        missing = explain_missing_capacity(search.space) or explain_missing_path(search.space)
        text = f"{plan} fits in the pools and links that are open to the query, even with the infrastructure to itself"
        return (f"{text}: {missing}" if missing else text) + more, _POOLS
    text = (
        f"{plan} meets all SLOs with deployments at their utilization targets, even with the infrastructure to itself"
    )
    fastest = search.fastest(search.accurate) if query.slos.latency is not None else None
    if fastest is not None and fastest.estimate.latency_s.upper >= UNBOUNDED_S:
        max_items = max(len(c.items) for c in search.arrays.configurations)
        text += f"; service times or sizes of {max_items} items vary so much that replicas or links may be overloaded"
    return text + ("" if len(search.accurate) else _undecided(search)) + more, _binding_together(search)


def _binding_together(search: QuerySearch) -> tuple[SloKind, ...]:
    """Return the SLOs that no configuration meets, else all, of a query of which no single SLO excludes all plans."""
    unmet = {
        SloKind.LATENCY: bool((search.violation > 0).all()),
        SloKind.ACCURACY: not len(search.accurate),
    }
    kinds = tuple(search.query.slos.by_kind)
    return tuple(kind for kind in kinds if unmet.get(kind)) or kinds


def _undecided(search: QuerySearch) -> str:
    """Return how many configurations that are fast enough and have items left may meet the accuracy SLO, or ""."""
    slo = search.query.slos.accuracy
    if slo is None:
        return ""
    population = search.arrays.population
    fast_enough = np.flatnonzero(search.violation <= 0).tolist()
    measured = [search.arrays.configurations[row] for row in fast_enough]
    bounds = [c.accuracy for c in measured if len(c.items) < population]
    count = sum(slo.is_met_by(b.lower) != slo.is_met_by(b.upper) for b in bounds)
    if not count:
        return ""
    undecided = "1 configuration" if count == 1 else f"{count} configurations"
    return f"; {undecided} with few measured items may still meet accuracy {slo}"


def _too_few_items(search: QuerySearch) -> str:
    """Return the reason why the query's percentile has no bound at its risk, or an empty string if it has one."""
    latency, max_items = search.query.slos.latency, max(len(c.items) for c in search.arrays.configurations)
    if latency is None or search.space.percentile.allowance.of(np.ones(max_items)) < UNBOUNDED:
        return ""
    return f"p{latency.percentile:g} has no bound at a risk of {search.query.risk:g} from {max_items} items"


def _plan_without(search: QuerySearch, kind: SloKind, without_cost: PlanArrays) -> PlanCandidate | None:
    """Return the plan that violates one SLO the least and meets the others, or None."""
    if kind is SloKind.LATENCY:
        candidate = search.fastest(search.accurate)
        return None if candidate is None or candidate.estimate.latency_s.upper >= UNBOUNDED_S else candidate
    if kind is SloKind.COST:
        return search.cheapest_of(without_cost, search.space.columns.shared_cost) if without_cost.count else None
    for configuration in np.argsort(search.shortfall, kind="stable"):
        if search.shortfall[configuration] <= 0 or search.violation[configuration] > 0:
            continue
        column = search.space.columns.dedicated_cost
        (candidate,) = search.min_usage_plans([int(configuration)], column, cost=True)
        if candidate is not None:
            return candidate
    return None


def describe_isolated_limits(query: Query, network: Network, relaxations: tuple[SingleRelaxation, ...]) -> str:
    """Return the end of the reason: the relaxed SLOs under which the query alone has a plan, or "" without any."""
    pools = {pool.name: pool for pool in network.pools_for(query.source)}
    packed = [relaxation for relaxation in relaxations if packs_in_isolation(relaxation.candidate, pools)]
    changes = [change for relaxation in packed if (change := _describe_relaxation(query.slos, relaxation))]
    return f"; with the infrastructure to itself, {', or '.join(changes)} would do" if changes else ""


def _describe_relaxation(slos: Slos, relaxation: SingleRelaxation) -> str:
    """Return the relaxed SLO under which the query alone has a plan, or "" if it has one with shared deployments only.

    It is in the notation of specifications, rounded to the side on which the plan meets it. Alone, a query pays for all
    its replicas.
    """
    slo, estimate = slos.by_kind[relaxation.slo], relaxation.candidate.estimate
    limit = estimate.cost_usd_per_h.upper if slo.kind is SloKind.COST else relaxation.limit
    if (
        slo.kind is not SloKind.COST
        and slos.cost is not None
        and not slos.cost.is_met_by(estimate.cost_usd_per_h.upper)
    ):
        return ""
    text = f"`{slo.kind} {slo.comparison_text} {slo.relaxed_to(limit).limit_text}`"
    mean = estimate.accuracy.value
    if slo.kind is SloKind.ACCURACY and mean != limit:
        text += f" (measured accuracy {format_score(mean)})"
    return f"{text} instead of {slo.limit_text}"
