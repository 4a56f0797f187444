"""Tests of the controller with a fake engine and a fake clock."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budget import HANG_LIMIT_S, share_of
from circinus.control.controller import Controller
from circinus.control.dry_run import DryRunEngine
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event, StateStoreError
from circinus.errors import ServingError
from circinus.matching import plan_all_queries
from circinus.serving import DesiredState, EngineStatus, Guard, Mode
from circinus.serving.lease import Lease, LeaseHeldError, LeaseLostError
from circinus.serving.state_serialization import state_from_json
from circinus.specification import Billing, Deployment
from circinus.testing.fake_engine import FakeEngine
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE
from raised import raises_code
from virtual_time import run as in_virtual_time


@dataclass
class World:
    """Controller with its engine and clock."""

    controlled: ManagedPlans
    records: ControlStateStore
    engine: FakeEngine = field(default_factory=FakeEngine)
    now_s: float = 0.0
    seen: list[Event] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)

    def controller(self, holder: str = "one", engine_lease: Lease | None = None) -> Controller:
        return Controller(
            self.engine,
            self.controlled,
            self.records,
            holder=holder,
            clock=lambda: self.now_s,
            wall_clock=lambda: 1e9 + self.now_s,
            settings=ControlSettings(lease_s=5.0),
            on_event=self.seen.append,
            engine_lease=engine_lease,
        )

    async def until_applied(
        self,
        settings: ControlSettings,
        records: ControlStateStore | None = None,
        revive: Callable[[], None] = lambda: None,
        engine_lease: Lease | None = None,
    ) -> None:
        """Run a controller with the loop's clock until its plans are deployed."""
        stop, clock = asyncio.Event(), asyncio.get_running_loop().time

        def noted(event: Event) -> None:
            self.seen.append(event)
            if event.kind == "applied":
                stop.set()

        controller = Controller(
            self.engine,
            self.controlled,
            records or self.records,
            holder="one",
            clock=clock,
            wall_clock=clock,
            settings=settings,
            on_event=noted,
            restart_engine=revive,
            engine_lease=engine_lease,
        )
        async with asyncio.timeout(HANG_LIMIT_S):
            await controller.run(stop)
        self.now_s = clock()

    async def goes_on(self, controller: Controller, duration_s: float, times: float) -> None:
        """Run the controller with a multiple of the planned request rates, polling four times a second."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            for name, query in self.controlled.queries.items():
                due = self.left.get(name, 0.0) + 0.25 * times * query.rate_per_s
                self.engine.entered[name] = self.engine.entered.get(name, 0) + int(due)
                self.left[name] = due - int(due)
            self.now_s += 0.25
            await controller.reconcile()

    def steps(self) -> Sequence[Event]:
        return [event for event in self.seen if event.kind == "step"]


def _overloads(controlled: ManagedPlans, times: float) -> bool:
    """Return whether a multiple of the rates overloads some query that can step down."""
    replicas = {found.deployment: found.replicas for found in controlled.deployments}
    at_first = controlled.initial_ladder_states()
    busy: dict[Deployment, float] = {}
    for name, query in controlled.queries.items():
        for deployment, seconds in controlled.rungs[name][at_first[name].rung].busy.items():
            busy[deployment] = busy.get(deployment, 0.0) + times * query.rate_per_s * seconds / replicas[deployment]
    return any(
        state.rung < len(controlled.rungs[name]) - 1
        and max(busy[deployment] for deployment in controlled.rungs[name][state.rung].busy) > 1.3
        for name, state in at_first.items()
    )


@cache
def _controlled() -> ManagedPlans:
    """Return plans that a burst overloads, with standby replicas for some query's ladder."""
    specification, profiles = random_specification(8, queries=4, cpus=32.0, nodes=4)
    matching, _ = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
    assert specification.infrastructure is not None
    ready = plan_standby(matching, specification.infrastructure, 3.0)
    found = ManagedPlans(matching, specification, ready.deployments, Mode.REAL, None, {})
    assert ready.extra
    assert not ready.queries_without_room
    assert _overloads(found, 3.0)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(_controlled(), ControlStateStore(tmp_path / "control.sqlite"))


