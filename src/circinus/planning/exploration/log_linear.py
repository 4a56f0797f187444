"""A positive quantity as a product of what each of several features makes of it, learnt from few observations.

Its logarithm is a linear function with normal coefficients, integrated out (Rasmussen & Williams 2006, section 2.7),
plus what no single feature explains. How large the coefficients of each group of features are, and the rest, is not
known: the few most probable of some combinations are averaged by their marginal likelihoods (section 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_CENTRE_DEVIATION = 10.0
"""Of the logarithm's mean: anything may be."""
_RESTS = (0.02, 0.1, 0.3)
"""Standard deviations that the rest may have: two per cent, ten, a third."""
_KEPT = 4
"""Combinations that are averaged."""


@dataclass(frozen=True, eq=False)
class Group:
    """Features whose coefficients are alike in size."""

    scales: tuple[float, ...]
    """Standard deviations that the coefficients may have."""


@dataclass(frozen=True, eq=False)
class _Fit:
    scales: tuple[float, ...]
    rest: float
    weight: float
    inverse_factor: FloatArray
    """(n, n)"""
    weights: FloatArray
    """(n,)"""


@dataclass(frozen=True, eq=False)
class LogLinear:
    """Learnt from n observations."""

    features: tuple[FloatArray, ...]
    """(n, f) of each group, as observed."""
    centre: float
    fits: tuple[_Fit, ...]

    @classmethod
    def learn(cls, groups: Sequence[Group], features: Sequence[FloatArray], logarithms: FloatArray) -> LogLinear:
        """From (n,) logarithms, n >= 1, and for each group (n, f) features."""
        centre = float(logarithms.mean())
        products = [own @ own.T for own in features]
        found: list[tuple[float, _Fit]] = []
        for *scales, rest in product(*(group.scales for group in groups), _RESTS):
            covariance = np.full((len(logarithms),) * 2, _CENTRE_DEVIATION**2)
            for scale, part in zip(scales, products, strict=True):
                covariance += scale**2 * part
            covariance[np.diag_indices_from(covariance)] += rest**2
            factor = np.linalg.cholesky(covariance)
            inverse = np.linalg.inv(factor)
            whitened = inverse @ (logarithms - centre)
            evidence = -float(whitened @ whitened) / 2 - float(np.log(np.diag(factor)).sum())
            found.append((evidence, _Fit(tuple(scales), rest, 0.0, inverse, inverse.T @ whitened)))
        found.sort(key=lambda pair: -pair[0])
        odds = np.array([math.exp(evidence - found[0][0]) for evidence, _ in found[:_KEPT]])
        fits = tuple(
            _Fit(fit.scales, fit.rest, float(share), fit.inverse_factor, fit.weights)
            for share, (_, fit) in zip(odds / odds.sum(), found, strict=False)
        )
        return cls(tuple(features), centre, fits)

    def predict(self, features: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """For each group (m, f) features -> (m,) means and (m,) standard deviations of the logarithms."""
        products = [own @ known.T for own, known in zip(features, self.features, strict=True)]
        squares = [np.einsum("mf,mf->m", own, own) for own in features]
        means, variances = [], []
        for fit in self.fits:
            shared = np.full(products[0].shape, _CENTRE_DEVIATION**2)
            prior = np.full(len(shared), _CENTRE_DEVIATION**2 + fit.rest**2)
            for scale, part, square in zip(fit.scales, products, squares, strict=True):
                shared += scale**2 * part
                prior += scale**2 * square
            whitened = shared @ fit.inverse_factor.T
            means.append(shared @ fit.weights)
            variances.append(np.maximum(prior - np.einsum("mn,mn->m", whitened, whitened), fit.rest**2))
        weights = np.array([fit.weight for fit in self.fits])
        mean = weights @ np.array(means)
        variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return self.centre + mean, np.sqrt(variance)
