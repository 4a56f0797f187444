from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from budget import seeds
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, RequestStream, merge_loads
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import MeasuredSamples
from circinus.estimation.stage_latency import _shared_longest_times
from circinus.profiling import ConfigurationProfile, OperatorProfile
from circinus.specification import (
    Allocation,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    KnobValues,
    LatencySlo,
    LatePolicy,
    Link,
    MetricSpec,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    prefix_configuration,
)
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import GIB
from golden import check_message
from planning_instances import all_plans, random_instance
from raised import raises_code

ONE = Allocation(1.0, 1, 0.4)


def _pipeline(after: Mapping[str, tuple[str, ...]], *, batch_sizes: tuple[int, ...] = (1,)) -> Pipeline:
    return Pipeline(
        name="p",
        operators=tuple(
            OperatorSpec(name=name, uses="m:a", after=parents, batch_sizes=batch_sizes)
            for name, parents in after.items()
        ),
        metric=MetricSpec(name="accuracy", uses="m:a"),
        dataset=DatasetSpec(uses="m:a"),
    )


def _profile(
    pipeline: Pipeline,
    services_s: Mapping[str, np.ndarray],
    sizes_bytes: Mapping[str, np.ndarray] | None = None,
    input_bytes: float = 1e5,
    batch_ratio: Mapping[tuple[float, int], float] | None = None,
) -> ConfigurationProfile:
    configuration = Configuration.of({operator.name: KnobValues() for operator in pipeline.operators})
    items = len(next(iter(services_s.values())))
    return ConfigurationProfile(
        configuration=configuration,
        items=np.arange(items),
        scores=np.full(items, 0.9),
        accuracy=Interval(0.9, 0.85, 0.95),
        input_bytes=np.full(items, input_bytes),
        operators={
            name: OperatorProfile(
                operator=name,
                prefix=prefix_configuration(pipeline, configuration, name),
                service_s=service_s,
                output_bytes=(sizes_bytes or {}).get(name, np.full(items, 1000.0)),
                peak_memory_bytes=GIB,
                load_s=1.0,
                batch_ratio=batch_ratio or {(1.0, 1): 1.0},
            )
            for name, service_s in services_s.items()
        },
    )


def _network(
    *,
    speed: float = 1.0,
    speed_bounds: tuple[float, float] | None = None,
    bandwidth: float = 1e6,
    round_trip: float = 0.02,
) -> Network:
    return Network(
        Infrastructure(
            name="i",
            sites=(Site(name="device"), Site(name="edge")),
            pools=tuple(
                Pool(
                    name=site,
                    site=site,
                    tier=site,
                    nodes=20,
                    cpus=4.0,
                    memory=8 * GIB,
                    hardware=HardwareClass(
                        name="h",
                        relative_speed=1.0 if site == "device" else speed,
                        relative_speed_bounds=None if site == "device" else speed_bounds,
                    ),
                    price=price,
                )
                for site, price in (("device", 0.1), ("edge", 0.8))
            ),
            links=(Link(source="device", target="edge", bandwidth=bandwidth, round_trip=round_trip, price=0.05),),
        )
    )


def _query(rate: float = 1.0) -> Query:
    return Query(name="q", pipeline="p", source="device", rate=rate, slos=Slos(latency=LatencySlo(limit=1.0)))


def _plan(profile: ConfigurationProfile, pools: Mapping[str, str], allocation: Allocation = ONE) -> QueryPlan:
    return QueryPlan(
        pipeline="p",
        configuration=profile.configuration,
        placement=tuple(sorted(pools.items())),
        allocations=tuple(sorted((name, allocation) for name in pools)),
    )


def _estimate(
    after: Mapping[str, tuple[str, ...]], services_s: Mapping[str, float], pools: Mapping[str, str], **network: Any
) -> tuple[PlanCandidate, np.ndarray]:
    pipeline = _pipeline(after)
    profile = _profile(pipeline, {name: np.full(10, seconds) for name, seconds in services_s.items()})
    estimator = Estimator(_query(), pipeline, profile, _network(**network))
    plan = _plan(profile, pools)
    return estimator.candidate(plan), estimator.latency_s(plan)


