"""Plans in simulated time: what they come to without queues, and what is reported."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from budget import seeds
from circinus.errors import PlanningError
from circinus.estimation import Estimator, merge_loads
from circinus.estimation.transfer import INPUT
from circinus.queueing.arrivals import Poisson
from circinus.simulation import PlannedQuery, Progress, engine, simulate
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests
from circinus.simulation.model_builder import build_model
from circinus.simulation.simulate import _score
from circinus.specification import LatencySlo, Network, Slos
from circinus.statistics.interval import Interval
from planning_instances import Instance, all_plans, corrected, measured_there, random_instance, restricted
from raised import raises_code


def _planned(instance: Instance, number: int = 0) -> tuple[PlannedQuery, dict]:
    """One of the instance's plans, with the replicas it needs alone."""
    profile = instance.profile.configurations[0]
    plans = [p for p in all_plans(instance) if p.configuration == profile.configuration]
    estimator = Estimator(instance.query, instance.pipeline, profile, instance.network)
    for plan in plans[number:]:
        try:
            conditions = merge_loads([estimator.candidate(plan)])
        except PlanningError:  # a link that the query alone would fill
            continue
        arrivals = Poisson(instance.query.rate_per_s)
        planned = PlannedQuery(instance.query, instance.pipeline, plan, profile, arrivals, 0.1)
        return planned, {deployment: load.replicas for deployment, load in conditions.deployments.items()}
    pytest.skip("no plan of this instance is possible")


def _alone_s(planned: PlannedQuery, network: Network) -> np.ndarray:
    """(items,) latencies of requests that meet nobody, followed through the DAG by hand."""
    pools = {pool.name: pool for pool in network.infrastructure.pools}
    plan, profile = planned.plan, planned.profile

    def carried_s(size_bytes: np.ndarray, source: str, target: str, *, results: bool = False) -> np.ndarray:
        path = network.path(source, target, results=results) or ()
        return sum((size_bytes / link.bandwidth_bytes_per_s + link.one_way_s for link in path), np.zeros(1))

    source = planned.query.source
    sites, ready, sizes = {INPUT: source}, {INPUT: np.zeros(1)}, {INPUT: profile.input_bytes}
    for operator in planned.pipeline.topological_order():
        pool, measured = pools[plan.pool_of(operator.name)], profile.operators[operator.name]
        allocation = plan.allocation_of(operator.name)
        ratio = measured.batch_ratio_on(pool.hardware)[allocation.cpus, 1]
        begin = np.maximum.reduce(
            [ready[p] + carried_s(sizes[p], sites[p], pool.site) for p in operator.after or (INPUT,)]
        )
        slower = ratio * measured.correction(pool.hardware) / measured.speeds.expected(pool.hardware)
        ready[operator.name] = begin + measured.service_s * slower
        sites[operator.name], sizes[operator.name] = pool.site, measured.output_bytes
    return np.maximum.reduce(
        [ready[s] + carried_s(sizes[s], sites[s], source, results=True) for s in planned.pipeline.sinks()]
    )


@pytest.mark.parametrize("seed", seeds(120))
def test_requests_that_meet_nobody_take_service_and_transfers(seed: int) -> None:
    instance = random_instance(seed)
    if seed % 2:
        instance = corrected(instance)
    if seed % 3 == 2:
        instance = measured_there(instance)
    if seed % 4 == 3:
        instance = restricted(instance)
    planned, replicas = _planned(instance, seed % 5)
    model = build_model([planned], replicas, instance.network)
    items = np.arange(len(planned.profile.items))
    simulation = Simulation(model.stations, model.queries, duration_s=1.0, requests=[Requests(items * 1e6, items)])
    simulation.run()
    np.testing.assert_allclose(simulation.runs[0].latency_s, _alone_s(planned, instance.network), rtol=1e-6, atol=1e-6)


def test_dropped_requests_change_the_accuracy_of_the_plan() -> None:
    planned, _ = _planned(random_instance(1))
    scores = np.linspace(0.4, 0.8, len(planned.profile.items))
    planned = replace(planned, profile=replace(planned.profile, scores=scores, accuracy=Interval(0.7, 0.6, 0.8)))
    items = np.arange(len(scores))
    assert _score(planned, items, items >= 0) == 0.7
    assert _score(planned, items, items == 0) == pytest.approx(0.7 - 0.2)
    assert math.isnan(_score(planned, items, items < 0))


