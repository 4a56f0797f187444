"""Variations change what they name; plans are judged by what is true."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from benchmarks.evaluation.contest import Contest
from benchmarks.evaluation.product import Product
from benchmarks.evaluation.sensitivity import figures, of_one_plan, of_variations, section
from benchmarks.evaluation.variations import (
    hard_items,
    with_hard_items,
    with_noise,
    with_risk,
    with_tiers,
    with_true_speed,
)

from circinus.specification import DirectedLink, Network
from small_arenas import tiny_contest

_contest = cache(tiny_contest)


def _mean_scores(contest: Contest) -> np.ndarray:
    return np.array([measured.scores.mean() for measured in contest.truth["tiny"].configurations])


def test_noise_has_the_given_deviation_and_leaves_the_truth_alone() -> None:
    contest, noisy = _contest(), with_noise(_contest(), 0.3, 1)
    factors = noisy.traces["tiny"].service_s / contest.traces["tiny"].service_s
    assert factors.mean() == pytest.approx(1.0, abs=0.05)
    assert np.log(factors).std() == pytest.approx(0.3, abs=0.03)
    assert noisy.truth is contest.truth


def test_four_tiers_have_a_site_on_the_way_to_the_cloud() -> None:
    contest, four = _contest(), with_tiers(_contest(), 4)
    tiers = {pool.tier for pool in four.specification.required_infrastructure.pools}
    assert tiers == {"device", "edge", "region", "cloud"}

    def path(of: Contest) -> tuple[DirectedLink, ...]:
        return Network(of.specification.required_infrastructure).path("place-0", "cloud") or ()

    assert [link.target for link in path(four)] == ["edge-0", "region", "cloud"]
    assert sum(link.one_way_s for link in path(four)) == pytest.approx(sum(link.one_way_s for link in path(contest)))
    assert {pool.tier for pool in with_tiers(contest, 1).specification.required_infrastructure.pools} == {"cloud"}


def test_harder_items_have_the_given_share_and_lower_scores() -> None:
    contest = _contest()
    harder = with_hard_items(contest, 0.75)
    chosen = hard_items(contest, "tiny", 0.75)
    assert len(chosen) == len(set(chosen.tolist())) == 27  # 20 of the harder half, 7 others
    assert (_mean_scores(harder) < _mean_scores(contest)).all()
    assert harder.truth["tiny"].population == len(harder.traces["tiny"].item_keys) == 27
    assert len(hard_items(contest, "tiny", 0.5)) == 40


def test_slower_pools_are_later_and_plans_at_higher_risk_promise_more() -> None:
    rows = of_one_plan(_contest(), 0)
    goodput = {(row["varied"], row["value"]): row["goodput"] for row in rows}
    assert goodput["true speed", 0.7] < goodput["as specified", 0.0] <= goodput["true speed", 1.3]
    slow = with_true_speed(_contest(), 0.7).specification.required_infrastructure
    speeds = [pool.hardware.relative_speed for pool in slow.pools]
    assert speeds == pytest.approx(
        [0.7 * p.hardware.relative_speed for p in _contest().specification.required_infrastructure.pools]
    )
    varied = of_variations(_contest(), 0)
    by_risk = {row["value"]: row["promised"] for row in varied if row["varied"] == "risk"}
    assert by_risk[0.5] >= by_risk[0.2] >= by_risk[0.01]
    text = section([*rows, *varied])
    assert "| risk 0.5 |" in text
    assert "profiled again" in text


def test_risk_reaches_the_profile() -> None:
    cautious = with_risk(_contest(), 0.01)
    assert Product().profiled(cautious, 0).profiles["tiny"].risk == 0.01


def test_the_interval_is_that_of_student() -> None:
    rows = [
        {
            "varied": "seed",
            "value": n,
            "contest": "one",
            "goodput": goodput,
            "best_earlier": 2.0,
            "broken": 0,
            "served": 1,
        }
        for n, goodput in enumerate((2.0, 4.0, 6.0))
    ]
    values = {figure.name: figure.value for figure in figures(rows)}
    assert values["goodput over the best earlier planner's, mean of seeds"] == 2.0
    # 4.3027 is the 97.5 % quantile for two degrees of freedom.
    lower = values["goodput over the best earlier planner's, lower end of the interval"]
    assert lower == pytest.approx(2.0 - 4.3027 / np.sqrt(3), abs=1e-3)
