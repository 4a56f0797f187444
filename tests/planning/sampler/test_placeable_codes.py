"""Codes that fit on a node: as filtered from all codes, and listed from few cases in any space."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.planning.sampler import make_sampler
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.initial_design import covering_codes
from circinus.planning.sampler.placeable_codes import placeable_codes
from circinus.specification import GpuMemoryCase, HardwareClass, Infrastructure, Knob, OperatorSpec, Pool, Query
from circinus.specification import Specification as Spec
from planning.sampler.spaces import knob, pipeline_of

POOL = Pool(
    name="gpus", site="here", tier="cloud", cpus=8, memory="1GiB", gpu_memory=10, hardware=HardwareClass(name="local")
)


def case(size: float, **only_if: int) -> GpuMemoryCase:
    return GpuMemoryCase(only_if={name: (choice,) for name, choice in only_if.items()}, size=size)


def operator(name: str = "o", *cases: GpuMemoryCase, count: int = 3, default: float = 20) -> OperatorSpec:
    knobs = (knob("a", count), knob("b", count), Knob(name="c", choices=[0, 1], only_if={"a": [1, 2]}))
    return OperatorSpec(name=name, uses="m:f", knobs=knobs, gpu_memory=default, gpu_memory_cases=cases)


@pytest.mark.parametrize("default", [5, 20])
def test_codes_are_those_of_the_whole_space_that_fit(default: float) -> None:
    cases = (case(30, a=0, b=1), case(9, a=0), case(10, a=1, c=1), case(11, b=2), case(1, b=2))
    pipeline = pipeline_of(
        operator("o", *cases, default=default), OperatorSpec(name="p", uses="m:f", knobs=(knob("d", 2),))
    )
    space = ConfigurationSpace.of(pipeline)
    expected = [
        code
        for code, configuration in zip(space.enumerate(), space.decode(space.enumerate()), strict=True)
        if pipeline.operator("o").replica_gpu_memory_bytes(configuration["o"].as_dict()) <= 10
    ]
    codes = placeable_codes(space, pipeline, [POOL], 1000)
    assert codes is not None
    assert codes.tolist() == np.unique(expected, axis=0).tolist()
    assert 0 < len(codes) < space.size
    assert placeable_codes(space, pipeline, [POOL], len(codes) - 1) is None


def test_few_cases_are_listed_in_a_space_of_any_size() -> None:
    cases = [case(4, **{f"k{i}": (i * n) % 10 for i in range(12)}) for n in range(30)]
    spec = OperatorSpec(
        name="o", uses="m:f", knobs=[knob(f"k{i}", 10) for i in range(12)], gpu_memory=20, gpu_memory_cases=cases
    )
    space = ConfigurationSpace.of(pipeline_of(spec))
    assert space.size == 10**12
    codes = placeable_codes(space, pipeline_of(spec), [POOL], 600)
    assert codes is not None
    assert len(codes) == 10


def test_tiers_that_the_operator_may_not_use_do_not_count() -> None:
    spec = operator("o", case(9, a=0)).model_copy(update={"allowed_tiers": ("device",)})
    pipeline = pipeline_of(spec)
    assert placeable_codes(ConfigurationSpace.of(pipeline), pipeline, [POOL], 1000) is None


def test_without_cases_all_codes_are_returned_in_their_order() -> None:
    pipeline = pipeline_of(operator())
    space = ConfigurationSpace.of(pipeline)
    codes = placeable_codes(space, pipeline, [POOL], 1000)
    assert codes is not None
    assert codes.tolist() == space.enumerate().tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_design_has_each_choice_of_the_codes_once(seed: int) -> None:
    codes = np.unique(np.random.default_rng(seed).integers(0, 5, size=(40, 4)), axis=0)
    design = covering_codes(codes)
    assert {tuple(code) for code in design.tolist()} <= {tuple(code) for code in codes.tolist()}
    assert len(design) <= 12
    for column in range(4):
        assert set(design[:, column]) == set(codes[:, column])


def test_the_sampler_starts_with_configurations_that_fit() -> None:
    pipeline = pipeline_of(operator("o", *(case(9, a=n, b=n) for n in range(3))))
    infrastructure = Infrastructure(name="i", tiers=["cloud"], sites=["here"], pools=[POOL])
    query = Query(name="q", pipeline=pipeline.name, source="here", rate="1/s")
    sampler = make_sampler(Spec({pipeline.name: pipeline}, infrastructure, (query,)), pipeline.name)
    assert sampler is not None
    design = [configuration["o"].as_dict() for configuration in sampler.initial_design()]
    assert {(values["a"], values["b"]) for values in design} == {(0, 0), (1, 1), (2, 2)}
