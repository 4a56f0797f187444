from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.placement_search import PrefixTree

tables = st.lists(st.tuples(st.just(0), *[st.integers(0, 2)] * 3), min_size=1, max_size=30, unique=True).map(
    lambda rows: np.array(sorted(rows))
)


@given(tables)
def test_a_level_has_each_distinct_beginning_once(rows: np.ndarray) -> None:
    tree = PrefixTree.of_rows(rows)
    for level in range(3):
        starts = [tuple(row[: level + 2]) for row in rows.tolist()]
        assert len(tree.first_configurations[level]) == len(set(starts))
        for configuration, beginning in enumerate(tree.prefixes[level]):
            assert starts[tree.first_configurations[level][beginning]] == starts[configuration]


@given(tables)
def test_the_children_of_a_level_are_all_beginnings_of_the_next(rows: np.ndarray) -> None:
    tree = PrefixTree.of_rows(rows)
    for level in range(3):
        start, count = tree.children(level)
        children = [list(range(first, first + many)) for first, many in zip(start, count, strict=True)]
        assert [child for mine in children for child in mine] == list(range(len(tree.first_configurations[level])))
        for parent, mine in enumerate(children):
            for child in mine:
                if level:
                    assert tree.prefixes[level - 1][tree.first_configurations[level][child]] == parent


def test_the_last_level_is_the_configurations() -> None:
    tree = PrefixTree.of_rows(np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2]]))
    assert tree.prefixes[1].tolist() == [0, 1, 2]
    assert tree.rows_at(0, 1).tolist() == [0, 1]
    assert tree.rows_at(1, 2).tolist() == [0, 1, 2]
