"""Bounds of load tests: they keep their risk on fresh items, and verdicts follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from served_scenario import infrastructure, matching

from budget import seeds
from circinus.serving.engine import ResponseTimings
from circinus.serving.loadtest.cost_shares import cost_shares
from circinus.serving.loadtest.slo_bounds import SloVerdict, cost_interval, latency_interval, score_interval
from circinus.specification import AccuracySlo, LatencySlo, Slo
from circinus.statistics.interval import Interval

RUNS = len(seeds(400))
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
"""Share of failures that a bound of risk 0.05 hardly exceeds."""


def turns(rng: np.random.Generator, items: int, count: int) -> list[str]:
    rounds = [rng.permutation(items) for _ in range(count // items + 1)]
    return [str(item) for item in np.concatenate(rounds)[:count]]


@pytest.mark.parametrize(
    ("slo", "bounds", "expected"),
    [
        (AccuracySlo(threshold=0.8), (0.8, 0.9), SloVerdict.YES),
        (AccuracySlo(threshold=0.8), (0.79, 0.9), SloVerdict.UNSURE),
        (AccuracySlo(threshold=0.8), (0.7, 0.79), SloVerdict.NO),
        (AccuracySlo(threshold=0.2, comparison="<="), (0.1, 0.2), SloVerdict.YES),
        (AccuracySlo(threshold=0.2, comparison="<="), (0.3, 0.4), SloVerdict.NO),
        (LatencySlo(limit_s=1.0), (0.5, math.inf), SloVerdict.UNSURE),
        (LatencySlo(limit_s=1.0), (math.inf, math.inf), SloVerdict.NO),
    ],
)
def test_a_verdict_needs_all_values_within_the_bounds(
    slo: Slo, bounds: tuple[float, float], expected: SloVerdict
) -> None:
    assert SloVerdict.of(slo, Interval(bounds[1], *bounds)) is expected
    assert SloVerdict.of(slo, None) is SloVerdict.UNSURE


@pytest.mark.parametrize(
    ("verdicts", "expected"), [((), "yes"), (("yes", "unsure"), "unsure"), (("unsure", "no", "yes"), "no")]
)
def test_one_missed_slo_misses_all(verdicts: Sequence[str], expected: str) -> None:
    assert SloVerdict.of_all(map(SloVerdict, verdicts)) == expected


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_mean_scores_of_requests_to_come_are_within_their_bounds(probability: float) -> None:
    below = above = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        item_scores, items = rng.binomial(2, probability, 24) / 2, turns(rng, 24, 240)
        bounds = score_interval([item_scores[int(item)] for item in items], items, 0.05, 0.0, 1.0)
        below += bounds.lower > probability
        above += bounds.upper < probability
    assert max(below, above) <= LIMIT * RUNS


def test_requests_for_the_same_items_narrow_no_score() -> None:
    rng = np.random.default_rng(1)
    scores, items = rng.random(16).tolist(), [str(number) for number in range(16)]
    once, often = (score_interval(scores * times, items * times, 0.05, 0.0, 1.0) for times in (1, 50))
    assert (often.lower, often.value, often.upper) == pytest.approx((once.lower, once.value, once.upper))
    more = score_interval(scores * 4, [str(number) for number in range(64)], 0.05, 0.0, 1.0)
    assert more.upper - more.lower < 0.7 * (once.upper - once.lower)


@pytest.mark.parametrize(("items", "count"), [(24, 120), (24, 1000), (200, 200)])
def test_percentiles_of_latencies_that_items_decide_are_within_their_bounds(items: int, count: int) -> None:
    percentile_s = math.exp(0.4 * 1.6448536)
    below = above = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        service_s, keys = np.exp(0.4 * rng.standard_normal(items)), turns(rng, items, count)
        bounds = latency_interval(np.array([service_s[int(key)] for key in keys]), keys, 95.0, 0.05)
        below += bounds.lower > percentile_s
        above += bounds.upper < percentile_s
    assert max(below, above) <= LIMIT * RUNS


def test_few_or_lost_requests_have_no_upper_bound() -> None:
    assert latency_interval(np.array([0.1]), ["a"], 95.0, 0.05).upper == math.inf
    lost = np.array([0.1, math.inf] * 30)
    bounds = latency_interval(lost, [str(number) for number in range(60)], 95.0, 0.05)
    assert (bounds.lower, bounds.upper) == (math.inf, math.inf)


def test_cost_shares_vary_as_their_standard_error_says() -> None:
    """Two queries with Poisson arrivals share a deployment, and send over a link with a price."""
    assignments = {assignment.query: assignment for assignment in matching(["a", "b"]).assignments}
    costs, errors = [], []
    for seed in range(4 * RUNS):
        rng = np.random.default_rng(seed)
        answered = {
            query: [
                ResponseTimings(0.1, {"add": float(s)}, {"add": float(s)}, {"home->center": 1e6})
                for s in rng.gamma(4.0, 0.02, rng.poisson(mean))
            ]
            for query, mean in (("a", 40), ("b", 100))
        }
        cost, error = cost_shares(infrastructure(), matching(["a", "b"]), assignments, answered, 30.0)["a"]
        costs.append(cost)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(costs), rel=0.12)
    bounds = cost_interval(costs[0], errors[0], 0.05)
    assert bounds.upper - bounds.value == pytest.approx(1.6449 * errors[0], rel=1e-3)


def test_the_cost_of_a_deployment_of_one_query_is_certain() -> None:
    (assignment,) = matching(["a"]).assignments
    answered = {"a": [ResponseTimings(0.1, {"add": 0.1}, {"add": 0.1}, {})] * 7}
    assert cost_shares(None, matching(["a"]), {"a": assignment}, answered, 1.0) == {"a": (pytest.approx(0.6), 0.0)}