def test_what_runs_is_brought_to_the_plan_and_then_left_alone(world: World) -> None:
    controller = world.controller()
    in_virtual_time(world.goes_on(controller, 30.0, times=0.9))
    assert len(world.engine.applied) == 1
    assert world.engine.applied[0] == world.controlled.desired_state(world.controlled.initial_ladder_states())
    assert world.steps() == []
    assert tuple(world.seen) == world.records.events(), "the callback receives the stored events with their numbers"


def test_a_burst_is_stepped_down_from_within_seconds_and_up_again_after_it(world: World) -> None:
    controller = world.controller()
    in_virtual_time(world.goes_on(controller, 20.0, times=0.9))
    in_virtual_time(world.goes_on(controller, 20.0, times=2.9))
    down = world.steps()
    assert down
    assert all(event.details["to"] > event.details["from"] for event in down)
    assert (
        min(event.time_s for event in down) - 1e9 - 20.0 < 6.0
    )  # rates of a few requests a second are known no sooner
    assert "overloaded" in down[0].reason
    replicas = {d.deployment: d.replicas for d in world.engine.applied[0].deployments}
    for state in world.engine.applied:
        assert {d.deployment: d.replicas for d in state.deployments} == replicas, "only routes change"
    in_virtual_time(world.goes_on(controller, 200.0, times=0.5))
    assert controller.ladders == {
        name: state for name, state in controller.ladders.items() if state.rung == state.chosen
    }
    assert world.engine.state == world.controlled.desired_state(world.controlled.initial_ladder_states())


def test_one_that_is_killed_is_followed_by_one_that_knows_what_it_decided(world: World) -> None:
    first = world.controller("first")
    in_virtual_time(world.goes_on(first, 20.0, times=0.9))
    in_virtual_time(world.goes_on(first, 5.0, times=2.9))
    assert world.steps()
    rungs = {name: state.rung for name, state in first.ladders.items()}
    with raises_code(LeaseHeldError, "lease.held") as caught:
        world.controller("second")
    assert "first" in caught.value.message
    applied = len(world.engine.applied)
    world.now_s += 6.0  # the lease expired
    second = world.controller("second")
    assert {name: state.rung for name, state in second.ladders.items()} == rungs
    known = json.loads(world.records.document("states") or "")
    assert [state_from_json(text) for text in known] == world.engine.applied[:-3:-1], "with the routes of the rungs"
    in_virtual_time(second.reconcile())
    assert len(world.engine.applied) == applied, "what is there already is not done again"
    world.engine.state = None
    with pytest.raises(LeaseLostError):
        in_virtual_time(first.reconcile())
    assert len(world.engine.applied) == applied, "no apply after the lease is lost"


def test_under_another_plan_it_begins_with_the_plan(world: World) -> None:
    first = world.controller()
    in_virtual_time(world.goes_on(first, 20.0, times=0.9))
    in_virtual_time(world.goes_on(first, 5.0, times=2.9))
    without_standby = replace(world.controlled, deployments=world.controlled.matching.deployments)
    other = World(without_standby, world.records, now_s=1000.0)
    assert other.controlled.fingerprint != world.controlled.fingerprint
    controller = other.controller("other")
    assert controller.ladders == other.controlled.initial_ladder_states()
    assert world.seen[0].reason == "started with the plan file"
    assert "the stored state is of another plan file or other options" in other.seen[0].reason


def test_what_happened_while_it_could_not_be_kept_is_kept_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = world.controller()
    moved = [Event(1e9, "drift", "p/o on edge", "2 s now, 1 s when profiled")]

    async def look(*_: object) -> list[Event]:
        found, moved[:] = list(moved), []
        return found

    monkeypatch.setattr(controller._drift_monitor, "poll", look)
    commit, failing = world.records.commit, {"drift", "applied"}

    def fails_once(lease: int, content: str, events: Sequence[Event] = (), documents: Any = None) -> Any:
        kinds = failing & {event.kind for event in events}
        if kinds:
            failing.difference_update(kinds)
            raise StateStoreError("the disk is full")
        return commit(lease, content, events, documents)

    monkeypatch.setattr(world.records, "commit", fails_once)
    for _ in range(2):
        with pytest.raises(StateStoreError):
            in_virtual_time(world.goes_on(controller, 0.25, times=0.9))
    assert world.engine.state == world.controlled.desired_state(world.controlled.initial_ladder_states())
    in_virtual_time(world.goes_on(controller, 1.0, times=0.9))
    assert [event.kind for event in world.seen] == ["began", "drift", "applied"]
    assert world.records.last(10) == tuple(world.seen)


