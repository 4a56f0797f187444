from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, QueryEstimators, merge_loads
from circinus.estimation.estimator import latency_percentile
from circinus.matching import plan_all_queries
from circinus.planning import SearchSettings, plan_queries, plan_query
from circinus.planning.planner import sized_plans
from circinus.planning.settings import RunningLoad
from circinus.profiling import ConfigurationProfile, FailedConfiguration, PipelineProfile
from circinus.specification import (
    AccuracySlo,
    CostSlo,
    HardwareClass,
    Infrastructure,
    LatencySlo,
    Link,
    Network,
    Pipeline,
    Pool,
    Query,
    Site,
    Slos,
    Specification,
)
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import GIB, random_infrastructure, random_pipeline, random_profile, random_query
from golden import check_message
from planning_instances import slower
from raised import raises_code


def _chain(seed: int = 0) -> tuple[Pipeline, PipelineProfile]:
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(rng, knobs=(2, 3, 1), chain=True)
    return pipeline, random_profile(rng, pipeline)


def _infrastructure(*, cpus: float = 8.0, devices: int = 1) -> Infrastructure:
    names = [f"device{index}" for index in range(devices)]
    return Infrastructure(
        name="i",
        sites=tuple(Site(name=name) for name in (*names, "edge")),
        pools=(
            *(
                Pool(
                    name=name,
                    site=name,
                    tier="device",
                    cpus=2.0,
                    memory=4 * GIB,
                    hardware=HardwareClass(name="small", relative_speed=0.5),
                    price=0.1,
                )
                for name in names
            ),
            Pool(
                name="edge",
                site="edge",
                tier="edge",
                nodes=2,
                cpus=cpus,
                memory=32 * GIB,
                hardware=HardwareClass(name="large", relative_speed=1.0),
                price=0.8,
            ),
        ),
        links=tuple(Link(source=name, target="edge", bandwidth=1e7, round_trip=0.01) for name in names),
    )


def _query(**slos: object) -> Query:
    return Query(name="q", pipeline="pipeline", source="device0", rate=0.5, slos=Slos(**slos))


def test_several_queries_are_planned_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    pipelines = [random_pipeline(rng, name=name, operators=3) for name in ("one", "two")]
    profiles = {pipeline.name: random_profile(rng, pipeline) for pipeline in pipelines}
    infrastructure = random_infrastructure(rng)
    queries = tuple(
        random_query(rng, pipelines[index % 2], name=f"q{index}").model_copy(update={"risk": risk})
        for index, risk in enumerate((0.05, 0.05, 0.2, 0.05, 0.2))
    )
    specification = Specification({p.name: p for p in pipelines}, infrastructure, queries)
    together = plan_queries(specification, profiles)
    assert list(together) == [query.name for query in queries]
    for query in queries:
        pipeline = specification.pipelines[query.pipeline]
        alone = plan_query(query, pipeline, profiles[query.pipeline], Network(infrastructure))
        assert together[query.name] == alone


def test_a_query_without_objectives_gets_the_plans_that_take_least() -> None:
    pipeline, profile = _chain()
    frontier = plan_query(_query(), pipeline, profile, Network(_infrastructure()))
    assert frontier.candidates
    assert frontier.near_misses == frontier.relaxations == ()
    targets = {a.utilization_target for c in frontier.candidates for _, a in c.plan.allocations}
    assert targets == {0.8}


def test_other_peoples_devices_are_not_used() -> None:
    pipeline, profile = _chain()
    frontier = plan_query(_query(), pipeline, profile, Network(_infrastructure(devices=3)))
    assert {pool for c in frontier.candidates for _, pool in c.plan.placement} == {"device0", "edge"}


