from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from budget import examples
from circinus.planning.dominance import GrowingArchive, ParetoArchive, nondominated

amounts = st.integers(0, 4).map(float)
points = st.tuples(st.integers(0, 40), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=amounts)
)

triples = st.integers(0, 40).flatmap(lambda count: arrays(np.float64, (count, 3), elements=amounts))


def _beats(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one <= other).all())


@given(points)
def test_what_is_kept_is_what_nobody_beats(values: np.ndarray) -> None:
    kept = nondominated(values).tolist()
    assert kept == sorted(set(kept))
    for index, point in enumerate(values):
        strictly = any(_beats(other, point) and not _beats(point, other) for other in values)
        equals = [other for other in kept if _beats(values[other], point) and _beats(point, values[other])]
        assert (index in kept) <= (not strictly)
        assert len(equals) == (0 if strictly else 1)


@given(points)
def test_everybody_is_beaten_by_somebody_who_is_kept(values: np.ndarray) -> None:
    assert ParetoArchive(values[nondominated(values)]).beats(values).all()


@given(points, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(values: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(values))  # type: ignore[attr-defined]
    one = {tuple(point) for point in values[nondominated(values)].tolist()}
    other = {tuple(point) for point in values[order][nondominated(values[order])].tolist()}
    assert one == other


@given(points)
def test_the_relation_is_transitive_and_antisymmetric_on_distinct_points(values: np.ndarray) -> None:
    distinct = np.unique(values, axis=0)
    beats = np.zeros((len(distinct), len(distinct)), dtype=bool)
    for index in range(len(distinct)):
        beats[index] = ParetoArchive(distinct[[index]]).beats(distinct)
    np.testing.assert_array_equal(beats & beats.T, np.eye(len(distinct), dtype=bool))
    assert not ((beats.astype(int) @ beats.astype(int) > 0) & ~beats).any()


@settings(max_examples=examples(80))
@given(st.integers(0, 2**32 - 1), st.integers(1, 1500), st.integers(2, 6))
def test_many_points_in_several_blocks(seed: int, count: int, columns: int) -> None:
    values = np.random.default_rng(seed).random((count, columns)).round(2)
    kept = nondominated(values)
    below = (values[None, kept] <= values[:, None]).all(axis=2)
    assert below.any(axis=1).all()
    inside = below[kept]
    assert inside.sum() == len(kept), "none of those kept beats another one"


def test_rounding_errors_make_no_difference() -> None:
    values = np.array([[0.3, 1.0], [0.1 + 0.2, 1.0], [0.3, 1.0 - 1e-13]])
    assert len(nondominated(values)) == 1


def test_nothing_beats_or_is_beaten_where_there_is_nothing() -> None:
    assert len(nondominated(np.zeros((0, 3)))) == 0
    assert ParetoArchive(np.zeros((0, 3))).beats(np.ones((2, 3))).tolist() == [False, False]
    assert ParetoArchive(np.ones((2, 3))).beats(np.zeros((0, 3))).tolist() == []


def test_a_member_of_nothing_beats_everybody() -> None:
    assert ParetoArchive(np.zeros((1, 3))).beats(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])).tolist() == [True, True]


@given(st.lists(triples, max_size=6), st.integers(0, 1))
def test_points_merged_in_parts_are_those_of_the_union(parts: list[np.ndarray], empty: int) -> None:
    archive, front = GrowingArchive(), np.zeros((0, 3))
    for part in [*parts, *[np.zeros((0, 3))] * empty]:
        retained, added = archive.merge(front, part)
        front = np.concatenate([front[retained], part[added]])
    union = np.concatenate([np.zeros((0, 3)), *parts])
    assert sorted(map(tuple, front)) == sorted(map(tuple, union[nondominated(union)]))
    assert archive.beats(union).all()
