"""Other plans while the loop goes on: lost and new nodes, plan files that are written over, trials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from circinus.control.controlled import Controlled
from circinus.control.controller import Controller, ControlSettings
from circinus.control.ladders.standby import standby
from circinus.control.records import ControlRecords, Event
from circinus.control.replanning.nodes import NodeSettings
from circinus.control.replanning.planner import Planner, for_nodes
from circinus.control.replanning.replanning import ReplanSettings
from circinus.errors import PlanningError, ServingError
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode, Request, Response
from circinus.serving.engine import QueryStatus
from circinus.serving.state_file import desired_fingerprint
from controlled_plans import Profiles, planned

TICK_S = 0.25
SETTINGS = ControlSettings(
    lease_s=5.0, replanning=ReplanSettings(NodeSettings(lost_after_s=1.0, back_after_s=10.0), files_every_s=0.5)
)


@dataclass
class NodesEngine:
    """Runs what it is told at once if it has the nodes, and counts what it is told came."""

    nodes: dict[str, int]
    state: DesiredState | None = None
    applied: list[DesiredState] = field(default_factory=list)
    entered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    refuses: Callable[[DesiredState], bool] = lambda desired: False

    async def apply(self, desired: DesiredState) -> None:
        missing = {d.deployment.pool for d in desired.deployments if not self.nodes[d.deployment.pool]}
        if missing or self.refuses(desired):
            raise ServingError(f"found no node of {missing or 'some kind'}")
        self.state = desired
        self.applied.append(desired)

    async def submit(self, request: Request) -> Response:
        raise NotImplementedError

    async def status(self) -> EngineStatus:
        deployments = () if self.state is None else self.state.deployments
        return EngineStatus(
            Mode.REAL,
            tuple(
                DeploymentStatus(d.deployment, d.replicas, d.replicas if self.nodes[d.deployment.pool] else 0, 0, 0, 0)
                for d in deployments
            ),
            () if self.state is None else tuple(route.query for route in self.state.routes),
            "" if self.state is None else desired_fingerprint(self.state),
            tuple(
                QueryStatus(query, count, count - self.failed.get(query, 0), self.failed.get(query, 0))
                for query, count in self.entered.items()
            ),
            self.nodes,
        )

    async def close(self) -> None:
        pass


@dataclass
class World:
    """A controller of an engine, what its plans come from, and the time."""

    controlled: Controlled
    profiles: Profiles
    records: ControlRecords
    now_s: float = 0.0
    seen: list[Event] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Queries none of whose requests are answered."""
    files: Controlled | str | None = None
    """What files say that were written over: plans, or why they cannot be read."""

    def __post_init__(self) -> None:
        self.engine = NodesEngine(dict(self.controlled.nodes))

    def latest(self, now: Controlled) -> Controlled | None:
        found, self.files = self.files, None
        if isinstance(found, str):
            self.files = found
            raise PlanningError(found)
        return found

    def controller(self, holder: str = "one", controlled: Controlled | None = None) -> Controller:
        made = Controller(
            self.engine,
            controlled or self.controlled,
            self.records,
            holder=holder,
            clock=lambda: self.now_s,
            wall_clock=lambda: 1e9 + self.now_s,
            settings=SETTINGS,
            on_event=self.seen.append,
            planner=Planner(lambda plans: self.profiles, lambda: self.files is not None, self.latest),
        )
        made.begin()
        return made

    async def goes_on(self, controller: Controller, duration_s: float) -> None:
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            for name, query in controller.controlled.queries.items():
                due = self.left.get(name, 0.0) + TICK_S * 0.8 * query.rate_per_s
                self.engine.entered[name] = self.engine.entered.get(name, 0) + int(due)
                self.left[name] = due - int(due)
                if name in self.failing:
                    self.engine.failed[name] = self.engine.failed.get(name, 0) + int(due)
            self.now_s += TICK_S
            await controller.tick()
            await controller.planned()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in self.seen if event.kind == kind]


def _routes(state: DesiredState | None) -> set[str]:
    return set() if state is None else {route.query for route in state.routes}


def _pools(state: DesiredState | None) -> set[str]:
    return set() if state is None else {wanted.deployment.pool for wanted in state.deployments}


def _scene() -> tuple[Controlled, Profiles, str]:
    """Plans on several pools, and one pool without which some query has to have another plan."""
    for seed in range(60):
        controlled, profiles = planned(seed)
        pools = sorted({found.deployment.pool for found in controlled.deployments})
        for pool in pools if len(pools) > 1 else ():
            try:
                found = for_nodes(controlled, {**controlled.nodes, pool: 0}, profiles)
            except PlanningError:
                continue
            served = {a.query for a in found.controlled.matching.assignments}
            if len(served) > 1:
                return controlled, profiles, pool
    raise AssertionError("no specification has what this test is about")