def test_promises_are_made_with_the_speed_that_hardware_surely_has() -> None:
    chain, services_s, pools = {"a": (), "b": ("a",)}, {"a": 0.1, "b": 0.2}, {"a": "device", "b": "edge"}
    bounded, latency_s = _estimate(chain, services_s, pools, speed=0.5, speed_bounds=(0.4, 0.7))
    slow, slow_latency_s = _estimate(chain, services_s, pools, speed=0.4)
    assert bounded.estimate == slow.estimate
    assert bounded.deployments == slow.deployments
    np.testing.assert_array_equal(latency_s, slow_latency_s)
    assert bounded.estimate.stages[1].service_s == pytest.approx(0.2 / 0.4)


def test_one_operator_at_the_source_waits_and_serves_and_nothing_else() -> None:
    candidate, latency_s = _estimate({"a": ()}, {"a": 0.1}, {"a": "device"})
    (stage,) = candidate.estimate.stages
    assert stage.transfer_s == candidate.estimate.return_s == 0
    assert stage.service_s == pytest.approx(0.1)
    # M/D/1 at the target of 40 %, though the query alone keeps the replica busy for 10 %.
    assert stage.wait_s == pytest.approx(0.4 / 0.6 * 0.1 / 2, rel=0.02)
    assert latency_s.mean() == pytest.approx(stage.wait_s + stage.service_s)
    assert candidate.links == ()
    assert candidate.deployments[0].busy_replicas == pytest.approx(0.1)


def test_cost_lies_between_fully_shared_and_alone() -> None:
    candidate, _ = _estimate({"a": ()}, {"a": 0.1}, {"a": "edge"})
    replica = 0.8 / 4  # one of four CPUs; the memory is an eighth
    sent = 1.0 * (1e5 + 1000) * 3600 / 1e9 * 0.05
    cost = candidate.estimate.cost_usd_per_h
    assert candidate.transfer_cost_usd_per_h == pytest.approx(sent)
    assert cost.lower == pytest.approx(replica * 0.1 / 0.4 + sent)
    assert cost.value == cost.upper == pytest.approx(replica + sent)


def test_transfers_there_and_back_are_counted_with_half_a_round_trip_each() -> None:
    candidate, _ = _estimate({"a": ()}, {"a": 0.1}, {"a": "edge"}, bandwidth=1e6, round_trip=0.05)
    (stage,) = candidate.estimate.stages
    sending = 0.1
    assert stage.transfer_s == pytest.approx(0.025 + sending + 0.7 / 0.3 * sending / 2, rel=0.03)
    assert candidate.estimate.return_s == pytest.approx(0.025 + 0.001 + 0.7 / 0.3 * 0.001 / 2, rel=0.03)
    assert {use.link.name: use.bytes_per_s for use in candidate.links} == {
        "device->edge": pytest.approx(1e5),
        "edge->device": pytest.approx(1000),
    }


def test_a_faster_pool_serves_in_less_time() -> None:
    slow, slow_s = _estimate({"a": ()}, {"a": 0.1}, {"a": "edge"}, speed=1.0)
    fast, fast_s = _estimate({"a": ()}, {"a": 0.1}, {"a": "edge"}, speed=4.0)
    assert fast.estimate.stages[0].service_s == pytest.approx(slow.estimate.stages[0].service_s / 4)
    assert (fast_s <= slow_s).all()


def test_parallel_operators_cost_the_slower_one_and_a_value_is_sent_to_a_site_once() -> None:
    after = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    services_s = {"a": 0.01, "b": 0.2, "c": 0.05, "d": 0.01}
    here = dict.fromkeys(after, "device")
    both, _ = _estimate(after, services_s, here | {"b": "edge", "c": "edge"})
    sent = {use.link.name: use.bytes_per_s for use in both.links}
    assert sent["device->edge"] == pytest.approx(1000)  # the output of a, once for b and c
    assert sent["edge->device"] == pytest.approx(2000)  # the outputs of b and c
    chain = {"a": (), "b": ("a",), "d": ("b",)}
    alone_s = _estimate(chain, {name: services_s[name] for name in chain}, dict.fromkeys(chain, "device"))[1]
    all_s = _estimate(after, services_s, here)[1]
    assert (all_s >= alone_s - 1e-12).all()
    assert all_s.mean() < alone_s.mean() + 0.05