@pytest.mark.parametrize("seed", seeds(48))
def test_the_report_says_what_happened(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WINDOW_EXECUTIONS", 1000)
    monkeypatch.setattr(engine, "_WINDOW_EXECUTIONS_PER_VISIT", 1)
    instance = random_instance(seed)
    planned, replicas = _planned(instance)
    seen: list[Progress] = []
    duration_s = 3000 / instance.query.rate_per_s
    report = simulate(
        [planned], replicas, instance.network, duration_s=duration_s, warm_up_s=duration_s / 10, on_progress=seen.append
    )
    (query,) = report.queries
    assert query.requests == pytest.approx(3000, rel=0.2)
    assert query.rate_per_s == pytest.approx(instance.query.rate_per_s, rel=0.2)
    assert query.latency_s["p50"].value <= query.latency_s["p95"].value <= query.latency_s["p99"].value
    assert query.satisfied == all(query.slos_met.values())
    assert query.dropped or query.score == planned.profile.accuracy.value
    assert report.goodput == (query.weight if query.satisfied else 0.0)
    assert {stage.operator for stage in query.stages} == set(planned.profile.operators)
    for station in (*report.deployments, *report.links):
        assert 0 <= station.utilization <= 1 + 1e-9
        assert station.offered_utilization <= station.utilization + 0.02
    assert [progress.total_s for progress in seen] == pytest.approx([1.1 * duration_s] * len(seen))
    assert len(seen) >= 2
    again = simulate([planned], replicas, instance.network, duration_s=duration_s, warm_up_s=duration_s / 10)
    assert again.queries[0].latency_s == query.latency_s


def test_more_load_takes_longer_and_overload_is_told() -> None:
    instance = random_instance(3)
    planned, replicas = _planned(instance)
    duration_s = 2000 / instance.query.rate_per_s
    once, often = (
        simulate([planned], replicas, instance.network, duration_s=duration_s, load_factor=load) for load in (1.0, 50.0)
    )
    assert often.queries[0].latency_s["p50"].value > once.queries[0].latency_s["p50"].value
    assert max(station.offered_utilization for station in (*often.deployments, *often.links)) > 1
    assert max(station.utilization for station in (*often.deployments, *often.links)) == pytest.approx(1.0, abs=0.05)
    assert max(station.offered_utilization for station in (*once.deployments, *once.links)) < 1


def test_an_hour_is_shortened_where_it_has_too_many_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = random_instance(3)
    planned, replicas = _planned(instance)
    monkeypatch.setitem(simulate.__globals__, "_DEFAULT_EXECUTIONS", 3000)
    load = 1.0 / instance.query.rate_per_s
    whole, shortened = (
        simulate([planned], replicas, instance.network, warm_up_s=None, load_factor=load * factor)
        for factor in (0.1, 100.0)
    )
    assert (whole.is_shortened, whole.duration_s, whole.warm_up_s) == (False, 3600.0, 360.0)
    assert shortened.is_shortened
    assert shortened.executions == pytest.approx(3000, rel=0.2)
    assert shortened.warm_up_s == shortened.duration_s / 10


def test_whether_a_limit_is_surely_kept_is_told() -> None:
    instance = random_instance(7)
    planned, replicas = _planned(instance)
    duration_s = 3000 / instance.query.rate_per_s
    plain = simulate([planned], replicas, instance.network, duration_s=duration_s).queries[0]
    for factor, held, sure in ((0.5, False, True), (1.0, True, False), (2.0, True, True)):
        latency = LatencySlo(percentile=95.0, limit_s=plain.latency_s["p95"].value * factor)
        query = planned.query.model_copy(update={"slos": Slos(latency=latency)})
        found = simulate([replace(planned, query=query)], replicas, instance.network, duration_s=duration_s).queries[0]
        assert (found.slos_met["latency"], found.is_significant) == (held, sure)


def test_what_cannot_be_simulated_is_told() -> None:
    instance = random_instance(3)
    planned, replicas = _planned(instance)
    with raises_code(PlanningError, "plan.no_served_query"):
        simulate([], {}, instance.network, duration_s=1.0)
    with raises_code(PlanningError, "simulation.too_large"):
        simulate([planned], replicas, instance.network, duration_s=1e12)
    with raises_code(PlanningError, "deployment.no_replica"):
        simulate([planned], {}, instance.network, duration_s=1.0)
