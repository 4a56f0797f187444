"""Conversion of a matching into a desired state."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from served_scenario import PLAN, matching, pipeline, query, specification, split_matching

from circinus.errors import PlanningError, ServingError
from circinus.estimation import StageEstimate
from circinus.serving import DesiredDeployment, Mode, RouteStage
from circinus.serving.applications import build_applications
from circinus.serving.desired_state import build_desired_state, build_route
from circinus.specification import Allocation, Configuration, KnobValues, LatePolicy, OperatorSpec, QueryPlan
from golden import check_message
from raised import raises_code


def test_state_has_the_deployments_as_sized_and_a_route_for_each_query_served() -> None:
    given = specification(query("a"), query("b"), query("rejected"))
    uses = given.pipelines["p"].operators[0].uses
    state = build_desired_state(matching(["a", "b"], ["rejected"]), given, Mode.REAL, operator_versions={uses: "v1"})
    assert state.deployments == (
        DesiredDeployment(PLAN.deployment_of("add"), uses, 3, 0.1, 2.0**20, relative_speed=0.5, operator_version="v1"),
    )
    assert [route.query for route in state.routes] == ["a", "b"]
    assert state.routes[0].stages == (
        RouteStage("add", (), PLAN.deployment_of("add"), Configuration.of({"add": KnobValues()})),
    )
    assert state.routes[0].sinks == ("add",)
    assert state.routes[0].source == "home"
    assert state.recordings is None


def test_hardware_is_as_fast_as_it_was_measured() -> None:
    found = matching(["a"], [])
    measured = replace(found, deployments=tuple(replace(sized, relative_speed=0.3) for sized in found.deployments))
    (declared,) = build_desired_state(found, specification(query("a")), Mode.REAL).deployments
    (wanted,) = build_desired_state(measured, specification(query("a")), Mode.REAL).deployments
    assert (declared.relative_speed, wanted.relative_speed) == (0.5, 0.3)


@pytest.mark.parametrize(("max_batch_s", "limit_s"), [(None, None), (0.2, 10.0), (3.0, 60.0)])
def test_the_time_limit_of_a_batch_is_that_of_the_slowest_item_with_room(
    max_batch_s: float | None, limit_s: float | None
) -> None:
    found = matching(["a"], [])
    found = replace(found, deployments=tuple(replace(sized, max_batch_s=max_batch_s) for sized in found.deployments))
    state = build_desired_state(found, specification(query("a")), Mode.REAL)
    (wanted,) = state.deployments
    assert wanted.batch_limit_s == limit_s
    other = replace(state, deployments=(replace(wanted, batch_limit_s=99.0),))
    assert [app.name for app in build_applications(other)] == [app.name for app in build_applications(state)]
    (replayed,) = build_desired_state(found, specification(query("a")), Mode.REPLAY, Path("s.sqlite")).deployments
    assert replayed.batch_limit_s is None


def test_as_much_is_audited_as_is_asked_for() -> None:
    state = build_desired_state(matching(["a"]), specification(query("a")), Mode.REAL, audited_share=0.25)
    assert [route.audit_rate for route in state.routes] == [0.25]
    assert state.routes[0].configuration == PLAN.configuration


def test_routes_carry_the_latest_starts_of_the_plan_that_they_follow() -> None:
    dropping = query("a").model_copy(update={"late": LatePolicy.DROP})
    chosen = matching(["a", "b"]).assignments[0].chosen
    stage = StageEstimate("add", "far", 0.0, 0.0, 0.1, latest_start_s=0.7)
    other = replace(chosen, estimate=replace(chosen.estimate, stages=(stage,)))
    state = build_desired_state(
        matching(["a", "b"]), specification(dropping, query("b")), Mode.REAL, plans={"a": other}
    )
    assert [route.late for route in state.routes] == [LatePolicy.DROP, LatePolicy.ANSWER]
    assert [route.stages[0].latest_start_s for route in state.routes] == [0.7, None]
    without = build_desired_state(matching(["a", "b"]), specification(query("a"), query("b")), Mode.REAL)
    assert without.deployments == state.deployments
    unlimited = build_route(dropping, PLAN, pipeline(), {"add": math.inf})
    assert unlimited.stages[0].latest_start_s is None


def test_a_split_plan_has_a_route_with_its_parts_and_their_own_latest_starts() -> None:
    found = split_matching(["a"])
    stages = [StageEstimate("add", "far", 0.0, 0.0, 0.1, latest_start_s=start_s) for start_s in (0.7, 0.2)]
    chosen = found.assignments[0].chosen
    parts = tuple(
        replace(part, estimate=replace(part.estimate, stages=(stage,)))
        for part, stage in zip(chosen.parts, stages, strict=True)
    )
    plans = {"a": replace(chosen, parts=parts)}
    (route,) = build_desired_state(found, specification(query("a")), Mode.REAL, plans=plans).routes
    assert [part.share for part in route.parts] == pytest.approx([0.75, 0.25])
    assert [part.configuration for part in route.parts] == [part.plan.configuration for part in chosen.plan.parts]
    assert [part.stages[0].latest_start_s for part in route.parts] == [0.7, 0.2]
    assert {stage.deployment for stage in route.all_stages} == set(chosen.plan.deployments)
    assert replace(route, others=()) == build_route(query("a"), chosen.plan.parts[0].plan, pipeline(), {"add": 0.7})


def test_batches_wait_as_the_operator_says() -> None:
    given = specification(query("a"))
    (operator,) = given.pipelines["p"].operators
    patient = operator.model_copy(update={"batch_wait_s": 0.02})
    changed = given.pipelines["p"].model_copy(update={"operators": (patient,)})
    state = build_desired_state(matching(["a"]), replace(given, pipelines={"p": changed}), Mode.REAL)
    assert [deployment.batch_wait_s for deployment in state.deployments] == [0.02]


def test_stages_stand_in_topological_order_with_their_prefixes() -> None:
    operators = (
        OperatorSpec(name="last", uses="m:f", after=("left", "right")),
        OperatorSpec(name="left", uses="m:f", after=("first",)),
        OperatorSpec(name="right", uses="m:f", after=("first",)),
        OperatorSpec(name="first", uses="m:f"),
        OperatorSpec(name="aside", uses="m:f", after=("left",)),
    )
    names = [operator.name for operator in operators]
    configuration = Configuration.of({name: KnobValues.of({"k": name}) for name in names})
    plan = QueryPlan(
        "p",
        configuration,
        tuple(sorted((name, "far") for name in names)),
        tuple(sorted((name, Allocation(1.0, 1, 0.5)) for name in names)),
    )
    route = build_route(query("q"), plan, pipeline().model_copy(update={"operators": operators}))
    order = [stage.operator for stage in route.stages]
    assert all(order.index(parent) < order.index(stage.operator) for stage in route.stages for parent in stage.after)
    prefixes = {stage.operator: set(stage.prefix) for stage in route.stages}
    assert prefixes["last"] == {"first", "left", "right", "last"}
    assert prefixes["aside"] == {"first", "left", "aside"}
    assert set(route.sinks) == {"last", "aside"}


def test_replay_needs_recordings() -> None:
    given = specification(query("a"))
    with raises_code(ServingError, "engine.no_recordings") as caught:
        build_desired_state(matching(["a"]), given, Mode.REPLAY)
    check_message("serving/no_recordings", str(caught.value))
    assert build_desired_state(matching(["a"]), given, Mode.REPLAY, Path("s")).recordings == Path("s")


def test_infrastructure_is_needed() -> None:
    with raises_code(PlanningError, "specification.no_infrastructure"):
        build_desired_state(matching(["a"]), replace(specification(query("a")), infrastructure=None), Mode.REAL)
