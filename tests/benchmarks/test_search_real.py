"""Frontiers are compared by all resources of plans."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.search.real_pipelines import compare, factors_to, taken

from circinus.planning import plan_query
from planning.sampler.two_operators import CHOICES, recorded, two_queries
from planning_instances import random_instance


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_a_frontier_matches_itself_and_a_part_of_it_less(seed: int) -> None:
    instance = random_instance(seed)
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network)
    whole = frontier.candidates
    np.testing.assert_array_equal(factors_to(whole, whole), 1.0)
    assert np.isinf(factors_to((), whole)).all()
    for part in (whole[:1], whole[-1:]):
        found = factors_to(part, whole)
        for factor, wanted in zip(found, whole, strict=True):
            least = min(
                max((its / taken(wanted).get(name, 0.0) if taken(wanted).get(name) else np.inf) if its else 1.0
                    for name, its in taken(candidate).items())
                for candidate in part
            )  # fmt: skip
            assert factor == pytest.approx(max(least, 1.0))


def test_exploring_is_held_against_measuring_everything() -> None:
    figures, row = compare(two_queries(), recorded(0))
    assert row["touched"] < row["configurations"] == CHOICES**2
    assert row["seconds"] < row["seconds_everything"]
    assert row["cheapest_over_best_max"] <= 1.06
    assert all(np.isfinite(figure.value) for figure in figures)
