"""Tests of the simulated engine, and of the controller on its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore
from circinus.errors import ServingError
from circinus.estimation import QueryEstimators
from circinus.matching import SizedDeployment, plan_all_queries
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import arrival_process
from circinus.queueing.split_sequence import split_part
from circinus.serving import Mode
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests
from circinus.simulation.model_builder import build_model
from circinus.specification import LatePolicy, Network, PlanShare, QueryPlan, Specification
from circinus.testing.random_instances import random_specification
from circinus.testing.simulated_engine import SimulatedEngine
from circinus.testing.simulated_run import run_controlled
from planning_instances import SIMPLE
from raised import raises_code

Profiles = Mapping[str, PipelineProfile]


def _planned(
    seed: int, peak: float = 1.0, late: LatePolicy = LatePolicy.ANSWER, **options: int
) -> tuple[ManagedPlans, Specification, Profiles]:
    specification, profiles = random_specification(seed, **({"queries": 4} | options), cpus=32.0)
    queries = tuple(query.model_copy(update={"late": late}) for query in specification.queries)
    specification = replace(specification, queries=queries)
    matching, _ = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
    assert specification.infrastructure is not None
    deployments = (
        plan_standby(matching, specification.infrastructure, peak).deployments if peak > 1 else matching.deployments
    )
    return ManagedPlans(matching, specification, deployments, Mode.REPLAY, Path("s"), {}), specification, profiles


def _requests(controlled: ManagedPlans, until_s: float, seed: int, times: float = 1.0) -> dict[str, Requests]:
    """Return Poisson requests with a multiple of the planned rate in the second quarter."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, query in controlled.queries.items():
        highest = query.rate_per_s * max(times, 0.8)
        arrival_s = np.sort(rng.uniform(0.0, until_s, rng.poisson(highest * until_s)))
        in_burst = (arrival_s > until_s / 4) & (arrival_s < until_s / 2)
        kept = rng.random(len(arrival_s)) < np.where(in_burst, times, 0.8) / max(times, 0.8)
        found[name] = Requests(arrival_s[kept], rng.integers(20, size=int(kept.sum())))
    return found


async def _looked_at(engine: SimulatedEngine, controlled: ManagedPlans, rng: np.random.Generator) -> None:
    await engine.apply(controlled.desired_state(controlled.initial_ladder_states()))
    while engine.now_s < 200.0:
        engine.advance(engine.now_s + float(rng.exponential(1.0)))
        await engine.status()


@pytest.mark.parametrize(("seed", "late", "times"), [(1, LatePolicy.ANSWER, 1.0), (3, LatePolicy.DROP, 5.0)])
def test_however_often_it_is_looked_at_latencies_are_those_of_a_simulation(
    seed: int, late: LatePolicy, times: float
) -> None:
    controlled, specification, profiles = _planned(seed, late=late)
    requests = _requests(controlled, 60.0, seed, times)
    engine = SimulatedEngine(controlled, profiles, requests, startup_s=5.0)
    asyncio.run(_looked_at(engine, controlled, np.random.default_rng(seed)))
    planned = []
    for assignment in controlled.matching.assignments:
        query, plan = controlled.queries[assignment.query], assignment.chosen.plan
        profile = next(p for p in profiles[query.pipeline].configurations if p.configuration == plan.configuration)
        pipeline = specification.pipelines[query.pipeline]
        planned.append(PlannedQuery(query, pipeline, plan, profile, arrival_process(query)))
    assert specification.infrastructure is not None
    replicas = {d.deployment: d.replicas for d in controlled.deployments}
    model = build_model(planned, replicas, Network(specification.infrastructure))
    plain = Simulation(
        model.stations,
        model.queries,
        duration_s=61.0,
        requests=[
            Requests(requests[one.query.name].arrival_s, requests[one.query.name].items % len(one.profile.items))
            for one in planned
        ],
    )
    plain.run()
    for one, run in zip(planned, plain.runs, strict=True):
        _, latency_s = engine.latency_s(one.query.name)
        np.testing.assert_allclose(latency_s, run.latency_s, rtol=1e-9)
    dropped = {query.query: query.dropped for query in asyncio.run(engine.status()).queries}
    expected = {one.query.name: np.isfinite(run.dropped_s).sum() for one, run in zip(planned, plain.runs, strict=True)}
    assert {name: dropped[name] for name in expected} == expected
    assert (sum(expected.values()) > 0) == (late is LatePolicy.DROP)


