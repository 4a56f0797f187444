"""Codes represent exactly the configurations that the specification lists."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.planning.sampler.configuration_space import FOREIGN, INACTIVE, ConfigurationSpace
from circinus.specification import (
    Configuration,
    Knob,
    KnobValues,
    OperatorSpec,
    Pipeline,
    configurations,
)
from planning.sampler.spaces import CASCADE, one_operator, pipeline_of, small_pipelines

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=examples(120))
@given(small_pipelines())
def test_the_codes_are_the_configurations_in_their_order(pipeline: Pipeline) -> None:
    space = ConfigurationSpace.of(pipeline)
    expected = tuple(configurations(pipeline))
    codes = space.enumerate()
    assert space.size == len(codes) == len(expected)
    assert space.decode(codes) == expected
    assert np.array_equal(space.encode(expected), codes)
    assert space.valid(codes).all()


@settings(max_examples=examples(120))
@given(small_pipelines(), seeds)
def test_random_codes_are_valid(pipeline: Pipeline, seed: int) -> None:
    space = ConfigurationSpace.of(pipeline)
    codes = space.random(np.random.default_rng(seed), 20)
    assert codes.shape == (20, len(space.columns))
    assert set(space.decode(codes)) <= set(configurations(pipeline))


@settings(max_examples=examples(120))
@given(small_pipelines(), seeds)
def test_neighbours_are_all_that_are_one_change_away(pipeline: Pipeline, seed: int) -> None:
    space = ConfigurationSpace.of(pipeline)
    rng = np.random.default_rng(seed)
    code = space.random(rng, 1)[0]
    found = space.neighbours(code)
    assert space.valid(found).all()
    assert len({tuple(row) for row in found.tolist()} - {tuple(code.tolist())}) == len(found)
    everything = space.enumerate()
    expected = {tuple(row) for row in everything.tolist() if _one_change(space, code, np.array(row))}
    assert {tuple(row) for row in found.tolist()} == expected


def _one_change(space: ConfigurationSpace, first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether one knob has another choice and all other differences are inactive on one side."""
    both = (first != INACTIVE) & (second != INACTIVE) & (first != second)
    if both.sum() != 1:
        return False
    column = int(np.flatnonzero(both)[0])
    if space.columns[column].ordered and abs(first[column] - second[column]) > 1:
        return False
    vanished = (first == INACTIVE) ^ (second == INACTIVE)
    return all(_hangs_on(space, int(other), column) for other in np.flatnonzero(vanished))


def _hangs_on(space: ConfigurationSpace, column: int, other: int) -> bool:
    return any(on == other or _hangs_on(space, on, other) for on, _ in space.columns[column].conditions)


def test_knobs_appear_with_each_of_their_choices_and_vanish_with_what_they_hang_on() -> None:
    model, beam, patience, rate = (
        [knob.name for knob in CASCADE.columns].index(name) for name in ("model", "beam", "patience", "rate")
    )
    code = np.full(4, INACTIVE)
    code[[model, rate]] = 1, 2
    found = CASCADE.neighbours(code)
    huge = found[found[:, model] == 3]
    assert sorted(zip(huge[:, beam], huge[:, patience], strict=True)) == [(0, -1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert sorted(found[found[:, model] == 1][:, rate]) == [1, 3]
    back = CASCADE.neighbours(huge[-1])
    assert any(np.array_equal(row, code) for row in back)


def test_the_size_is_exact_where_nobody_could_list() -> None:
    knobs = [Knob(name=f"k{i}", choices=list(range(10)), ordered=True) for i in range(12)]
    knobs.append(Knob(name="extra", choices=[1, 2, 3], only_if={"k0": [9]}))
    space = one_operator(*knobs)
    assert space.size == 9 * 10**11 + 3 * 10**11
    with pytest.raises(ValueError, match="1200000000000"):
        space.enumerate()
    codes = space.random(np.random.default_rng(3), 50)
    assert np.array_equal(space.encode(space.decode(codes)), codes)


def test_many_appearing_knobs_do_not_multiply_without_end() -> None:
    hidden = [Knob(name=f"h{i}", choices=list(range(9)), only_if={"on": [True]}) for i in range(12)]
    space = one_operator(Knob(name="on", choices=[False, True]), *hidden)
    found = space.neighbours(np.array([0] + [INACTIVE] * 12))
    assert 1 <= len(found) <= 64
    assert space.valid(found).all()
    assert space.size == 1 + 9**12


def test_the_columns_stand_in_topological_order_and_the_list_in_that_of_the_specification() -> None:
    pipeline = pipeline_of(
        OperatorSpec(name="last", uses="m:f", after=("first",), knobs={"b": [1, 2]}),
        OperatorSpec(name="first", uses="m:f", knobs={"a": ["x", "y", "z"]}),
    )
    space = ConfigurationSpace.of(pipeline)
    assert [(knob.operator, knob.operator_name, knob.name) for knob in space.columns] == [
        (0, "first", "a"),
        (1, "last", "b"),
    ]
    assert space.enumerate().tolist() == [[a, b] for b, a in product(range(2), range(3))]


@pytest.mark.parametrize(
    "operators_",
    [
        {"o": {"model": "small", "rate": 9}},
        {"o": {"model": "small"}},
        {"o": {"model": "small", "rate": 8, "beam": 1}},
        {"o": {"model": "small", "rate": 8, "else": 1}},
        {"other": {}},
        {"o": {"model": "small", "rate": 8}, "other": {}},
    ],
)
def test_what_is_not_of_the_space_is_refused(operators_: dict[str, dict[str, str | int]]) -> None:
    configuration = Configuration.of({name: KnobValues.of(values) for name, values in operators_.items()})
    with pytest.raises(ValueError, match="is not a configuration"):
        CASCADE.encode([configuration])


def test_prefixes_of_other_pipelines_have_codes_by_the_names_of_their_knobs() -> None:
    elsewhere = [{"o": {"model": "small", "else": 1}}, {"o": {"model": "other", "rate": 8}}, {"other": {"rate": 8}}]
    prefixes = [Configuration.of({name: KnobValues.of(v) for name, v in values.items()}) for values in elsewhere]
    knobs = {knob.name: column for column, knob in enumerate(CASCADE.columns)}
    choices = {name: CASCADE.columns[column].choices for name, column in knobs.items()}
    codes = CASCADE.prefix_codes(prefixes)
    assert codes[:, knobs["model"]].tolist() == [choices["model"].index("small"), FOREIGN, INACTIVE]
    assert codes[:, knobs["rate"]].tolist() == [INACTIVE, choices["rate"].index(8), INACTIVE]


def test_codes_that_contradict_themselves_are_not_valid() -> None:
    everything = {tuple(code) for code in CASCADE.enumerate().tolist()}
    grid = np.array(list(product(range(-2, 4), range(-2, 5), range(-2, 3), range(-2, 5))))
    assert [tuple(code) in everything for code in grid.tolist()] == CASCADE.valid(grid).tolist()
