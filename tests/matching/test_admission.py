"""One more query beside what runs, against trying each of its plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, half_share_of, seeds, share_of
from circinus.estimation import merge_loads
from circinus.matching import Matching, MatchSettings, Rejection, admit_query, match, plan_all_queries
from circinus.matching.admission import AdmissionPlanner, running_state
from circinus.matching.admission_control import AdmissionControl
from circinus.matching.admission_decision import add_admitted, admit
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.simulation_check import SimulationCheck
from circinus.planning import plan_queries
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.specification import BurstyArrivals, Infrastructure, Query, Specification, Tenant
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE
from random_matchings import Instance, all_answers, checked_cost, frontiers_of, random_instance, reestimate

SEEDS = st.integers(0, 10**6)
PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


def _running(seed: int, queries: int = 4) -> tuple[Instance, Matching, AdmissionControl]:
    """An instance whose last query is not served yet; the others have one plan each, or none."""
    instance = random_instance(seed, queries=queries)
    *others, last = instance.queries
    fewer = Instance(instance.infrastructure, tuple(others), {q.name: instance.candidates[q.name] for q in others})
    answers = [plans for _, _, plans in all_answers(fewer)]
    plans = {plan.query: plan for plan in answers[int(np.random.default_rng(seed).integers(len(answers)))]}
    only = {q.name: (plans[q.name],) if q.name in plans else () for q in others}
    ran = match(frontiers_of(replace(fewer, candidates=only)), instance.infrastructure, reestimate, settings=PATIENT)
    whole = replace(instance, candidates={**only, last.name: instance.candidates[last.name]})
    served = {a.query: plans[a.query] for a in ran.assignments}
    beside = AdmissionControl(
        [q for q in others if q.name in served],
        served,
        ran.deployments,
        instance.infrastructure,
        reestimate,
    )
    return whole, ran, beside


@settings(max_examples=half_share_of(100))
@example(113)  # a plan that would add less breaks an objective
@given(SEEDS)
def test_it_gets_the_plan_that_listing_finds_and_the_others_keep_theirs(seed: int) -> None:
    instance, ran, beside = _running(seed)
    last = instance.queries[-1]
    kept = tuple(instance.candidates[a.query][0] for a in ran.assignments)
    costs = [checked_cost(instance, (*kept, plan)) for plan in instance.candidates[last.name]]
    found = admit(beside, ran, frontiers_of(instance)[last.name])
    if all(cost is None for cost in costs):
        assert found.assignment is None
        assert found.rejection is not None
        assert found.rejection.query == last.name
        return
    assert found.rejection is None
    assert found.assignment is not None
    after = add_admitted(beside, ran, found, instance.queries)
    assert after.cost_usd_per_h == pytest.approx(min(cost for cost in costs if cost is not None), abs=1e-9)
    assert [a.query for a in after.assignments] == [*(a.query for a in ran.assignments), last.name]
    assert [a.chosen.plan for a in after.assignments[:-1]] == [a.chosen.plan for a in ran.assignments]
    shares = sum(a.chosen.estimate.cost_usd_per_h.value for a in after.assignments)
    assert shares == pytest.approx(after.cost_usd_per_h, abs=1e-9)
    assert after.satisfied_weight == pytest.approx(ran.satisfied_weight + last.weight)
    assert after.weight_bound >= after.satisfied_weight - 1e-9
    _check_nodes(instance, after)


def _check_nodes(instance: Instance, found: Matching) -> None:
    for pool in instance.infrastructure.pools:
        load = np.zeros((pool.nodes, 2))
        for sized in found.deployments:
            if sized.deployment.pool == pool.name:
                for node in sized.nodes:
                    load[node] += (sized.demand.cpus, sized.demand.memory_bytes)
        assert np.all(load <= np.array([pool.cpus, pool.memory_bytes]) * (1 + 1e-6))


def test_replicas_that_run_stay_on_their_nodes_where_the_new_ones_go_beside_them() -> None:
    stayed = admitted = 0
    for seed in seeds(60):
        instance, ran, beside = _running(seed)
        found = admit(beside, ran, frontiers_of(instance)[instance.queries[-1].name])
        if found.assignment is None:
            continue
        admitted += 1
        after = {
            sized.deployment: sized.nodes for sized in add_admitted(beside, ran, found, instance.queries).deployments
        }
        stayed += all(set(sized.nodes) <= set(after[sized.deployment]) for sized in ran.deployments)
    assert stayed > 0.7 * admitted > 0


def test_a_refusal_names_what_binds_and_its_price() -> None:
    named = priced = enlarged = 0
    for seed in range(half_share_of(400)):
        instance, ran, beside = _running(seed)
        found = admit(beside, ran, frontiers_of(instance)[instance.queries[-1].name]).explained
        if found.rejection is None or not found.rejection.alternatives:
            continue
        pools = {pool.name for pool in instance.infrastructure.pools}
        for name in found.rejection.binding:
            assert name.startswith("link ") or name in ("latency", "cost") or name.split()[1].rstrip(":") in pools
        assert {price.resource for price in found.binding} <= set(found.rejection.binding)
        if all(name.startswith("pool ") for name in found.rejection.binding):
            larger = beside.with_reestimate(reestimate)
            larger.infrastructure = _enlarged(instance.infrastructure)
            assert admit(larger, ran, frontiers_of(instance)[instance.queries[-1].name]).assignment is not None
            enlarged += 1
        named += found.rejection.reason.startswith("none of its plans fits with the running plans: ")
        priced += bool(found.binding)
    assert named
    assert priced
    assert enlarged


def _planned(
    specification: Specification, queries: Sequence[Query], profiles: Mapping[str, PipelineProfile]
) -> Matching:
    """Return the plans of some queries."""
    some = replace(specification, queries=tuple(queries))
    return plan_all_queries(some, profiles, settings=SIMPLE, explain_rejections=())[0]


def _enlarged(infrastructure: Infrastructure) -> Infrastructure:
    """Return the infrastructure with room for any plan in each pool."""
    pools = tuple(pool.model_copy(update={"nodes": 50, "cpus": 50.0}) for pool in infrastructure.pools)
    return infrastructure.model_copy(update={"pools": pools})


@pytest.mark.parametrize("seed", (4, 6, 8, 0, 1, 2, 3, 5, 7, 9, 10, 11)[: half_share_of(12)])
def test_all_meet_their_slos_beside_an_admitted_query(seed: int) -> None:
    specification, profiles = random_specification(seed, queries=7)
    *most, last = specification.queries
    ran = _planned(specification, most, profiles)
    plans = PlanEstimates(specification, profiles)
    beside = running_state(specification, ran, plans)
    frontier = plan_queries(specification, profiles)[last.name]
    found = admit(beside, ran, frontier, extra_candidates=plans.on_deployments(last, beside.deployments))
    if found.assignment is None:
        return
    slos = {query.name: query.slos for query in specification.queries}
    for assignment in add_admitted(beside, ran, found, specification.queries).assignments:
        assert not assignment.chosen.estimate.violations(slos[assignment.query])


def test_the_load_with_one_more_is_that_of_all_together() -> None:
    """Also of deployments that the new query does not use, behind batches that it makes fuller."""
    grouped = 0
    for seed in (3, 6, 4, 1, 2)[: half_share_of(5)]:
        specification, profiles = random_specification(seed, queries=5, batch_sizes=(4,))
        *most, last = specification.queries
        ran = _planned(specification, most, profiles)
        plans = PlanEstimates(specification, profiles)
        beside = running_state(specification, ran, plans)
        frontier = plan_queries(specification, profiles)[last.name]
        admission = admit(beside, ran, frontier, extra_candidates=plans.on_deployments(last, beside.deployments))
        assert admission.fit is not None
        _, found = admission.fit
        served = [plans.estimate_of(a.query, a.chosen.plan) for a in ran.assignments]
        expected = merge_loads([*served, found.plan], {sized.deployment: sized.replicas for sized in found.deployments})
        assert found.conditions.deployments.keys() == expected.deployments.keys()
        for deployment, load in found.conditions.deployments.items():
            other = expected.deployments[deployment]
            assert load.fill_ratios == other.fill_ratios
            assert load.groups == pytest.approx(other.groups, abs=1e-9)
            assert load.arrival_scv == pytest.approx(other.arrival_scv)
            assert load.traffic.offered_load == pytest.approx(other.traffic.offered_load)
            grouped += load.groups != (1.0,)
    assert grouped


def _with_bursts(specification: Specification) -> Specification:
    arrivals = BurstyArrivals(peak=1.9, burst_s=5.0, every_s=25.0)
    queries = tuple(query.model_copy(update={"arrivals": arrivals}) for query in specification.queries)
    return replace(specification, queries=queries)


def test_what_formulas_doubt_of_the_new_load_is_simulated() -> None:
    shared = 0
    for seed in (6, 3, 2, 8)[: share_of(4)]:
        specification, profiles = random_specification(seed, queries=5)
        specification = _with_bursts(specification)
        ran = _planned(specification, specification.queries[:-1], profiles)
        admission, after = admit_query(specification, profiles, ran, specification.queries[-1].name)
        assert admission.assignment in after.assignments
        before = {a.query: a.chosen for a in ran.assignments}
        for assignment in after.assignments:
            assert assignment.chosen.estimate.simulated
            shared += assignment.query in before and assignment.chosen != before[assignment.query]
    assert shared


@pytest.mark.parametrize("whose", ["q4", "q0"])
def test_a_query_is_refused_beside_whose_plans_somebody_is_too_slow_in_the_simulation(
    monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    specification, profiles = random_specification(3, queries=5)
    specification = _with_bursts(specification)
    ran = _planned(specification, specification.queries[:-1], profiles)
    (limit,) = [query.slos.latency for query in specification.queries if query.name == whose]
    assert limit is not None
    tried = []

    def too_slow(matching: Matching, *_: object, restrict_to: Collection[str], **__: object) -> SimulationCheck:
        assert restrict_to >= {"q4", whose}
        plans = {a.query: a.chosen for a in matching.assignments}
        tried.append(plans["q4"].plan)
        seen = Interval.exact(2 * limit.limit_s)
        slow = replace(plans[whose], estimate=replace(plans[whose].estimate, latency_s=seen))
        return SimulationCheck(matching, {whose: slow})

    monkeypatch.setattr("circinus.matching.admission.check_by_simulation", too_slow)
    admission, after = AdmissionPlanner.of(specification, profiles, ran).admit(specification.queries[-1])
    assert after is ran
    assert len(set(tried)) == len(tried) > 0
    assert admission.rejection is not None
    assert "simulation" in admission.rejection.reason
    assert admission.rejection.binding == ("latency",)


def test_a_query_that_was_left_out_and_its_relaxation() -> None:
    """What is refused is let in under the objectives that the refusal names."""
    relaxed = let_in = 0
    # The first is refused and relaxed, the second is let in, and the third is refused whatever it asks for.
    for seed in (28, 11, 15, 10, 0, 1, 2, 3, 6, 7, 8, 9)[: half_share_of(12)]:
        specification, profiles = random_specification(seed, queries=5, cpus=3.0, nodes=1)
        *most, last = specification.queries
        ran = _planned(specification, most, profiles)
        admission, after = admit_query(specification, profiles, ran, last.name)
        if admission.assignment is not None:
            let_in += 1
            assert after.assignments[-1].query == last.name
            continue
        assert after == ran
        assert admission.rejection is not None
        if admission.rejection.relaxation is None:
            continue
        relaxed += 1
        wider = last.model_copy(update={"slos": admission.rejection.relaxation.slos})
        again, _ = admit_query(replace(specification, queries=(*most, wider)), profiles, ran, last.name)
        assert again.assignment is not None
    assert let_in
    assert relaxed


def test_a_rejected_query_that_weighs_something_else_now_is_counted_once() -> None:
    admitted = 0
    for seed in seeds(40):
        instance, ran, beside = _running(seed)
        last = instance.queries[-1]
        tenants = (Tenant(name="ward", at_least=0.5), Tenant(name="till"))
        places = instance.infrastructure.model_copy(update={"tenants": tenants})
        beside.infrastructure = places
        changed = last.model_copy(update={"weight": 5.0, "tenant": "ward"})
        rejection = Rejection(last.name, "too little room", (), None)
        more = ran.satisfied_weight + 5.0
        known = replace(
            ran,
            rejections=(rejection,),
            total_weight=ran.total_weight + last.weight,
            weight_with_more_changes=more,
        )
        found = admit(beside, known, replace(frontiers_of(instance)[last.name], query=changed))
        if found.assignment is None:
            continue
        admitted += 1
        queries = (*instance.queries[:-1], changed)
        after = add_admitted(beside, known, found, queries)
        weights = {query.name: query.weight for query in queries}
        assert after.satisfied_weight == pytest.approx(sum(weights[a.query] for a in after.assignments))
        assert after.satisfied_weight <= after.weight_bound + 1e-9 <= after.total_weight + 2e-9
        assert not after.rejections
        assert after.weight_with_more_changes == (None if after.satisfied_weight >= more - 1e-9 else more)
        (share,) = after.tenants
        assert (share.tenant, share.satisfied_weight, share.total_weight, share.guaranteed_share) == (
            "ward",
            5.0,
            5.0,
            0.5,
        )
    assert admitted


def test_the_latest_starts_of_a_query_are_those_of_its_source() -> None:
    specification, profiles = random_specification(0, queries=1)
    matching, (query,) = _planned(specification, specification.queries, profiles), specification.queries
    (source,) = {pool.site for pool in specification.required_infrastructure.pools} - {query.source}
    moved, plans = query.model_copy(update={"source": source}), PlanEstimates(specification, profiles)
    before = plans.with_latest_starts(matching)
    after = plans.with_query(moved).with_latest_starts(matching)
    assert after == PlanEstimates(replace(specification, queries=(moved,)), profiles).with_latest_starts(matching)
    assert after != before


def test_all_users_pay_a_share_of_a_deployment_that_no_item_reaches() -> None:
    """As of the expensive model of a cascade that takes all answers of the cheap one."""
    shared = 0
    for seed in (3, 6, 4)[: share_of(3)]:
        specification, profiles = random_specification(seed, queries=5)
        idle = {pipeline.topological_order()[-1].name for pipeline in specification.pipelines.values()}

        def without_load(measured: OperatorProfile, names: Collection[str] = frozenset(idle)) -> OperatorProfile:
            return measured.with_totals(np.zeros_like(measured.service_s)) if measured.operator in names else measured

        profiles = {name: profile.with_operators(without_load) for name, profile in profiles.items()}
        ran = _planned(specification, specification.queries[:-1], profiles)
        _, after = admit_query(specification, profiles, ran, specification.queries[-1].name)
        for found in (ran, after):
            shares = [assignment.chosen.estimate.cost_usd_per_h.value for assignment in found.assignments]
            assert sum(shares) == pytest.approx(found.cost_usd_per_h)
        users = Counter(
            use.deployment for a in after.assignments for use in a.chosen.deployments if use.busy_replicas == 0
        )
        shared += max(users.values(), default=0) > 1
    assert shared
