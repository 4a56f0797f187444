"""Plans held against a simulation where formulas have doubts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from budget import HANG_LIMIT_S, share_of
from circinus.estimation import merge_loads
from circinus.matching import Matching, MatchSettings, admission, plan_all, plan_all_queries, simulation_check
from circinus.matching.explanation.slo_relaxation import with_slos
from circinus.matching.match_run import Answer
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import SizedDeployment
from circinus.matching.settings import MATCHING
from circinus.matching.simulation_check import (
    SimulationCheck,
    check_by_simulation,
    exclude_refuted,
    simulation_horizon_s,
    simulation_inputs,
)
from circinus.planning import plan_queries
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import MarkovModulatedPoisson
from circinus.simulation import PlannedQuery, simulate
from circinus.simulation.engine import QueryRun, Simulation
from circinus.simulation.model_builder import build_model
from circinus.specification import (
    BurstyArrivals,
    HardwareClass,
    LatencySlo,
    Network,
    PlanShare,
    QueryPlan,
    Slos,
    Specification,
)
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


@cache
def _bursty(seed: int) -> tuple[Specification, dict[str, PipelineProfile], Matching]:
    """Queries with mild bursts, that something can be promised for."""
    specification, profiles = random_specification(seed, queries=4)
    arrivals = BurstyArrivals(peak=1.5, burst_s=2.0, every_s=8.0)
    queries = tuple(query.model_copy(update={"arrivals": arrivals}) for query in specification.queries)
    infrastructure = specification.infrastructure
    assert infrastructure is not None
    pools = tuple(pool.model_copy(update={"hardware": _known(pool.hardware)}) for pool in infrastructure.pools)
    infrastructure = infrastructure.model_copy(update={"pools": pools})
    specification = replace(specification, queries=queries, infrastructure=infrastructure)
    matching, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    return specification, dict(profiles), matching


def _known(hardware: HardwareClass) -> HardwareClass:
    """Of which the speed is known."""
    return hardware.model_copy(update={"relative_speed_bounds": None})


@pytest.mark.parametrize("seed", (3, 5, 6, 0, 1, 2, 4, 7)[: share_of(8)])
def test_what_formulas_doubt_is_simulated_and_kept(seed: int) -> None:
    specification, profiles, matching = _bursty(seed)
    assert specification.infrastructure is not None
    slos = {query.name: query.slos for query in specification.queries}
    planned = simulation_inputs(specification, profiles, matching)
    assert any(assignment.chosen.estimate.simulated for assignment in matching.assignments)
    for assignment in matching.assignments:
        estimate = assignment.chosen.estimate
        assert estimate.caveats
        if estimate.simulated:
            assert "latency" not in estimate.violations(slos[assignment.query])
    report = simulate(
        planned,
        {sized.deployment: sized.replicas for sized in matching.deployments},
        Network(specification.infrastructure),
        duration_s=5000.0,
        seed=seed + 100,
    )
    simulated = {query.query: query for query in report.queries}
    for assignment in matching.assignments:
        if assignment.chosen.estimate.simulated:
            again = simulated[assignment.query].at_percentile_s.value
            assert assignment.chosen.estimate.latency_s.value == pytest.approx(again, rel=0.25)


def test_without_doubts_nothing_changes() -> None:
    specification, profiles = random_specification(1, queries=4)
    matching, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    assert specification.infrastructure is not None
    calm = replace(
        matching,
        assignments=tuple(
            replace(a, chosen=replace(a.chosen, estimate=replace(a.chosen.estimate, caveats=())))
            for a in matching.assignments
        ),
    )
    planned = simulation_inputs(specification, profiles, calm)
    found = check_by_simulation(calm, planned, Network(specification.infrastructure))
    assert found.matching is calm
    assert not found.violated


def test_a_plan_that_the_simulation_finds_too_slow_is_missed_and_no_longer_offered() -> None:
    specification, profiles, matching = _bursty(3)
    assert specification.infrastructure is not None
    first = next(a for a in matching.assignments if a.chosen.estimate.simulated)
    least = LatencySlo(percentile=95.0, limit_s=first.chosen.estimate.latency_s.value / 2)
    queries = tuple(
        q.model_copy(update={"slos": q.slos.model_copy(update={"latency": least})}) if q.name == first.query else q
        for q in specification.queries
    )
    planned = simulation_inputs(replace(specification, queries=queries), profiles, matching)
    found = check_by_simulation(matching, planned, Network(specification.infrastructure))
    assert {query: missed.plan for query, missed in found.violated.items()} == {first.query: first.chosen.plan}
    slow = found.violated[first.query]
    plans = PlanEstimates(specification, profiles)
    plans.exclude(first.query, first.chosen.plan)
    left = exclude_refuted(plan_queries(specification, profiles)[first.query], slow, found.violated, plans)
    assert first.chosen.plan not in [candidate.plan for candidate in left.plans]
    assert left.near_misses[0].candidate == slow
    assert bool(left.candidates) != bool(left.relaxations)


@cache
def _latencies_s(seed: int) -> dict[str, float]:
    """Return the upper bounds of the simulated latencies of bursty queries."""
    specification, profiles, matching = _bursty(seed)
    planned, network = (
        simulation_inputs(specification, profiles, matching),
        Network(specification.required_infrastructure),
    )
    whole = check_by_simulation(matching, planned, network, early_risk=0.0).matching
    return {a.query: a.chosen.estimate.latency_s.upper for a in whole.assignments}


@pytest.mark.parametrize(("factor", "early_risk"), [(0.1, 0.01), (1.0, 1e-9), (10.0, 0.01)])
def test_a_simulation_ends_when_the_verdicts_are_sure(
    monkeypatch: pytest.MonkeyPatch, factor: float, early_risk: float
) -> None:
    """Limits near the latency take the whole simulation, limits far from it a sixteenth."""
    specification, profiles, matching = _bursty(3)
    assert specification.infrastructure is not None
    network = Network(specification.infrastructure)
    planned = simulation_inputs(specification, profiles, matching)
    latency_s = _latencies_s(3)
    limited = [
        replace(one, query=with_slos(one.query, Slos(latency=one_limit)))
        for one in planned
        if (one_limit := LatencySlo(percentile=95.0, limit_s=factor * latency_s[one.query.name]))
    ]
    ends: list[float] = []

    class Watched(Simulation):
        def run(self, on_progress: Callable[[float], None] | None = None, *, end_s: float = math.inf) -> None:
            super().run(on_progress, end_s=end_s)
            ends.append(end_s / self.duration_s)

    monkeypatch.setattr(simulation_check, "Simulation", Watched)
    found = check_by_simulation(matching, limited, network, early_risk=early_risk)
    expected = check_by_simulation(matching, limited, network, early_risk=0.0)
    assert found.violated.keys() == expected.violated.keys()
    if factor == 1:
        assert ends[:-1] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, math.inf]
        for early, late in zip(found.matching.assignments, expected.matching.assignments, strict=True):
            bounds = vars(late.chosen.estimate.latency_s)
            assert vars(early.chosen.estimate.latency_s) == pytest.approx(bounds, rel=1e-9)  # rounding of windows
    else:
        assert bool(found.violated) == (factor < 1)
        assert ends[:-1] == [1 / 16]
        for early, late in zip(found.matching.assignments, expected.matching.assignments, strict=True):
            early_s, late_s = early.chosen.estimate.latency_s, late.chosen.estimate.latency_s
            assert early_s.upper - early_s.lower > late_s.upper - late_s.lower
            assert early_s.lower <= late_s.value <= early_s.upper


def _with_a_split_plan(seed: int) -> tuple[Specification, dict[str, PipelineProfile], Matching]:
    """Return the bursty queries, of which the first divides its requests among two plans with other knobs."""
    specification, profiles, matching = _bursty(seed)
    plans = PlanEstimates(specification, profiles)
    first, *others = matching.assignments
    chosen = first.chosen.plan
    other = next(
        candidate.plan
        for candidate in plan_queries(specification, profiles)[first.query].plans
        if candidate.plan.configuration != chosen.configuration
    )
    split = QueryPlan.split([PlanShare(0.7, chosen), PlanShare(0.3, other)])
    served = {first.query: plans.estimate_of(first.query, split)} | {a.query: a.chosen for a in others}
    loads = merge_loads(served.values())
    demands = {use.deployment: use.demand for candidate in served.values() for use in candidate.deployments}
    deployments = tuple(
        SizedDeployment(deployment, demands[deployment], (0,) * load.replicas, load.utilization)
        for deployment, load in loads.deployments.items()
    )
    assignments = tuple(replace(a, chosen=plans.reestimate(served[a.query], loads)) for a in matching.assignments)
    return specification, profiles, replace(matching, assignments=assignments, deployments=deployments)


@pytest.mark.parametrize("seed", (3, 5, 6, 0)[: share_of(4)])
def test_a_split_plan_is_simulated_with_all_its_requests(seed: int) -> None:
    specification, profiles, matching = _with_a_split_plan(seed)
    assert specification.infrastructure is not None
    network = Network(specification.infrastructure)
    planned = simulation_inputs(specification, profiles, matching)
    assert len(planned[0].profiles) == len(matching.assignments[0].chosen.parts) == 2
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    found = (
        check_by_simulation(matching, planned, network, early_risk=0.0, executions=1e6).matching.assignments[0].chosen
    )
    assert found.estimate.simulated
    assert found.plan == matching.assignments[0].chosen.plan
    again = simulate(planned, replicas, network, duration_s=5000.0, seed=seed + 100).queries[0]
    assert found.estimate.latency_s.value == pytest.approx(again.at_percentile_s.value, rel=0.25)
    for factor, kept in ((0.1, False), (10.0, True)):
        limit = LatencySlo(percentile=95.0, limit_s=factor * found.estimate.latency_s.upper)
        limited = [replace(one, query=with_slos(one.query, Slos(latency=limit))) for one in planned]
        verdict = check_by_simulation(matching, limited, network, restrict_to=[planned[0].query.name], executions=1e6)
        assert (planned[0].query.name not in verdict.violated) == kept


def test_of_a_split_plan_that_a_simulation_refutes_only_the_late_part_is_excluded() -> None:
    specification, profiles, matching = _with_a_split_plan(3)
    chosen = matching.assignments[0].chosen
    name, network = chosen.query, Network(specification.required_infrastructure)
    planned = simulation_inputs(specification, profiles, matching)
    slow = max(chosen.parts, key=lambda part: part.estimate.latency_s.value)
    fast_s = min(part.estimate.latency_s.value for part in chosen.parts)
    limit = Slos(latency=LatencySlo(percentile=95.0, limit_s=(fast_s + slow.estimate.latency_s.value) / 2))
    limited = [replace(planned[0], query=with_slos(planned[0].query, limit)), *planned[1:]]
    found = check_by_simulation(matching, limited, network, restrict_to=[name], executions=3e5)
    assert found.late_parts == {name: slow.plan}

    plans = PlanEstimates(specification, profiles)
    plans.exclude_part(name, slow.plan)
    query = next(query for query in specification.queries if query.name == name)
    assert plans.sized_candidate(query, chosen.plan) is None
    assert not plans.may_be_part(name, slow.plan)
    assert all(plans.may_be_part(name, part.plan) for part in chosen.parts if part.plan != slow.plan)
    assert plans.sized_candidate(query, slow.plan) is not None
    plans.exclude_part(name, None)
    assert not any(plans.may_be_part(name, part.plan) for part in chosen.parts)


def _lone(seed: int) -> tuple[Sequence[PlannedQuery], Network, Matching]:
    """A query at a low rate with a plan that meets its SLOs by formula."""
    specification, profiles = random_specification(seed, queries=1)
    (query,) = specification.queries
    slos = query.slos.model_copy(update={"cost": None})
    query = query.model_copy(update={"rate_per_s": 0.02, "slos": slos})
    specification = replace(specification, queries=(query,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_all, "check_by_simulation", lambda matching, *_, **__: SimulationCheck(matching, {}))
        matching, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    planned = simulation_inputs(specification, profiles, matching)
    return planned, Network(specification.required_infrastructure), matching


@pytest.mark.parametrize("seed", [75, 153])
def test_which_items_were_drawn_counts_once(seed: int) -> None:
    """Of 20 items, the slowest is exactly 5 % of the requests: a simulated p95 is at that item or at the next one."""
    planned, network, matching = _lone(seed)
    estimate, query = matching.assignments[0].chosen.estimate, planned[0].query
    latency = query.slos.latency
    assert latency is not None
    assert latency.is_met_by(estimate.latency_s.upper)
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    model = build_model(planned, replicas, network, with_margins=True)
    simulation = Simulation(model.stations, model.queries, duration_s=1e6, seed=seed)
    simulation.run()
    late = simulation.merged_run(model.parts[0]).latency_s > latency.limit_s
    assert late.mean() < 0.01
    found = check_by_simulation(matching, planned, network)
    assert found.matching.assignments[0].chosen.estimate.simulated
    assert not found.violated
    below_s = 0.95 * estimate.latency_s.upper  # the slowest item takes longer
    limited = [replace(planned[0], query=with_slos(query, Slos(latency=LatencySlo(percentile=95.0, limit_s=below_s))))]
    assert check_by_simulation(matching, limited, network).violated


def test_a_simulation_goes_on_while_sections_have_too_few_requests_for_a_verdict() -> None:
    """The slowest of 20 items is drawn for a tenth of the requests, so that all requests refute the plan at once."""
    planned, network, matching = _lone(153)
    (assignment,) = matching.assignments
    latency, allowance = planned[0].query.slos.latency, assignment.chosen.estimate.times_allowance
    assert latency is not None
    assert allowance is not None
    slow_s = 0.99 * latency.limit_s / allowance
    model = build_model(planned, {sized.deployment: sized.replicas for sized in matching.deployments}, network)

    def decided(requests: int) -> bool:
        items = np.where(np.arange(requests) % 10 == 0, 0, 1 + np.arange(requests) % 19)
        arrival_s, never = np.arange(requests, dtype=np.float64), np.full(requests, np.inf)
        done_s = arrival_s + np.where(items == 0, slow_s, 0.5 * slow_s)
        run = QueryRun(model.queries[0], arrival_s, items, done_s, never)
        return simulation_check._CheckedQuery(assignment, planned[0], [[run]]).is_decided(requests, requests, 0.99)

    assert not decided(600)
    assert decided(60_000)


def test_a_simulation_goes_on_until_the_percentile_has_an_upper_bound() -> None:
    planned, network, matching = _lone(83)
    found = check_by_simulation(matching, planned, network)
    assert not found.violated
    assert math.isfinite(found.matching.assignments[0].chosen.estimate.latency_s.upper)


def test_each_part_of_a_split_plan_has_its_own_allowance_for_few_items() -> None:
    specification, profiles, matching = _with_a_split_plan(3)
    assert specification.infrastructure is not None
    network = Network(specification.infrastructure)
    planned = simulation_inputs(specification, profiles, matching)
    first, *others = matching.assignments
    uppers_s = []
    for factors in ((1.0, 1.0), (2.0, 2.0), (2.0, 1.0), (1.0, 2.0)):
        parts = tuple(
            replace(part, estimate=replace(part.estimate, latency_s=Interval(1.0, 1.0, factor)))
            for part, factor in zip(first.chosen.parts, factors, strict=True)
        )
        allowed = replace(first, chosen=replace(first.chosen, parts=parts))
        check = check_by_simulation(replace(matching, assignments=(allowed, *others)), planned, network, executions=3e5)
        uppers_s.append(check.matching.assignments[0].chosen.estimate.latency_s.upper)
    exact_s, both_s, *one_s = uppers_s
    assert both_s == pytest.approx(2 * exact_s)
    assert all(exact_s <= upper_s <= both_s for upper_s in one_s)
    assert sum(one_s) > 2 * exact_s


def _with_slow_plans(
    monkeypatch: pytest.MonkeyPatch, slow: Callable[[str, int], bool], times: float
) -> tuple[Specification, Matching, list[dict[str, QueryPlan]]]:
    """Plans of which a simulation finds some `times` as slow as the limit: by query and how many were found before."""
    specification, profiles, _ = _bursty(5)
    slos = {query.name: query.slos for query in specification.queries}
    rounds: list[dict[str, QueryPlan]] = []

    def simulated(
        matching: Matching,
        planned: Sequence[PlannedQuery],
        network: Network,
        *,
        restrict_to: Collection[str] | None = None,
        **_: object,
    ) -> SimulationCheck:
        missed, limits = {}, {plan.query.name: plan.query.slos.latency for plan in planned}
        for assignment in matching.assignments:
            name, latency = assignment.query, slos[assignment.query].latency
            assert latency is not None
            if limits[name].limit_s >= latency.limit_s * times:
                continue
            if slow(name, sum(name in found for found in rounds)):
                seen = Interval.exact(latency.limit_s * times)
                missed[name] = replace(
                    assignment.chosen, estimate=replace(assignment.chosen.estimate, latency_s=seen, simulated=True)
                )
        if restrict_to is None:
            rounds.append({name: candidate.plan for name, candidate in missed.items()})
        return SimulationCheck(matching, {n: c for n, c in missed.items() if restrict_to is None or n in restrict_to})

    monkeypatch.setattr(plan_all, "check_by_simulation", simulated)
    monkeypatch.setattr(admission, "check_by_simulation", simulated)
    matching, _ = plan_all_queries(specification, profiles, settings=SIMPLE)  # of all plans, rounds would repeat
    return specification, matching, rounds


def _served(matching: Matching) -> set[str]:
    return {assignment.query for assignment in matching.assignments}


def test_a_query_whose_every_plan_is_slower_in_the_simulation_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    specification, matching, rounds = _with_slow_plans(monkeypatch, lambda name, _: name == "q1", 1.5)
    assert "q1" in rounds[0], "an instance that serves it by formulas"
    assert "q1" not in [assignment.query for assignment in matching.assignments]
    assert not rounds[-1]
    ends = [number for number, found in enumerate(rounds) if not found]
    for start, end in pairwise((-1, *ends)):  # of each matching
        tried = [found["q1"] for found in rounds[start + 1 : end]]
        assert len(set(tried)) == len(tried)
    (rejection,) = [rejection for rejection in matching.rejections if rejection.query == "q1"]
    assert "simulation" in rejection.reason
    assert rejection.binding == ("latency",)
    weight = sum(query.weight for query in specification.queries if query.name in {"q1", *_served(matching)})
    assert matching.weight_bound >= weight, "next to other plans, no plan was refuted"
    assert not matching.optimal
    (asked,) = [query.slos.latency for query in specification.queries if query.name == "q1"]
    assert asked is not None
    assert rejection.relaxation is not None
    relaxed = rejection.relaxation.slos.latency
    assert relaxed is not None
    assert relaxed.limit_s == pytest.approx(1.5 * asked.limit_s, rel=0.1)


@pytest.mark.parametrize("most_exact", [MATCHING.max_exact_queries, 1], ids=["few queries", "many queries"])
def test_a_query_gets_another_plan_than_the_one_that_is_slower_in_the_simulation(
    monkeypatch: pytest.MonkeyPatch, most_exact: int
) -> None:
    monkeypatch.setattr("circinus.matching.search.MATCHING", replace(MATCHING, max_exact_queries=most_exact))
    _, matching, rounds = _with_slow_plans(monkeypatch, lambda name, before: name == "q1" and not before, 1.5)
    first = rounds[0]["q1"]
    assert len(rounds) == 2
    for assignment in matching.assignments:
        assert (assignment.query, assignment.chosen.plan) != ("q1", first)
        if assignment.query == "q1" and assignment.ladder is not None:
            assert first not in [rung.candidate.plan for rung in assignment.ladder.rungs]


def test_repeated_matchings_share_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_s, now_s, limits_s, answered = SIMPLE.limit_s(6), 0.0, list[float](), plan_all.answer_of

    def answer(*arguments: Any, settings: MatchSettings, **options: Any) -> Answer:
        nonlocal now_s
        now_s += 0.6 * limit_s
        limits_s.append(settings.limit_s(6))
        return answered(*arguments, settings=replace(settings, time_limit_s=HANG_LIMIT_S), **options)

    _bursty(5)  # its own matching would count
    monkeypatch.setattr(plan_all, "answer_of", answer)
    monkeypatch.setattr(plan_all, "time", SimpleNamespace(monotonic=lambda: now_s))
    _with_slow_plans(monkeypatch, lambda name, before: name == "q1" and before < 2, 1.5)
    assert limits_s[:3] == pytest.approx([limit_s, 0.4 * limit_s, 0.1 * limit_s])


def _surely(speed: float) -> HardwareClass:
    """Surely as fast, and very likely twice as fast."""
    return HardwareClass(name="sure", relative_speed=2 * speed, relative_speed_bounds=(speed, 3 * speed))


def test_hardware_is_simulated_as_fast_as_it_surely_is() -> None:
    specification, profiles, matching = _bursty(3)
    infrastructure = specification.infrastructure
    assert infrastructure is not None
    planned = simulation_inputs(specification, profiles, matching)
    assert planned
    pools = tuple(pool.model_copy(update={"hardware": _surely(pool.hardware.speed)}) for pool in infrastructure.pools)
    faster = Network(infrastructure.model_copy(update={"pools": pools}))
    assert check_by_simulation(matching, planned, faster) == check_by_simulation(
        matching, planned, Network(infrastructure)
    )


def test_too_few_requests_for_a_far_percentile_leave_the_estimate_as_it_is() -> None:
    specification, profiles, matching = _bursty(3)
    assert specification.infrastructure is not None
    far = replace(
        matching,
        assignments=tuple(
            replace(a, chosen=replace(a.chosen, estimate=replace(a.chosen.estimate, percentile=99.99999)))
            for a in matching.assignments
        ),
    )
    found = check_by_simulation(
        far, simulation_inputs(specification, profiles, far), Network(specification.infrastructure)
    )
    assert found == SimulationCheck(far, {})


def test_only_what_is_doubted_is_simulated() -> None:
    specification, profiles, matching = _bursty(3)
    assert specification.infrastructure is not None
    plain, doubted = (
        [
            replace(a, chosen=replace(a.chosen, estimate=replace(a.chosen.estimate, caveats=caveats, simulated=False)))
            for a in matching.assignments
        ]
        for caveats in ((), ("in doubt",))
    )
    mixed = replace(matching, assignments=(plain[0], *doubted[1:]))
    found = check_by_simulation(
        mixed, simulation_inputs(specification, profiles, mixed), Network(specification.infrastructure)
    )
    first, *others = found.matching.assignments
    assert first == plain[0]
    assert others
    assert all(assignment.chosen.estimate.simulated for assignment in others)


def test_bursts_that_nothing_comes_in_are_not_drawn_without_end() -> None:
    """Once in a million seconds a request, and every tenth of a second a burst."""
    specification, profiles, matching = _bursty(3)
    assert specification.infrastructure is not None
    planned = simulation_inputs(specification, profiles, matching)
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    model = build_model(planned, replicas, Network(specification.infrastructure))
    rare = [
        replace(
            one,
            query=one.query.model_copy(update={"rate_per_s": 1e-6}),
            arrivals=MarkovModulatedPoisson((2e-6, 1e-7), (0.05, 0.05)),
        )
        for one in planned
    ]
    assert simulation_horizon_s(rare, model, 1e6) / 0.1 <= 1e6


@pytest.mark.usefixtures("few_targets")
def test_a_doubtful_plan_that_is_refuted_excludes_no_other_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    specification, profiles = random_specification(101, queries=6)
    running, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    rest = replace(running, assignments=tuple(a for a in running.assignments if a.query != "q5"))
    (q5,) = [query for query in specification.queries if query.name == "q5"]
    planner = admission.AdmissionPlanner.of(specification, profiles, rest)
    frontier = plan_queries(specification, profiles)["q5"]
    monkeypatch.setattr(admission, "check_by_simulation", _refuting)
    wider = replace(
        frontier, candidates=planner.plans.on_deployments(q5, planner.running.deployments, any_latency=True)
    )
    found, _ = planner.admit(q5, wider, max_simulations=1)
    assert found.simulations == 1
    assert found.rejection is not None
    assert found.rejection.binding == ("latency",)
    assert "by formula" not in found.rejection.reason, "most plans were not simulated"


def _refuting(matching: Matching, *_: object, unconfirmed: Collection[str], **__: object) -> SimulationCheck:
    return SimulationCheck(matching, {a.query: a.chosen for a in matching.assignments if a.query in unconfirmed})
