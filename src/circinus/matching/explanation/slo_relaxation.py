"""The smallest relaxation of one SLO under which a rejected query would be served next to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.plan_set import Relaxation
from circinus.planning import Frontier
from circinus.planning.frontier import SloName
from circinus.specification import AccuracySlo, CostSlo, LatencySlo, Query, Slos
from circinus.specification.formatting import ceil_significant, floor_significant, format_latency_limit
from circinus.specification.units import PRICE_PER_H

Replan = Callable[[Query], Frontier]
"""Planner of a query with relaxed SLOs."""

_HALVINGS = 4
"""Maximum number of bisection steps between an insufficient limit and a sufficient one."""

_LARGE_S = 1e6
"""Latency limit that every plan meets; the SLO remains, because it defines the percentile."""


@dataclass(frozen=True)
class Fit:
    """A plan of the relaxed query that fits next to the others."""

    slos: Slos
    final: PlanCandidate
    change: float
    """Relative change of the SLO's limit."""
    description: str


def smallest_relaxation(running: AdmissionControl, frontier: Frontier, replan: Replan | None) -> Relaxation | None:
    """Return the smallest relative change of one SLO that admits the query, or None.

    A plan fits if capacities, packing, and every query's SLOs hold at the final sizes. Plans under a relaxed SLO come
    from the frontier and, with `replan`, from planning again: at the tightest feasible accuracy, and else with a wide
    limit, which is then narrowed down by bisection to a sixteenth of the distance between an insufficient and a
    sufficient limit.
    """
    best: Fit | None = None
    for slo in _slo_names(frontier.query.slos):
        fit = _smallest(running, frontier, slo, replan, None if best is None else best.change)
        if fit is not None and (best is None or fit.change < best.change):
            best = fit
    if best is None:
        return None
    return Relaxation(best.slos, best.final.plan, best.final.estimate, best.description)


def _slo_names(slos: Slos) -> tuple[SloName, ...]:
    names: tuple[SloName, ...] = ("latency", "accuracy", "cost")
    return tuple(name for name in names if getattr(slos, name) is not None)


def _smallest(
    running: AdmissionControl, frontier: Frontier, slo: SloName, replan: Replan | None, best: float | None
) -> Fit | None:
    """Return the smallest change of `slo` that fits, or None if there is none below `best`."""
    query, fit_of = frontier.query, partial(_fit, running, frontier.query, slo)
    candidates = [relaxation.candidate for relaxation in frontier.relaxations if relaxation.slo == slo]
    fit = fit_of(candidates)
    if fit is not None or replan is None:
        return fit  # the frontier's relaxations have the tightest limits
    if not candidates and not frontier.candidates:
        return None  # according to the frontier, no limit admits any plan
    insufficient = min((required_relaxation(query.slos, slo, candidate) for candidate in candidates), default=0.0)
    if best is not None and insufficient >= best:
        return None
    if slo == "accuracy" and candidates:  # many plans have equal accuracy: another one at the tightest limit may fit
        tightest = fit_of(replan(with_slos(query, relax_slo(query.slos, slo, insufficient))).candidates)
        if tightest is not None:
            return tightest
    widest = replan(with_slos(query, relax_slo(query.slos, slo, best)))
    fit = fit_of(widest.candidates)
    if fit is None or slo == "cost":
        return fit  # costs are part of the frontier, so the cheapest fitting plan is on it
    for _ in range(_HALVINGS):
        midpoint = (insufficient + fit.change) / 2
        smaller = fit_of(replan(with_slos(query, relax_slo(query.slos, slo, midpoint))).candidates)
        if smaller is None:
            insufficient = midpoint
        elif smaller.change < fit.change:
            fit = smaller
        else:
            break
    return fit


def with_slos(query: Query, slos: Slos) -> Query:
    """Return the query with other SLOs."""
    return query.model_copy(update={"slos": slos})


def relax_slo(slos: Slos, slo: SloName, change: float | None) -> Slos:
    """Return the SLOs with one of them relaxed by a share of its limit; None removes its limit."""
    if slo == "latency" and slos.latency is not None:
        limit_s = _LARGE_S if change is None else slos.latency.limit_s * (1 + change)
        return slos.model_copy(update={"latency": LatencySlo(percentile=slos.latency.percentile, limit_s=limit_s)})
    if slo == "accuracy" and slos.accuracy is not None and change is not None:
        comparison, current = slos.accuracy.comparison, slos.accuracy.threshold
        threshold = current - abs(current) * change if comparison == ">=" else current + abs(current) * change
        return slos.model_copy(update={"accuracy": AccuracySlo(threshold=threshold, comparison=comparison)})
    if slo == "cost" and slos.cost is not None and change is not None:
        return slos.model_copy(update={"cost": CostSlo(limit_usd_per_h=slos.cost.limit_usd_per_h * (1 + change))})
    return slos.model_copy(update={slo: None})


def required_relaxation(slos: Slos, slo: SloName, candidate: PlanCandidate) -> float:
    """Return the relative change of the SLO's limit that the candidate needs."""
    return tightest_satisfied_slos(slos, slo, candidate, candidate.estimate.cost_usd_per_h.value)[1]


def tightest_satisfied_slos(
    slos: Slos, slo: SloName, candidate: PlanCandidate, share_usd_per_h: float
) -> tuple[Slos, float, str]:
    """Return (SLOs that the candidate meets, relative change, description); limits have few digits."""
    estimate = candidate.estimate
    if slo == "latency" and slos.latency is not None:
        current = slos.latency.limit_s
        relaxed = max(ceil_significant(estimate.latency_s.upper), current)
        latency = LatencySlo(percentile=slos.latency.percentile, limit_s=relaxed)
        description = f"latency {slos.latency} -> {format_latency_limit(relaxed)}"
        return slos.model_copy(update={"latency": latency}), (relaxed - current) / current, description
    if slo == "accuracy" and slos.accuracy is not None:
        current, comparison = slos.accuracy.threshold, slos.accuracy.comparison
        if comparison == ">=":
            relaxed = min(floor_significant(estimate.accuracy.lower), current)
        else:
            relaxed = max(ceil_significant(estimate.accuracy.upper), current)
        accuracy = AccuracySlo(threshold=relaxed, comparison=comparison)
        description = f"accuracy {slos.accuracy} -> {relaxed:g}"
        return (
            slos.model_copy(update={"accuracy": accuracy}),
            abs(relaxed - current) / max(abs(current), 1e-9),
            description,
        )
    assert slos.cost is not None
    current = slos.cost.limit_usd_per_h
    relaxed = max(ceil_significant(share_usd_per_h), current)
    description = f"cost {slos.cost} -> {PRICE_PER_H.format(relaxed)}"
    return (
        slos.model_copy(update={"cost": CostSlo(limit_usd_per_h=relaxed)}),
        (relaxed - current) / max(current, 1e-9),
        description,
    )


def _fit(running: AdmissionControl, query: Query, slo: SloName, candidates: Sequence[PlanCandidate]) -> Fit | None:
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
            return Fit(relaxed, fit.final, change, description)
    return None