def test_candidates_for_final_sizes_fit_beside_running_plans_and_may_add_more_than_the_cost_slo() -> None:
    """Admission decides on the cost: the share of a query may be as low as that of its busy seconds."""
    pipeline, profile = _chain()
    infrastructure = _infrastructure()
    device, edge = infrastructure.pools

    def sized(query: Query, running: RunningLoad, nodes: int = edge.nodes) -> tuple[PlanCandidate, ...]:
        offered = (device.model_copy(update={"nodes": min(nodes, 1)}), edge.model_copy(update={"nodes": nodes}))
        network = Network(infrastructure.model_copy(update={"pools": offered}))
        estimators = QueryEstimators(query, pipeline, network)
        return sized_plans(query, pipeline, profile, network, SearchSettings(running=running), {}, estimators)

    def pools(candidates: Sequence[PlanCandidate]) -> list[set[str]]:
        return [{pool for _, pool in candidate.plan.placement} for candidate in candidates]

    query, nothing = _query(latency=LatencySlo(limit=5.0)), RunningLoad({}, {}, {})
    plans = sized(query, nothing)
    costs = [candidate.estimate.cost_usd_per_h for candidate in plans]
    limit = CostSlo(limit=max(cost.lower for cost in costs))
    assert limit.limit_usd_per_h < min(cost.upper for cost in costs)
    priced = sized(_query(latency=LatencySlo(limit=5.0), cost=limit), nothing)
    assert [candidate.plan for candidate in priced] == [candidate.plan for candidate in plans]
    assert {"device0", "edge"} in pools(plans)
    beside = pools(sized(query, RunningLoad({}, {}, {device.name: np.multiply(device.amounts, device.nodes)})))
    assert beside
    assert all(used == {"edge"} for used in beside)
    path = Network(infrastructure).path("device0", "edge")
    assert path is not None
    assert sized(query, RunningLoad({}, dict.fromkeys(path, 0.7), {})) == ()
    assert sized(query, nothing, nodes=0) == ()


def test_the_cap_is_kept_and_counted() -> None:
    pipeline, profile = _chain()
    network = Network(_infrastructure())
    query = _query(latency=LatencySlo(limit=5.0))
    everything = plan_query(query, pipeline, profile, network, SearchSettings(max_plans=10**6))
    capped = plan_query(query, pipeline, profile, network, SearchSettings(max_plans=4))
    assert len(capped.candidates) == 4
    assert capped.considered["plans excluded from the frontier"] == len(everything.candidates) - 4
    assert capped.candidates[0] == everything.candidates[0]


def test_cutting_labels_is_counted_and_leaves_promised_plans() -> None:
    pipeline, profile = _chain()
    network = Network(_infrastructure())
    query = _query(latency=LatencySlo(limit=5.0))
    whole = plan_query(query, pipeline, profile, network)
    cut = plan_query(query, pipeline, profile, network, SearchSettings(max_labels=2))
    assert "placements dropped at the label limit" not in whole.considered
    assert cut.considered["placements dropped at the label limit"] > 0
    assert cut.candidates
    assert all(not c.estimate.violations(query.slos) for c in cut.candidates)


def test_near_misses_say_what_is_missed() -> None:
    pipeline, profile = _chain()
    best = max(c.accuracy.lower for c in profile.configurations)
    query = _query(latency=LatencySlo(limit=5.0), accuracy=AccuracySlo(threshold=best))
    frontier = plan_query(query, pipeline, profile, Network(_infrastructure()))
    assert len(frontier.near_misses) == 3
    for miss in frontier.near_misses:
        assert miss.violations == ("accuracy",)
        assert miss.reason.startswith("accuracy 0.")
    shortfalls = [best - miss.candidate.estimate.accuracy.lower for miss in frontier.near_misses]
    assert shortfalls == sorted(shortfalls)
    nearer = plan_query(query, pipeline, profile, Network(_infrastructure()), SearchSettings(near_misses=1))
    assert [c.plan for c in nearer.candidates] == [c.plan for c in frontier.candidates]
    assert [miss.candidate.plan for miss in nearer.near_misses] == [frontier.near_misses[0].candidate.plan]


def test_an_error_metric_counts_from_above() -> None:
    pipeline, profile = _chain()
    limit = min(c.accuracy.upper for c in profile.configurations)
    network = Network(_infrastructure())
    kept = plan_query(_query(accuracy=AccuracySlo(threshold=limit, comparison="<=")), pipeline, profile, network)
    assert {c.estimate.accuracy.upper for c in kept.candidates} == {limit}
    slo = AccuracySlo(threshold=limit * 0.9, comparison="<=")
    missed = plan_query(_query(accuracy=slo), pipeline, profile, network)
    assert missed.candidates == ()
    assert [(r.slo, r.limit) for r in missed.relaxations] == [("accuracy", limit)]


