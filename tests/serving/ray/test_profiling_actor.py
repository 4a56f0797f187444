"""Profiling actor of a node, without a cluster."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from circinus.errors import CircinusError, OperatorError, ProfileError
from circinus.operators import Item, resolve
from circinus.operators.pickling import pickle_value
from circinus.profiling import Machine, current_machine
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys, pipeline_code
from circinus.serving.ray.cluster import PoolNodes
from circinus.serving.ray.profiling_actor import NodeInfo, ProfilingActor, ProfilingRequest
from circinus.serving.ray.profiling_runner import HardwareClassPools
from circinus.specification import configurations
from golden import check_message
from hardware_test_app import hardware, pool, pool_specification


@pytest.fixture
def profiling_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProfilingRequest]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    specification = pool_specification(tmp_path, pool("far", hardware("slow", 1.0)))
    pipeline = specification.pipelines["naps"]
    code = pipeline_code(pipeline, [tmp_path])
    yield ProfilingRequest(pipeline, code, "slow", current_machine(), (tmp_path,), 60.0)
    sys.modules.pop("pool_operators", None)


def _items(profiling_request: ProfilingRequest) -> list[Item]:
    items: list[Item] = resolve("pool_operators:items", profiling_request.module_paths)()
    return items[:3]


def _error(response: object) -> CircinusError:
    error = pickle.loads(pickle.dumps(response))
    assert isinstance(error, CircinusError)
    return error


@pytest.mark.slow
def test_a_node_answers_as_this_machine_does(profiling_request: ProfilingRequest) -> None:
    node, items = ProfilingActor(profiling_request), _items(profiling_request)
    assert isinstance(node.open(), NodeInfo)
    configuration = next(iter(configurations(profiling_request.pipeline)))
    keys, sent = [item.key for item in items], [pickle_value(item) for item in items]
    addresses = MeasurementKeys(profiling_request.pipeline, profiling_request.code, machine=current_machine())
    with LocalRunner(addresses, profiling_request.module_paths) as runner:
        local = runner.measure(configuration, items)
    try:
        remote = pickle.loads(pickle.dumps(node.measure("measure", configuration, keys, sent)))
        assert (remote.outputs, remote.scores) == (local.outputs, local.scores)
        assert {name: runs.output_bytes for name, runs in remote.runs.items()} == {
            name: runs.output_bytes for name, runs in local.runs.items()
        }
        assert all(facts.peak_memory_bytes > 0 and facts.startup_s for facts in remote.replicas.values())
        # Items are sent once, and outputs are cached.
        repeated = node.measure("measure_operators", configuration, keys[:2], [], operators=["answer"])
        assert repeated.compute_s == 0.0
        assert {name: runs.service_s for name, runs in repeated.runs.items()} == {
            name: runs.service_s[:2] for name, runs in remote.runs.items()
        }
        allocations = node.measure(
            "measure_allocations", configuration, keys, [], operator="ahead", allocations=[(1.0, 1)]
        )
        assert allocations.ratios.keys() == {(1.0, 1)}
        assert allocations.ratios[1.0, 1] > 0
    finally:
        node.close()


@pytest.mark.slow
def test_failures_travel_as_what_they_were(
    profiling_request: ProfilingRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_BROKEN", "2")
    node, (item, *_) = ProfilingActor(profiling_request), _items(profiling_request)
    node.open()
    configuration = next(c for c in configurations(profiling_request.pipeline) if c["ahead"].as_dict() == {"effort": 2})
    try:
        error = _error(node.measure("measure", configuration, [item.key], [pickle_value(item)]))
        assert isinstance(error, MeasurementError)
        assert (error.configuration, error.item_key) == (configuration, item.key)
        assert "this node cannot do that" in error.message
        unreadable = _error(node.measure("measure", configuration, ["x"], [b"nothing"]))
        assert isinstance(unreadable, ProfileError)
        assert unreadable.code == "dataset.unreadable_item"
        assert unreadable.location.startswith("node ")
        assert unreadable.hint
    finally:
        node.close()


def test_other_code_or_another_machine_is_refused_before_anything_is_measured(
    profiling_request: ProfilingRequest,
) -> None:
    changed = CodeVersions(
        {**profiling_request.code.operators, "pool_operators:answer": "f" * 64}, profiling_request.code.metric, ""
    )
    other_code = _error(ProfilingActor(replace(profiling_request, code=changed)).open())
    assert isinstance(other_code, OperatorError)
    assert (other_code.code, other_code.location) == ("operator.other_version", "operator pool_operators:answer")
    assert "expected ffffffffffff" in other_code.message
    assert other_code.hint == "Install the same code on all nodes."
    other_machine = _error(ProfilingActor(replace(profiling_request, machine=Machine("Another CPU", 99))).open())
    assert isinstance(other_machine, ProfileError)
    assert other_machine.code == "ray.other_machine"
    assert "expected Another CPU, 99 cores" in other_machine.message


def test_what_is_said_of_a_class_without_nodes() -> None:
    pools = HardwareClassPools(None, "arm", ("phone", "tablet"), "auto")
    error = pools.missing({"edge": PoolNodes(2, labelled=False)})
    assert (error.code, error.location) == ("ray.missing_nodes", "hardware class arm (pools phone, tablet)")
    check_message("serving/missing_nodes", str(error))
