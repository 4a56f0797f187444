"""Tests of replanning in the control loop: lost and returned nodes, file changes, rollbacks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from budget import HANG_LIMIT_S
from circinus.control.background_task import TaskFailed
from circinus.control.control_state import ControlState
from circinus.control.controller import Controller
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning import replanner as replanner_module
from circinus.control.replanning.plan_rollout import ClusterCapacity
from circinus.control.replanning.replan import ReplanDependencies, ReplanResult
from circinus.control.replanning.replanner import Replanner, ReplanReady
from circinus.control.settings import ControlSettings, NodeSettings
from circinus.control.state_store import ControlStateStore, Event
from circinus.errors import PlanningError, ServingError
from circinus.matching import SizedDeployment
from circinus.serving import DesiredState, EngineStatus, Mode
from circinus.serving.engine import DesiredDeployment
from circinus.serving.routes import RouteStage
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Deployment
from circinus.testing.fake_engine import FakeEngine
from managed_plans import Profiles, lossy_plans, replanned_once
from planning_instances import SIMPLE
from virtual_time import run as in_virtual_time

TICK_S = 0.25
SETTINGS = ControlSettings(
    apply_wait_s=0.001,
    lease_s=5.0,
    file_poll_interval_s=0.5,
    nodes=NodeSettings(lost_after_s=1.0, back_after_s=10.0),
)


@dataclass
class World:
    """Controller with its engine, plan files and clock."""

    controlled: ManagedPlans
    profiles: Profiles
    records: ControlStateStore
    now_s: float = 0.0
    seen: list[Event] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Queries whose requests all fail."""
    files: ManagedPlans | str | None = None
    """Changed plan files: plans, or the error that reading them raises."""
    preparing: int = 0
    cannot_prepare: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = FakeEngine(nodes=dict(self.controlled.nodes))

    def known(self, plans: ManagedPlans) -> Profiles:
        return self.profiles

    def latest(self, now: ManagedPlans) -> ManagedPlans:
        if isinstance(self.files, str):
            raise PlanningError(self.files)
        assert self.files is not None
        return self.files

    def took(self) -> None:
        self.files = None

    def prepare(self, controlled: ManagedPlans) -> tuple[str, ...]:
        self.preparing += 1
        if self.cannot_prepare:
            raise self.cannot_prepare.pop()
        return ("recorded on a busy machine",)

    def controller(self, holder: str = "one", controlled: ManagedPlans | None = None) -> Controller:
        return Controller(
            self.engine,
            controlled or self.controlled,
            self.records,
            holder=holder,
            clock=lambda: self.now_s,
            wall_clock=lambda: 1e9 + self.now_s,
            settings=SETTINGS,
            on_event=self.seen.append,
            planner=ReplanDependencies(
                lambda plans: self.known(plans),
                lambda: self.files is not None,
                self.latest,
                self.prepare,
                acknowledge=self.took,
            ),
        )

    async def goes_on(self, controller: Controller, duration_s: float, *, planning: bool = True) -> None:
        """Run the controller; planning takes no virtual time."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            for name, query in controller.controlled.queries.items():
                due = self.left.get(name, 0.0) + TICK_S * 0.8 * query.rate_per_s
                self.engine.entered[name] = self.engine.entered.get(name, 0) + int(due)
                self.left[name] = due - int(due)
                if name in self.failing:
                    self.engine.failed[name] = self.engine.failed.get(name, 0) + int(due)
            self.now_s += TICK_S
            await controller.reconcile()
            if planning:
                await controller.wait_idle()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in self.seen if event.kind == kind]


def _routes(state: DesiredState | None) -> set[str]:
    return set() if state is None else {route.query for route in state.routes}


def _pools(state: DesiredState | None) -> set[str]:
    return set() if state is None else {wanted.deployment.pool for wanted in state.deployments}


@pytest.fixture(autouse=True)
def _replan_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replanner_module, "replan_for_nodes", replanned_once)


@pytest.fixture
def lossy(tmp_path: Path) -> tuple[World, str]:
    controlled, profiles, pool = lossy_plans()
    return World(controlled, profiles, ControlStateStore(tmp_path / "control.sqlite")), pool


def test_a_pool_is_lost_and_comes_back(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(controller, 3.0))
    (lost,) = world.of_kind("replan")
    assert lost.time_s - 1e9 - 20.0 <= 1.0 + 2 * TICK_S
    assert f"{pool} has 0 of {world.controlled.nodes[pool]} nodes" in lost.reason
    assert lost.details["why"] == "nodes"
    assert pool not in _pools(world.engine.state)
    assert len(_routes(world.engine.state)) > 1
    asyncio.run(world.goes_on(controller, 30.0))
    assert len(world.of_kind("replan")) == 1
    world.engine.nodes[pool] = world.controlled.nodes[pool]
    asyncio.run(world.goes_on(controller, 9.0))
    assert len(world.of_kind("replan")) == 1, "it may go again"
    asyncio.run(world.goes_on(controller, 3.0))
    lost, back = world.of_kind("replan")
    assert f"{pool} has {world.controlled.nodes[pool]} nodes again" in back.reason
    assert _routes(world.engine.state) == {a.query for a in world.controlled.matching.assignments}
    assert world.of_kind("failed") == []


def test_displaced_queries_are_explained_after_the_plans_are_adopted_and_may_stay_unexplained(
    lossy: tuple[World, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, pool = lossy
    adopted: list[int] = []

    def explain() -> tuple[str, ...]:
        adopted.append(len(world.of_kind("replan")))
        if len(adopted) == 1:
            raise PlanningError("it cannot be explained")
        return ("q1 (late)",)

    def replan(*args: Any, **options: Any) -> ReplanResult:
        return replace(replanned_once(*args, **options), explain_displaced=explain)

    monkeypatch.setattr(replanner_module, "replan_for_nodes", replan)
    controller = world.controller()
    for nodes in (0, world.controlled.nodes[pool]):
        world.engine.nodes[pool] = nodes
        asyncio.run(world.goes_on(controller, 15.0))
    assert adopted == [1, 2]
    assert [event.details["why"] for event in world.of_kind("replan")] == ["nodes", "nodes", "displaced"]


def test_a_pool_that_goes_whenever_it_came_back_is_planned_for_ever_later(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))

    def until_planned() -> float:
        begin_s, before = world.now_s, len(world.of_kind("replan"))
        while len(world.of_kind("replan")) == before and world.now_s < begin_s + 200.0:
            asyncio.run(world.goes_on(controller, TICK_S))
        return world.now_s - begin_s

    waits_s = []
    for _ in range(3):
        world.engine.nodes[pool] = 0
        assert until_planned() <= 1.0 + 3 * TICK_S
        world.engine.nodes[pool] = world.controlled.nodes[pool]
        waits_s.append(until_planned())
    for waited_s, due_s in zip(waits_s, (10.0, 20.0, 40.0), strict=True):
        assert due_s <= waited_s <= due_s + 3 * TICK_S


@dataclass
class LateEngine(FakeEngine):
    """Engine whose first state is deployed just after the third poll."""

    looks: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, desired: DesiredState) -> None:
        await self.ready.wait()
        await super().apply(desired)

    async def status(self) -> EngineStatus:
        self.looks += 1
        found = await super().status()
        if self.looks == 3:
            self.ready.set()
            while self.state is None:
                await asyncio.sleep(0)
        return found


def test_what_is_brought_about_during_a_look_is_not_brought_about_again(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    world.engine = engine = LateEngine(nodes=dict(world.controlled.nodes))
    asyncio.run(world.goes_on(world.controller(), 8 * TICK_S))
    assert engine.looks == 8
    assert len(engine.applied) == 1
    assert world.kinds() == ["began", "applied"]


@dataclass
class RestoringEngine(FakeEngine):
    """Engine whose applies hang from some moment on, with a rollback that waits for permission."""

    stuck: bool = False
    let: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, desired: DesiredState) -> None:
        if self.stuck:
            try:
                await asyncio.Event().wait()
            finally:
                await self.let.wait()
        await super().apply(desired)


def test_the_loop_goes_on_while_what_was_given_up_is_undone(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    world.engine = engine = RestoringEngine(nodes=dict(world.controlled.nodes))

    async def run() -> None:
        controller = world.controller()
        await world.goes_on(controller, 5.0)
        assert len(engine.applied) == 1
        engine.stuck = True
        gone = world.controlled.matching.assignments[0].query
        world.files = _without(gone)
        await world.goes_on(controller, 2.0)
        engine.nodes[pool] = 0
        await asyncio.wait_for(world.goes_on(controller, 5.0), HANG_LIMIT_S)
        assert [event.details["why"] for event in world.of_kind("replan")] == ["files", "nodes"]
        assert len(engine.applied) == 1, "nothing else is begun before that is undone"
        engine.stuck = False
        engine.let.set()
        await world.goes_on(controller, 1.0)

    asyncio.run(run())
    assert len(engine.applied) == 2
    assert pool not in _pools(engine.state)
    assert world.of_kind("failed") == []


def test_plans_for_what_is_left_are_known_to_the_next_controller(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    first = world.controller("first")
    asyncio.run(world.goes_on(first, 20.0))
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(first, 3.0))
    state, applied = world.engine.state, len(world.engine.applied)
    world.now_s += 6.0
    second = world.controller("second")
    assert second.controlled.fingerprint == first.controlled.fingerprint
    asyncio.run(world.goes_on(second, 5.0))
    assert world.engine.state == state
    assert len(world.engine.applied) == applied, "what is there already is not done again"
    assert len(world.of_kind("replan")) == 1
    world.now_s += 6.0
    world.engine.nodes[pool] = world.controlled.nodes[pool]
    third = world.controller("third")
    asyncio.run(world.goes_on(third, 12.0))
    assert third.controlled.nodes == world.controlled.nodes


def test_where_nobody_could_be_served_the_last_plans_stay_and_it_is_tried_again(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    state = world.engine.state
    world.engine.nodes = dict.fromkeys(world.engine.nodes, 0)
    asyncio.run(world.goes_on(controller, 40.0))
    (failed,) = world.of_kind("failed")  # reported once and retried
    assert "no query can be served on the remaining nodes" in failed.reason
    assert world.engine.state == state
    world.engine.nodes = dict(world.controlled.nodes)
    asyncio.run(world.goes_on(controller, 5.0))
    assert world.of_kind("replan") == []


@cache
def _without(query: str) -> ManagedPlans:
    """Return the result of `circinus plan` for the specification of `lossy_plans` without one query."""
    from circinus.matching import Incumbent, plan_all_queries

    controlled, profiles, _ = lossy_plans()
    queries = tuple(one for one in controlled.specification.queries if one.name != query)
    specification = replace(controlled.specification, queries=queries)
    matching, _ = plan_all_queries(
        specification, profiles, settings=SIMPLE, incumbent=Incumbent.of(controlled.matching), explain_rejections=()
    )
    return replace(controlled, specification=specification, matching=matching, deployments=matching.deployments)


def test_a_plan_file_that_is_written_over_is_taken_over_and_one_that_is_faulty_is_not(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    gone = world.controlled.matching.assignments[0].query
    world.files = "plan.json: found no JSON, expected a plan file; plan again"
    asyncio.run(world.goes_on(controller, 5.0))
    assert "found no JSON" in world.of_kind("failed")[0].reason
    world.files = newer = _without(gone)
    asyncio.run(world.goes_on(controller, 5.0))
    (replan,) = world.of_kind("replan")
    assert replan.details["why"] == "files"
    assert replan.details["removed"] == (gone,)
    assert replan.details["warnings"] == ("recorded on a busy machine",)
    assert _routes(world.engine.state) == {a.query for a in newer.matching.assignments}
    asyncio.run(world.goes_on(controller, 20.0))
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(controller, 3.0))
    assert gone not in {a.query for a in controller.controlled.matching.assignments}
    world.now_s += 6.0
    second = world.controller("second", newer)
    assert second.controlled.fingerprint == controller.controlled.fingerprint, "made from the newer plan file"


def test_of_files_that_were_written_over_is_said_which(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 2.0))
    first, *others = world.controlled.specification.queries
    heavier = first.model_copy(update={"weight": first.weight + 1.0})
    specification = replace(world.controlled.specification, queries=(heavier, *others))
    world.files = edited = replace(world.controlled, specification=specification, peak=2.0)
    asyncio.run(world.goes_on(controller, 2.0))
    world.files = replace(edited, peak=3.0)
    asyncio.run(world.goes_on(controller, 2.0))
    by_query, by_plan = world.of_kind("replan")
    assert by_query.reason.startswith(f"the specification changed (changed queries: {first.name}): 0 of")
    assert by_plan.reason.startswith("the plan file changed: 0 of")


def test_new_plans_under_which_a_query_fails_are_taken_back_and_stay_so(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    before = world.engine.state
    gone, *others = [a.query for a in world.controlled.matching.assignments]
    world.files = newer = _without(gone)
    asyncio.run(world.goes_on(controller, 1.0))
    assert world.engine.state != before
    world.failing = {others[0]}
    asyncio.run(world.goes_on(controller, 14.0))
    (rollback,) = world.of_kind("rollback")
    assert f"query {others[0]}" in rollback.reason
    assert world.engine.state == before
    world.failing = set()
    asyncio.run(world.goes_on(controller, 30.0))
    assert world.engine.state == before
    world.now_s += 6.0
    second = world.controller("second", newer)
    asyncio.run(world.goes_on(second, 5.0))
    assert world.engine.state == before, "the next one does not try what was taken back, either"
    assert len(world.of_kind("replan")) == len(world.of_kind("rollback")) == 1


def test_plans_made_from_what_was_taken_back_meanwhile_are_made_anew(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    gone, *others = [a.query for a in world.controlled.matching.assignments]
    world.files = newer = _without(gone)
    going, let = threading.Event(), threading.Event()
    made_from: list[ManagedPlans] = []

    def profiles(plans: ManagedPlans) -> Profiles:
        made_from.append(plans)
        if len(made_from) == 1:  # only for the first plans, until they are rolled back
            going.set()
            assert let.wait(HANG_LIMIT_S)
        return world.profiles

    async def run() -> None:
        await world.goes_on(controller, 1.0)
        used = {sized.deployment.pool for sized in (*world.controlled.deployments, *newer.deployments)}
        unused = next(name for name in world.engine.nodes if name not in used)
        world.known = profiles
        world.engine.nodes[unused] = 0
        await world.goes_on(controller, 2.0, planning=False)
        assert await asyncio.to_thread(going.wait, HANG_LIMIT_S)
        world.failing = {others[0]}
        while not world.of_kind("rollback"):
            assert world.now_s < 60.0
            await world.goes_on(controller, TICK_S, planning=False)
        let.set()
        world.failing = set()
        await world.goes_on(controller, 3.0)

    asyncio.run(run())
    assert gone not in made_from[0].queries
    assert all(gone in plans.queries for plans in made_from[1:])
    assert [event.details["why"] for event in world.of_kind("replan")] == ["files", "nodes"]
    assert gone in _routes(world.engine.state)
    assert gone in controller.controlled.queries


def test_new_plans_that_cannot_be_brought_about_are_given_up_after_some_attempts(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    before = world.engine.state
    world.files = newer = _without(world.controlled.matching.assignments[0].query)
    wanted = state_fingerprint(newer.desired_state(newer.initial_ladder_states()))
    world.engine.refuses = lambda desired: state_fingerprint(desired) == wanted
    asyncio.run(world.goes_on(controller, 20.0))
    but_steps = [kind for kind in world.kinds() if kind != "applied"]
    assert but_steps[-4:] == ["replan", "failed", "failed", "rollback"]
    assert world.engine.state == before


def test_plans_on_lost_nodes_are_not_gone_back_to(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(controller, 2.0))
    state = world.engine.state
    world.failing = _routes(state)
    asyncio.run(world.goes_on(controller, 10.0))
    assert world.of_kind("rollback") == []
    assert "no previous plans to roll back to" in world.of_kind("failed")[0].reason
    assert world.engine.state == state


def test_queries_stay_on_the_rung_that_they_are_on_when_plans_follow(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    running = {sized.deployment for sized in world.controlled.deployments}
    everything = [
        use for ladder in world.controlled.rungs.values() for rung in ladder for use in rung.candidate.deployments
    ]
    sized = {use.deployment: SizedDeployment(use.deployment, use.demand, (0,), 0.0) for use in everything}
    world.controlled = replace(world.controlled, deployments=tuple(sized.values()))
    stepped = {
        name: state for name, state in controller.ladders.items() if state.rung < len(world.controlled.rungs[name]) - 1
    }
    name = next(iter(stepped))
    below = {**controller.ladders, name: replace(stepped[name], rung=stepped[name].rung + 1)}
    taken = world.controlled.migrate_ladder_states(below, world.controlled)
    assert taken[name].rung == stepped[name].rung + 1
    only = replace(world.controlled, deployments=tuple(d for d in sized.values() if d.deployment in running))
    gone = not running >= world.controlled.rungs[name][below[name].rung].busy.keys()
    assert (only.migrate_ladder_states(below, world.controlled)[name].rung == stepped[name].rung) == gone
    other = next(a for a in world.controlled.matching.assignments if a.query != name)
    newer = _without(other.query)
    found = newer.migrate_ladder_states(below, world.controlled)
    assert other.query not in found
    plan = world.controlled.rungs[name][below[name].rung].candidate.plan
    known = [rung.candidate.plan for rung in newer.rungs[name]]
    there = {sized.deployment for sized in newer.deployments} >= world.controlled.rungs[name][
        below[name].rung
    ].busy.keys()
    if there and plan in known[newer.initial_ladder_states()[name].rung :]:
        assert newer.rungs[name][found[name].rung].candidate.plan == plan
    else:
        assert found[name] == newer.initial_ladder_states()[name]


def test_one_that_is_killed_on_the_way_is_followed_by_one_that_goes_on_from_there(tmp_path: Path) -> None:
    before, profiles, _ = lossy_plans()
    after, room = _other_replicas(_tight(before)), ClusterCapacity(_tight(before).specification.infrastructure, {})
    before = _tight(before)
    nodes = dict(before.nodes)
    room = ClusterCapacity(room.infrastructure, nodes)
    world = World(before, profiles, ControlStateStore(tmp_path / "control.sqlite"))

    def no_room(desired: DesiredState) -> bool:
        now = world.engine.state
        return now is not None and not room.fits(_side_by_side(now, desired))

    world.engine.refuses = no_room
    first = world.controller("first")
    asyncio.run(world.goes_on(first, 20.0))
    wanted = after.desired_state(after.initial_ladder_states())
    assert no_room(wanted)
    world.files = after
    applied = len(world.engine.applied)
    while len(world.engine.applied) < applied + 2:
        assert world.now_s < 60.0
        asyncio.run(world.goes_on(first, TICK_S))
    assert world.engine.state not in (before.desired_state(before.initial_ladder_states()), wanted)
    world.now_s += 6.0
    second = world.controller("second", after)
    asyncio.run(world.goes_on(second, 20.0))
    assert world.engine.state == wanted


def _tight(controlled: ManagedPlans) -> ManagedPlans:
    """Return the plans with pools that have little more capacity than needed."""
    infrastructure = controlled.specification.infrastructure
    assert infrastructure is not None
    cpus: dict[str, float] = {}
    for sized in controlled.deployments:
        cpus[sized.deployment.pool] = cpus.get(sized.deployment.pool, 0.0) + sized.demand.cpus * sized.replicas
    pools = tuple(
        pool.model_copy(update={"nodes": 1, "cpus": max(1.0, 1.6 * cpus.get(pool.name, 0.0))})
        for pool in infrastructure.pools
    )
    specification = replace(controlled.specification, infrastructure=infrastructure.model_copy(update={"pools": pools}))
    one = tuple(replace(sized, nodes=(0,) * sized.replicas) for sized in controlled.deployments)
    matching = replace(controlled.matching, deployments=one)
    return replace(controlled, specification=specification, matching=matching, deployments=one)


class _OtherReplicas(ManagedPlans):
    """Plans whose replicas cannot replace any previous one."""

    def desired_state(self, ladders: Mapping[str, LadderState]) -> DesiredState:
        state = super().desired_state(ladders)
        return replace(
            state,
            deployments=tuple(replace(wanted, deployment=_other(wanted.deployment)) for wanted in state.deployments),
            routes=tuple(
                replace(
                    route,
                    stages=_on_others(route.stages),
                    others=tuple(replace(part, stages=_on_others(part.stages)) for part in route.others),
                )
                for route in state.routes
            ),
        )


def _on_others(stages: tuple[RouteStage, ...]) -> tuple[RouteStage, ...]:
    return tuple(replace(stage, deployment=_other(stage.deployment)) for stage in stages)


def _other(deployment: Deployment) -> Deployment:
    return replace(
        deployment, allocation=replace(deployment.allocation, batch_size=deployment.allocation.batch_size + 7)
    )


def _other_replicas(controlled: ManagedPlans) -> ManagedPlans:
    return _OtherReplicas(**{one.name: getattr(controlled, one.name) for one in fields(controlled)})


def _side_by_side(before: DesiredState, after: DesiredState) -> list[DesiredDeployment]:
    sizes = {wanted.deployment: wanted for wanted in before.deployments}
    for wanted in after.deployments:
        known = sizes.get(wanted.deployment)
        sizes[wanted.deployment] = wanted if known is None or known.replicas < wanted.replicas else known
    return list(sizes.values())


def test_plans_that_were_on_trial_when_a_controller_was_killed_are_still_on_trial(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    first = world.controller("first")
    asyncio.run(world.goes_on(first, 20.0))
    before = world.engine.state
    gone, *others = [a.query for a in world.controlled.matching.assignments]
    world.files = newer = _without(gone)
    asyncio.run(world.goes_on(first, 2.0))
    assert world.engine.state != before
    world.now_s += 6.0
    second = world.controller("second", newer)
    world.failing = {others[0]}
    asyncio.run(world.goes_on(second, 14.0))
    assert len(world.of_kind("rollback")) == 1
    assert world.engine.state == before


def test_files_that_were_read_are_not_lost_where_what_follows_fails(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    gone = world.controlled.matching.assignments[0].query
    newer = _without(gone)
    world.cannot_prepare = [ServingError("the store is locked")]
    world.files = newer
    asyncio.run(world.goes_on(controller, 2.0))
    assert "the store is locked" in world.of_kind("failed")[0].reason
    asyncio.run(world.goes_on(controller, 5.0))
    assert world.of_kind("replan")[0].details["removed"] == (gone,)
    asyncio.run(world.goes_on(controller, 20.0))
    assert len(world.of_kind("replan")) == 1, "and are read no more"
    assert world.files is None


def test_files_that_say_what_they_said_before_are_read_once(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    world.files = world.controlled
    asyncio.run(world.goes_on(controller, 2.0))
    assert world.files is None
    assert world.of_kind("replan") == []


@pytest.mark.parametrize("error", [KeyError("x"), OSError("disk"), ValueError("v"), MemoryError()])
def test_whatever_goes_wrong_while_planning_the_loop_goes_on(lossy: tuple[World, str], error: Exception) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    world.cannot_prepare = [error]
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(controller, 10.0))
    (failed,) = world.of_kind("failed")
    assert type(error).__name__ in failed.reason
    assert len(world.of_kind("replan")) == 1, "and it was tried again"


def test_after_going_back_to_plans_for_another_infrastructure_nothing_is_planned_without_end(
    lossy: tuple[World, str],
) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    infrastructure = world.controlled.specification.infrastructure
    assert infrastructure is not None
    pools = tuple(
        one.model_copy(update={"nodes": one.nodes + 1}) if one.name == pool else one for one in infrastructure.pools
    )
    specification = replace(
        world.controlled.specification, infrastructure=infrastructure.model_copy(update={"pools": pools})
    )
    world.engine.nodes[pool] += 1
    world.files = replace(world.controlled, specification=specification)
    asyncio.run(world.goes_on(controller, 2.0))
    world.failing = {world.controlled.matching.assignments[0].query}
    asyncio.run(world.goes_on(controller, 5.0))
    world.failing = set()
    asyncio.run(world.goes_on(controller, 60.0))
    assert len(world.of_kind("rollback")) == 1
    replans = len(world.of_kind("replan"))
    world.engine.nodes[pool] -= 1
    asyncio.run(world.goes_on(controller, 60.0))
    assert len(world.of_kind("replan")) - replans <= 1


def test_what_was_measured_again_is_planned_for_after_lost_nodes_and_once(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    before = ProfileOverrides()
    again = before.merged_with(ProfileOverrides(world.profiles, notes=("it takes longer",)), world.profiles)
    controlled, nodes = world.controlled, dict(world.controlled.nodes)
    replanning = Replanner(ReplanDependencies(world.known), controlled, SETTINGS, before)

    async def looks(controlled: ManagedPlans, overrides: ProfileOverrides) -> ReplanReady | None:
        for _ in range(8):
            world.now_s += TICK_S
            status, state = EngineStatus(Mode.REAL, (), (), nodes=nodes), ControlState.of(controlled)
            replanning.schedule(world.now_s, status, state, overrides)
            await replanning.wait()
            found = replanning.poll(world.now_s)
            if found is not None:
                assert isinstance(found, ReplanReady)
                replanning.commit(found)
                return found
        return None

    async def run() -> None:
        assert await looks(controlled, before) is None
        nodes[pool] = 0
        for_less = await looks(controlled, before)
        assert for_less is not None
        assert (for_less.trigger, for_less.overrides) == ("nodes", before)
        for_what_moved = await looks(for_less.controlled, again)
        assert for_what_moved is not None
        assert for_what_moved.trigger == "drift"
        assert for_what_moved.reason.startswith("it takes longer")
        assert for_what_moved.controlled.nodes == nodes
        assert for_what_moved.overrides is again
        assert await looks(for_what_moved.controlled, again) is None

    asyncio.run(run())


def test_what_was_measured_again_is_planned_for_until_that_succeeds(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    again = ProfileOverrides(world.profiles, notes=("it takes longer",))
    planner = ReplanDependencies(world.known, prepare=world.prepare)
    replanning = Replanner(planner, world.controlled, SETTINGS, ProfileOverrides())
    state, status = ControlState.of(world.controlled), EngineStatus(Mode.REAL, (), (), nodes=world.controlled.nodes)
    world.cannot_prepare = [ServingError("the store is locked"), ServingError("the store is locked")]

    async def run() -> list[ReplanReady | TaskFailed]:
        found: list[ReplanReady | TaskFailed] = []
        while not found or not isinstance(found[-1], ReplanReady):
            world.now_s += TICK_S
            assert world.now_s < 20.0
            replanning.schedule(world.now_s, status, state, again)
            await replanning.wait()
            result = replanning.poll(world.now_s)
            found += [] if result is None else [result]
        return found

    failed, ready = asyncio.run(run())
    assert isinstance(failed, TaskFailed), "reported once"
    assert "the store is locked" in failed.reason
    assert isinstance(ready, ReplanReady)
    assert (ready.trigger, ready.overrides, world.preparing) == ("drift", again, 3)


def test_a_faulty_file_is_said_once(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    world.files = "queries.yaml:3: found nonsense"
    asyncio.run(world.goes_on(controller, 100.0))
    assert len(world.of_kind("failed")) == 1


def test_an_engine_that_hangs_is_noticed_and_the_loop_survives_what_it_raises(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    strange: list[Exception | None] = [RuntimeError("actor died"), None, None]

    class Strange(FakeEngine):
        async def status(self) -> EngineStatus:
            if strange:
                error = strange.pop(0)
                if error is None:
                    await asyncio.Event().wait()
                else:
                    raise error
            return await super().status()

    async def run() -> None:
        stop = asyncio.Event()
        world.engine = Strange(nodes=dict(world.controlled.nodes))
        controller = Controller(
            world.engine,
            world.controlled,
            world.records,
            holder="one",
            clock=asyncio.get_running_loop().time,
            wall_clock=lambda: 1e9,
            settings=replace(SETTINGS, interval_s=0.01, status_timeout_s=0.1),
            on_event=lambda event: (world.seen.append(event), event.kind == "applied" and stop.set()),
        )
        await asyncio.wait_for(controller.run(stop), HANG_LIMIT_S)

    in_virtual_time(run())
    first, second = world.of_kind("failed")
    assert first.reason == "RuntimeError: actor died"
    assert "did not answer within 0.1 s" in second.reason
