"""Refusals of states by an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.profiling.hardware import machine
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.local import capacity
from circinus.serving.local.capacity import MachineCapacity, require_capacity
from circinus.serving.state_serialization import validate_state
from circinus.testing.desired_states import StageSpec, chain, route, state
from raised import raises_code

SMALL = MachineCapacity(cpus=2, memory_bytes=2.0**30, gpus=0)


def with_pool(desired: DesiredState, name: str, **changes: Any) -> DesiredState:
    pools = tuple(
        pool.model_copy(update=changes) if pool.name == name else pool for pool in desired.infrastructure.pools
    )
    return replace(desired, infrastructure=desired.infrastructure.model_copy(update={"pools": pools}))


def with_deployment(desired: DesiredState, **changes: Any) -> DesiredState:
    return replace(desired, deployments=tuple(replace(wanted, **changes) for wanted in desired.deployments))


NEAR = chain("q", StageSpec("first", "add"))
TOO_LARGE = [
    (with_pool(NEAR, "near", cpus=3.0), "pools in use (near) have 3 CPUs and this machine has 2"),
    (with_pool(NEAR, "near", nodes=5), "have 2.5 CPUs"),
    (with_pool(with_deployment(NEAR, replicas=25), "near", nodes=9, min_nodes=0), "have 2.5 CPUs"),
    (with_pool(NEAR, "near", memory_bytes=2.0**31), "have 2 GiB of memory and this machine has 1"),
    (with_pool(NEAR, "near", gpus=1.0), "have 1 GPUs and this machine has 0"),
    (with_deployment(NEAR, replicas=30, cpus=0.1), "replicas are given 3 CPUs"),
    (with_deployment(NEAR, replicas=3, memory_bytes=2.0**29), "replicas are given 1.5 GiB of memory"),
    (with_deployment(NEAR, relative_speed=2.0), "hardware is 2 times as fast"),
]


@pytest.mark.parametrize(("desired", "message"), TOO_LARGE)
def test_real_refuses_what_this_machine_is_not(desired: DesiredState, message: str) -> None:
    code = "pool.too_fast" if "fast" in message else "engine.machine_too_small"
    with raises_code(ServingError, code) as caught:
        require_capacity(desired, SMALL)
    assert caught.value.location == ("pool near" if "fast" in message else "mode real")
    assert message in caught.value.message
    assert "replay" in caught.value.hint


@pytest.mark.parametrize(("desired", "message"), TOO_LARGE)
def test_replay_stands_in_for_any_machine(desired: DesiredState, message: str) -> None:
    require_capacity(replace(desired, mode=Mode.REPLAY), SMALL)


def test_pools_that_are_not_used_may_be_large() -> None:
    require_capacity(with_pool(NEAR, "far", cpus=64.0), SMALL)


def test_what_fits_is_accepted() -> None:
    require_capacity(with_pool(with_deployment(NEAR, replicas=20), "near", cpus=2.0), SMALL)
    require_capacity(with_pool(NEAR, "near", nodes=9, min_nodes=0), SMALL)


def test_contradictions_are_refused() -> None:
    first, second = StageSpec("first", "add"), StageSpec("second", "add", after=("first",))
    validate_state(state([route("q", first, second)], [first, second]))
    for desired, code in [
        (state([route("q", first, second)], [first]), "route.missing_deployment"),
        (state([route("q", first)], [first, first]), "deployment.duplicate"),
        (state([route("q", first), route("q", first)], [first]), "route.duplicate_query"),
        (with_deployment(NEAR, replicas=0), "deployment.no_replicas"),
        (state([], [StageSpec("first", "add", pool="nowhere")]), "deployment.unknown_pool"),
    ]:
        with raises_code(ServingError, code):
            validate_state(desired)


def test_this_machine_is_no_larger_than_its_groups_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, capacity):
        monkeypatch.setattr(module, "cgroup_limits", lambda: (0.5, 2.0**20))
    assert machine.available_cpus() == 0.5
    assert (MachineCapacity.of_this_machine().cpus, MachineCapacity.of_this_machine().memory_bytes) == (0.5, 2.0**20)


def test_this_machine_has_something() -> None:
    found = MachineCapacity.of_this_machine()
    assert found.cpus > 0
    assert found.memory_bytes > 2**26
