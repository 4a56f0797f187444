"""Every choice of every knob, also of conditional knobs, is covered by few configurations."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from circinus.planning.sampler.configuration_space import INACTIVE, ConfigurationSpace
from circinus.planning.sampler.initial_design import covering_array
from circinus.specification import Pipeline
from planning.sampler.spaces import CASCADE, chain_of, knob, small_pipelines


@given(small_pipelines())
def test_every_choice_that_can_exist_occurs(pipeline: Pipeline) -> None:
    space = ConfigurationSpace.of(pipeline)
    codes = covering_array(space)
    assert space.valid(codes).all()
    assert len(np.unique(codes, axis=0)) == len(codes)
    if space.size <= 5_000:
        everything = space.enumerate()
        for column in range(len(space.columns)):
            assert set(everything[:, column]) - {INACTIVE} <= set(codes[:, column])


def test_choices_of_knobs_under_others_occur_though_these_do_not_exist_everywhere() -> None:
    codes = covering_array(CASCADE)
    assert CASCADE.valid(codes).all()
    for column, knob_of in enumerate(CASCADE.columns):
        assert set(range(len(knob_of.choices))) <= set(codes[:, column])


def test_as_few_as_the_knob_with_most_choices_has_in_a_space_of_any_size() -> None:
    space = ConfigurationSpace.of(chain_of(*[[knob(f"k{i}", 4, ordered=i % 2 == 0) for i in range(5)]] * 4))
    assert space.size == 4**20
    assert len(covering_array(space)) == 4


def test_high_values_do_not_always_meet_high_values() -> None:
    codes = covering_array(ConfigurationSpace.of(chain_of([knob("a", 5, ordered=True)], [knob("b", 5, ordered=True)])))
    assert abs(np.corrcoef(codes.T)[0, 1]) < 0.6
