"""Burstiness measured from what was seen: seldom where there is none, and found again where there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples, share_of
from circinus.errors import PlanningError
from circinus.queueing.arrivals import (
    DispersionTest,
    MarkovModulatedPoisson,
    Periodic,
    Poisson,
    empirical_idc,
    fit_arrival_process,
)
from circinus.queueing.arrivals.fitting import chi2_quantile
from raised import raises_code


def upper_tail(value: float, freedom: int) -> float:
    """P(chi-squared > value) for even degrees of freedom: that of fewer than half as many Poisson arrivals."""
    half = value / 2
    return sum(math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in range(freedom // 2))


def most_of(draws: int, probability: float, surprise: float) -> int:
    """The number of successes of which more come with probability below `surprise`."""
    beyond, successes = 1.0, -1
    while beyond > surprise:
        successes += 1
        choices = math.lgamma(draws + 1) - math.lgamma(successes + 1) - math.lgamma(draws - successes + 1)
        beyond -= math.exp(choices + successes * math.log(probability) + (draws - successes) * math.log1p(-probability))
    return successes


@pytest.mark.parametrize("freedom", [10, 20, 100, 1000])
@pytest.mark.parametrize("probability", [1e-4, 0.01, 0.5, 0.99, 1 - 1e-4])
def test_quantiles_of_chi_squared(freedom: int, probability: float) -> None:
    found = chi2_quantile(np.array([freedom]), probability)[0]
    below, above = found - 0.05 * freedom, found + 0.05 * freedom
    assert upper_tail(above, freedom) < 1 - probability < upper_tail(below, freedom)


def test_dispersion_is_the_variance_of_counts_over_their_mean() -> None:
    times_s = np.array([0.1, 0.2, 0.3, 1.5, 3.2, 3.3, 4.9, 9.99])
    counts = [3, 1, 0, 2, 1, 0, 0, 0, 0, 1]
    found = empirical_idc(times_s, 10.0, np.array([1.0, 2.0]))
    assert found[0] == pytest.approx(np.var(counts, ddof=1) / 0.8)
    assert np.isnan(found[1])  # five windows are too few
    assert np.isnan(empirical_idc(np.empty(0), 10.0, np.array([1.0]))).all()


@pytest.mark.parametrize("arrivals", [60, 200, 3000])
@pytest.mark.parametrize("known", [True, False])
def test_poisson_arrivals_are_not_taken_for_others_more_often_than_said(arrivals: int, known: bool) -> None:
    """At a risk of 5 %: in more of the draws only with probability 1e-6 if the risk were just kept."""
    rng, draws, risk = np.random.default_rng(arrivals), share_of(3000), 0.05
    duration_s = arrivals / 3.0
    wrong = 0
    for _ in range(draws):
        times_s = Poisson(3.0).times_s(duration_s, rng)
        wrong += not isinstance(fit_arrival_process(times_s, duration_s if known else None, risk=risk), Poisson)
    assert wrong <= most_of(draws, risk, 1e-6)


BURSTS = [
    MarkovModulatedPoisson((20.0, 2.0), (10.0, 50.0)),
    MarkovModulatedPoisson((10.0, 0.0), (5.0, 5.0)),
    MarkovModulatedPoisson((8.0, 4.0), (5.0, 5.0)),
    MarkovModulatedPoisson((40.0, 4.0), (1.0, 20.0)),
]


@pytest.mark.parametrize("process", BURSTS, ids=lambda process: str(process.rates_per_s))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bursts_are_found_again(process: MarkovModulatedPoisson, seed: int) -> None:
    """From 600 cycles and more, so that times of phases are known to some 4 % and the fit may be a few times worse."""
    duration_s = 36_000.0
    times_s = process.times_s(duration_s, np.random.default_rng(seed))
    found = fit_arrival_process(times_s, duration_s)
    assert isinstance(found, MarkovModulatedPoisson)
    assert found.rate_per_s == pytest.approx(len(times_s) / duration_s)
    assert found.rates_per_s == pytest.approx(process.rates_per_s, rel=0.1, abs=0.3)
    assert found.durations_s == pytest.approx(process.durations_s, rel=0.3)
    windows_s = np.array([1.0, 10.0, 100.0])
    assert found.index_of_dispersion(windows_s) == pytest.approx(process.index_of_dispersion(windows_s), rel=0.2)


def test_bursts_seen_for_ten_minutes_have_about_the_right_index() -> None:
    process = BURSTS[0]
    found = [fit_arrival_process(process.times_s(600.0, np.random.default_rng(seed)), 600.0) for seed in range(20)]
    assert all(isinstance(one, MarkovModulatedPoisson) for one in found)
    index = np.array([one.index_of_dispersion(np.array([10.0]))[0] for one in found])
    assert np.median(index) == pytest.approx(process.index_of_dispersion(np.array([10.0]))[0], rel=0.3)


@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("known", [True, False])
def test_evenly_spaced_arrivals_are_found_again(jitter: float, known: bool) -> None:
    process = Periodic(30.0, jitter / 30)
    found = fit_arrival_process(process.times_s(100.0, np.random.default_rng(4)), 100.0 if known else None)
    assert isinstance(found, Periodic)
    assert found.rate_per_s == pytest.approx(30.0, rel=1e-4)
    # 3,000 uniform deviations: their mean square is known to 1.6 %, the greatest of them to half of that.
    assert found.jitter_s == pytest.approx(process.jitter_s, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("shape", [2.0, 10.0])
def test_what_is_more_even_than_poisson_and_not_periodic_is_taken_for_poisson(shape: float) -> None:
    rng = np.random.default_rng(8)
    times_s = np.cumsum(rng.gamma(shape, 1 / shape, 5000))
    test = DispersionTest.of(times_s, float(times_s[-1]), 0.01)
    assert test.underdispersed
    assert fit_arrival_process(times_s) == Poisson(4999 / float(times_s[-1] - times_s[0]))


def test_lost_frames_are_no_bursts() -> None:
    rng = np.random.default_rng(9)
    frames_s = Periodic(30.0, 0.001).times_s(200.0, rng)
    kept_s = frames_s[rng.random(len(frames_s)) > 0.05]
    found = fit_arrival_process(kept_s, 200.0)
    assert found == Poisson(len(kept_s) / 200.0)


def test_batches_are_bursty() -> None:
    begins_s = Poisson(1.0).times_s(1000.0, np.random.default_rng(10))
    found = fit_arrival_process(np.repeat(begins_s, 5), 1000.0)
    assert isinstance(found, MarkovModulatedPoisson)
    assert found.index_of_dispersion(np.array([60.0]))[0] == pytest.approx(5.0, rel=0.25)  # that of batches of five


def test_few_arrivals_tell_nothing() -> None:
    assert fit_arrival_process([0.0, 0.0, 0.0, 0.0, 9.0], 10.0) == Poisson(0.5)
    assert not len(DispersionTest.of(np.array([0.0, 1.0]), 2.0, 0.01).windows_s)


@given(
    gaps=st.lists(st.sampled_from([0.0, 1e-9, 0.01, 0.1, 1.0, 1.0, 50.0]), min_size=50, max_size=400),
    rest_s=st.floats(0, 1e3),
)
@settings(max_examples=examples(120))
def test_whatever_was_seen_gives_a_process_of_its_rate(gaps: list[float], rest_s: float) -> None:
    times_s = np.cumsum([*gaps, 1.0])
    duration_s = float(times_s[-1]) + rest_s
    found = fit_arrival_process(times_s, duration_s)
    assert found.rate_per_s == pytest.approx(
        len(times_s) / duration_s, rel=0.5 if isinstance(found, Periodic) else 1e-6
    )
    assert np.isfinite(found.index_of_dispersion(np.array([0.1, 10.0]))).all()
    assert np.isfinite(fit_arrival_process(times_s).index_of_dispersion(np.array([0.1, 10.0]))).all()


@pytest.mark.parametrize(
    ("times_s", "duration_s", "code"),
    [
        ([], None, "too_few_times"),
        ([1.0], 5.0, "too_few_times"),
        ([1.0, 1.0], 5.0, "too_few_times"),
        ([2.0, 1.0], 5.0, "not_ascending"),
        ([1.0, 2.0], 1.5, "outside_duration"),
        ([-1.0, 2.0], 5.0, "outside_duration"),
        ([1.0, np.inf], None, "not_ascending"),
    ],
)
def test_what_cannot_be_measured_is_refused(times_s: list[float], duration_s: float | None, code: str) -> None:
    with raises_code(PlanningError, f"arrivals.{code}"):
        fit_arrival_process(np.array(times_s), duration_s)
