"""What counts as done twice, left behind, or uncontrolled."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.serving_kills import differences, double_actions, kept_ladders, without_controller_s

from circinus.control.ladders.policy import LadderState
from circinus.control.records import Event
from circinus.serving import DeploymentStatus, EngineStatus
from circinus.serving.conformance_states import Step, chain


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
    kept, other, gone = Step("a", "add", replicas=2), Step("b", "add"), Step("c", "add")
    desired = chain("q", kept, other)

    def status(*steps: Step) -> EngineStatus:
        found = (DeploymentStatus(step.deployment, step.replicas, step.replicas, 0, 0, 0) for step in steps)
        return EngineStatus(desired.mode, tuple(found), ("q",))

    assert differences(desired, status(kept, other)) == 0
    assert differences(desired, status(kept, other, gone)) == 1
    assert differences(desired, status(kept)) == 1
    assert differences(desired, status(replace(kept, replicas=3), gone)) == 3


def test_where_queries_stand_is_read_from_what_is_kept() -> None:
    kept = kept_ladders('{"plan": "x", "ladders": {"a": [2, 1], "b": [0, 0]}}')
    assert kept == {"a": LadderState(2, 1), "b": LadderState(0, 0)}
