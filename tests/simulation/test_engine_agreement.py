"""The same requests through the simulation and through the local engine's own code: the same latencies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import virtual_engine

from budget import half_share_of
from circinus.arrays import FloatArray
from circinus.queueing.arrivals import Poisson
from circinus.queueing.fcfs import Station
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Requests, Visit
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.simulation.station_order import feed_forward_order
from circinus.specification import (
    Allocation,
    Deployment,
    LatePolicy,
    Network,
    Pipeline,
    PlanShare,
    Pool,
    QueryPlan,
    SloKind,
    configurations,
)
from circinus.testing.random_fan_outs import random_fan_out, random_runs
from circinus.testing.random_instances import random_infrastructure, random_pipeline, random_profile, random_query

COUNT = 120
"""Requests of each query."""
RICH = (39, 33, 28, 13)
"""Seeds of scenes that have together everything that scenes may have."""
SEEDS = (*RICH, *(seed for seed in range(40) if seed not in RICH))[: half_share_of(40)]


@dataclass(frozen=True)
class Scene:
    """Queries of one pipeline with plans that may share deployments, and their requests."""

    planned: list[PlannedQuery]
    requests: list[Requests]
    replicas: dict[Deployment, int]
    network: Network

    @property
    def model(self) -> SimulationModel:
        return build_model(self.planned, self.replicas, self.network)

    def simulated(self, *ends_s: float) -> list[FloatArray]:
        """(requests,) latencies of every query."""
        model = self.model
        simulation = Simulation(model.stations, model.queries, duration_s=100.0, requests=self.requests)
        for until_s in ends_s:
            simulation.advance(until_s)
        simulation.run()
        return [run.latency_s for run in simulation.runs]


def scene(
    seed: int,
    batch_sizes: tuple[int, ...] = (1, 2, 3, 5),
    late: LatePolicy = LatePolicy.ANSWER,
    *,
    has_fan_outs: bool = False,
) -> Scene:
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(
        rng, knobs=[1] * int(rng.integers(1, 6)), chain=rng.random() < 0.3, batch_sizes=batch_sizes
    )
    waits_s = rng.choice([0.0, 0.0, 0.05, 0.4], len(pipeline.operators))
    operators = tuple(
        operator.model_copy(update={"batch_wait_s": float(wait_s)})
        for operator, wait_s in zip(pipeline.operators, waits_s, strict=True)
    )
    pipeline = pipeline.model_copy(update={"operators": operators})
    if has_fan_outs:
        pipeline = random_fan_out(rng, pipeline)
    infrastructure = random_infrastructure(rng, sites=3, pools=int(rng.integers(3, 5)))
    network = Network(infrastructure)
    (profile,) = random_profile(rng, pipeline, items=3 * COUNT).configurations
    if has_fan_outs:
        profile = random_runs(rng, pipeline, profile)
    plan = _plan(rng, pipeline, infrastructure.pools, None)
    # Every request carries an item of its own: services that end at the same time by chance end in any order.
    items = iter(rng.permutation(3 * COUNT).reshape(3, COUNT))
    planned, requests = [], []
    replicas: dict[Deployment, int] = {}
    busy_s = sum(float(o.service_s.mean()) for o in profile.operators.values()) / len(operators)
    for number in range(int(rng.integers(1, 4))):
        plan = _plan(rng, pipeline, infrastructure.pools, plan)
        query = random_query(rng, pipeline, name=f"q{number}", source=str(rng.choice(["device", "edge", "cloud"])))
        slos = query.slos
        if slos.latency is not None:  # some limits that are late for most requests, and some for few
            slos = slos.replaced(SloKind.LATENCY, slos.latency.with_limit(slos.latency.limit_s * 4.0 ** (seed % 3)))
        query = query.model_copy(update={"late": late, "slos": slos})
        planned.append(PlannedQuery(query, pipeline, plan, profile, Poisson(1.0)))
        arrival_s = np.cumsum(rng.exponential(busy_s / rng.uniform(0.3, 1.5), COUNT))
        requests.append(Requests(arrival_s, next(items)))
        for operator in pipeline.operators:
            replicas.setdefault(plan.deployment_of(operator.name), int(rng.integers(1, 4)))
    return Scene(planned, requests, replicas, network)


def _plan(rng: np.random.Generator, pipeline: Pipeline, pools: tuple[Pool, ...], like: QueryPlan | None) -> QueryPlan:
    """Operators anywhere, or mostly where they are in another plan."""
    placement, allocations = {}, {}
    for operator in pipeline.operators:
        name = operator.name
        if like is not None and rng.random() < 0.7:
            placement[name], allocations[name] = like.pool_of(name), like.allocation_of(name)
        else:
            placement[name] = str(rng.choice([pool.name for pool in pools]))
            allocations[name] = Allocation(1.0, int(rng.choice(operator.batch_sizes)), 0.5)
    (configuration,) = configurations(pipeline)
    return QueryPlan(pipeline.name, configuration, tuple(sorted(placement.items())), tuple(sorted(allocations.items())))


@pytest.mark.parametrize("late", LatePolicy)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_takes_as_long_as_in_the_engine(seed: int, late: LatePolicy) -> None:
    """At once, and window by window, some of which end when a request arrives."""
    found = scene(seed, late=late)
    expected = virtual_engine.served(found.planned, found.requests, found.replicas, found.network)
    arrivals_s = np.sort(np.concatenate([one.arrival_s for one in found.requests]))
    for simulated in (found.simulated(), found.simulated(*arrivals_s[[20, 40, 80]].tolist())):
        for one, other in zip(simulated, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("late", LatePolicy)
@pytest.mark.parametrize("seed", range(half_share_of(40)))
def test_every_request_with_elements_and_branches_takes_as_long_as_in_the_engine(seed: int, late: LatePolicy) -> None:
    found = scene(seed, late=late, has_fan_outs=True)
    expected = virtual_engine.served(found.planned, found.requests, found.replicas, found.network)
    for one, other in zip(found.simulated(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("late", LatePolicy)
@pytest.mark.parametrize("seed", SEEDS[: half_share_of(12)])
def test_requests_of_a_split_plan_take_the_parts_that_routers_choose(seed: int, late: LatePolicy) -> None:
    found, rng = scene(seed, late=late), np.random.default_rng(seed)
    first, *others = found.planned
    other = first.plan
    while other == first.plan:
        other = _plan(rng, first.pipeline, found.network.infrastructure.pools, first.plan)
    plan = QueryPlan.split([PlanShare(0.6, first.plan), PlanShare(0.4, other)])
    planned = [replace(first, plan=plan, other_profiles=(first.profile,)), *others]
    replicas = dict.fromkeys(plan.deployments, 1) | found.replicas
    model = build_model(planned, replicas, found.network)
    requests = [
        its.of_part(model.queries[part])
        for its, parts in zip(found.requests, model.parts, strict=True)
        for part in parts
    ]
    simulation = Simulation(model.stations, model.queries, duration_s=100.0, requests=requests)
    simulation.run()
    expected = virtual_engine.served(planned, found.requests, replicas, found.network)
    for parts, one in zip(model.parts, expected, strict=True):
        np.testing.assert_allclose(simulation.merged_run(parts).latency_s, one, rtol=0, atol=1e-9)


def test_scenes_have_batches_shared_deployments_and_requests_that_come_back() -> None:
    scenes = [scene(seed) for seed in RICH]
    batched = shared = joined = parted = back = 0
    for found in scenes:
        model = found.model
        visits = [visit for query in model.queries for visit in query.visits]
        batched += any(station.batch_size > 1 and station.batch_wait_s for station in model.stations)
        shared += len({*model.deployments}) < sum(len(one.plan.placement) for one in found.planned)
        joined += any(len(visit.after) > 1 for visit in visits)
        parted += any(len(query.sink_visits) > 1 for query in model.queries)
        back += feed_forward_order(model.queries, len(model.stations)) is None
    assert min(batched, shared, joined, parted, back) >= 2


def test_outputs_of_a_batch_leave_in_the_order_of_the_batch_each_to_all_its_sites() -> None:
    """A batch of two, whose outputs are sent to two sites over the same first link: a to both, then b to both."""
    station = Station("batches", 1, (1.0, 1.0))
    one_s = np.ones(1)
    visits = (Visit(0, (), one_s), Visit(1, (0,), one_s), Visit(1, (0,), one_s))
    query = QueryModel("q", Poisson(1.0), 1, visits, (1, 2))
    requests = [Requests(np.zeros(2), np.zeros(2, dtype=np.int64))]
    simulation = Simulation([station, Station("link", 1)], [query], duration_s=10.0, requests=requests)
    simulation.run()
    np.testing.assert_array_equal(simulation.runs[0].done_s, [3.0, 5.0])