def test_the_results_of_all_sinks_go_back() -> None:
    candidate, latency_s = _estimate(
        {"a": (), "b": ("a",), "c": ("a",)}, {"a": 0.01, "b": 0.5, "c": 0.01}, {"a": "edge", "b": "edge", "c": "device"}
    )
    sent = {use.link.name: use.bytes_per_s for use in candidate.links}
    assert sent["edge->device"] == pytest.approx(2000)  # of a to c, and of b to the source
    assert latency_s.min() > 0.5


def test_items_keep_their_correlation_between_operators() -> None:
    pipeline = _pipeline({"a": (), "b": ("a",)})
    long, short = np.full(20, 0.01), np.full(20, 0.01)
    long[:10], short[10:] = 0.2, 0.2
    same = _profile(pipeline, {"a": long, "b": long})
    opposite = _profile(pipeline, {"a": long, "b": short})
    pools = {"a": "device", "b": "device"}
    together = Estimator(_query(0.1), pipeline, same, _network()).latency_s(_plan(same, pools))
    apart = Estimator(_query(0.1), pipeline, opposite, _network()).latency_s(_plan(opposite, pools))
    assert together.mean() == pytest.approx(apart.mean(), rel=1e-6)
    assert together.min() == pytest.approx(0.02)  # a short item is short twice
    assert apart.min() == pytest.approx(0.21)


def test_a_batch_is_charged_as_full_and_takes_as_long_as_it_is_full() -> None:
    pipeline = _pipeline({"a": ()}, batch_sizes=(1, 4))
    profile = _profile(pipeline, {"a": np.full(10, 0.1)}, batch_ratio={(1.0, 1): 1.0, (1.0, 4): 2.0})
    estimator = Estimator(_query(), pipeline, profile, _network())
    candidate = estimator.candidate(_plan(profile, {"a": "device"}, Allocation(1.0, 4, 0.4)))
    assert 0.1 < candidate.estimate.stages[0].service_s < 0.2
    assert candidate.deployments[0].busy_replicas == pytest.approx(0.2 / 4)
    assert candidate.deployments[0].fill_ratios == pytest.approx((1.0, 4 / 3, 5 / 3, 2.0))


@pytest.mark.parametrize("risk", [0.01, 0.25])
def test_the_estimate_of_a_plan_depends_on_no_risk(risk: float) -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.random.default_rng(3).gamma(4.0, 0.025, 64)})
    plan = _plan(profile, {"a": "device"})
    usual, other = (
        Estimator(_query(2.0).model_copy(update={"risk": accepted}), pipeline, profile, _network()).candidate(plan)
        for accepted in (0.05, risk)
    )
    bounds_s = other.estimate.latency_s
    assert bounds_s.lower < usual.estimate.latency_s.value < bounds_s.upper
    assert bounds_s.value == usual.estimate.latency_s.value


@pytest.mark.parametrize("seed", seeds(40))
def test_more_replicas_never_wait_longer_and_bounds_stay(seed: int) -> None:
    instance = random_instance(seed)
    profile = instance.profile.configurations[0]
    estimator = Estimator(instance.query, instance.pipeline, profile, instance.network)
    plan = next(iter(all_plans(instance)), None)
    if plan is None:
        return
    try:
        candidate = estimator.candidate(plan)
    except PlanningError:
        return
    few = merge_loads([candidate])
    more = merge_loads([candidate], {d: load.replicas + 1 for d, load in few.deployments.items()})
    assert (estimator.latency_s(plan, more) <= estimator.latency_s(plan, few) + 1e-9).all()
    assert (estimator.latency_s(plan, few) <= estimator.latency_s(plan) + 1e-9).all(), "a promise is the worst of loads"
    final = estimator.candidate(plan, few).estimate
    assert final.accuracy == candidate.estimate.accuracy
    assert final.cost_usd_per_h.value == pytest.approx(candidate.estimate.cost_usd_per_h.upper)
    assert final.cost_usd_per_h.lower == pytest.approx(candidate.estimate.cost_usd_per_h.lower)