@pytest.mark.parametrize(
    ("slos", "words"),
    [
        (
            {"latency": LatencySlo(limit=0.001)},
            r"with the infrastructure to itself, `latency p95 <= [\d.]+m?s` instead of 1ms would do",
        ),
        (
            {"accuracy": AccuracySlo(threshold=0.999)},
            r"itself, `accuracy >= 0\.\d+` \(measured accuracy 0\.\d+\) instead of 0\.999",
        ),
        ({"cost": CostSlo(limit=1e-6)}, r"itself, `cost <= \$.*/h` instead of \$.* would do"),
        (
            {"latency": LatencySlo(limit=0.001), "accuracy": AccuracySlo(threshold=0.999)},
            "utilization targets, even with the infrastructure to itself",
        ),
    ],
)
def test_a_query_without_a_plan_is_told_what_stands_in_the_way(slos: dict[str, object], words: str) -> None:
    pipeline, profile = _chain()
    frontier = plan_query(_query(**slos), pipeline, profile, Network(_infrastructure()))
    assert frontier.candidates == ()
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(frontier.reason)


def test_a_query_that_fits_nowhere_is_told_so() -> None:
    pipeline, profile = _chain()
    network = Network(_infrastructure())
    busy = _query().model_copy(update={"rate_per_s": 1e5})
    assert plan_query(busy, pipeline, profile, network).reason == (
        "operator op0 fits in no pool: pool device0 has too few nodes for the replicas needed at 100000/s; "
        "pool edge has too few nodes for the replicas needed at 100000/s"
    )
    crowded = _query().model_copy(update={"rate_per_s": 40.0})
    small = Network(_infrastructure(cpus=1.0))
    reason = plan_query(crowded, pipeline, profile, small).reason
    assert "fits" in reason
    device = _infrastructure().model_copy(update={"pools": _infrastructure().pools[:1]})
    assert plan_query(_query(), pipeline, profile, Network(device)).reason == (
        "no plan fits in the pools and links that are open to the query, even with the infrastructure to itself: "
        "the operators need at least 3 CPUs, but the pools have 2 CPUs"
    )
    forgetful = _infrastructure().pools[0].model_copy(update={"cpus": 8.0, "memory_bytes": 1.5 * GIB})
    alone = Network(_infrastructure().model_copy(update={"pools": (forgetful,)}))
    assert plan_query(_query(), pipeline, profile, alone).reason.endswith(
        "the operators need at least 1.86 GiB memory, but the pools have 1.5 GiB memory"
    )
    results_only = [link.model_copy(update={"reverse_allowed_traffic": "results"}) for link in _infrastructure().links]
    tiers = zip(pipeline.operators, (["edge"], ["device"], ["device"]), strict=True)
    pinned = pipeline.model_copy(
        update={"operators": tuple(o.model_copy(update={"allowed_tiers": allowed}) for o, allowed in tiers)}
    )
    one_way = Network(_infrastructure().model_copy(update={"links": tuple(results_only)}))
    assert plan_query(_query(), pinned, profile, one_way).reason.endswith(
        "no path of links takes values from the pools of operator op0 (edge) to those of operator op1 (device0)"
    )
    closed = _infrastructure().model_copy(update={"pools": (_infrastructure(devices=2).pools[1],)})
    frontier = plan_query(_query(), pipeline, profile, Network(closed.model_copy(update={"links": ()})))
    assert frontier.reason == (
        "no pool is open to queries from site device0: pool device1 is private to queries from site device1"
    )


def test_an_operator_that_fits_nowhere_is_told_what_keeps_it_out_of_each_pool() -> None:
    pipeline, profile = _chain()
    operators = (pipeline.operators[0].model_copy(update={"allowed_tiers": ("device",)}), *pipeline.operators[1:])
    pinned = pipeline.model_copy(update={"operators": operators})
    infrastructure = _infrastructure(devices=2)
    small = infrastructure.pools[0].model_copy(update={"cpus": 0.5})
    empty = infrastructure.pools[2].model_copy(update={"name": "empty", "nodes": 0})
    pools = (small, *infrastructure.pools[1:], empty)
    network = Network(infrastructure.model_copy(update={"pools": pools}))
    assert plan_query(_query(), pinned, profile, network).reason == (
        "operator op0 fits in no pool: a node of pool device0 has 0.5 CPUs, but a replica needs 1 CPU; "
        "pool edge is on tier edge, but allowed_tiers are device; "
        "pool device1 is private to queries from site device1; pool empty has no nodes"
    )


def test_of_many_closed_pools_a_few_are_named() -> None:
    pipeline, profile = _chain()
    infrastructure = _infrastructure(devices=9)
    closed = infrastructure.model_copy(update={"pools": infrastructure.pools[1:9], "links": ()})
    reason = plan_query(_query(), pipeline, profile, Network(closed)).reason
    assert reason.endswith("pool device4 is private to queries from site device4; and 4 more pools")


