"""Counts of repeated steps, orphaned deployments and time without a controller."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from benchmarks.control.crash_recovery import differences, double_actions, without_controller_s
from benchmarks.control.plan_file_changes import BroughtAbout

from circinus.control.state_store import Event
from circinus.serving import DeploymentStatus, EngineStatus
from circinus.serving.local.client import start_daemon
from circinus.serving.local.run_dir import RunDirectory
from circinus.testing.desired_states import StageSpec, chain


def _step(number: int, query: str, begin: int, end: int) -> Event:
    return Event(float(number), "step", query, "why", {"from": begin, "to": end}, number)


def test_steps_that_go_on_from_each_other_are_single() -> None:
    events = [
        Event(0.0, "began", "one", "", {}, 1),
        _step(2, "a", 0, 2),
        _step(3, "b", 1, 2),
        _step(4, "a", 2, 1),
        _step(6, "a", 1, 2),
    ]
    assert double_actions(events, {"a": 0, "b": 1}) == 0


def test_a_step_that_was_taken_before_or_leads_nowhere_or_out_of_order_is_double() -> None:
    first = {"a": 0}
    assert double_actions([_step(1, "a", 0, 2), _step(2, "a", 0, 2)], first) == 1
    assert double_actions([_step(1, "a", 0, 0)], first) == 1
    assert double_actions([_step(2, "a", 0, 2), _step(2, "a", 2, 1)], first) == 1


def test_every_kill_waits_for_the_next_beginning() -> None:
    events = [Event(moment, "began", "one", "") for moment in (0.0, 12.0, 30.0)]
    assert without_controller_s([10.0, 25.0], events) == [2.0, 5.0]


def test_what_runs_and_shall_not_and_the_other_way_round() -> None:
    kept, other, gone = StageSpec("a", "add", replicas=2), StageSpec("b", "add"), StageSpec("c", "add")
    desired = chain("q", kept, other)

    def status(*steps: StageSpec) -> EngineStatus:
        found = (DeploymentStatus(step.deployment, step.replicas, step.replicas, 0, 0, 0) for step in steps)
        return EngineStatus(desired.mode, tuple(found), ("q",))

    assert differences(desired, status(kept, other)) == 0
    assert differences(desired, status(kept, other, gone)) == 1
    assert differences(desired, status(kept)) == 1
    assert differences(desired, status(replace(kept, replicas=3), gone)) == 3


def test_rungs_of_other_plans_are_others() -> None:
    replan = Event(2.0, "replan", "plans", "", {}, 2)
    assert double_actions([_step(1, "a", 0, 2), replan, _step(3, "a", 1, 0)], {"a": 0}) == 0
    assert double_actions([_step(1, "a", 0, 2), replan, _step(3, "a", 1, 0), _step(4, "a", 1, 0)], {"a": 0}) == 1


def test_an_engine_says_what_it_was_told_twice() -> None:
    begun = "2026-01-01 00:00:00,000 INFO applying 3 deployments, mode replay"
    lines = [begun, _in_force("a"), begun, begun, _in_force("b"), begun, _in_force("b"), begun, _in_force("a")]
    found = BroughtAbout.of("\n".join(["2026-01-01 00:00:00,000 INFO closing", *lines]))
    assert (found.begun, found.states, found.repeated) == (5, ["a", "b", "b", "a"], 1)


def _in_force(state: str) -> str:
    return f"2026-01-01 00:00:00,000 INFO state {state} is in force for the queries applying, q"


def test_an_engine_in_the_background_writes_down_what_is_in_force(tmp_path: Path) -> None:
    async def told() -> tuple[BroughtAbout, list[str]]:
        engine, states = start_daemon(tmp_path / "run"), []
        try:
            for amount in (1, 2, 2):
                await engine.apply(chain("q", StageSpec("a", "add", knobs=(("amount", amount),))))
                states.append((await engine.status()).state)
            return BroughtAbout.of(RunDirectory(tmp_path / "run").log.read_text(encoding="utf-8")), states
        finally:
            await engine.close()

    found, states = asyncio.run(told())
    assert (found.begun, found.states, found.repeated) == (3, states, 1)
