"""The smallest relaxation of one SLO under which a rejected query is admitted next to the others."""

from __future__ import annotations

from collections.abc import Callable

from circinus.estimation import PlanCandidate
from circinus.matching.plan_set import Relaxation
from circinus.specification import Query, SloKind, Slos

Admit = Callable[[Query], PlanCandidate | None]
"""Admission of a query with other SLOs next to the running plans: its plan as sized, or None if it is rejected."""

_PROBES = (None, 1.0, 0.25, 3.0)
"""Relative changes of a limit that are tried first; None removes the limit. A wide limit lists other plans than a tight
one does."""

_HALVINGS = 4
"""Maximum number of bisection steps between an insufficient limit and a sufficient one."""

_WIDENINGS = (1.0, 4.0)
"""Relative changes in turn of the tightest limit of a plan that is admitted without a limit, but not at that one: a
tight limit lists other plans."""

_LARGE_S = 1e6
"""Latency limit that every plan meets; the SLO remains, because it defines the percentile."""

_MIN_LIMIT = 1e-9
"""Minimum limit to which a change is relative."""

_Fit = tuple[float, Relaxation]
"""Relative change of an SLO's limit, and the admitted plan."""


def smallest_relaxation(query: Query, admit: Admit) -> Relaxation | None:
    """Return the smallest relative change of one SLO that was found to admit the query, or None if no change did.

    Every limit that counts was really admitted. The search bisects between an insufficient and a sufficient limit, to a
    sixteenth of their distance.

    Args:
        query: is rejected as it is.
        admit: admits it with other SLOs.
    """
    best: _Fit | None = None
    for slo in query.slos.by_kind:
        fit = _smallest(query, slo, admit, _PROBES if best is None else (best[0],))
        if fit is not None and (best is None or fit[0] < best[0]):
            best = fit
    return None if best is None else best[1]


def _smallest(query: Query, slo: SloKind, admit: Admit, probes: tuple[float | None, ...]) -> _Fit | None:
    """Return the smallest change of `slo` that admits the query, or None if none of the probes does."""
    fit = next((fit for change in probes if (fit := _fit(query, slo, admit, change)) is not None), None)
    insufficient = 0.0
    for _ in range(_HALVINGS if fit is not None else 0):
        assert fit is not None
        midpoint = (insufficient + fit[0]) / 2
        smaller = _fit(query, slo, admit, midpoint)
        if smaller is None:
            insufficient = midpoint
        elif smaller[0] < fit[0]:
            fit = smaller
        else:
            break
    return fit


def _fit(query: Query, slo: SloKind, admit: Admit, change: float | None) -> _Fit | None:
    """Return the tightest limit that admits the query's plan under a change, or the change itself if that limit fails.

    None if the query is rejected under the change.
    """
    slos = relax_slo(query.slos, slo, change)
    plan = admit(with_slos(query, slos))
    if plan is None:
        return None
    tighter = _tightest(query.slos, slo, plan)
    at_tighter = None if tighter == query.slos else admit(with_slos(query, tighter))
    for widening in _WIDENINGS if change is None and tighter != query.slos else ():
        if at_tighter is None:
            tighter = _widened(query.slos, tighter, widening)
            at_tighter = admit(with_slos(query, tighter))
    if at_tighter is not None:
        slos, plan = tighter, at_tighter
    elif change is None:
        return None
    before, after = query.slos.by_kind[slo], slos.by_kind[slo]
    relative = abs(after.limit - before.limit) / max(abs(before.limit), _MIN_LIMIT)
    return relative, Relaxation(slos, plan.plan, plan.estimate, f"{slo} {before} -> {after.limit_text}")


def _widened(before: Slos, tight: Slos, change: float) -> Slos:
    """Return the tight SLOs with the limits that differ from before relaxed by a share."""
    for kind, slo in tight.by_kind.items():
        if slo != before.by_kind[kind]:
            tight = tight.replaced(kind, slo.relaxed_by(change))
    return tight


def with_slos(query: Query, slos: Slos) -> Query:
    """Return the query with other SLOs."""
    return query.model_copy(update={"slos": slos})


def relax_slo(slos: Slos, slo: SloKind, change: float | None) -> Slos:
    """Return the SLOs with one of them relaxed by a share of its limit; None removes its limit."""
    if change is not None:
        return slos.replaced(slo, slos.by_kind[slo].relaxed_by(change))
    return slos.replaced(slo, slos.by_kind[slo].with_limit(_LARGE_S) if slo is SloKind.LATENCY else None)


def _tightest(slos: Slos, slo: SloKind, plan: PlanCandidate) -> Slos:
    """Return the SLOs with the tightest limit that a plan as sized meets; limits have few digits."""
    current = slos.by_kind[slo]
    return slos.replaced(slo, current.relaxed_to(plan.estimate.compared_value(current, sized=True)))
