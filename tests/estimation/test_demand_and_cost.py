from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.estimation import replicas_for
from circinus.estimation.cost import usd_per_h_for_bytes
from circinus.estimation.merged_load import min_replicas_array
from circinus.estimation.stage_latency import replica_demand, replicas_per_node
from circinus.specification import DirectedLink, HardwareClass, KnobValues, OperatorSpec, Pool

GIB = 2.0**30
POOL = Pool(
    name="pool",
    site="edge",
    tier="edge",
    cpus=8.0,
    memory=16 * GIB,
    gpus=2.0,
    gpu_memory=16 * GIB,
    hardware=HardwareClass(name="h", relative_speed=1.0),
    price=1.6,
)


@pytest.mark.parametrize(
    ("cpus", "memory", "gpus", "share", "fit"),
    [(2.0, GIB, 0.0, 0.25, 4), (1.0, 12 * GIB, 0.0, 0.75, 1), (1.0, GIB, 1.0, 0.5, 2), (9.0, GIB, 0.0, 1.125, 0)],
)
def test_a_replica_pays_its_largest_share_of_a_node(
    cpus: float, memory: float, gpus: float, share: float, fit: int
) -> None:
    operator = OperatorSpec(name="a", uses="m:a", gpus=gpus, gpu_memory=gpus * 4 * GIB)
    demand = replica_demand(operator, KnobValues.of({}), POOL, cpus, memory)
    assert demand.cost_usd_per_h == pytest.approx(1.6 * share)
    assert replicas_per_node(demand, POOL) == fit


def test_gpu_memory_is_that_of_the_first_case_of_the_knobs() -> None:
    whole = {"only_if": {"model": "large", "half": False}, "size": "16GiB"}
    cases = [whole, {"only_if": {"model": "large"}, "size": "8GiB"}]
    knobs = {"model": ["small", "large"], "half": {"choices": [True, False], "only_if": {"model": "large"}}}
    operator = OperatorSpec(name="a", uses="m:a", knobs=knobs, gpus=0.1, gpu_memory="4GiB", gpu_memory_cases=cases)
    for values, fit in (
        ({"model": "small"}, 4),
        ({"model": "large", "half": True}, 2),
        ({"model": "large", "half": False}, 1),
    ):
        demand = replica_demand(operator, KnobValues.of(values), POOL, 1.0, GIB)
        assert (demand.gpu_memory_bytes, replicas_per_node(demand, POOL)) == (16 * GIB / fit, fit)


def test_a_node_without_gpus_holds_no_replica_that_needs_one() -> None:
    operator = OperatorSpec(name="a", uses="m:a", gpus=1.0)
    pool = POOL.model_copy(update={"gpus": 0.0, "gpu_memory_bytes": 0.0})
    assert replicas_per_node(replica_demand(operator, KnobValues.of({}), pool, 1.0, GIB), pool) == 0


@given(st.floats(0, 1000), st.floats(0.05, 0.95))
def test_whole_replicas_keep_the_target_and_are_the_fewest(busy: float, target: float) -> None:
    replicas = replicas_for(busy, target)
    assert replicas >= 1
    assert busy / replicas <= target * (1 + 1e-6)
    assert replicas == 1 or busy / (replicas - 1) > target * (1 - 1e-6)
    assert min_replicas_array([busy], target).tolist() == [replicas]


def test_a_rounding_error_takes_no_further_replica() -> None:
    assert replicas_for(0.1 + 0.2, 0.3) == 1


def test_traffic_is_paid_by_the_gigabyte() -> None:
    link = DirectedLink("a", "b", 1e6, 0.01, 0.05)
    assert usd_per_h_for_bytes(link, 1e6) == pytest.approx(3.6 * 0.05)
