"""Relaxations are checked by planning and matching everything again under the relaxed objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import share_of
from circinus.estimation import PlanCandidate
from circinus.matching import Incumbent, Matching, admit_query, plan_all_queries
from circinus.matching.explanation.slo_relaxation import (
    changed_slos,
    confirmed_relaxation,
    relax_slo,
    smallest_relaxation,
    wide_relaxation,
)
from circinus.planning import Frontier
from circinus.profiling import PipelineProfile
from circinus.specification import AccuracySlo, CostSlo, LatencySlo, Query, SloKind, Slos, Specification
from circinus.testing.random_instances import random_specification
from planning_instances import UNFITTED
from random_matchings import candidate, deployment, infrastructure, use

SEEDS = (4, 10, 5, 14, 7, 15, 0, 1)
RELAXED = (4, 10, 7, 15, 0)
"""Of whose specifications some query is relaxed: one without room in the first, ones without plans in the others."""


@cache
def _explained(seed: int) -> tuple[Specification, dict[str, PipelineProfile], Matching, Mapping[str, Frontier]]:
    specification, profiles = random_specification(seed, queries=6)
    return specification, profiles, *plan_all_queries(specification, profiles, settings=UNFITTED)


@pytest.mark.parametrize("seed", SEEDS[: share_of(len(SEEDS))])
def test_a_relaxed_query_is_served_when_everything_is_planned_again(seed: int) -> None:
    specification, profiles, found, frontiers = _explained(seed)
    slos = {query.name: query.slos for query in specification.queries}
    relaxed_with_plans = {bool(frontiers[r.query].candidates) for r in found.rejections if r.relaxation is not None}
    assert relaxed_with_plans >= ({True} if seed == SEEDS[0] else {False} if seed in RELAXED else set())
    for rejection in found.rejections:
        if rejection.relaxation is None:
            continue
        now = rejection.relaxation.slos
        before = slos[rejection.query]
        changed = changed_slos(before, now)
        assert (len(changed) > 1) == rejection.unrelaxable
        assert rejection.relaxation.change.startswith(changed[0])
        assert not rejection.relaxation.estimate.violations(now)
        queries = tuple(
            query.model_copy(update={"slos": now}) if query.name == rejection.query else query
            for query in specification.queries
        )
        relaxed = replace(specification, queries=queries)
        again, _ = plan_all_queries(relaxed, profiles, settings=UNFITTED, explain_rejections=())
        assert rejection.query in [assignment.query for assignment in again.assignments]


@pytest.mark.parametrize("seed", [10, 15][: share_of(4)])
def test_the_next_plan_serves_a_relaxed_query_and_all_that_run(seed: int) -> None:
    specification, profiles, matching, _ = _explained(seed)
    (relaxation,) = [rejection.relaxation for rejection in matching.rejections if rejection.query == "q0"]
    assert relaxation is not None
    queries = (q.model_copy(update={"slos": relaxation.slos}) if q.name == "q0" else q for q in specification.queries)
    relaxed, running = replace(specification, queries=tuple(queries)), Incumbent.of(matching)
    again, _ = plan_all_queries(relaxed, profiles, settings=UNFITTED, explain_rejections=(), incumbent=running)
    assert again.served == matching.served | {"q0"}


INFRA = infrastructure([("edge", 1, 4.0, 16.0, 1.0), ("far", 1, 4.0, 16.0, 2.0)])
SLOS = Slos(latency=LatencySlo(limit_s=1.0), accuracy=AccuracySlo(threshold=0.8))
ASKED = Query(name="q", pipeline="p", source="home", rate_per_s=1.0, slos=SLOS)


def _plan(latency_s: float, accuracy: float) -> PlanCandidate:
    return candidate("q", [use(deployment("a", 0, "edge"), 0.5, INFRA)], latency_s=latency_s, accuracy=accuracy)


class _Admission:
    """Admits the first of some plans that meets the SLOs, and notes what it was asked for."""

    def __init__(self, *plans: PlanCandidate) -> None:
        self.plans, self.asked, self.admitted = plans, list[Slos](), list[Slos]()

    def __call__(self, query: Query) -> PlanCandidate | None:
        self.asked.append(query.slos)
        plan = next((plan for plan in self.plans if not plan.estimate.violations(query.slos, sized=True)), None)
        if plan is not None:
            self.admitted.append(query.slos)
        return plan


def test_the_smallest_relative_change_wins_and_was_admitted() -> None:
    """At 50 % more latency or at 5 % less accuracy; the slowest and least accurate plans come first."""
    slower = [_plan(1.0 + step / 10, 0.9) for step in range(20, 4, -1)]
    admit = _Admission(*slower)
    relaxation = smallest_relaxation(ASKED, admit)
    assert relaxation is not None
    assert relaxation.slos.latency is not None
    assert relaxation.slos.accuracy == SLOS.accuracy
    assert relaxation.slos.latency.limit_s == pytest.approx(slower[-1].estimate.latency_s.upper, rel=0.1)
    assert relaxation.slos in admit.admitted
    coarser = _plan(0.8, 0.78)
    relaxation = smallest_relaxation(ASKED, _Admission(*slower, coarser))
    assert relaxation is not None
    assert relaxation.change == "accuracy >= 0.8 -> 0.76"
    assert relaxation.plan == coarser.plan


@given(st.lists(st.floats(1.01, 9.0), min_size=1, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_no_relaxation_is_wider_than_the_bound_of_a_plan_that_was_rejected(
    latencies_s: list[float], stated: list[bool]
) -> None:
    """The first plan that meets the SLOs is admitted, so that the search finds the best one only by chance."""
    plans = [_plan(latency_s, 0.9) for latency_s in latencies_s]
    nearest = [plan.estimate for plan, is_stated in zip(plans, stated, strict=False) if is_stated]
    relaxation = smallest_relaxation(ASKED, _Admission(*plans), nearest)
    assert relaxation is not None
    assert relaxation.slos.latency is not None
    bounds_s = [LatencySlo(limit_s=1.0).relaxed_to(estimate.latency_s.upper).limit for estimate in nearest]
    assert relaxation.slos.latency.limit_s <= min(bounds_s, default=math.inf)
    assert relaxation.slos.latency.is_met_by(relaxation.estimate.latency_s.upper)


def test_an_explanation_and_an_admission_name_one_relaxation() -> None:
    """It is at most the bound that the rejection states of the nearest plan."""
    specification, profiles, matching, _ = _explained(10)
    for explained in matching.rejections[:1]:
        admission, _ = admit_query(specification, profiles, matching, explained.query)
        assert admission.rejection is not None
        assert explained.relaxation == admission.rejection.relaxation is not None
        assert explained.binding == admission.rejection.binding


@pytest.mark.parametrize("cost", [None, CostSlo(limit_usd_per_h=100.0)])
def test_two_slos_are_relaxed_together_if_none_suffices_alone(cost: CostSlo | None) -> None:
    """Neither is relaxed further than the nearest plan takes; plans that miss one or both by more come first."""
    nearest = _plan(1.5, 0.75)
    admit = _Admission(_plan(1.4, 0.2), _plan(9.0, 0.76), _plan(9.0, 0.2), _plan(3.0, 0.5), _plan(1.5, 0.6), nearest)
    asked = ASKED.model_copy(update={"slos": SLOS.model_copy(update={"cost": cost})})
    relaxation = smallest_relaxation(asked, admit)
    assert relaxation is not None
    assert relaxation.slos in admit.admitted
    assert changed_slos(asked.slos, relaxation.slos) == (SloKind.LATENCY, SloKind.ACCURACY)
    assert relaxation.plan == nearest.plan
    assert relaxation.slos.latency is not None
    assert relaxation.slos.latency.limit_s == pytest.approx(nearest.estimate.latency_s.upper, rel=0.01)


def test_a_query_that_fits_nowhere_gets_no_relaxation() -> None:
    admit = _Admission()
    assert smallest_relaxation(ASKED, admit) is None
    both = [slos for slos in admit.asked if slos.accuracy is None and slos.latency != SLOS.latency]
    assert both, "all were relaxed together"


@pytest.mark.parametrize("needed_s", [1.9, 9.0])
def test_a_limit_that_is_only_admitted_when_wide_is_named_as_it_was_admitted(needed_s: float) -> None:
    """As if the plan at the tightest limit were refused, because another plan is preferred there that fits nowhere."""
    slow = _plan(1.5, 0.9)

    def admit(query: Query) -> PlanCandidate | None:
        assert query.slos.latency is not None
        return slow if query.slos.latency.limit_s >= needed_s else None

    latency_only = ASKED.model_copy(update={"slos": SLOS.model_copy(update={"accuracy": None})})
    relaxation = smallest_relaxation(latency_only, admit)
    assert relaxation is not None
    assert relaxation.slos.latency is not None
    assert needed_s <= relaxation.slos.latency.limit_s <= 1.1 * needed_s


def test_a_relaxation_is_halved_while_half_the_change_is_admitted() -> None:
    """Short checks admit 50 % more latency, whole ones 0.34 % and more; a change has few digits, but is no change."""
    asked = ASKED.model_copy(update={"slos": Slos(latency=SLOS.latency)})
    relaxation = smallest_relaxation(asked, _Admission(_plan(1.5 / 1.1, 0.9)))
    assert relaxation is not None
    admit = _Admission(*(_plan(limit_s / 1.1, 0.9) for limit_s in (1.5, 1.2, 1.0034)))
    confirmed = confirmed_relaxation(asked, relaxation, admit)
    assert confirmed is not None
    assert confirmed.change == "latency p95 <= 1s -> 1.0034s"
    assert confirmed.plan == admit.plans[-1].plan
    assert confirmed_relaxation(asked, relaxation, _Admission()) is None


def test_one_slo_suffices_where_only_whole_simulations_admit_it() -> None:
    """No SLO alone is enough for a plan that short simulations refute; a change of accuracy is for whole ones."""
    assert wide_relaxation(ASKED, _Admission(_plan(3.0, 0.5))) is None
    wide = wide_relaxation(ASKED, _Admission(_plan(0.5, 0.5)))
    assert wide is not None
    assert changed_slos(ASKED.slos, wide.slos) == (SloKind.ACCURACY,)


def test_no_change_is_no_relaxation() -> None:
    """As if a short check admitted what a whole one rejects."""
    asked = ASKED.model_copy(update={"slos": Slos(latency=SLOS.latency)})
    relaxation = smallest_relaxation(asked, _Admission(_plan(0.5, 0.9)))
    assert relaxation is not None
    assert relaxation.slos.latency is not None
    assert relaxation.slos.latency.limit_s > 1.0


def test_relaxing_moves_a_limit_in_its_own_direction() -> None:
    slos = Slos(
        latency=LatencySlo(percentile=99.0, limit_s=2.0),
        accuracy=AccuracySlo(threshold=0.2, comparison="<="),
        cost=CostSlo(limit_usd_per_h=1.0),
    )
    assert relax_slo(slos, SloKind.LATENCY, 0.5).latency == LatencySlo(percentile=99.0, limit_s=3.0)
    accuracy = relax_slo(slos, SloKind.ACCURACY, 0.5).accuracy
    assert accuracy is not None
    assert accuracy.threshold == pytest.approx(0.3)
    assert accuracy.comparison == "<="
    assert relax_slo(slos, SloKind.COST, 0.5).cost == CostSlo(limit_usd_per_h=1.5)
    wide = relax_slo(slos, SloKind.LATENCY, None)
    assert wide.latency is not None
    assert wide.latency.percentile == 99.0, "which percentile is meant does not change"
    assert relax_slo(slos, SloKind.COST, None) == slos.model_copy(update={"cost": None})