def test_what_does_not_belong_together_is_an_error() -> None:
    pipeline, profile = _chain()
    network = Network(_infrastructure())
    query = _query(accuracy=AccuracySlo(threshold=0.5))
    with raises_code(PlanningError, "profile.other_pipeline") as caught:
        plan_query(query, pipeline, replace(profile, pipeline="other"), network)
    check_message("planning/other_pipeline", str(caught.value))
    with raises_code(PlanningError, "profile.risk_too_high") as caught:
        plan_query(query.model_copy(update={"risk": 0.01}), pipeline, profile, network)
    check_message("planning/risk_too_high", str(caught.value))
    specification = Specification({"pipeline": pipeline}, _infrastructure(), (query,))
    with raises_code(PlanningError, "profile.missing") as caught:
        plan_queries(specification, {})
    check_message("planning/no_profile", str(caught.value))
    with raises_code(PlanningError, "specification.no_infrastructure"):
        plan_queries(replace(specification, infrastructure=None), {"pipeline": profile})


def test_configurations_measured_on_different_numbers_of_items_are_planned_together() -> None:
    pipeline, _ = _chain()
    profile = random_profile(np.random.default_rng(1), pipeline, items=100)
    first, *others = profile.configurations
    short = replace_items(first, 60)
    mixed = replace(profile, configurations=(short, *others))
    network = Network(_infrastructure())
    query = _query(latency=LatencySlo(limit=5.0))
    settings = SearchSettings(tolerance=0.0, max_plans=10**6)
    frontier = plan_query(query, pipeline, mixed, network, settings)
    assert first.configuration in {c.plan.configuration for c in frontier.candidates}
    alone = plan_query(query, pipeline, replace(profile, configurations=(short,)), network, settings)
    together = {c.plan: c for c in frontier.candidates}
    for candidate in alone.candidates:
        if candidate.plan in together:
            assert together[candidate.plan] == candidate


def test_what_was_measured_on_few_items_promises_less() -> None:
    """The latency bound includes an allowance for slow items that few items do not show."""
    pipeline, _ = _chain()
    many = random_profile(np.random.default_rng(1), pipeline, items=100)
    few = replace(many, configurations=tuple(replace_items(c, 8) for c in many.configurations))
    network, query = Network(_infrastructure()), _query(latency=LatencySlo(limit=1e3))
    for candidate in plan_query(query, pipeline, few, network).candidates:
        measured = next(c for c in few.configurations if c.configuration == candidate.plan.configuration)
        estimator = Estimator(query, pipeline, measured, network)
        assert (
            candidate.estimate.latency_s.upper > latency_percentile(query).of(estimator.latency_s(candidate.plan)).upper
        )


def test_less_than_eight_items_promise_nothing() -> None:
    pipeline, profile = _chain()
    short = replace_items(profile.configurations[0], 7)
    mixed = replace(profile, configurations=(short, *profile.configurations[1:]))
    found = plan_query(_query(), pipeline, mixed, Network(_infrastructure()), SearchSettings(max_plans=10**6))
    assert short.configuration not in {c.plan.configuration for c in found.candidates}
    alone = replace(profile, configurations=(short,))
    nothing = plan_query(_query(), pipeline, alone, Network(_infrastructure()))
    assert not nothing.candidates
    assert "are measured on at most 7 items, but guarantees need 8" in nothing.reason
    assert nothing.best_effort is not None
    assert (nothing.best_effort.probability, nothing.best_effort.items) == (1.0, 7)  # the query has no SLOs