def test_a_split_route_sends_each_request_to_one_part() -> None:
    controlled, specification, profiles = _planned(1, queries=1)
    matching, network = controlled.matching, Network(specification.required_infrastructure)
    assignment = matching.assignments[0]
    name, plan = assignment.query, assignment.chosen.plan
    measured = {entry.configuration: entry for entry in profiles[plan.pipeline].configurations}
    other = next(other for other in measured if other != plan.configuration)
    split = QueryPlan.split([PlanShare(0.7, plan), PlanShare(0.3, replace(plan, configuration=other))])
    query, pipeline = controlled.queries[name], specification.pipelines[plan.pipeline]
    chosen = QueryEstimators(query, pipeline, network).candidate(split, measured.__getitem__)
    replicas = dict.fromkeys(split.deployments, 50)
    used = {use.deployment: use.demand for use in chosen.deployments}
    sized = tuple(SizedDeployment(deployment, used[deployment], (0,) * 50, 0.1) for deployment in replicas)
    matching = replace(matching, assignments=(replace(assignment, chosen=chosen, ladder=None),), deployments=sized)
    controlled = ManagedPlans(matching, specification, sized, Mode.REPLAY, Path("s"), {})
    requests = {name: Requests(np.arange(500) / 10.0, np.arange(500) % 20)}
    engine = SimulatedEngine(controlled, profiles, requests, startup_s=5.0)
    asyncio.run(engine.apply(controlled.desired_state(controlled.initial_ladder_states())))
    for now_s in (10.0, 30.0, 100.0):
        engine.advance(now_s)
    _, latency_s = engine.latency_s(name)
    parts = split_part(name, [part.share for part in split.parts], np.arange(500))
    assert np.isfinite(latency_s).all()
    assert parts.mean() == pytest.approx(0.3, abs=0.01)
    for number, part in enumerate(split.parts):
        rows = np.flatnonzero(parts == number)
        planned = PlannedQuery(query, pipeline, part.plan, measured[part.plan.configuration], arrival_process(query))
        model = build_model([planned], replicas, network)
        items = requests[name].items[rows] % len(planned.profile.items)
        apart = Simulation(
            model.stations, model.queries, duration_s=51.0, requests=[Requests(requests[name].arrival_s[rows], items)]
        )
        apart.run()
        # Links are shared by the parts, so their transfers may wait for each other.
        assert np.median(latency_s[rows]) == pytest.approx(np.median(apart.runs[0].latency_s), rel=0.01)


@pytest.fixture(scope="module")
def bursty() -> tuple[ManagedPlans, Profiles]:
    """Return plans that a burst overloads, with standby replicas for their ladders."""
    controlled, _, profiles = _planned(28, peak=3.0, nodes=4)
    assert any(_relieved(controlled, name) for name in controlled.queries)
    return controlled, profiles


def _relieved(controlled: ManagedPlans, name: str) -> bool:
    """Return whether a burst overloads the plan of a query, but not its bottom rung."""
    query, rungs = controlled.queries[name], controlled.rungs[name]
    replicas = {found.deployment: found.replicas for found in controlled.deployments}
    planned, last = rungs[controlled.initial_ladder_states()[name].rung], rungs[-1]
    if last is planned or query.slos.latency is None or not last.busy.keys() <= replicas.keys():
        return False
    busy, then = (
        max(3.0 * query.rate_per_s * s / replicas[d] for d, s in rung.busy.items()) for rung in (planned, last)
    )
    return busy > 1.3 and then < 0.7