def test_what_cannot_be_brought_about_is_tried_again_ever_more_rarely(world: World) -> None:
    controller = world.controller()
    world.engine.refuses = lambda desired: True
    in_virtual_time(world.goes_on(controller, 60.0, times=0.9))
    failures = [event for event in world.seen if event.kind == "failed"]
    assert 5 <= len(failures) <= 7
    assert "cannot be reached; retry in 1 s" in failures[0].reason
    world.engine.refuses = lambda desired: False
    in_virtual_time(world.goes_on(controller, 70.0, times=0.9))
    assert world.engine.state == world.controlled.desired_state(world.controlled.initial_ladder_states())


def test_an_engine_that_does_not_answer_is_started_again_and_brought_to_the_plan(world: World) -> None:
    gone = True

    class Gone(FakeEngine):
        async def status(self) -> EngineStatus:
            if gone:
                raise ServingError("no engine runs")
            return await super().status()

    def revive() -> None:
        nonlocal gone
        gone = False

    world.engine = Gone()
    in_virtual_time(world.until_applied(ControlSettings(interval_s=0.001), revive=revive))
    assert [event.kind for event in world.seen] == ["began", "failed", "applied"]
    assert world.seen[1].reason == "no engine runs"
    world.records.acquire("next", world.now_s, 1.0)  # the lease was released


def test_what_the_engine_cancels_by_itself_does_not_end_the_controller(world: World) -> None:
    class Cancelling(FakeEngine):
        looks, attempts = 0, 0

        async def status(self) -> EngineStatus:
            self.looks += 1
            if self.looks == 1:
                raise asyncio.CancelledError
            return await super().status()

        async def apply(self, desired: DesiredState) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise asyncio.CancelledError
            await super().apply(desired)

    world.engine = Cancelling()
    in_virtual_time(world.until_applied(ControlSettings()))
    assert [event.kind for event in world.seen] == ["began", "failed", "failed", "applied"]
    assert "cancelled" in world.seen[1].reason


def test_the_lease_is_kept_and_the_engine_looked_at_while_replicas_start(world: World) -> None:
    looks = 0

    class Slow(FakeEngine):
        async def apply(self, desired: DesiredState) -> None:
            while looks < 20:
                await asyncio.sleep(0.01)
            with pytest.raises(LeaseHeldError):
                world.records.acquire("other", asyncio.get_running_loop().time(), 1.0)
            await super().apply(desired)

        async def status(self) -> EngineStatus:
            nonlocal looks
            looks += 1
            return await super().status()

    world.engine = Slow()
    in_virtual_time(world.until_applied(ControlSettings(interval_s=0.1, lease_s=1.5, apply_wait_s=0.01)))
    assert len(world.engine.applied) == 1


def test_a_step_during_an_apply_is_no_want_of_room(world: World) -> None:
    class Held(FakeEngine):
        held: asyncio.Event | None = None

        async def apply(self, desired: DesiredState) -> None:
            if self.held is not None:
                await self.held.wait()
            await super().apply(desired)

    world.engine = engine = Held()

    async def run() -> None:
        controller = world.controller()
        await world.goes_on(controller, 20.0, times=0.9)
        engine.held, engine.state = asyncio.Event(), engine.applied[0]
        engine.state = replace(engine.state, routes=engine.state.routes[1:])  # changed by another process
        await world.goes_on(controller, 20.0, times=2.9)
        assert world.steps()
        assert len(engine.applied) == 1
        engine.held.set()
        await world.goes_on(controller, 1.0, times=0.9)

    in_virtual_time(run())
    applied = [event for event in world.seen if event.kind == "applied"]
    assert len(applied) == 3
    assert all(event.reason.startswith("deployed after") for event in applied)


