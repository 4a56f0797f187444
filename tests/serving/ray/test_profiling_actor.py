"""The actor that measures on a node, without a cluster."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item, resolve
from circinus.profiling import Machine, current_machine
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.pickling import pickle_value
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys, pipeline_code
from circinus.serving.ray.cluster import PoolNodes
from circinus.serving.ray.profiling_actor import NodeInfo, ProfilingActor, ProfilingRequest, RemoteError
from circinus.serving.ray.profiling_runner import HardwareClassPools
from circinus.specification import configurations
from hardware_test_app import hardware, pool, pool_specification


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProfilingRequest]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    specification = pool_specification(tmp_path, pool("far", hardware("slow", 1.0)))
    pipeline = specification.pipelines["naps"]
    code = pipeline_code(pipeline, [tmp_path])
    yield ProfilingRequest(pipeline, code, "slow", current_machine(), (tmp_path,), 60.0)
    sys.modules.pop("pool_operators", None)


def _items(order: ProfilingRequest) -> list[Item]:
    found: list[Item] = resolve("pool_operators:items", order.module_paths)()
    return found[:3]


def _refused(answer: object) -> RemoteError:
    assert isinstance(answer, RemoteError)
    found = pickle.loads(pickle.dumps(answer))
    assert isinstance(found, RemoteError)
    return found


@pytest.mark.slow
def test_a_node_answers_as_this_machine_does(order: ProfilingRequest) -> None:
    node, items = ProfilingActor(order), _items(order)
    assert isinstance(node.open(), NodeInfo)
    configuration = next(iter(configurations(order.pipeline)))
    keys, sent = [item.key for item in items], [pickle_value(item) for item in items]
    addresses = MeasurementKeys(order.pipeline, order.code, machine=current_machine())
    with LocalRunner(addresses, order.module_paths) as runner:
        here = runner.measure(configuration, items)
    try:
        there = pickle.loads(pickle.dumps(node.measure(configuration, keys, sent)))
        assert (there.outputs, there.scores) == (here.outputs, here.scores)
        assert {name: runs.output_bytes for name, runs in there.runs.items()} == {
            name: runs.output_bytes for name, runs in here.runs.items()
        }
        assert all(facts.peak_memory_bytes > 0 and facts.startup_s for facts in there.replicas.values())
        # Items are sent once, and what was computed is kept.
        again = node.measure_operators(configuration, keys[:2], [], ["answer"])
        assert not isinstance(again, RemoteError)
        assert again.compute_s == 0.0
        assert {name: runs.service_s for name, runs in again.runs.items()} == {
            name: runs.service_s[:2] for name, runs in there.runs.items()
        }
        alone = node.measure_allocations(configuration, keys, [], "ahead", [(1.0, 1)])
        assert not isinstance(alone, RemoteError)
        assert alone.ratios.keys() == {(1.0, 1)}
        assert alone.ratios[1.0, 1] > 0
    finally:
        node.close()


@pytest.mark.slow
def test_failures_travel_as_what_they_were(order: ProfilingRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_BROKEN", "2")
    node, (item, *_) = ProfilingActor(order), _items(order)
    node.open()
    configuration = next(c for c in configurations(order.pipeline) if c["ahead"].as_dict() == {"effort": 2})
    try:
        error = _refused(node.measure(configuration, [item.key], [pickle_value(item)])).error()
        assert isinstance(error, MeasurementError)
        assert (error.configuration, error.item_key) == (configuration, item.key)
        assert "this node cannot do that" in error.reason
        unreadable = _refused(node.measure(configuration, ["x"], [b"nothing"])).error()
        assert isinstance(unreadable, ProfileError)
        assert unreadable.code == "dataset.unreadable_item"
        assert unreadable.location.startswith("node ")
        assert unreadable.hint
    finally:
        node.close()


def test_other_code_or_another_machine_is_refused_before_anything_is_measured(order: ProfilingRequest) -> None:
    changed = CodeVersions({**order.code.operators, "pool_operators:answer": "f" * 64}, order.code.metric, "")
    other_code = _refused(ProfilingActor(replace(order, code=changed)).open()).error()
    assert isinstance(other_code, OperatorError)
    assert (other_code.code, other_code.location) == ("operator.other_version", "operator pool_operators:answer")
    assert "expected ffffffffffff" in other_code.message
    assert other_code.hint == "Install the same code on all nodes."
    other_machine = _refused(ProfilingActor(replace(order, machine=Machine("Another CPU", 99))).open()).error()
    assert isinstance(other_machine, ProfileError)
    assert other_machine.code == "ray.other_machine"
    assert "expected Another CPU, 99 cores" in other_machine.message


def test_what_is_said_of_a_class_without_nodes() -> None:
    error = HardwareClassPools("arm", ("phone", "tablet"), "auto").missing({"edge": PoolNodes(2, labelled=False)})
    assert (error.code, error.location) == ("ray.missing_nodes", "hardware class arm (pools phone, tablet)")
    assert "nodes by pool: edge 2" in error.message
    assert "resource pool:phone or the label circinus/pool=phone" in error.hint
    assert "--declared-speeds" in error.hint
