"""Pipelines created in Python: validation with the messages of files, and the graph of operators."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from strategies import pipelines

from budget import examples
from circinus.specification import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline


def _pipeline(**after: Any) -> Pipeline:
    return Pipeline(
        name="p",
        operators=[{"name": name, "uses": "m:f", "after": parents} for name, parents in after.items()],
        metric=MetricSpec(name="m", uses="m:f"),
        dataset=DatasetSpec(uses="m:f"),
    )


def _messages(raised: pytest.ExceptionInfo[ValidationError]) -> list[tuple[tuple[int | str, ...], str]]:
    return [(error["loc"], error["msg"]) for error in raised.value.errors()]


def test_a_cycle_is_told_whole_and_once() -> None:
    with pytest.raises(ValidationError) as raised:
        _pipeline(a=["c"], b=["a"], c=["b"], d=["c"], e=[], f=["g"], g=["f", "e"])
    assert _messages(raised) == [
        (("operators", 0, "after"), "found the cycle a -> b -> c -> a, expected operators that form no cycle"),
        (("operators", 5, "after"), "found the cycle f -> g -> f, expected operators that form no cycle"),
    ]


def test_faults_of_fields_and_of_references_come_together() -> None:
    with pytest.raises(ValidationError) as raised:
        Pipeline(
            name="p",
            operators=[
                OperatorSpec(name="a", uses="m:f"),
                {"name": "b", "uses": "not a reference", "after": "aa"},
            ],
            metric=MetricSpec(name="m", uses="m:f"),
            dataset=DatasetSpec(uses="m:f"),
        )
    assert [location for location, _ in _messages(raised)] == [("operators", 1, "uses"), ("operators", 1, "after", 0)]


def test_short_forms_are_taken_in_python_too() -> None:
    operator = OperatorSpec(
        name="o", uses="m:f", after="a", cpus=2, batch_sizes=4, allowed_tiers="edge", gpu_memory="1GiB",
        batch_wait="20ms",
        knobs={"model": ["tiny", "base"], "beam": {"choices": 5, "only_if": {"model": "base"}}},
    )  # fmt: skip
    assert operator == OperatorSpec(
        name="o", uses="m:f", after=("a",), cpus=(2.0,), batch_sizes=(4,), allowed_tiers=("edge",),
        gpu_memory_bytes=2.0**30, batch_wait_s=0.02,
        knobs=(
            Knob(name="model", choices=("tiny", "base")),
            Knob(name="beam", choices=(5,), only_if={"model": ("base",)}),
        ),
    )  # fmt: skip


def test_cpus_and_batch_sizes_are_sorted_and_may_be_fractions() -> None:
    operator = OperatorSpec(name="o", uses="m:f", cpus=[2, 0.5, 1], batch_sizes=[8, 1], gpus=0.25)
    assert (operator.cpus, operator.batch_sizes, operator.gpus) == ((0.5, 1.0, 2.0), (1, 8), 0.25)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cpus": 0}, "found 0, expected more than 0"),
        ({"cpus": float("inf")}, "found infinity, expected a finite number"),
        ({"cpus": [True]}, "found true, expected a number"),
        ({"batch_sizes": [0]}, "found 0, expected at least 1"),
        ({"batch_sizes": [1.0]}, "expected a whole number"),
        ({"batch_wait_s": -1}, "found -1, expected a duration of at least 0"),
        ({"batch_wait_s": float("inf")}, "expected a duration of at least 0, and at most 1000000000s"),
        ({"gpus": float("nan")}, "found NaN, expected a finite number"),
        ({"gpu_memory_bytes": -1}, "found -1, expected a size of at least 0"),
        ({"allowed_tiers": []}, "expected a list of at least 1"),
        ({"knobs": [Knob(name="cpus", choices=[1])]}, "found the knob cpus, expected another name"),
        ({"uses": "a:b:c"}, "expected `module:attribute`"),
        ({"name": "x\n"}, "expected a name of letters"),
        ({"memory": 1}, "found the unknown field memory"),
        ({"gpu_memory": "1GB", "gpu_memory_bytes": 1}, "found gpu_memory and gpu_memory_bytes, expected one"),
    ],
)
def test_what_an_operator_refuses(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        OperatorSpec(**{"name": "o", "uses": "m:f", **fields})
    assert raised.value.error_count() == 1
    assert words in str(raised.value)


def test_a_diamond_is_read_in_topological_order() -> None:
    pipeline = _pipeline(join=["left", "right"], right="top", left="top", top=[])
    assert [operator.name for operator in pipeline.topological_order()] == ["top", "right", "left", "join"]
    assert pipeline.ancestors("join") == ("top", "right", "left")
    assert pipeline.sinks() == ("join",)


@settings(max_examples=examples(80))
@given(pipelines("p"))
def test_every_operator_stands_behind_its_ancestors(pipeline: Pipeline) -> None:
    order = [operator.name for operator in pipeline.topological_order()]
    assert sorted(order) == sorted(operator.name for operator in pipeline.operators)
    for operator in pipeline.operators:
        ancestors = pipeline.ancestors(operator.name)
        assert set(operator.after) <= set(ancestors)
        assert operator.name not in ancestors
        assert all(order.index(name) < order.index(operator.name) for name in ancestors)
        assert (operator.name in pipeline.sinks()) == all(operator.name not in o.after for o in pipeline.operators)