def test_queues_are_those_who_came_and_are_not_served(bursty: tuple[ManagedPlans, Profiles]) -> None:
    controlled, profiles = bursty
    engine = SimulatedEngine(controlled, profiles, _requests(controlled, 60.0, 0, times=6.0), startup_s=5.0)

    async def run() -> list[int]:
        await engine.apply(controlled.desired_state(controlled.initial_ladder_states()))
        lengths = []
        for now_s in np.arange(1.0, 60.0):
            engine.advance(float(now_s))
            status = await engine.status()
            lengths.append(sum(found.queue_length for found in status.deployments))
            for query in status.queries:
                assert query.in_flight >= 0
            under_way = sum(query.in_flight for query in status.queries)
            assert lengths[-1] <= under_way * 3  # a request may wait at two operators
        return lengths

    lengths = asyncio.run(run())
    assert max(lengths[:14]) < max(lengths[20:30])


def _within(engine: SimulatedEngine, controlled: ManagedPlans, begin_s: float, end_s: float) -> float:
    """Return the share of requests of a period that met their limit."""
    good = total = 0
    for name, query in controlled.queries.items():
        if query.slos.latency is not None:
            arrival_s, latency_s = engine.latency_s(name)
            which = (arrival_s >= begin_s) & (arrival_s < end_s)
            good += int((latency_s[which] <= query.slos.latency.limit_s).sum())
            total += int(which.sum())
    return good / total


def test_with_a_ladder_more_requests_of_a_burst_are_in_time(
    bursty: tuple[ManagedPlans, Profiles], tmp_path: Path
) -> None:
    controlled, profiles = bursty
    requests = _requests(controlled, 240.0, 5, times=3.0)
    shares = {}
    for ladder in (True, False):
        engine = SimulatedEngine(controlled, profiles, requests, startup_s=5.0)
        if not ladder:
            only = {
                name: (rungs[controlled.initial_ladder_states()[name].rung],)
                for name, rungs in controlled.rungs.items()
            }
            kept = replace(controlled)
            kept.__dict__["rungs"] = only
            kept.__dict__["initial_ladder_states"] = lambda: {
                name: replace(s, rung=0, chosen=0) for name, s in controlled.initial_ladder_states().items()
            }
        else:
            kept = controlled
        records = ControlStateStore(tmp_path / f"{ladder}.sqlite")
        events = run_controlled(engine, kept, records, until_s=300.0, settings=ControlSettings(interval_s=0.5))
        shares[ladder] = _within(engine, controlled, 60.0, 120.0)
        assert any(event.kind == "step" for event in events) == ladder
    assert shares[True] > shares[False] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("load", [pytest.param(0.8, marks=pytest.mark.thorough), 1.0])
def test_at_the_planned_rate_nobody_leaves_the_plan_for_long(
    bursty: tuple[ManagedPlans, Profiles], tmp_path: Path, load: float
) -> None:
    controlled, profiles = bursty
    until_s, rng = 900.0, np.random.default_rng(3)
    requests = {}
    for name, query in controlled.queries.items():
        arrival_s = np.sort(rng.uniform(0.0, until_s, rng.poisson(load * query.rate_per_s * until_s)))
        requests[name] = Requests(arrival_s, rng.integers(20, size=len(arrival_s)))
    engine = SimulatedEngine(controlled, profiles, requests, startup_s=5.0)
    records = ControlStateStore(tmp_path / "control.sqlite")
    events = run_controlled(engine, controlled, records, until_s=until_s, settings=ControlSettings(interval_s=0.5))
    steps = [event for event in events if event.kind == "step"]
    assert len(steps) <= 2 * len(controlled.queries)
    away_s: float = 0.0
    since: dict[str, float] = {}
    at_first = controlled.initial_ladder_states()
    for event in steps:
        if event.details["from"] == at_first[event.subject].chosen:
            since[event.subject] = event.time_s
        elif event.details["to"] == at_first[event.subject].chosen:
            away_s += event.time_s - since.pop(event.subject)
    away_s += sum(until_s - begin_s for begin_s in since.values())
    assert away_s < 0.1 * until_s * len(controlled.queries)