def test_stopped_while_replicas_start_it_gives_up_at_once(world: World) -> None:
    cancelled, begun = False, asyncio.Event()

    class Endless(FakeEngine):
        async def apply(self, desired: DesiredState) -> None:
            nonlocal cancelled
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

    async def run() -> float:
        stop, clock = asyncio.Event(), asyncio.get_running_loop().time
        world.engine = Endless()
        controller = Controller(
            world.engine,
            world.controlled,
            world.records,
            holder="one",
            clock=clock,
            wall_clock=clock,
            settings=ControlSettings(interval_s=0.01, apply_wait_s=0.01),
        )
        running = asyncio.create_task(controller.run(stop))
        await begun.wait()
        await asyncio.sleep(0.2)
        stop.set()
        await running
        return clock()

    ended_s = in_virtual_time(run())
    assert cancelled
    assert ended_s == pytest.approx(0.2)
    world.records.acquire("next", ended_s, 1.0)


def test_standby_takes_no_more_than_there_is() -> None:
    checked = lacking = 0
    for seed in range(2, 2 + share_of(25)):  # 1 takes as long as all others
        specification, profiles = random_specification(seed, queries=5, cpus=4.0, nodes=2)
        infrastructure = specification.infrastructure
        assert infrastructure is not None
        if seed % 2:  # nodes that do not run take no standby replicas
            elastic = {"min_nodes": 0, "billing": Billing.NODE}
            pools = tuple(pool.model_copy(update=elastic) for pool in infrastructure.pools)
            infrastructure = infrastructure.model_copy(update={"pools": pools})
            specification = replace(specification, infrastructure=infrastructure)
        matching, _ = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
        ready = plan_standby(matching, infrastructure, 3.0)
        lacking += bool(ready.queries_without_room)
        before = {d.deployment: d.replicas for d in matching.deployments}
        for pool in infrastructure.pools:
            used = np.zeros((pool.nodes, 2))
            for found in ready.deployments:
                if found.deployment.pool == pool.name:
                    for node in found.nodes:
                        used[node] += (found.demand.cpus, found.demand.memory_bytes)
            assert (used <= np.array([pool.cpus, pool.memory_bytes]) * (1 + 1e-9)).all()
            assert used.any(axis=1).sum() <= matching.nodes.get(pool.name, pool.nodes)
        for assignment in matching.assignments:
            ladder = assignment.ladder
            if ladder is not None and assignment.query not in ready.queries_without_room:
                there = {d.deployment: d.replicas for d in ready.deployments}
                for use in ladder.rungs[-1].candidate.deployments:
                    if ladder.chosen < len(ladder.rungs) - 1:
                        target = use.deployment.allocation.utilization_target
                        assert there[use.deployment] * target >= 3.0 * use.busy_replicas * (1 - 1e-9)
        after = {d.deployment: d.replicas for d in ready.deployments}
        for deployment, replicas in after.items():
            assert replicas == before.get(deployment, 0) + ready.extra.get(deployment, 0)
        assert set(before) <= set(after)
        checked += bool(ready.extra)
    assert checked
    assert lacking


class SteppingEngine(FakeEngine):
    """Engine that applies in two steps and may be held between them."""

    goes_on = asyncio.Event()

    async def apply_fenced(self, desired: DesiredState, guard: Guard) -> None:
        await guard()
        await self.goes_on.wait()
        await guard()
        await self.apply(desired)


def test_whoever_loses_the_lease_in_the_middle_of_a_change_does_not_go_on(world: World) -> None:
    lease, engine = ForgottenLease(), SteppingEngine()
    world.engine = engine
    controller = world.controller(engine_lease=lease)

    async def run() -> None:
        await controller.reconcile()
        lease.other = "one elsewhere"
        engine.goes_on.set()
        await controller.reconcile()

    with pytest.raises(LeaseLostError, match="one elsewhere"):
        in_virtual_time(run())
    assert engine.applied == []