@pytest.fixture
def lossy(tmp_path: Path) -> tuple[World, str]:
    controlled, profiles, pool = _scene()
    return World(controlled, profiles, ControlRecords(tmp_path / "control.sqlite")), pool


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
    assert f"{pool} has {world.controlled.nodes[pool]} again" in back.reason
    assert _routes(world.engine.state) == {a.query for a in world.controlled.matching.assignments}
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
    failed = world.of_kind("failed")
    assert 3 <= len(failed) <= 6
    assert "no query can be served on what is left" in failed[0].reason
    assert world.engine.state == state
    world.engine.nodes = dict(world.controlled.nodes)
    asyncio.run(world.goes_on(controller, 5.0))
    assert world.of_kind("replan") == []


def _without(controlled: Controlled, profiles: Profiles, query: str) -> Controlled:
    """What `circinus plan` makes of the specification without a query."""
    from circinus.matching import Running, plan_all

    queries = tuple(one for one in controlled.specification.queries if one.name != query)
    specification = replace(controlled.specification, queries=queries)
    matching, _ = plan_all(specification, profiles, running=Running.of(controlled.matching))
    return replace(controlled, specification=specification, matching=matching, deployments=matching.deployments)


def test_a_plan_file_that_is_written_over_is_taken_over_and_one_that_is_faulty_is_not(lossy: tuple[World, str]) -> None:
    world, pool = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    gone = world.controlled.matching.assignments[0].query
    world.files = "plan.json: found no JSON, expected a plan file; plan again"
    asyncio.run(world.goes_on(controller, 5.0))
    assert "found no JSON" in world.of_kind("failed")[0].reason
    world.files = newer = _without(world.controlled, world.profiles, gone)
    asyncio.run(world.goes_on(controller, 5.0))
    (replan,) = world.of_kind("replan")
    assert replan.details["why"] == "files"
    assert replan.details["removed"] == (gone,)
    assert _routes(world.engine.state) == {a.query for a in newer.matching.assignments}
    asyncio.run(world.goes_on(controller, 20.0))
    world.engine.nodes[pool] = 0
    asyncio.run(world.goes_on(controller, 3.0))
    assert gone not in {a.query for a in controller.controlled.matching.assignments}
    world.now_s += 6.0
    second = world.controller("second", newer)
    assert second.controlled.fingerprint == controller.controlled.fingerprint, "made from the newer plan file"


def test_new_plans_under_which_a_query_fails_are_taken_back_and_stay_so(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 20.0))
    before = world.engine.state
    gone, *others = [a.query for a in world.controlled.matching.assignments]
    world.files = newer = _without(world.controlled, world.profiles, gone)
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


def test_new_plans_that_cannot_be_brought_about_are_given_up_after_some_attempts(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    before = world.engine.state
    world.files = newer = _without(world.controlled, world.profiles, world.controlled.matching.assignments[0].query)
    wanted = desired_fingerprint(newer.desired(newer.at_first()))
    world.engine.refuses = lambda desired: desired_fingerprint(desired) == wanted
    asyncio.run(world.goes_on(controller, 20.0))
    assert world.kinds()[-4:] == ["replan", "failed", "failed", "rollback"]
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
    assert "there are none to go back to" in world.of_kind("failed")[0].reason
    assert world.engine.state == state


def test_queries_stay_on_the_rung_that_they_are_on_when_plans_follow(lossy: tuple[World, str]) -> None:
    world, _ = lossy
    infrastructure = world.controlled.specification.infrastructure
    assert infrastructure is not None
    ready = standby(world.controlled.matching, infrastructure, 3.0).deployments
    world.controlled = replace(world.controlled, deployments=ready)
    controller = world.controller()
    asyncio.run(world.goes_on(controller, 5.0))
    runs = {sized.deployment for sized in ready}
    name, rung = next(
        (name, rung)
        for name, state in controller.ladders.items()
        for rung in range(state.rung + 1, len(world.controlled.rungs[name]))
        if runs >= world.controlled.rungs[name][rung].busy.keys()
    )
    below = {**controller.ladders, name: replace(controller.ladders[name], rung=rung)}
    taken = world.controlled.taken_over(below, world.controlled)
    assert taken[name].rung == rung
    other = next(a for a in world.controlled.matching.assignments if a.query != name)
    newer = _without(world.controlled, world.profiles, other.query)
    found = newer.taken_over(below, world.controlled)
    assert other.query not in found
    plan = world.controlled.rungs[name][below[name].rung].candidate.plan
    runs = {sized.deployment for sized in newer.deployments}
    known = [rung.candidate.plan if runs >= rung.busy.keys() else None for rung in newer.rungs[name]]
    if plan in known[newer.at_first()[name].rung :]:
        assert newer.rungs[name][found[name].rung].candidate.plan == plan
    else:
        assert found[name] == newer.at_first()[name]
