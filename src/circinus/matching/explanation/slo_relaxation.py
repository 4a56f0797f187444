"""The smallest relaxation of one SLO under which a rejected query would be served next to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.plan_set import Relaxation
from circinus.planning import Frontier
from circinus.specification import Query, SloKind, Slos

Replan = Callable[[Query], Frontier]
"""Planner of a query with relaxed SLOs."""

_HALVINGS = 4
"""Maximum number of bisection steps between an insufficient limit and a sufficient one."""

_LARGE_S = 1e6
"""Latency limit that every plan meets; the SLO remains, because it defines the percentile."""

_MIN_LIMIT = 1e-9
"""Minimum limit to which a change is relative."""


_Fit = tuple[float, Relaxation]
"""Relative change of an SLO's limit, and the plan of the relaxed query that fits next to the others."""


def smallest_relaxation(running: AdmissionControl, frontier: Frontier, replan: Replan | None) -> Relaxation | None:
    """Return the smallest relative change of one SLO that admits the query, or None.

    A plan fits if capacities, packing, and every query's SLOs hold at the final sizes. Plans under a relaxed SLO come
    from the frontier and, with `replan`, from planning again: at the tightest feasible accuracy, and else with a wide
    limit, which is then narrowed down by bisection to a sixteenth of the distance between an insufficient and a
    sufficient limit.
    """
    best: _Fit | None = None
    for slo in frontier.query.slos.by_kind:
        fit = _smallest(running, frontier, slo, replan, None if best is None else best[0])
        if fit is not None and (best is None or fit[0] < best[0]):
            best = fit
    return None if best is None else best[1]


def _smallest(
    running: AdmissionControl, frontier: Frontier, slo: SloKind, replan: Replan | None, best: float | None
) -> _Fit | None:
    """Return the smallest change of `slo` that fits, or None if there is none below `best`."""
    query, fit_of = frontier.query, partial(_fit, running, frontier.query, slo)
    candidates = [relaxation.candidate for relaxation in frontier.relaxations if relaxation.slo == slo]
    fit = fit_of(candidates)
    if fit is not None or replan is None:
        return fit  # the frontier's relaxations have the tightest limits
    if not candidates and not frontier.candidates:
        return None  # according to the frontier, no limit admits any plan
    needed = (tightest_satisfied_slos(query.slos, slo, c, c.estimate.cost_usd_per_h.value)[1] for c in candidates)
    insufficient = min(needed, default=0.0)
    if best is not None and insufficient >= best:
        return None
    if slo is SloKind.ACCURACY and candidates:  # many plans have equal accuracy: another one may fit at this limit
        tightest = fit_of(replan(with_slos(query, relax_slo(query.slos, slo, insufficient))).candidates)
        if tightest is not None:
            return tightest
    widest = replan(with_slos(query, relax_slo(query.slos, slo, best)))
    fit = fit_of(widest.candidates)
    if fit is None or slo is SloKind.COST:
        return fit  # costs are part of the frontier, so the cheapest fitting plan is on it
    for _ in range(_HALVINGS):
        midpoint = (insufficient + fit[0]) / 2
        smaller = fit_of(replan(with_slos(query, relax_slo(query.slos, slo, midpoint))).candidates)
        if smaller is None:
            insufficient = midpoint
        elif smaller[0] < fit[0]:
            fit = smaller
        else:
            break
    return fit


def with_slos(query: Query, slos: Slos) -> Query:
    """Return the query with other SLOs."""
    return query.model_copy(update={"slos": slos})


def relax_slo(slos: Slos, slo: SloKind, change: float | None) -> Slos:
    """Return the SLOs with one of them relaxed by a share of its limit; None removes its limit."""
    if change is not None:
        return slos.replaced(slo, slos.by_kind[slo].relaxed_by(change))
    return slos.replaced(slo, slos.by_kind[slo].with_limit(_LARGE_S) if slo is SloKind.LATENCY else None)


def tightest_satisfied_slos(
    slos: Slos, slo: SloKind, candidate: PlanCandidate, share_usd_per_h: float
) -> tuple[Slos, float, str]:
    """Return (SLOs that the candidate meets, relative change, description); limits have few digits."""
    current = slos.by_kind[slo]
    value = share_usd_per_h if slo is SloKind.COST else candidate.estimate.compared_value(current)
    relaxed = current.relaxed_to(value)
    change = abs(relaxed.limit - current.limit) / max(abs(current.limit), _MIN_LIMIT)
    return slos.replaced(slo, relaxed), change, f"{slo} {current} -> {relaxed.limit_text}"


def _fit(running: AdmissionControl, query: Query, slo: SloKind, candidates: Sequence[PlanCandidate]) -> _Fit | None:
    """Return the candidate with the least change of `slo` that fits next to the running plans, or None.

    All candidates meet the other SLOs.
    """
    if not candidates:
        return None
    slos = query.slos
    prepared = running.prepare(with_slos(query, relax_slo(slos, slo, None)), candidates)
    options = []
    for candidate in np.flatnonzero(prepared.marginal_costs.fits).tolist():
        share = prepared.problem.cost_share_usd_per_h(candidate, prepared.with_candidate(candidate))
        relaxation = tightest_satisfied_slos(slos, slo, prepared.problem.candidates[candidate], share)
        added_usd_per_h = float(prepared.marginal_costs.added_usd_per_h[candidate])
        options.append((relaxation[1], added_usd_per_h, candidate, relaxation))
    for change, _, candidate, (relaxed, _, description) in sorted(options, key=lambda entry: entry[:3]):
        fit = running.try_candidate(prepared, candidate, relaxed)
        if isinstance(fit, AdmissionFit):
            return change, Relaxation(relaxed, fit.final.plan, fit.final.estimate, description)
    return None
