"""Candidates in spaces of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.candidate_generation import CodeScore, candidates
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.surrogate import Surrogate
from circinus.specification import Knob, OperatorSpec
from planning.sampler.spaces import CASCADE, chain, pipeline_of

SPACES = [
    chain([10], [10], [10]),
    chain([10, 10], [-10, 10], [10, -10]),
    chain(*[[10]] * 12),
    chain([10] * 12),
    ConfigurationSpace.of(
        pipeline_of(
            *(
                OperatorSpec(
                    name=f"o{i}",
                    uses="m:f",
                    knobs=[
                        Knob(name="model", choices=list("abcd")),
                        Knob(name="beam", choices=[1, 2, 3], ordered=True, only_if={"model": ["b", "d"]}),
                        Knob(name="rate", choices=list(range(9)), ordered=True),
                    ],
                )
                for i in range(7)
            )
        )
    ),
]
SIZES = [10**3, 10**6, 10**12, 10**12, (8 * 9) ** 7]


class Separable:
    """Score function that is a sum over knobs, each with its maximum at one choice."""

    def __init__(self, space: ConfigurationSpace, rng: np.random.Generator) -> None:
        tops = [int(rng.integers(len(knob.choices))) for knob in space.columns]
        self._parts = [
            np.append(-abs(np.arange(len(knob.choices)) - top) / len(knob.choices), -1.0)
            for knob, top in zip(space.columns, tops, strict=True)
        ]  # INACTIVE is the last entry
        self.top = np.array([tops])

    def __call__(self, codes: IntArray) -> FloatArray:
        return np.asarray(1 + np.mean([part[codes[:, i]] for i, part in enumerate(self._parts)], axis=0))


def fitted(space: ConfigurationSpace, codes: IntArray, scores: FloatArray) -> Surrogate:
    return Surrogate.fit(space, codes, scores, np.full(len(codes), 1e-6), additive=True)


def optimism(surrogate: Surrogate) -> CodeScore:
    """Return the upper confidence bound of a surrogate as a score."""

    def score(codes: IntArray) -> FloatArray:
        belief = surrogate.predict(codes)
        return belief.mean + 1.5 * belief.deviation

    return score


def rows(codes: IntArray) -> set[Sequence[int]]:
    return {tuple(code) for code in codes.tolist()}


@pytest.mark.parametrize(("space", "size"), list(zip(SPACES, SIZES, strict=True)))
def test_they_are_valid_distinct_and_new(space: ConfigurationSpace, size: int) -> None:
    assert space.size == size
    rng = np.random.default_rng(0)
    score = Separable(space, rng)
    known = space.random(rng, 15)
    hopeful = optimism(fitted(space, known, score(known)))
    found = candidates(space, hopeful, known, 100, rng)
    assert len(found) == len(rows(found)) == 100
    assert space.valid(found).all()
    assert not rows(found) & rows(known)
    promises = hopeful(found)
    assert (np.diff(promises[:75]) <= 1e-12).all()
    assert promises[0] > hopeful(space.random(rng, 500)).max()


@pytest.mark.parametrize("space", SPACES)
def test_what_is_looked_at_does_not_grow_with_the_space(space: ConfigurationSpace) -> None:
    rng = np.random.default_rng(1)
    looked_at = []

    def promise(codes: IntArray) -> FloatArray:
        looked_at.append(len(codes))
        return np.zeros(len(codes))

    known = space.random(rng, 10)
    candidates(space, promise, known, 50, rng)
    choices = sum(len(knob.choices) for knob in space.columns)
    assert sum(looked_at) <= 10 + 4 * (32 * len(space.operators) + choices + 3 * 10 * choices)


@pytest.mark.parametrize("space", SPACES)
def test_one_pass_finds_the_best_of_what_adds_up(space: ConfigurationSpace) -> None:
    rng = np.random.default_rng(2)
    score = Separable(space, rng)
    known = space.random(rng, 10)
    found = candidates(space, score, known, 50, rng)
    best = score(space.resolved(score.top))[0]
    assert score(found[:1]) >= best - 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("space", [*SPACES[:2], chain(*[[10]] * 7), chain([10] * 7)])
def test_a_separable_optimum_is_reached_in_few_rounds(space: ConfigurationSpace) -> None:
    rng = np.random.default_rng(3)
    score = Separable(space, rng)
    known = space.random(rng, 20)
    goal = 1 - 0.1 * (1 - score(known).max())
    for _ in range(12):
        found = candidates(space, optimism(fitted(space, known, score(known))), known, 60, rng)
        known = np.concatenate([known, found[:8]])
        if score(known).max() >= goal:
            break
    assert score(known).max() >= goal


def test_small_spaces_are_listed_to_the_end() -> None:
    rng = np.random.default_rng(4)
    everything = CASCADE.enumerate()
    known = everything[::2]
    score = Separable(CASCADE, rng)
    assert rows(candidates(CASCADE, score, known, 1000, rng)) == rows(everything) - rows(known)
    assert candidates(CASCADE, score, everything, 10, rng).shape == (0, 4)
    single = chain([], [])
    assert candidates(single, Separable(single, rng), single.enumerate(), 5, rng).shape == (0, 0)


def test_without_a_measurement_they_begin_anywhere() -> None:
    rng = np.random.default_rng(5)
    space = SPACES[4]
    score = Separable(space, rng)
    found = candidates(space, score, space.random(rng, 0), 40, rng)
    assert len(found) == 40
    assert score(found[:1]) > score(space.random(rng, 40)).max()


def test_the_same_generator_gives_the_same() -> None:
    space = SPACES[1]
    known = space.random(np.random.default_rng(6), 12)
    score = Separable(space, np.random.default_rng(6))
    one, two = (candidates(space, score, known, 50, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, two)
