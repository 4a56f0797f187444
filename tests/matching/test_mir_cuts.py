from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.matching.problem import round_up_replicas
from circinus.matching.solvers.mir_cuts import DeploymentColumns, mir_cut

_FLUID = st.sampled_from([0.01, 0.2, 0.25, 1 / 3, 0.5, 0.7, 0.9, 1.0, 1.3, 1.5, 2.4])


def load_of(fluid: list[list[float]], times: list[int] | None = None) -> DeploymentColumns:
    """Column 0 counts replicas, the others are the candidates, query by query."""
    flat = [value for query in fluid for value in query]
    query_of = [index for index, query in enumerate(fluid) for _ in query]
    number_of = np.array(times or [1] * len(fluid))[query_of]
    return DeploymentColumns(0, np.arange(1, len(flat) + 1), np.array(flat), np.array(query_of), number_of)


@settings(max_examples=examples(600))
@given(
    fluid=st.lists(st.lists(_FLUID, min_size=1, max_size=2), min_size=1, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    slack=st.floats(0, 0.5),
    times=st.lists(st.integers(1, 3), min_size=4, max_size=4),
)
def test_no_cut_cuts_off_whole_replicas(
    fluid: list[list[float]], shares: list[float], slack: float, times: list[int]
) -> None:
    """Of queries that are alike, as many as `times` have the same columns."""
    load = load_of(fluid, times[: len(fluid)])
    values = np.zeros(1 + len(load.fractional))
    for query in range(len(fluid)):
        columns = load.candidates[load.query_of == query]
        values[columns] = np.array(shares[: len(columns)]) / len(columns) * times[query]
        shares = shares[len(columns) :]
    values[0] = load.fractional @ values[1:] + slack
    cut = mir_cut(load, values)
    if cut is None:
        return
    assert cut.values @ values[cut.columns] < cut.lower, "the relaxation's solution is cut off"
    counts = [
        [c for c in product(range(number + 1), repeat=len(query)) if sum(c) <= number]
        for query, number in zip(fluid, times, strict=False)
    ]
    for choice in product(*counts):
        point = np.array([0.0, *(count for query in choice for count in query)])
        total = np.array([load.fractional @ point[1:]])
        point[0] = round_up_replicas(total, total > 0, np.zeros(1, dtype=np.int64))[0]
        assert cut.values @ point[cut.columns] >= cut.lower - 1e-9


def test_two_queries_that_fill_one_replica_and_a_half_need_two() -> None:
    load = load_of([[0.75], [0.75]])
    cut = mir_cut(load, np.array([1.5, 1.0, 1.0]))
    assert cut is not None
    assert cut.values @ np.array([2.0, 1.0, 1.0])[cut.columns] >= cut.lower - 1e-5
    assert cut.values @ np.array([1.99, 1.0, 1.0])[cut.columns] < cut.lower


def test_nothing_to_cut_where_replicas_are_whole() -> None:
    assert mir_cut(load_of([[0.75], [0.75]]), np.array([2.0, 1.0, 1.0])) is None
    assert mir_cut(load_of([[0.75], [0.75]]), np.array([0.0, 0.0, 0.0])) is None


def test_many_queries_on_one_deployment_are_cut_in_order_of_their_shares() -> None:
    load = load_of([[0.35]] * 15)
    cut = mir_cut(load, np.array([5.25, *[1.0] * 15]))
    assert cut is not None
    assert cut.values @ np.array([6.0, *[1.0] * 15])[cut.columns] >= cut.lower - 1e-5
