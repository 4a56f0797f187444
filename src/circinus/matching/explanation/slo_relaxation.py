"""The smallest change of one objective under which a rejected query would be served next to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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
"""The frontier of a query with other objectives."""

_HALVINGS = 4
"""How often the distance between a limit that suffices and one that does not is halved."""

_LARGE_S = 1e6
"""A latency limit that no plan misses; the objective stays, because it says which percentile is meant."""


@dataclass(frozen=True)
class Fit:
    """A plan of the relaxed query that was checked beside the others."""

    slos: Slos
    final: PlanCandidate
    change: float
    """Of the objective, as a share of its limit."""
    words: str


class QueryFitter(Protocol):
    """What one more query is fitted into."""

    def fit(self, slo: SloName, candidates: Sequence[PlanCandidate]) -> Fit | None:
        """The candidate that needs the least change of `slo` among those that fit; all promise the other objectives."""
        ...


def smallest_relaxation(room: QueryFitter, frontier: Frontier, replan: Replan | None) -> Relaxation | None:
    """Relax one objective at a time as little as lets the query in, and take the smallest relative change.

    What fits is really fitted: capacities, nodes, and every query's objectives as sized. Plans under a relaxed
    objective come from the frontier and, where `replan` is given, from planning again: at the tightest accuracy that
    any plan promises, and else widely. A wide limit is narrowed down by halving, to within a sixteenth of the distance
    between what does not suffice and what does.
    """
    best: Fit | None = None
    for slo in _objectives(frontier.query.slos):
        fit = _smallest(room, frontier, slo, replan, None if best is None else best.change)
        if fit is not None and (best is None or fit.change < best.change):
            best = fit
    if best is None:
        return None
    return Relaxation(best.slos, best.final.plan, best.final.estimate, best.words)


def _objectives(slos: Slos) -> tuple[SloName, ...]:
    names: tuple[SloName, ...] = ("latency", "accuracy", "cost")
    return tuple(name for name in names if getattr(slos, name) is not None)


def _smallest(
    room: QueryFitter, frontier: Frontier, slo: SloName, replan: Replan | None, best: float | None
) -> Fit | None:
    """The smallest change of `slo` that fits, None where there is none below `best`."""
    query = frontier.query
    known = [relaxation.candidate for relaxation in frontier.relaxations if relaxation.slo == slo]
    found = room.fit(slo, known)
    if found is not None or replan is None:
        return found  # the tightest limit under which there is any plan
    if not known and not frontier.candidates:
        return None  # the frontier says so: there is no plan under any limit
    too_little = min((required_relaxation(query.slos, slo, candidate) for candidate in known), default=0.0)
    if best is not None and too_little >= best:
        return None
    if slo == "accuracy" and known:  # many plans promise the same accuracy: another one of the tightest may fit
        nearest = room.fit(slo, replan(with_slos(query, relax_slo(query.slos, slo, too_little))).candidates)
        if nearest is not None:
            return nearest
    widest = replan(with_slos(query, relax_slo(query.slos, slo, best)))
    found = room.fit(slo, widest.candidates)
    if found is None or slo == "cost":
        return found  # the cost of a plan is part of the frontier: the cheapest fitting plan is on it
    for _ in range(_HALVINGS):
        middle = (too_little + found.change) / 2
        nearer = room.fit(slo, replan(with_slos(query, relax_slo(query.slos, slo, middle))).candidates)
        if nearer is None:
            too_little = middle
        elif nearer.change < found.change:
            found = nearer
        else:
            break
    return found


def with_slos(query: Query, slos: Slos) -> Query:
    """The query under other objectives."""
    return query.model_copy(update={"slos": slos})


def relax_slo(slos: Slos, slo: SloName, change: float | None) -> Slos:
    """The objectives with one of them relaxed by a share of its limit; None: as far as can be."""
    if slo == "latency" and slos.latency is not None:
        limit_s = _LARGE_S if change is None else slos.latency.limit_s * (1 + change)
        return slos.model_copy(update={"latency": LatencySlo(percentile=slos.latency.percentile, limit_s=limit_s)})
    if slo == "accuracy" and slos.accuracy is not None and change is not None:
        comparison, old = slos.accuracy.comparison, slos.accuracy.threshold
        threshold = old - abs(old) * change if comparison == ">=" else old + abs(old) * change
        return slos.model_copy(update={"accuracy": AccuracySlo(threshold=threshold, comparison=comparison)})
    if slo == "cost" and slos.cost is not None and change is not None:
        return slos.model_copy(update={"cost": CostSlo(limit_usd_per_h=slos.cost.limit_usd_per_h * (1 + change))})
    return slos.model_copy(update={slo: None})


def required_relaxation(slos: Slos, slo: SloName, candidate: PlanCandidate) -> float:
    """By which share of its limit the objective must give way for the candidate's promise."""
    return tightest_satisfied_slos(slos, slo, candidate, candidate.estimate.cost_usd_per_h.value)[1]


