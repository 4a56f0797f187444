"""Tests of stepwise rollouts: every step fits together with the previous one, and queries stay routed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from circinus.control.replanning.plan_rollout import ClusterCapacity, _union, next_intermediate_state
from circinus.serving import DesiredState, Mode
from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredDeployment
from circinus.serving.routes import Route, RouteShare, RouteStage
from circinus.serving.state_serialization import validate_state
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

CPUS = 4.0
QUERIES = ("a", "b", "c", "d")
DEPLOYMENTS = tuple(
    Deployment("p", f"o{number}", KnobValues(), pool, Allocation(1.0, 1, 0.8)) for number in range(4) for pool in "xy"
)


def _infrastructure(nodes: int) -> Infrastructure:
    pools = tuple(
        Pool(
            name=name,
            site="s",
            tier="edge",
            nodes=nodes,
            cpus=CPUS,
            memory_bytes=1e9,
            hardware=HardwareClass(name="local"),
        )
        for name in "xy"
    )
    return Infrastructure(name="i", sites=(Site(name="s"),), pools=pools)


def _state(infrastructure: Infrastructure, routes: dict[str, list[int]], replicas: dict[int, int]) -> DesiredState:
    used = sorted({number for numbers in routes.values() for number in numbers})
    return DesiredState(
        mode=Mode.REPLAY,
        infrastructure=infrastructure,
        deployments=tuple(DesiredDeployment(DEPLOYMENTS[n], "m:f", replicas[n], 1.0, 1e6, 1.0) for n in used),
        routes=tuple(
            Route(
                query,
                "p",
                "s",
                _stages(numbers[:2]),
                (f"o{numbers[-1]}",),
                others=(RouteShare(0.3, _stages(numbers[2:])),) if len(numbers) > 2 else (),
            )
            for query, numbers in routes.items()
        ),
        module_paths=(Path(),),
    )


def _stages(numbers: list[int]) -> tuple[RouteStage, ...]:
    return tuple(RouteStage(f"o{n}", (), DEPLOYMENTS[n], Configuration(())) for n in numbers)


ROUTES = st.dictionaries(
    st.sampled_from(QUERIES), st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), min_size=1
)
REPLICAS = st.fixed_dictionaries({number: st.integers(1, 4) for number in range(8)})
RENEWED = st.sets(st.integers(0, 7))
SIZES = st.fixed_dictionaries({number: st.sampled_from((0.5, 1.0, 2.0, 3.0)) for number in range(8)})


def _sized(state: DesiredState, cpus: dict[int, float]) -> DesiredState:
    """Return the state with replicas of other sizes, and one of each large deployment."""
    sizes = {DEPLOYMENTS[number]: size for number, size in cpus.items()}
    resized = (replace(d, cpus=sizes[d.deployment]) for d in state.deployments)
    return replace(state, deployments=tuple(replace(d, replicas=1) if d.cpus > 1.0 else d for d in resized))


def _renewed(state: DesiredState, numbers: Collection[int]) -> DesiredState:
    """Return the state with other code of some operators."""
    new = {DEPLOYMENTS[number] for number in numbers}
    deployments = (replace(d, operator_version="new") if d.deployment in new else d for d in state.deployments)
    return replace(state, deployments=tuple(deployments))


def _largest(before: DesiredState, after: DesiredState) -> list[DesiredDeployment]:
    sizes = {(d.deployment, d.operator_version): d for d in before.deployments}
    for wanted in after.deployments:
        key = wanted.deployment, wanted.operator_version
        known = sizes.get(key)
        sizes[key] = wanted if known is None or known.replicas < wanted.replicas else known
    return list(sizes.values())


ONES = dict.fromkeys(range(8), 1)


@given(st.integers(1, 3), ROUTES, REPLICAS, ROUTES, REPLICAS, RENEWED, SIZES)
@example(1, {"b": [5, 1]}, {**ONES, 1: 2}, {"b": [5, 1]}, {**ONES, 5: 3}, set(), ONES)  # other sizes, no query moves
def test_every_step_fits_beside_the_one_before_and_the_last_is_what_shall_run(
    nodes: int,
    routes_before: dict[str, list[int]],
    replicas_before: dict[int, int],
    routes_after: dict[str, list[int]],
    replicas_after: dict[int, int],
    renewed: set[int],
    cpus: dict[int, float],
) -> None:
    infrastructure = _infrastructure(nodes)
    room = ClusterCapacity(infrastructure, {"x": nodes, "y": nodes})
    before = _sized(_state(infrastructure, routes_before, replicas_before), cpus)
    after = _sized(_renewed(_state(infrastructure, routes_after, replicas_after), renewed), cpus)
    assume(room.fits(before.deployments) and room.fits(after.deployments))
    assert (
        room.fits(_largest(before, after)) == (next_intermediate_state(before, after, room, QUERIES) == after)
        or before == after
    )
    state, steps, paused = before, 0, set[str]()
    while state != after:
        following = next_intermediate_state(state, after, room, QUERIES)
        validate_state(following)
        assert following != state
        assert room.fits(_largest(state, following))
        routed = {route.query for route in following.routes}
        assert {route.query for route in state.routes if route.query in routes_after} <= routed
        paused |= {route.query for route in following.routes if route.is_paused}
        for route in following.routes:
            assert route in before.routes or route in after.routes or route.is_paused
        state, steps = following, steps + 1
        assert steps < 60
    if room.fits(_largest(before, after)):
        assert steps <= 1
        assert not paused


def test_queries_move_one_after_another_where_two_do_not_fit_at_once_and_nobody_is_stopped() -> None:
    infrastructure = _infrastructure(1)  # four CPUs in each pool
    room = ClusterCapacity(infrastructure, {"x": 1, "y": 1})
    before = _state(infrastructure, {"a": [0], "b": [2]}, dict.fromkeys(range(8), 2))
    after = _state(infrastructure, {"a": [4], "b": [6]}, dict.fromkeys(range(8), 2))
    state, routed = before, []
    while state != after:
        state = next_intermediate_state(state, after, room, ("a", "b"))
        routed.append({route.query for route in state.routes if not route.is_paused})
    assert all(queries == {"a", "b"} for queries in routed), "fewer replicas for a moment, but never none"
    assert len(routed) > 1


def test_new_code_takes_the_place_of_the_old_a_replica_at_a_time_where_both_do_not_fit_at_once() -> None:
    infrastructure = _infrastructure(1)
    room = ClusterCapacity(infrastructure, {"x": 1, "y": 1})
    before = _state(infrastructure, {"a": [0], "b": [0]}, dict.fromkeys(range(8), 4))
    after = _renewed(before, [0])
    states = [before]
    while states[-1] != after:
        states.append(next_intermediate_state(states[-1], after, room, ("a", "b")))
    assert all(state.routes == before.routes for state in states), "no query is stopped"
    assert [(d.operator_version, d.replicas) for state in states for d in state.deployments] == [
        ("", 4), ("", 1), ("new", 1), ("new", 4),
    ]  # fmt: skip


def test_other_targets_take_over_replicas_that_fill_their_pool() -> None:
    infrastructure = _infrastructure(1)
    room = ClusterCapacity(infrastructure, {"x": 1, "y": 1})
    before = _state(infrastructure, {"a": [0]}, dict.fromkeys(range(8), 4))
    allocation = replace(DEPLOYMENTS[0].allocation, utilization_target=0.6)
    moved = replace(DEPLOYMENTS[0], allocation=allocation)
    (route,) = before.routes
    after = replace(
        before,
        deployments=tuple(replace(entry, deployment=moved) for entry in before.deployments),
        routes=(replace(route, stages=(replace(route.stages[0], deployment=moved),)),),
    )
    assert next_intermediate_state(before, after, room, QUERIES) == after


def test_deployments_keep_their_replicas_where_others_differ_only_in_the_target() -> None:
    infrastructure = _infrastructure(1)
    room = ClusterCapacity(infrastructure, {"x": 1, "y": 1})
    one = _state(infrastructure, {"a": [0]}, dict.fromkeys(range(8), 3))
    (route,), (entry,) = one.routes, one.deployments
    allocation = replace(DEPLOYMENTS[0].allocation, utilization_target=0.3)
    lower = replace(DEPLOYMENTS[0], allocation=allocation)
    both = replace(
        one,
        deployments=(replace(entry, deployment=lower, replicas=1), entry),
        routes=(route, replace(route, query="b", stages=(replace(route.stages[0], deployment=lower),))),
    )
    assert sum(each.replicas for each in _union(one, both)) == 4
    assert sum(each.replicas for each in _union(both, one)) == 4
    assert next_intermediate_state(one, both, room, ("b", "a")) == both
    (kept,) = build_applications(one)
    names = {app.target: app.name for app in build_applications(both, {kept.name: entry.deployment})}
    assert names[entry] == kept.name
    (left,) = build_applications(one, {name: target.deployment for target, name in names.items()})
    assert left.name == kept.name
    moved = {app.target: app.name for app in build_applications(both)}
    (last,) = build_applications(one, {name: target.deployment for target, name in moved.items()})
    assert last.name == moved[entry] != kept.name, "the number is in the name"


def test_where_nothing_fits_beside_the_least_important_waits_for_a_moment() -> None:
    infrastructure = _infrastructure(1)
    room = ClusterCapacity(infrastructure, {"x": 1, "y": 1})
    large = dict.fromkeys(range(8), 1)
    before = _state(infrastructure, {"a": [0], "b": [2]}, large)
    after = _state(infrastructure, {"a": [4], "b": [6]}, large)

    def grown(state: DesiredState) -> DesiredState:
        return replace(state, deployments=tuple(replace(d, cpus=2.0) for d in state.deployments))

    before, after = grown(before), grown(after)
    first = next_intermediate_state(before, after, room, ("b", "a"))
    assert [(route.query, route.is_paused) for route in first.routes] == [("a", False), ("b", True)]
    assert [entry.deployment for entry in first.deployments] == [DEPLOYMENTS[0]]
    state = first
    while state != after:
        state = next_intermediate_state(state, after, room, ("b", "a"))


def test_spread_replicas_fit_on_as_many_nodes_as_there_are_only() -> None:
    infrastructure = _infrastructure(2)
    room = ClusterCapacity(infrastructure, {"x": 2, "y": 2})
    packed = _state(infrastructure, {"a": [0]}, {0: 3}).deployments
    assert room.fits(packed)
    assert not room.fits([replace(entry, is_spread=True) for entry in packed])
    assert room.fits([replace(entry, is_spread=True, replicas=2) for entry in packed])


def test_what_is_on_a_pool_without_nodes_takes_no_room() -> None:
    infrastructure = _infrastructure(1)
    before = _state(infrastructure, {"a": [0], "b": [1]}, dict.fromkeys(range(8), 4))
    after = _state(infrastructure, {"a": [3], "b": [1]}, {**dict.fromkeys(range(8), 4), 1: 1, 3: 3})
    assert next_intermediate_state(before, after, ClusterCapacity(infrastructure, {"x": 1, "y": 1}), QUERIES) != after
    room = ClusterCapacity(infrastructure, {"x": 0, "y": 2})
    assert next_intermediate_state(before, after, room, QUERIES) == after
