from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from budget import seeds
from circinus.estimation.latest_start import latest_starts_s, remaining_times_s
from circinus.estimation.transfer import INPUT
from circinus.queueing.arrivals import Poisson
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests
from circinus.simulation.model_builder import build_model
from circinus.specification import (
    Allocation,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    LatencySlo,
    MetricSpec,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
)
from circinus.testing.random_instances import random_profile
from planning_instances import all_plans, random_instance


def _with_limit(query: Query, slo: LatencySlo | None) -> Query:
    return query.model_copy(update={"slos": Slos(latency=slo)})


@pytest.mark.parametrize("seed", seeds(12))
def test_a_request_alone_takes_the_time_that_remains_from_its_entry(seed: int) -> None:
    instance = random_instance(seed)
    query, pipeline, network = instance.query, instance.pipeline, instance.network
    profiles = {profile.configuration: profile for profile in instance.profile.configurations}
    for plan in islice(all_plans(instance), 20):
        profile = profiles[plan.configuration]
        remaining = remaining_times_s(query, pipeline, plan, profile, network, max_batch=1)
        planned = PlannedQuery(query, pipeline, plan, profile, Poisson(1.0))
        replicas = {plan.deployment_of(operator.name): 1 for operator in pipeline.operators}
        model = build_model([planned], replicas, network)
        items = np.arange(len(profile.items))
        simulation = Simulation(model.stations, model.queries, duration_s=1.0, requests=[Requests(items * 1e6, items)])
        simulation.run()
        latency_s = simulation.runs[0].latency_s
        if all(len(operator.after) <= 1 for operator in pipeline.operators) and len(pipeline.sinks()) == 1:
            assert remaining[INPUT] == pytest.approx(latency_s, rel=1e-6)
        else:  # values of the request may wait for each other on links
            assert (remaining[INPUT] <= latency_s * (1 + 1e-6)).all()


@pytest.mark.parametrize("seed", seeds(12))
def test_the_latest_start_leaves_the_remaining_time_to_as_many_items_as_the_slo_demands(seed: int) -> None:
    instance = random_instance(seed)
    slo = LatencySlo(percentile=80, limit="1000s")
    query, pipeline, network = _with_limit(instance.query, slo), instance.pipeline, instance.network
    profiles = {profile.configuration: profile for profile in instance.profile.configurations}
    for plan in islice(all_plans(instance), 20):
        profile = profiles[plan.configuration]
        remaining = remaining_times_s(query, pipeline, plan, profile, network)
        starts = latest_starts_s(query, pipeline, plan, profile, network)
        assert starts.keys() == {operator.name for operator in pipeline.operators}
        for operator, start_s in starts.items():
            assert (start_s + remaining[operator] <= 1000 + 1e-9).mean() >= 0.8
            assert (start_s + remaining[operator] < 1000 - 1e-9).mean() < 0.8
        for operator_spec in pipeline.operators:
            assert all(starts[parent] < starts[operator_spec.name] for parent in operator_spec.after)
        tight_slo = LatencySlo(percentile=80, limit_s=float(remaining[INPUT].min()) / 2)
        tight = _with_limit(query, tight_slo)
        single = remaining_times_s(query, pipeline, plan, profile, network, max_batch=1)
        limit_s, entry_s = tight_slo.limit_s, np.quantile(single[INPUT], 0.8, method="inverted_cdf")
        for operator, start_s in latest_starts_s(tight, pipeline, plan, profile, network).items():
            needed_s = np.quantile(single[operator], 0.8, method="inverted_cdf")
            assert start_s == pytest.approx(
                max(limit_s, entry_s + 0.01) - needed_s
            )  # no answer is dropped without a wait
        assert set(latest_starts_s(_with_limit(query, None), pipeline, plan, profile, network).values()) == {math.inf}


@pytest.mark.parametrize("limit_s", [0.64, 0.68, 1.0])
def test_a_request_may_wait_for_its_batch_to_fill(limit_s: float) -> None:
    operator = OperatorSpec(name="read", uses="m:R", cpus=(1.0,), batch_sizes=(8,), batch_wait_s=0.5)
    pipeline = Pipeline(
        name="p", operators=(operator,), metric=MetricSpec(name="m", uses="m:e"), dataset=DatasetSpec(uses="m:d")
    )
    pool = Pool(
        name="server", site="home", tier="edge", cpus=4.0, memory_bytes=2.0**30, hardware=HardwareClass(name="local")
    )
    network = Network(Infrastructure(name="i", sites=(Site(name="home"),), pools=(pool,), links=()))
    (measured,) = random_profile(np.random.default_rng(0), pipeline, items=20).configurations
    read = replace(measured.operators["read"], service_s=np.full(20, 0.1), batch_ratio={(1.0, 1): 1.0, (1.0, 8): 2.0})
    query = Query(name="q", pipeline="p", source="home", rate_per_s=1.0, slos=Slos(latency=LatencySlo(limit_s=limit_s)))
    plan = QueryPlan(
        "p", measured.configuration, placement=(("read", "server"),), allocations=(("read", Allocation(1.0, 8, 0.7)),)
    )
    profile = replace(measured, operators={"read": read})
    assert latest_starts_s(query, pipeline, plan, profile, network)["read"] > 0.5