def tightest_satisfied_slos(
    slos: Slos, slo: SloName, candidate: PlanCandidate, share_usd_per_h: float
) -> tuple[Slos, float, str]:
    """(objectives that the candidate keeps, relative change, the change in words); limits have few digits."""
    estimate = candidate.estimate
    if slo == "latency" and slos.latency is not None:
        old = slos.latency.limit_s
        new = max(ceil_significant(estimate.latency_s.upper), old)
        latency = LatencySlo(percentile=slos.latency.percentile, limit_s=new)
        words = f"latency {slos.latency} -> {format_latency_limit(new)}"
        return slos.model_copy(update={"latency": latency}), (new - old) / old, words
    if slo == "accuracy" and slos.accuracy is not None:
        old, comparison = slos.accuracy.threshold, slos.accuracy.comparison
        if comparison == ">=":
            new = min(floor_significant(estimate.accuracy.lower), old)
        else:
            new = max(ceil_significant(estimate.accuracy.upper), old)
        accuracy = AccuracySlo(threshold=new, comparison=comparison)
        words = f"accuracy {slos.accuracy} -> {new:g}"
        return slos.model_copy(update={"accuracy": accuracy}), abs(new - old) / max(abs(old), 1e-9), words
    assert slos.cost is not None
    old = slos.cost.limit_usd_per_h
    new = max(ceil_significant(share_usd_per_h), old)
    words = f"cost {slos.cost} -> {PRICE_PER_H.format(new)}"
    return slos.model_copy(update={"cost": CostSlo(limit_usd_per_h=new)}), (new - old) / max(old, 1e-9), words


class RunningQueryFitter:
    """Room for a query beside what runs: plans under one relaxed objective."""

    def __init__(self, running: AdmissionControl, query: Query) -> None:
        """Of the query whose objectives are relaxed."""
        self._running, self._query = running, query

    def fit(self, slo: SloName, candidates: Sequence[PlanCandidate]) -> Fit | None:
        """See `Room`."""
        if not candidates:
            return None
        slos = self._query.slos
        laid = self._running.prepare(with_slos(self._query, relax_slo(slos, slo, None)), candidates)
        needed = []
        for candidate in np.flatnonzero(laid.marginal_costs.fits).tolist():
            share = laid.problem.cost_share_usd_per_h(candidate, laid.with_candidate(candidate))
            wide = tightest_satisfied_slos(slos, slo, laid.problem.candidates[candidate], share)
            needed.append((wide[1], float(laid.marginal_costs.added_usd_per_h[candidate]), candidate, wide))
        for change, _, candidate, (wider, _, words) in sorted(needed, key=lambda entry: entry[:3]):
            found = self._running.try_candidate(laid, candidate, wider)
            if isinstance(found, AdmissionFit):
                return Fit(wider, found.final, change, words)
        return None
