"""Configurations of a pipeline with conditional knobs."""

from __future__ import annotations

from itertools import islice, product
from math import prod

from hypothesis import given, settings
from strategies import operators

from budget import examples
from circinus.specification import (
    Configuration,
    DatasetSpec,
    Knob,
    KnobValues,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    configurations,
    has_knob_values,
    knob_values,
    prefix_configuration,
)


def _pipeline(*specs: OperatorSpec) -> Pipeline:
    return Pipeline(name="p", operators=specs, metric=MetricSpec(name="m", uses="m:f"), dataset=DatasetSpec(uses="m:f"))


def test_a_knob_that_does_not_exist_takes_those_with_it_that_depend_on_it() -> None:
    operator = OperatorSpec(
        name="o",
        uses="m:f",
        knobs=[
            Knob(name="c", choices=[1, 2], only_if={"b": [1]}),
            Knob(name="b", choices=[0, 1], only_if={"a": ["on"]}),
            Knob(name="a", choices=["off", "on"]),
        ],
    )
    assert [str(values) for values in knob_values(operator)] == ["a=off", "a=on,b=0", "a=on,b=1,c=1", "a=on,b=1,c=2"]


@settings(max_examples=examples(80))
@given(operators())
def test_every_configuration_is_listed_once(specs: tuple[OperatorSpec, ...]) -> None:
    pipeline = _pipeline(*specs)
    enumerated = []
    for configuration in configurations(pipeline):
        enumerated.append(configuration)
        if len(enumerated) > 200:
            return
    sizes = [len(knob_values(spec)) for spec in specs]
    expected = {
        Configuration.of({spec.name: values for spec, values in zip(specs, choice, strict=True)})
        for choice in product(*(knob_values(spec) for spec in specs))
    }
    assert len(enumerated) == len(set(enumerated)) == len(expected)
    assert set(enumerated) == expected
    assert len(enumerated) == prod(sizes)


@given(operators())
def test_a_knob_is_there_exactly_where_its_conditions_hold(specs: tuple[OperatorSpec, ...]) -> None:
    for spec in specs:
        for values in knob_values(spec):
            given_values = values.as_dict()
            for knob in spec.knobs:
                exists = all(given_values.get(other) in allowed for other, allowed in knob.only_if.items())
                assert (knob.name in given_values) == exists


def test_a_prefix_has_the_operator_and_its_ancestors() -> None:
    specs = [
        OperatorSpec(name=name, uses="m:f", after=after, knobs={"k": [1, 2]})
        for name, after in (("a", ()), ("b", ("a",)), ("c", ("a",)))
    ]
    pipeline = _pipeline(*specs)
    configuration = next(configurations(pipeline))
    assert list(prefix_configuration(pipeline, configuration, "b")) == ["a", "b"]
    assert list(prefix_configuration(pipeline, configuration, "a")) == ["a"]


def test_values_of_different_kinds_can_be_sorted() -> None:
    values = [KnobValues.of({"k": value}) for value in ("on", 3, True, 0.5, "off")]
    assert [value.as_dict()["k"] for value in sorted(values)] == [0.5, True, 3, "off", "on"]
    by_operator = [Configuration.of({"o": value}) for value in values]
    assert max(by_operator) == Configuration.of({"o": KnobValues.of({"k": "on"})})


@given(operators())
def test_knob_values_are_told_from_others_without_listing_them(specs: tuple[OperatorSpec, ...]) -> None:
    for operator in specs:
        listed = set(knob_values(operator))
        for choice in islice(product(*([None, *knob.choices] for knob in operator.knobs)), 300):
            pairs = zip(operator.knobs, choice, strict=True)
            values = KnobValues.of({knob.name: value for knob, value in pairs if value is not None})
            assert has_knob_values(operator, values) == (values in listed)
        assert not has_knob_values(operator, KnobValues.of({"no such knob": 1}))
