"""Content addresses: what an edit invalidates and what it leaves alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sample_application import Application, sample_pipeline

from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys, dataset_key, pipeline_code
from circinus.specification import Configuration, KnobValues, MetricSpec, Pipeline, configurations
from random_traces import trace_pipeline

OPERATORS = ("prepare", "left", "right", "joined")


def _outputs(application: Application, configuration: Configuration | None = None) -> dict[str, str]:
    addresses = application.addresses()
    chosen = configuration or application.configuration(1, "high")
    return {name: addresses.output(name, chosen) for name in OPERATORS}


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_an_edit_invalidates_the_operator_and_its_descendants(application: Application) -> None:
    before = _outputs(application)
    application.edit("sample_second", "return (key, x)", "return (key, x)")
    assert _changed(before, _outputs(application)) == set()
    application.edit("sample_second", "return (key, x)", "return (key, x + 0)")
    assert _changed(before, _outputs(application)) == {"left", "right", "joined"}  # those in the same file
    second = _outputs(application)
    application.edit("sample_first", "* gain", "* gain * 1")
    assert _changed(second, _outputs(application)) == set(OPERATORS)


def test_an_edit_leaves_ancestors_and_siblings_alone(application: Application) -> None:
    before = _outputs(application)
    source = "from circinus.operators import operator\n\n@operator\ndef right(value):\n    return value['key']\n"
    application.write("sample_third", source)
    moved = [
        o.model_copy(update={"uses": "sample_third:right"}) if o.name == "right" else o
        for o in application.pipeline.operators
    ]
    application.pipeline = sample_pipeline(operators=tuple(moved))
    assert _changed(before, _outputs(application)) == {"right", "joined"}


def test_knobs_reach_descendants_only(application: Application) -> None:
    high, low = (_outputs(application, application.configuration(1, quality)) for quality in ("high", "low"))
    assert _changed(high, low) == {"left", "joined"}
    louder = _outputs(application, application.configuration(20, "high"))
    assert _changed(high, louder) == set(OPERATORS)


def test_names_are_not_in_it(application: Application) -> None:
    before = _outputs(application)
    application.pipeline = sample_pipeline(name="other")
    assert _outputs(application) == before


def test_the_order_of_inputs_is_in_it(application: Application) -> None:
    before = _outputs(application)
    swapped = [
        o.model_copy(update={"after": ("right", "left")}) if o.name == "joined" else o
        for o in application.pipeline.operators
    ]
    application.pipeline = sample_pipeline(operators=tuple(swapped))
    assert _changed(before, _outputs(application)) == {"joined"}


def test_cpus_change_times_but_not_outputs(application: Application) -> None:
    configuration = application.configuration(1, "high")
    before = application.addresses()
    faster = tuple(o.model_copy(update={"cpus": (2.0, 4.0)}) for o in application.pipeline.operators)
    application.pipeline = sample_pipeline(operators=faster)
    after = application.addresses()
    for name in OPERATORS:
        assert before.output(name, configuration) == after.output(name, configuration)
        assert before.service(name, configuration) != after.service(name, configuration)
        assert before.replica(name, configuration[name]) != after.replica(name, configuration[name])


def test_hardware_changes_times_but_not_scores(application: Application) -> None:
    code = pipeline_code(application.pipeline, [application.folder])
    here, there = MeasurementKeys(application.pipeline, code), MeasurementKeys(application.pipeline, code, "other")
    configuration = application.configuration(1, "high")
    assert here.service("left", configuration) != there.service("left", configuration)
    assert here.score(configuration) == there.score(configuration)


def test_the_metric_changes_scores_alone(application: Application) -> None:
    configuration = application.configuration(1, "high")
    before = application.addresses()
    application.edit("sample_data", "1.0 - abs", "1.0 - 2 * abs")
    edited = application.addresses()
    application.pipeline = sample_pipeline(metric=MetricSpec(name="close", uses="sample_data:close", range=(0, 2)))
    ranged = application.addresses()
    assert len({a.score(configuration) for a in (before, edited, ranged)}) == 3
    assert len({a.replay_output(configuration) for a in (before, edited, ranged)}) == 1


def test_data_sets_are_told_apart_by_code_and_arguments(application: Application) -> None:
    spec = application.pipeline.dataset
    assert dataset_key(spec, "1") != dataset_key(spec, "2")
    assert dataset_key(spec, "1") != dataset_key(spec.model_copy(update={"arguments": {"count": 3}}), "1")


def test_equal_knobs_of_different_kinds_differ(application: Application) -> None:
    """True == 1 == 1.0 in Python, but an operator may tell them apart."""
    found = set()
    for value in (True, 1, 1.0):
        found.add(application.addresses().replica("prepare", KnobValues.of({"gain": value})))
    assert len(found) == 3


def _recorded(pipeline: Pipeline) -> tuple[MeasurementKeys, Configuration]:
    return MeasurementKeys(pipeline, CodeVersions.recorded(pipeline, {})), next(iter(configurations(pipeline)))


def test_a_pipeline_without_lists_and_branches_keeps_its_addresses() -> None:
    """As they were before operators could have these: stored measurements stay valid."""
    keys, configuration = _recorded(trace_pipeline())
    output = "19a8bf161dc04ed43dd7f6f5139191b5232fb6f852d59de17eba17333d7f7e59"
    assert keys.output("last", configuration) == output
    assert keys.service("last", configuration) == "40da991a0aff60f38c0978d35f3df8e7281bf3c8051fb27299aa58f7674876fd"
    assert keys.score(configuration) == "1de862f6053ec88d6ea3f3f2cd7bda588903a7d596df43e234fdc34be3412413"


def _with(**changes: dict[str, Any]) -> dict[str, str]:
    pipeline = trace_pipeline()
    operators = tuple(o.model_copy(update=changes.get(o.name, {})) for o in pipeline.operators)
    keys, configuration = _recorded(pipeline.model_copy(update={"operators": operators}))
    return {operator.name: keys.output(operator.name, configuration) for operator in operators}


BRANCHES = {"branches": ("x", "y")}
FORMS: list[dict[str, dict[str, Any]]] = [
    {},
    {"first": {"emits": "many"}},
    {"first": BRANCHES},
    {"first": {"branches": ("y", "x")}},
    {"first": BRANCHES, "second": {"after": ({"first": "x"},)}},
    {"first": BRANCHES, "second": {"after": ({"first": "y"},)}},
    {"first": {"emits": "many"}, "second": {"gather": True}},
    {"first": {"emits": "many", **BRANCHES}, "second": {"gather": True}},
    {"first": BRANCHES, "second": {"after": ({"any": ({"first": "x"}, {"first": "y"})},)}},
    {"first": BRANCHES, "second": {"after": ({"any": ({"first": "y"}, {"first": "x"})},)}},
]


def test_what_an_operator_emits_and_receives_is_in_it() -> None:
    for one, other in itertools.combinations(FORMS, 2):
        before, after = _with(**one), _with(**other)
        if one.get("first") != other.get("first"):
            assert _changed(before, after) == {"first", "second", "third", "last"}
        else:
            assert _changed(before, after) == {"second", "last"}


@pytest.mark.parametrize("most", [1, 7])
def test_the_maximum_number_of_elements_is_not_in_it(most: int) -> None:
    """It says which outputs are refused, not what they are."""
    assert _with(first={"emits": "many", "at_most": most}) == _with(first={"emits": "many"})