def test_a_shared_deployment_is_paid_by_busy_seconds() -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.full(10, 0.1)})
    candidates, estimators = [], []
    for name, rate in (("q", 1.0), ("r", 5.0)):
        query = _query(rate).model_copy(update={"name": name})
        estimators.append(Estimator(query, pipeline, profile, _network()))
        candidates.append(estimators[-1].candidate(_plan(profile, {"a": "device"})))
    conditions = merge_loads(candidates)
    (load,) = conditions.deployments.values()
    assert load.replicas == 2  # 0.6 busy at a target of 0.4
    assert load.utilization == pytest.approx(0.3)
    costs = [
        estimator.candidate(candidate.plan, conditions).estimate.cost_usd_per_h.value
        for estimator, candidate in zip(estimators, candidates, strict=True)
    ]
    assert costs == pytest.approx([2 * 0.025 / 6, 2 * 0.025 * 5 / 6])


def test_shared_parts_do_not_change_an_estimate() -> None:
    instance = random_instance(12)
    first, *others = instance.profile.configurations
    one = Estimator(instance.query, instance.pipeline, first, instance.network)
    slower = instance.query.model_copy(update={"rate_per_s": 0.95 * instance.query.rate_per_s})
    samples, shared, unshared = MeasuredSamples(latency_percentile(instance.query)), 0, 0
    for profile in others:
        alike = Estimator(instance.query, instance.pipeline, profile, instance.network, template=one)
        fresh = Estimator(instance.query, instance.pipeline, profile, instance.network)
        before = Estimator(slower, instance.pipeline, profile, instance.network, samples=samples)
        after = Estimator(instance.query, instance.pipeline, profile, instance.network, samples=samples)
        for plan in all_plans(instance):
            if plan.configuration == profile.configuration:
                before.candidate(plan)
                begin = _shared_longest_times.cache_info().hits
                candidate = after.candidate(plan)
                middle = _shared_longest_times.cache_info().hits
                assert candidate == fresh.candidate(plan)
                shared += middle - begin
                unshared += _shared_longest_times.cache_info().hits - middle
                assert candidate == alike.candidate(plan)
    assert shared > unshared, "the other query left times"


def test_a_mixture_has_the_moments_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.exponential(1.0, 3000), rng.exponential(0.2, 1000)
    parts = [RequestStream(len(x) / 100, float(x.mean()), float((x**2).mean())) for x in (one, two)]
    both = np.concatenate([one, two])
    merged = RequestStream.merged(parts)
    assert merged.rate_per_s == pytest.approx(40)
    assert merged.mean_s == pytest.approx(both.mean())
    assert merged.scv == pytest.approx(both.var() / both.mean() ** 2)
    assert RequestStream.merged([]) == RequestStream(0.0, 0.0, 0.0)


def test_an_overloaded_deployment_or_link_is_an_error() -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.full(10, 0.1)})
    estimator = Estimator(_query(20.0), pipeline, profile, _network(bandwidth=1e7))
    candidate = estimator.candidate(_plan(profile, {"a": "device"}))
    with raises_code(PlanningError, "deployment.overloaded") as caught:
        merge_loads([candidate], {candidate.deployments[0].deployment: 2})
    assert caught.value.location == f"deployment {candidate.deployments[0].deployment.name}"
    assert "keeps 2 replicas busy" in str(caught.value)
    remote = estimator.candidate(_plan(profile, {"a": "edge"}))
    with raises_code(PlanningError, "link.overloaded") as caught:
        merge_loads([remote] * 6)
    assert caught.value.location == "link device->edge"


def test_a_promise_beyond_the_usable_share_of_a_link_is_an_error() -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.full(10, 0.01)})
    estimator = Estimator(_query(8.0), pipeline, profile, _network(bandwidth=1e6))
    with raises_code(PlanningError, "link.over_target") as caught:
        estimator.candidate(_plan(profile, {"a": "edge"}))
    check_message("estimation/link_over_target", str(caught.value))