def test_a_pipeline_that_was_hardly_measured_does_not_hold_up_the_others() -> None:
    rng = np.random.default_rng(5)
    pipelines = [random_pipeline(rng, name=name, operators=2) for name in ("known", "new")]
    profiles = {pipeline.name: random_profile(rng, pipeline) for pipeline in pipelines}
    short = tuple(replace_items(c, 5) for c in profiles["new"].configurations)
    profiles["new"] = replace(profiles["new"], configurations=short)
    queries = tuple(
        Query(name=f"q-{p.name}", pipeline=p.name, source="device", rate=0.5, slos=Slos()) for p in pipelines
    )
    specification = Specification({p.name: p for p in pipelines}, random_infrastructure(rng), queries)
    found = plan_queries(specification, profiles)
    assert found["q-known"].candidates
    assert not found["q-new"].candidates
    assert "no guarantee is possible on pipeline new yet: its configurations are measured on at most 5 items" in (
        found["q-new"].reason
    )
    assert found["q-new"].best_effort is not None
    matching, _ = plan_all_queries(specification, profiles)
    assert [a.query for a in matching.assignments] == ["q-known"]
    (rejection,) = matching.rejections
    assert rejection.reason == found["q-new"].reason
    assert rejection.binding == ("measurements",)
    assert rejection.best_so_far == found["q-new"].best_effort
    profiles["new"] = replace(profiles["new"], configurations=())
    unknown = plan_queries(specification, profiles)["q-new"]
    assert unknown.best_effort is None
    assert unknown.reason.endswith("on at most 0 items, but guarantees need 8; profile longer (`circinus profile`)")
    failure = FailedConfiguration(short[0].configuration, "i7", "found 9 elements, expected at most 8")
    profiles["new"] = replace(profiles["new"], failed=(failure,), unmeasured=0)
    reason = plan_queries(specification, profiles)["q-new"].reason
    assert failure.reason in reason
    assert "profile longer" not in reason  # which would not help


def replace_items(measured: ConfigurationProfile, count: int) -> ConfigurationProfile:
    """Return the configuration restricted to its first `count` items."""
    return replace(
        measured,
        items=measured.items[:count],
        scores=measured.scores[:count],
        input_bytes=measured.input_bytes[:count],
        operators={
            name: replace(found, service_s=found.service_s[:count], output_bytes=found.output_bytes[:count])
            for name, found in measured.operators.items()
        },
    )


def test_a_rejected_query_is_told_that_few_items_may_be_the_reason() -> None:
    pipeline, profile = _chain()
    unsure = replace(
        profile,
        configurations=tuple(replace(c, accuracy=Interval(0.6, 0.4, 0.95)) for c in profile.configurations),
        dataset_items=1_000,
    )
    network = Network(_infrastructure())
    found = plan_query(_query(accuracy=AccuracySlo(threshold=0.9)), pipeline, unsure, network)
    count = len(unsure.configurations)
    assert f"{count} configurations with few measured items may still meet accuracy >= 0.9" in found.reason
    complete = replace(unsure, dataset_items=profile.dataset_items)
    measured = plan_query(_query(accuracy=AccuracySlo(threshold=0.9)), pipeline, complete, network)
    assert "few measured items" not in measured.reason, "no item is left to measure"
    hopeless = plan_query(_query(accuracy=AccuracySlo(threshold=0.96)), pipeline, unsure, network)
    assert "few measured items" not in hopeless.reason
    all_measured = replace(complete, stands_for="requests")
    found = plan_query(_query(accuracy=AccuracySlo(threshold=0.5)), pipeline, all_measured, network)
    assert found.best_effort is not None
    assert found.best_effort.more_items is not None
    slos = {"accuracy": AccuracySlo(threshold=0.5), "latency": LatencySlo(limit=1e-6)}
    too_slow = plan_query(_query(**slos), pipeline, all_measured, network)
    assert too_slow.best_effort is None, "more items would not help"


def test_batches_that_wait_to_fill_do_not_crowd_out_those_that_do_not() -> None:
    """With frequent arrivals full batches would be fast and cheap; rare arrivals wait half a second."""
    rng = np.random.default_rng(5)
    pipeline = random_pipeline(rng, knobs=(1, 1), chain=True, batch_sizes=(1, 8))
    waiting = tuple(operator.model_copy(update={"batch_wait_s": 0.5}) for operator in pipeline.operators)
    pipeline = pipeline.model_copy(update={"operators": waiting})
    profile = slower(random_profile(rng, pipeline), 0.02)
    network = Network(random_infrastructure(rng, sites=1, pools=1))
    for limit_s, batched in ((0.3, 0), (0.8, 1), (2.0, 2)):
        slos = Slos(latency=LatencySlo(limit_s=limit_s))
        query = Query(name="query", pipeline=pipeline.name, source="device", rate_per_s=2.0, slos=slos)
        (cheapest, *_) = plan_query(query, pipeline, profile, network).candidates
        assert sum(allocation.batch_size > 1 for _, allocation in cheapest.plan.allocations) == batched
        estimator = Estimator(query, pipeline, profile.configurations[0], network)
        as_sized = estimator.candidate(cheapest.plan, merge_loads([cheapest])).estimate.latency_s
        assert as_sized.upper <= cheapest.estimate.latency_s.upper * 1.02