def test_after_a_burst_everybody_is_back_on_the_plan_at_the_planned_rate(
    bursty: tuple[ManagedPlans, Profiles], tmp_path: Path
) -> None:
    controlled, profiles = bursty
    rng, requests = np.random.default_rng(4), {}
    for name, query in controlled.queries.items():
        burst = 100.0 + np.sort(rng.uniform(0.0, 30.0, rng.poisson(2.5 * query.rate_per_s * 30.0)))
        calm = np.sort(rng.uniform(0.0, 600.0, rng.poisson(0.9 * query.rate_per_s * 600.0)))
        arrival_s = np.sort(np.concatenate([burst, calm]))
        requests[name] = Requests(arrival_s, rng.integers(20, size=len(arrival_s)))
    engine = SimulatedEngine(controlled, profiles, requests, startup_s=5.0)
    records = ControlStateStore(tmp_path / "control.sqlite")
    events = run_controlled(engine, controlled, records, until_s=600.0, settings=ControlSettings(interval_s=0.5))
    rungs = {name: state.rung for name, state in controlled.initial_ladder_states().items()}
    chosen = dict(rungs)
    down = 0
    for event in events:
        if event.kind == "step":
            rungs[event.subject] = int(event.details["to"])
            down += event.details["to"] > event.details["from"]
    assert down > 0
    assert rungs == chosen


def test_replicas_that_do_not_run_yet_take_their_time(bursty: tuple[ManagedPlans, Profiles]) -> None:
    controlled, profiles = bursty
    without_standby = replace(controlled, deployments=controlled.matching.deployments)
    engine = SimulatedEngine(controlled, profiles, _requests(controlled, 60.0, 0), startup_s=5.0)

    async def run() -> None:
        await engine.apply(without_standby.desired_state(without_standby.initial_ladder_states()))
        engine.advance(10.0)
        before = (await engine.status()).state
        applying = asyncio.create_task(engine.apply(controlled.desired_state(controlled.initial_ladder_states())))
        for now_s, there in ((10.5, False), (14.9, False), (15.1, True)):
            await asyncio.sleep(0)
            engine.advance(now_s)
            await asyncio.sleep(0)
            assert ((await engine.status()).state != before) == there
        await applying

    asyncio.run(run())


def test_what_is_given_up_before_its_replicas_run_never_comes(bursty: tuple[ManagedPlans, Profiles]) -> None:
    controlled, profiles = bursty
    without_standby = replace(controlled, deployments=controlled.matching.deployments)
    engine = SimulatedEngine(controlled, profiles, _requests(controlled, 60.0, 0), startup_s=5.0)

    async def run() -> None:
        await engine.apply(without_standby.desired_state(without_standby.initial_ladder_states()))
        engine.advance(10.0)
        before = (await engine.status()).state
        applying = asyncio.create_task(engine.apply(controlled.desired_state(controlled.initial_ladder_states())))
        await asyncio.sleep(0)
        engine.advance(12.0)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
        engine.advance(20.0)
        assert (await engine.status()).state == before

    asyncio.run(run())


def test_what_is_under_way_in_a_lost_pool_is_lost_and_what_comes_there(bursty: tuple[ManagedPlans, Profiles]) -> None:
    controlled, profiles = bursty
    engine = SimulatedEngine(controlled, profiles, _requests(controlled, 60.0, 0), startup_s=5.0)

    async def run() -> None:
        desired = controlled.desired_state(controlled.initial_ladder_states())
        await engine.apply(desired)
        engine.advance(10.0)
        lost = desired.routes[0].stages[0].deployment.pool
        engine.fail_nodes(lost)
        engine.advance(20.0)
        status = await engine.status()
        assert sum(query.failed for query in status.queries) > 0
        assert status.nodes is not None
        assert status.nodes[lost] == 0
        assert not status.healthy
        with raises_code(ServingError, "pool.no_node"):
            await engine.apply(desired)
        engine.restore_nodes(lost)
        engine.advance(30.0)
        later = await engine.status()
        assert sum(q.failed for q in later.queries) == sum(q.failed for q in status.queries)

    asyncio.run(run())
