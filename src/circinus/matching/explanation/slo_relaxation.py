"""The smallest relaxation of SLOs under which a rejected query is admitted next to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from circinus.estimation import Estimate, PlanCandidate
from circinus.matching.plan_set import Relaxation
from circinus.specification import Query, SloKind, Slos

Admit = Callable[[Query], PlanCandidate | None]
"""Admission of a query with other SLOs next to the running plans: its plan as sized, or None if it is rejected."""

_Probes = tuple[float | None, ...]

_PROBES: _Probes = (None, 1.0, 0.25, 3.0)
"""Relative changes of a limit that are tried first; None removes the limit. A wide limit lists other plans than a tight
one does."""

_WIDE_PROBES: _Probes = (100.0, *_PROBES)
"""Probes of one SLO before no relaxation is said to suffice."""

_HALVINGS = 4
"""Maximum number of bisection steps between an insufficient change and a sufficient one."""

_JOINT_PROBES: _Probes = (1.0, 4.0)
"""Common relative changes of several SLOs that are tried first."""

_TIGHTENING_HALVINGS = 3
"""Maximum number of bisection steps of each of several relaxed SLOs, while the others stay relaxed."""

_MAX_TIGHTENED = 3
"""Maximum number of times that several relaxed SLOs are tightened to what the plan admitted under them needs."""

_WIDENINGS = (1.0, 4.0)
"""Relative changes in turn of the tightest limit of a plan that is admitted without a limit, but not at that one: a
tight limit lists other plans."""

_LARGE_S = 1e6
"""Latency limit that every plan meets; the SLO remains, because it defines the percentile."""

_MIN_LIMIT = 1e-9
"""Minimum limit to which a change is relative."""

_Kinds = tuple[SloKind, ...]

_Fit = tuple[float, Slos, PlanCandidate]
"""Relative change of the SLO that changes the most, the SLOs, and the admitted plan."""


def smallest_relaxation(query: Query, admit: Admit, nearest: Sequence[Estimate] = ()) -> Relaxation | None:
    """Return the smallest relative change of one SLO that was found to admit the query, else of several together.

    Every limit that counts was really admitted. The search bisects between an insufficient and a sufficient change, to
    a sixteenth of their distance. Of several SLOs, as few as possible change: by one share of their limits, or one
    after the other, while those that follow have no limit, and each first once. The smallest sum of relative changes is
    returned.

    Args:
        query: is rejected as it is.
        admit: admits it with other SLOs.
        nearest: estimates of plans that were rejected; the limits that they meet are tried, too.

    Returns:
        None if no change was found, not even of all SLOs together.
    """
    kinds = tuple(query.slos.by_kind)
    best: _Fit | None = None
    for kind in kinds:
        fit = _smallest(query, (kind,), admit, _PROBES if best is None else (best[0],), nearest)
        if fit is not None and (best is None or fit[0] < best[0]):
            best = fit
    for count in range(2, len(kinds) + 1):
        if best is None:
            together = (_smallest_sum(query, changed, admit, nearest) for changed in combinations(kinds, count))
            best = min((fit for fit in together if fit is not None), key=lambda fit: fit[0], default=None)
    return None if best is None else _relaxation(query, best)


def smallest_change(query: Query, kind: SloKind, admit: Admit) -> Relaxation | None:
    """Return the smallest change of one SLO that was found to admit the query, or None if not even its removal does."""
    fit = _smallest(query, (kind,), admit, (None,), ())
    return None if fit is None else _relaxation(query, fit)


def wide_relaxation(query: Query, admit: Admit) -> Relaxation | None:
    """Return a wide relaxation of one SLO that admits the query, or None without any.

    Args:
        query: was rejected under changes of one SLO by short simulations, which may reject what whole ones admit.
        admit: admits the query with other SLOs in whole simulations.
    """
    fits = (_fit(query, (kind,), admit, change) for kind in query.slos.by_kind for change in _WIDE_PROBES)
    fit = next((fit for fit in fits if fit is not None), None)
    return None if fit is None else _relaxation(query, fit)


def confirmed_relaxation(query: Query, relaxation: Relaxation, admit: Admit) -> Relaxation | None:
    """Return the relaxation with the plan that is admitted; it is no wider than that plan needs.

    The change of one SLO is halved until half of it is rejected.

    Args:
        query: is rejected as it is.
        relaxation: was found with short simulations, which may reject what whole ones admit.
        admit: admits the query with other SLOs in whole simulations.

    Returns:
        None if the relaxation is rejected.
    """
    plan = admit(with_slos(query, relaxation.slos))
    if plan is None:
        return None
    kinds = changed_slos(query.slos, relaxation.slos)
    fit = relative_change(query.slos, relaxation.slos, kinds), relaxation.slos, plan
    while len(kinds) == 1 and (half := _fit(query, kinds, admit, fit[0] / 2)) is not None and half[0] < fit[0]:
        fit = half
    return _relaxation(query, fit if len(kinds) == 1 else _at_own_limits(query, kinds, fit, admit))


def _relaxation(query: Query, fit: _Fit) -> Relaxation:
    _, slos, plan = fit
    return Relaxation(slos, plan.plan, plan.estimate, describe_changes(query.slos, slos))


def _smallest(query: Query, kinds: _Kinds, admit: Admit, probes: _Probes, nearest: Sequence[Estimate]) -> _Fit | None:
    """Return the smallest change of some SLOs that admits the query, or None if none of the changes tried does."""
    fit = next((fit for change in probes if (fit := _fit(query, kinds, admit, change)) is not None), None)
    change = min(
        (
            relative_change(query.slos, _tightest(query.slos, kinds, estimate), kinds)
            for estimate in nearest
            if set(estimate.violations(query.slos, sized=True)) == set(kinds)
        ),
        default=None,
    )
    if change is not None and (fit is None or change < fit[0]):
        fit = _fit(query, kinds, admit, change) or fit
    return None if fit is None else _bisected(query, kinds, admit, fit, _HALVINGS)


def _smallest_sum(query: Query, kinds: _Kinds, admit: Admit, nearest: Sequence[Estimate]) -> _Fit | None:
    """Return the smallest sum of relative changes of several SLOs that is found; the change in the result is the sum.

    None if no change is found.
    """
    unlimited = query.slos
    for kind in kinds:
        unlimited = relax_slo(unlimited, kind, None)
    turns = [(*kinds[position:], *kinds[:position]) for position in range(len(kinds))]
    fits = [_tightened_in_turn(query, turn, admit, unlimited) for turn in turns]
    common = _smallest(query, kinds, admit, _JOINT_PROBES, nearest)
    if common is not None:
        fits += [common, _tightened_in_turn(query, kinds, admit, common[1])]
    found = [_at_own_limits(query, kinds, fit, admit) for fit in fits if fit is not None]
    return min(found, key=lambda fit: fit[0], default=None)


def _tightened_in_turn(query: Query, kinds: _Kinds, admit: Admit, slos: Slos) -> _Fit | None:
    """Return relaxed SLOs of which one after the other was tightened, while those that follow stay as they are."""
    fit: _Fit | None = None
    for kind in kinds:
        others = with_slos(query, slos.replaced(kind, query.slos.by_kind[kind]))
        fit = _fit(others, (kind,), admit, None)
        if fit is None:
            return None
        fit = _bisected(others, (kind,), admit, fit, _TIGHTENING_HALVINGS)
        slos = fit[1]
    return fit


def _at_own_limits(query: Query, kinds: _Kinds, fit: _Fit, admit: Admit) -> _Fit:
    """Return the tightest limits of several SLOs that the admitted plan needs, if it is admitted under them, too."""
    _, slos, plan = fit
    for _ in range(_MAX_TIGHTENED):
        tighter = _tightest(query.slos, kinds, plan.estimate)
        at_tighter = None if tighter == slos else admit(with_slos(query, tighter))
        if at_tighter is None:
            break
        slos, plan = tighter, at_tighter
    return sum(relative_change(query.slos, slos, (kind,)) for kind in kinds), slos, plan


def _bisected(query: Query, kinds: _Kinds, admit: Admit, fit: _Fit, halvings: int) -> _Fit:
    """Return the smallest sufficient change of some SLOs that is found, at most the given one."""
    insufficient = 0.0
    for _ in range(halvings):
        midpoint = (insufficient + fit[0]) / 2
        smaller = _fit(query, kinds, admit, midpoint)
        if smaller is None:
            insufficient = midpoint
        elif smaller[0] < fit[0]:
            fit = smaller
        else:
            break
    return fit


def _fit(query: Query, kinds: _Kinds, admit: Admit, change: float | None) -> _Fit | None:
    """Return the tightest limits that admit the query's plan under a change, or the change itself if those fail.

    None if the query is rejected under the change.
    """
    slos = query.slos
    for kind in kinds:
        slos = relax_slo(slos, kind, change)
    plan = admit(with_slos(query, slos))
    if plan is None:
        return None
    tighter = _tightest(query.slos, kinds, plan.estimate)
    at_tighter = None if tighter == query.slos else admit(with_slos(query, tighter))
    for widening in _WIDENINGS if change is None and tighter != query.slos else ():
        if at_tighter is None:
            tighter = _widened(query.slos, tighter, widening)
            at_tighter = admit(with_slos(query, tighter))
    if at_tighter is not None:
        slos, plan = tighter, at_tighter
    elif change is None:
        return None
    return relative_change(query.slos, slos, kinds), slos, plan


def relative_change(before: Slos, after: Slos, kinds: _Kinds) -> float:
    """Return the largest change of a limit, relative to it."""
    changes = ((before.by_kind[kind].limit, after.by_kind[kind].limit) for kind in kinds)
    return max(abs(new - old) / max(abs(old), _MIN_LIMIT) for old, new in changes)


def changed_slos(before: Slos, after: Slos) -> tuple[SloKind, ...]:
    """Return the kinds of SLOs whose limits differ."""
    return tuple(kind for kind, slo in before.by_kind.items() if after.by_kind[kind] != slo)


def describe_changes(before: Slos, after: Slos) -> str:
    """Return the changes as text: `latency p95 <= 300ms -> 412ms, accuracy >= 0.9 -> 0.85`."""
    old, new = before.by_kind, after.by_kind
    return ", ".join(f"{kind} {old[kind]} -> {new[kind].limit_text}" for kind in changed_slos(before, after))


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
    """Return the SLOs with one of them relaxed by a share of its limit, to few digits; None removes its limit."""
    if change is not None:
        current = slos.by_kind[slo]
        return slos.replaced(slo, current.relaxed_to(current.relaxed_by(change).limit))
    return slos.replaced(slo, slos.by_kind[slo].with_limit(_LARGE_S) if slo is SloKind.LATENCY else None)


def _tightest(slos: Slos, kinds: _Kinds, estimate: Estimate) -> Slos:
    """Return the SLOs with the tightest limits of some kinds that a plan as sized meets; limits have few digits."""
    for kind in kinds:
        slo = slos.by_kind[kind]
        slos = slos.replaced(kind, slo.relaxed_to(estimate.compared_value(slo, sized=True)))
    return slos