def test_standby_stays_where_replicas_can_run(world: World) -> None:
    matching, infrastructure = world.controlled.matching, world.controlled.specification.infrastructure
    assert infrastructure is not None
    anywhere = plan_standby(matching, infrastructure, 3.0)
    everywhere = {pool.name for pool in infrastructure.pools}
    assert plan_standby(matching, infrastructure, 3.0, pools=everywhere).extra == anywhere.extra
    for barred in {deployment.pool for deployment in anywhere.extra}:
        ready = plan_standby(matching, infrastructure, 3.0, pools=everywhere - {barred})
        assert barred not in {deployment.pool for deployment in ready.extra}
        assert ready.extra or ready.queries_without_room, "a higher rung is on standby, or the query is reported"


def test_a_dry_run_says_what_differs(world: World) -> None:
    plain, kept = world.controlled.matching, world.controlled
    unaudited = replace(kept, audited_share=0.0)

    async def why(runs: ManagedPlans | None) -> str:
        world.engine.state = None if runs is None else runs.desired_state(runs.initial_ladder_states())
        dry = DryRunEngine(world.engine)
        await dry.apply(replace(kept, audited_share=0.01).desired_state(kept.initial_ladder_states()))
        return dry.why

    assert in_virtual_time(why(None)) == "the engine runs nothing"
    assert "admission, audits or code versions differ" in in_virtual_time(why(unaudited))
    extra = sum(d.replicas for d in kept.deployments) - sum(d.replicas for d in plain.deployments)
    assert in_virtual_time(why(replace(unaudited, deployments=plain.deployments))) == f"{extra} more replicas"


class ForgottenLease:
    """Lease that another holder may take at any moment."""

    def __init__(self) -> None:
        self.other = ""
        self.released: list[int] = []

    def acquire(self, holder: str, now_s: float, ttl_s: float) -> int:
        if self.other:
            raise LeaseHeldError(f"{self.other} controls this")
        return 7

    def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
        assert lease == 7
        if self.other == "unreachable":
            raise ServingError("it cannot be reached")
        if self.other:
            raise LeaseLostError(f"now {self.other} controls this")

    def release(self, lease: int) -> None:
        self.released.append(lease)


def test_whoever_loses_the_lease_of_the_engine_changes_nothing_there(world: World) -> None:
    lease = ForgottenLease()

    first = world.controller(engine_lease=lease)
    in_virtual_time(world.goes_on(first, 1.0, times=0.9))
    assert len(world.engine.applied) == 1
    lease.other, world.engine.state = "unreachable", None
    in_virtual_time(world.goes_on(first, 0.5, times=0.9))
    assert len(world.engine.applied) == 1, "another controller may hold the unreachable lease"
    lease.other = ""
    in_virtual_time(world.goes_on(first, 2.0, times=0.9))
    assert len(world.engine.applied) == 2
    lease.other, world.engine.state = "one elsewhere", None
    with pytest.raises(LeaseLostError, match="one elsewhere"):
        in_virtual_time(world.goes_on(first, 1.0, times=0.9))
    assert len(world.engine.applied) == 2
    world.now_s += 6.0
    with pytest.raises(LeaseHeldError, match="one elsewhere"):
        world.controller(engine_lease=lease)
    lease.other = ""
    world.controller(engine_lease=lease)  # the refused controller released the lease of the store


def test_a_controller_that_cannot_begin_gives_both_leases_back(world: World) -> None:
    lease = ForgottenLease()
    with sqlite3.connect(world.records.path) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(StateStoreError, match="disk is full"):
        world.controller(engine_lease=lease)
    assert lease.released == [7]
    world.records.acquire("next", 1e9, 1.0)


def test_the_records_are_kept_while_the_lease_of_the_engine_does_not_answer(world: World) -> None:
    renewed, enough = 0, threading.Event()

    class Counting(ControlStateStore):
        def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
            nonlocal renewed
            super().renew(lease, now_s, ttl_s)
            renewed += 1
            if renewed == 6:
                enough.set()

    class Silent(ForgottenLease):
        answered = False

        def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
            self.answered = enough.wait(HANG_LIMIT_S)

    lease = Silent()

    settings = ControlSettings(interval_s=0.05, lease_s=0.3, apply_wait_s=0.01)
    asyncio.run(world.until_applied(settings, Counting(world.records.path), engine_lease=lease))
    assert lease.answered
    assert len(world.engine.applied) == 1
