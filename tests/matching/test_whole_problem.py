"""Matchings with everything at once, against optima of the whole problem, and their promises in a simulation."""

from __future__ import annotations

import pytest
from benchmarks.possible.whole_problem import compared_with_enumeration, compared_with_program

from budget import HANG_LIMIT_S, share_of
from circinus.matching import MatchSettings

_PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


@pytest.mark.parametrize("seed", [1, 11][: share_of(2)])
def test_without_latency_slos_deployments_run_at_the_highest_utilization(seed: int) -> None:
    row = compared_with_program(seed, _PATIENT)
    assert row["truth_proved"]
    assert row["as_good"]
    assert row["proved"]
    assert row["broken"] == ()


@pytest.mark.parametrize("seed", [118, 119, 125][: share_of(3)])
def test_deployments_have_the_replicas_that_all_their_queries_take(seed: int) -> None:
    """A common utilization target gives some too many, or one query's target makes another run a deployment apart."""
    row = compared_with_enumeration(seed, _PATIENT)
    assert row["as_good"]
    assert row["broken"] == ()


@pytest.mark.parametrize("seed", [21, 22][: share_of(2)])
def test_replicas_beyond_the_lowest_target_may_be_what_meets_a_latency_slo(seed: int) -> None:
    row = compared_with_enumeration(seed, _PATIENT)
    assert row["as_good"]
    assert row["promises"]
    assert row["broken"] == ()
