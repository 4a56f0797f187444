"""Side bets are fair whatever they are put on, and made before the item is seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from budget import LEVEL
from circinus.statistics.covariate_bets import covariate_bet_payoffs
from circinus.statistics.covariates import Covariates
from circinus.statistics.martingale import FRACTIONS, PARTS


def _side_bets(scores: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    return covariate_bet_payoffs(scores, Covariates.of(covariates))


def _final_capital(scores: np.ndarray, covariates: np.ndarray, mean: float) -> float:
    bets = _side_bets(scores[None], covariates)[:, 0]
    left = len(scores) - np.arange(len(scores))
    fair = (len(scores) * mean - (np.cumsum(scores) - scores)) / left
    payoff = np.where(fair > 1e-9, scores / np.maximum(fair, 1e-9), 1.0)
    each = np.prod((1 - FRACTIONS[:, None]) * bets + FRACTIONS[:, None] * payoff, axis=1)
    return float(PARTS @ each)


def test_over_all_orders_the_capital_is_on_average_what_it_was() -> None:
    """The predictions of the items after the first four, fitted on those before, are truly used."""
    items = 7 if LEVEL == "thorough" else 6
    scores = np.array([0.1, 0.9, 0.3, 0.8, 0.5, 0.95, 0.2])[:items]
    errors = np.array([0.1, -0.1, 0.0, 0.2, 0.0, 0.0, 0.1])[:items]
    covariates = np.column_stack([scores > 0.4, scores + errors]).astype(float)
    capitals = []
    for order in itertools.permutations(range(items)):
        drawn = list(order)
        capitals.append(_final_capital(scores[drawn], covariates[drawn], scores.mean()))
    assert np.std(capitals) > 0.05
    assert np.mean(capitals) == pytest.approx(1.0, abs=1e-9)


def test_the_mean_payoff_over_the_items_left_is_one() -> None:
    rng = np.random.default_rng(3)
    covariates = rng.random((37, 2))
    scores = 0.2 * rng.random((2, 37)) + 0.4 * covariates.sum(axis=1)  # told by covariates, or no bet is made
    for drawn in (4, 11, 30):
        payoffs = []
        for candidate in range(drawn, 37):
            rest = [candidate, *(i for i in range(drawn, 37) if i != candidate)]
            order = [*range(drawn), *rest]
            payoffs.append(_side_bets(scores[:, order[: drawn + 1]], covariates[order])[:, :, drawn])
        assert np.min(payoffs) >= 0
        assert np.mean(payoffs, axis=0)[1:] == pytest.approx(1.0)
        assert np.std(payoffs, axis=0)[1:].max() > 0.01


def test_scores_to_come_change_no_bet() -> None:
    rng = np.random.default_rng(4)
    scores, covariates = rng.random((3, 50)), rng.random((60, 4))
    bets = _side_bets(scores, covariates)
    for drawn in (1, 5, 8, 23, 49):
        assert np.allclose(_side_bets(scores[:, :drawn], covariates), bets[:, :, :drawn])
        other = np.hstack([scores[:, :drawn], 1 - scores[:, drawn:]])
        assert np.array_equal(_side_bets(other, covariates)[:, :, : drawn + 1], bets[:, :, : drawn + 1])


def test_items_predicted_to_score_low_pay_more() -> None:
    covariates = (np.arange(40) % 2)[:, None].astype(float)
    bets = _side_bets(0.2 + 0.6 * covariates.T[:, :20], covariates)
    assert (bets[2:, 0, 10:20:2] > 1).all()
    assert (bets[2:, 0, 11:20:2] < 1).all()