def test_what_does_not_belong_together_is_an_error() -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.full(10, 0.1)})
    estimator = Estimator(_query(), pipeline, profile, _network())
    plan = _plan(profile, {"a": "device"})
    with raises_code(PlanningError, "plan.unknown_pool") as caught:
        estimator.candidate(replace(plan, placement=(("a", "moon"),)))
    assert "moon (pools: device, edge)" in str(caught.value)
    with raises_code(PlanningError, "plan.configuration_not_measured") as caught:
        estimator.candidate(replace(plan, pipeline="other"))
    assert "pipeline other" in str(caught.value)
    with raises_code(PlanningError, "plan.wrong_operators") as caught:
        estimator.candidate(replace(plan, allocations=()))
    assert "allocations" in str(caught.value)
    with raises_code(PlanningError, "profile.allocation_not_measured") as caught:
        estimator.candidate(replace(plan, allocations=(("a", Allocation(2.0, 1, 0.4)),)))
    check_message("estimation/allocation_not_measured", str(caught.value))
    remote = estimator.candidate(_plan(profile, {"a": "edge"}))
    with raises_code(PlanningError, "deployment.no_load"):
        estimator.candidate(plan, merge_loads([remote]))


def test_the_estimate_is_near_a_simulated_chain() -> None:
    """Two operators on two sites: every request followed through links and replicas, first come first served."""
    rng = np.random.default_rng(3)
    items = 200
    difficulty = rng.gamma(6.0, 1 / 6, items)
    pipeline = _pipeline({"a": (), "b": ("a",)})
    profile = _profile(pipeline, {"a": 0.05 * difficulty, "b": 0.3 * difficulty}, {"a": 3e4 * difficulty}, 2e5)
    query = _query(4.0)
    estimator = Estimator(query, pipeline, profile, _network(bandwidth=5e6))
    plan = _plan(profile, {"a": "device", "b": "edge"}, Allocation(1.0, 1, 0.7))
    candidate = estimator.candidate(plan)
    conditions = merge_loads([candidate])
    replicas = [conditions.deployments[use.deployment].replicas for use in candidate.deployments]
    predicted = estimator.candidate(plan, conditions).estimate

    count = 40_000
    chosen = rng.integers(0, items, count)
    arrival = np.cumsum(rng.exponential(1 / query.rate_per_s, count))
    done = _served(arrival, 0.05 * difficulty[chosen], replicas[0])
    there = _served(done, 3e4 * difficulty[chosen] / 5e6, 1) + 0.01
    served = _served(there, 0.3 * difficulty[chosen], replicas[1])
    back = _served(served, np.full(count, 1000 / 5e6), 1) + 0.01
    latency = (back - arrival)[500:]
    assert predicted.latency_s.value == pytest.approx(np.quantile(latency, 0.95), rel=0.12)
    assert sum(stage.service_s for stage in predicted.stages) == pytest.approx(0.35, rel=0.02)


def _served(ready: np.ndarray, service: np.ndarray, servers: int) -> np.ndarray:
    order = np.argsort(ready, kind="stable")
    free = np.zeros(servers)
    end = np.empty(len(ready))
    for index in order:
        server = int(free.argmin())
        end[index] = free[server] = max(free[server], ready[index]) + service[index]
    return end


def _loaded_latency_s(service_s: np.ndarray, busy: float) -> Interval:
    """p95 of one replica that requests would keep so busy if each took a tenth of a second in the mean."""
    pipeline = _pipeline({"a": ()})
    profile, query = _profile(pipeline, {"a": service_s}), _query(busy / 0.1)
    estimator = Estimator(query, pipeline, profile, _network())
    plan = _plan(profile, {"a": "device"}, Allocation(1.0, 1, 0.95))
    conditions = merge_loads([estimator.candidate(plan)], {plan.deployment_of("a"): 1})
    return estimator.candidate(plan, conditions).estimate.latency_s


@pytest.mark.parametrize("busy", [0.3, 0.8])
def test_bounds_keep_their_risk_where_few_items_say_how_busy_replicas_are(busy: float) -> None:
    rng = np.random.default_rng(3)

    def drawn(items: int) -> np.ndarray:
        return np.asarray(0.1 * np.exp(0.4 * rng.standard_normal(items) - 0.08))

    truth_s = _loaded_latency_s(drawn(50_000), busy).value
    found, missed = 0, 0
    for _ in range(150):
        service_s = drawn(60)
        if service_s.mean() * busy / 0.1 < 0.95:  # otherwise such a plan would not be looked at
            found += 1
            missed += _loaded_latency_s(service_s, busy).upper < truth_s
    assert found > 100
    assert missed / found < 0.1


