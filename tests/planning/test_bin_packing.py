from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.planning import SingleRelaxation
from circinus.planning.bin_packing import pack, packed_share
from circinus.planning.near_misses import describe_isolated_limits
from circinus.specification import LatencySlo, Network, Query, SloKind, Slos
from random_matchings import candidate, deployment, infrastructure, packs, use

_AMOUNT = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.51, 0.6, 0.7, 1.0])


@settings(max_examples=examples(800))
@given(
    kinds=st.lists(st.tuples(_AMOUNT, _AMOUNT, st.integers(0, 4)), min_size=1, max_size=4),
    nodes=st.integers(0, 4),
)
def test_packs_exactly_what_trying_everything_packs(kinds, nodes):
    demand = np.array([[a, b] for a, b, _ in kinds])
    count = np.array([n for _, _, n in kinds])
    items = [(a, b) for a, b, n in kinds for _ in range(n)]

    packing = pack(demand, count, np.ones(2), nodes)

    assert packing.proved
    assert (packing.nodes is not None) == (packs(items, nodes) or not items)
    if packing.nodes is not None:
        load = np.zeros((max(nodes, 1), 2))
        for kind, where in enumerate(packing.nodes):
            assert len(where) == count[kind]
            assert list(where) == sorted(where)
            for node in where:
                assert 0 <= node < nodes
                load[node] += demand[kind]
        assert np.all(load <= 1 + 1e-9)


def test_finds_what_first_fit_misses():
    # Two nodes filled exactly by 0.5 + 0.3 + 0.2 and 0.4 + 0.3 + 0.3; first-fit decreasing puts 0.4 beside 0.5.
    demand, count = np.array([[0.5], [0.4], [0.3], [0.2]]), np.array([1, 1, 3, 1])
    assert pack(demand, count, np.ones(1), 2).nodes is not None


def test_counts_nodes_in_their_own_units():
    packing = pack(np.array([[3.0, 2.0**31]]), np.array([2]), np.array([4.0, 2.0**33]), 2)
    assert packing.nodes == ((0, 1),)
    assert pack(np.array([[3.0, 2.0**31]]), np.array([3]), np.array([4.0, 2.0**33]), 2).nodes is None


def test_a_resource_that_the_nodes_lack_does_not_fit():
    packing = pack(np.array([[1.0, 1.0]]), np.array([1]), np.array([4.0, 0.0]), 2)
    assert packing.nodes is None
    assert packing.proved


def test_a_search_given_up_proves_nothing():
    # In sum it goes on 4 nodes; first-fit decreasing finds no way, and only the search can tell that there is none.
    demand = np.array([[0.5, 0.1], [0.4, 0.35], [0.3, 0.45], [0.2, 0.55]])
    count = np.array([2, 2, 3, 2])
    assert np.all(count @ demand <= 4)
    given_up = pack(demand, count, np.ones(2), 4, steps=1)
    assert (given_up.nodes, given_up.proved) == (None, False)
    searched = pack(demand, count, np.ones(2), 4)
    assert (searched.nodes, searched.proved) == (None, True)


def test_a_pool_that_does_not_pack_is_filled_less() -> None:
    """Of nodes for 4 CPUs, each takes one replica of 2.5 and none of them two."""
    demand, capacity = np.array([[2.5, 0.1], [1.6, 0.1]]), np.array([4.0, 8.0])
    assert packed_share(demand, np.array([3, 0]), capacity, 3) == 1.0
    assert packed_share(demand, np.array([4, 0]), capacity, 3) == pytest.approx(0.75)
    assert packed_share(demand, np.array([2, 3]), capacity, 2) == pytest.approx(
        (2 * 2.5) / (2 * 2.5 + 3 * 1.6), abs=0.2
    )


@pytest.mark.parametrize("cpus", [2.0, 2.5])
def test_an_isolated_limit_is_named_only_if_its_plan_packs(cpus: float) -> None:
    """Of two nodes with 4 CPUs, three replicas of 2.5 CPUs take less in sum and do not pack."""
    infra = infrastructure([("edge", 2, 4.0, 16.0, 1.0)])
    plan = candidate("q", [use(deployment("a", 0, "edge", cpus), 3.0, infra)], latency_s=1.5)
    asked = Query(name="q", pipeline="p", source="home", rate_per_s=1.0, slos=Slos(latency=LatencySlo(limit_s=1.0)))
    relaxations = (SingleRelaxation(SloKind.LATENCY, 1.65, plan),)
    assert ("1.65" in describe_isolated_limits(asked, Network(infra), relaxations)) == (cpus == 2.0)
