"""Tests of rollouts: possible states during an apply, and cancellation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from circinus.control.background_task import TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.rollout import AppliedState, Rollout
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode
from circinus.serving.engine import DesiredDeployment
from circinus.serving.local.engine import LocalEngine
from circinus.serving.routes import Route, RouteStage
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import (
    Allocation,
    Configuration,
    Deployment,
    HardwareClass,
    Infrastructure,
    KnobValues,
    Pool,
    Site,
)
from circinus.testing.desired_states import StageSpec, chain
from circinus.testing.engine_driver import ask

NODES = {"x": 1}


def _state(operator: str, replicas: int, query: str = "a") -> DesiredState:
    """Return a state of one query on one deployment, on a node of four CPUs."""
    pool = Pool(
        name="x", site="s", tier="edge", nodes=1, cpus=4.0, memory_bytes=1e9, hardware=HardwareClass(name="local")
    )
    deployment = Deployment("p", operator, KnobValues(), "x", Allocation(1.0, 1, 0.8))
    stage = RouteStage(operator, (), deployment, Configuration(()))
    return DesiredState(
        mode=Mode.REPLAY,
        infrastructure=Infrastructure(name="i", sites=(Site(name="s"),), pools=(pool,)),
        deployments=(DesiredDeployment(deployment, "m:f", replicas, 1.0, 1e6, 1.0),),
        routes=(Route(query, "p", "s", (stage,), (operator,)),),
        module_paths=(Path(),),
    )


def _running(state: DesiredState) -> EngineStatus:
    deployments = tuple(DeploymentStatus(d.deployment, d.replicas, d.replicas, 0, 0, 0) for d in state.deployments)
    routes = tuple(route.query for route in state.routes)
    return EngineStatus(Mode.REPLAY, deployments, routes, state_fingerprint(state))


def _between(state: DesiredState) -> EngineStatus:
    """Return a status in which some routers have another state."""
    found = _running(state)
    return EngineStatus(found.mode, (*found.deployments, *_running(_state("other", 1)).deployments), found.routes, "")


async def _nothing(state: DesiredState) -> None:
    pass


def _applying() -> Rollout:
    return Rollout(_nothing, Backoff(1.0, 60.0), lambda: 0.0)


def test_new_code_comes_step_by_step_where_there_is_no_room_for_it_beside_the_old() -> None:
    applying, before = _applying(), _state("a", 4)
    after = replace(before, deployments=(replace(before.deployments[0], operator_version="new"),))
    applying.restore([before])
    following = applying.next_state(after, _running(before), NODES, ("a",))
    assert [(d.operator_version, d.replicas) for d in following.deployments] == [("", 1)]
    applying.restore([following])
    assert applying.next_state(after, _running(following), {"x": 2}, ("a",)) == after, "there is room"


def test_what_runs_is_known_however_often_something_else_was_attempted() -> None:
    applying, a = _applying(), _state("a", 2)
    assert applying.remember(a, _running(_state("before", 1)))
    for attempted in (_state("b", 2), _state("c", 2), _state("b", 1)):
        assert applying.remember(attempted, _running(a))
        assert applying.possible_states == (attempted, a)
    wanted = _state("d", 3)
    following = applying.next_state(wanted, _running(a), NODES, ("a",))
    assert following != wanted, "both together have no room"
    assert sum(d.replicas for d in following.deployments) <= 2


def test_where_what_runs_is_none_of_those_known_all_that_may_come_back_stay_known() -> None:
    applying, a, b = _applying(), _state("a", 2), _state("b", 2)
    applying.remember(a, _running(_state("before", 1)))
    applying.remember(b, _running(a))
    for number in range(1, 4):
        last, attempted = applying.possible_states[0], _state("c", number)
        applying.remember(attempted, _between(a))
        assert applying.possible_states == (attempted, last, a)
    applying.remember(b, _running(_state("c", 3)))
    assert applying.possible_states == (b, _state("c", 3))


def test_other_routes_are_another_state_though_the_same_replicas_run() -> None:
    applying, before, after = _applying(), _state("a", 2), _state("a", 2, query="b")
    assert applying.remember(before, _running(_state("before", 1)))
    assert applying.remember(after, _running(before))
    assert applying.possible_states == (after, before)
    assert not applying.remember(after, _running(before)), "there is nothing new to keep"


def test_it_is_told_when_it_ended_and_whether_it_was_all_that_was_wanted_when_it_began() -> None:
    now_s = 10.0

    async def three_seconds(state: DesiredState) -> None:
        nonlocal now_s
        now_s += 3.0

    async def run(is_final: bool) -> None:
        nonlocal now_s
        applying = Rollout(three_seconds, Backoff(1.0, 60.0), lambda: now_s)
        applying.start(_state("a", 2), is_final=is_final)
        await applying.wait()
        now_s += 100.0  # until the next poll
        assert applying.poll(now_s) == TaskSucceeded(AppliedState(_state("a", 2), 3.0, is_final))

    asyncio.run(run(is_final=True))
    asyncio.run(run(is_final=False))


def test_no_request_fails_while_an_engine_takes_steps_to_deployments_that_do_not_fit_beside_the_old() -> None:
    before, after = (
        replace(given, deployments=tuple(replace(entry, cpus=0.3) for entry in given.deployments))
        for given in (chain("q", StageSpec("first", "add", knobs=(("amount", amount),))) for amount in (1, 2))
    )

    async def run() -> None:
        engine, states = LocalEngine(), [before]
        rollout = Rollout(engine.apply, Backoff(1.0, 60.0), lambda: 0.0)
        rollout.restore(states)
        try:
            await engine.apply(before)
            answers = [asyncio.create_task(ask(engine, 10))]
            while states[-1] != after:
                states.append(rollout.next_state(after, await engine.status(), {"near": 1, "far": 1}, ("q",)))
                rollout.remember(states[-1], await engine.status())
                rollout.start(states[-1], is_final=states[-1] == after)
                while rollout.poll(0.0) is None:
                    answers.append(asyncio.create_task(ask(engine, 10)))
                    await rollout.wait(0.02)
            assert [route.is_paused for state in states for route in state.routes] == [False, True, False]
            assert rollout.paused == {"q"}
            successor = _applying()
            successor.restore(states[1:])
            successor.start(after, is_final=True)
            assert successor.paused == {"q"}, "a controller that takes over in the middle of a rollout"
            await successor.wait()
            assert {await answer for answer in answers} <= {11, 12}
            assert await answers[-1] == 12
            rollout.mark_converged()
            rollout.start(after, is_final=True)
            assert rollout.paused == set(), "only those of the last rollout"
            await rollout.wait()
        finally:
            await engine.close()

    asyncio.run(run())