def test_where_replicas_may_be_busy_all_the_time_nothing_is_promised() -> None:
    unsure_s = np.tile([0.01, 0.19], 8)
    assert _loaded_latency_s(unsure_s, 0.8).upper >= 1e12
    assert _loaded_latency_s(unsure_s, 0.8).value < 10
    assert _loaded_latency_s(np.full(16, 0.1), 0.8).upper < 10


def test_values_of_one_request_on_one_link_are_doubted() -> None:
    """The input for b is not across yet when the output of a comes to the link."""
    pipeline = _pipeline({"a": (), "b": (), "c": ("a", "b")})
    services_s = dict.fromkeys("abc", np.full(10, 0.001))
    profile = _profile(pipeline, services_s, {"a": np.full(10, 5e4)})
    estimator = Estimator(_query(), pipeline, profile, _network())
    for pools, doubted in (
        ({"a": "device", "b": "edge", "c": "edge"}, True),
        ({"a": "edge", "b": "edge", "c": "edge"}, False),
    ):
        plan = _plan(profile, pools)
        estimate = estimator.candidate(plan, merge_loads([estimator.candidate(plan)])).estimate
        assert ("link device->edge: values of the same request may wait for each other" in estimate.caveats) == doubted


@pytest.mark.parametrize("late", LatePolicy)
def test_formulas_that_know_no_drops_are_doubted_where_requests_are_dropped(late: LatePolicy) -> None:
    pipeline = _pipeline({"a": ()})
    profile = _profile(pipeline, {"a": np.full(10, 0.001)})
    estimator = Estimator(_query().model_copy(update={"late": late}), pipeline, profile, _network())
    plan = _plan(profile, {"a": "edge"})
    estimate = estimator.candidate(plan, merge_loads([estimator.candidate(plan)])).estimate
    assert ("late requests are dropped" in estimate.caveats) == (late is LatePolicy.DROP)


def _unsure_input(bandwidth: float, rate: float) -> PlanCandidate:
    """Inputs whose sizes vary widely cross a link to the edge."""
    pipeline = _pipeline({"a": ()})
    profile = replace(_profile(pipeline, {"a": np.full(16, 1e-4)}), input_bytes=np.tile([1e4, 1.9e5], 8))
    return Estimator(_query(rate), pipeline, profile, _network(bandwidth=bandwidth)).candidate(
        _plan(profile, {"a": "edge"})
    )


def test_few_items_leave_open_how_busy_links_get_by_the_querys_own_values_only() -> None:
    alone = _unsure_input(bandwidth=1e6, rate=6.0).estimate.latency_s
    among = _unsure_input(bandwidth=1e6, rate=0.06).estimate.latency_s
    assert alone.value == pytest.approx(among.value)
    assert alone.upper > 1.3 * among.upper


def test_what_is_not_promised_is_not_said_to_be_likelier_than_what_is() -> None:
    """The bound misses the limit only because the replica may be busier than it seems."""
    rng = np.random.default_rng(0)
    service_s = 0.1 * rng.gamma(4.0, 0.25, 80)
    estimates = {}
    for limit_s in (0.5, 2.0, 8.0):
        pipeline = _pipeline({"a": ()})
        profile = _profile(pipeline, {"a": service_s})
        slos = Slos(latency=LatencySlo(limit=limit_s))
        query = _query(1.0).model_copy(update={"slos": slos})
        plan = _plan(profile, {"a": "device"}, Allocation(1.0, 1, 0.8))
        estimate = Estimator(query, pipeline, profile, _network()).candidate(plan).estimate
        assert estimate.slo_probability is not None
        estimates[limit_s] = (estimate.violations(slos), estimate.slo_probability.latency)
    assert any(missed for missed, _ in estimates.values())
    assert not all(missed for missed, _ in estimates.values())
    for missed, odds in estimates.values():
        assert odds <= 0.95 if missed else odds >= 0.95
