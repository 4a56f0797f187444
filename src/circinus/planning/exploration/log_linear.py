"""A positive quantity as a product of what each of several features makes of it, learnt from few observations.

Its logarithm is a linear function with normal coefficients, integrated out (Rasmussen & Williams 2006, section 2.7),
plus what no single feature explains. How large the coefficients of each group of features are, and the rest, is not
known: the few most probable of some combinations are averaged by their marginal likelihoods (section 5.2).
"""

from __future__ import annotations

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
class CoefficientGroup:
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
    def learn(
        cls, groups: Sequence[CoefficientGroup], features: Sequence[FloatArray], logarithms: FloatArray
    ) -> LogLinear:
        """From (n,) logarithms, n >= 1, and for each group (n, f) features."""
        centre = float(logarithms.mean())
        products = [own @ own.T for own in features]
        tried = np.array(list(product(*(group.scales for group in groups), _RESTS)))
        covariances = np.tensordot(tried[:, :-1] ** 2, products, 1) + _CENTRE_DEVIATION**2
        covariances += tried[:, -1, None, None] ** 2 * np.eye(len(logarithms))
        factors = np.linalg.cholesky(covariances)
        whitened = np.linalg.solve(factors, (logarithms - centre)[:, None])[..., 0]
        evidence = -(whitened**2).sum(axis=1) / 2 - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        kept = np.argsort(-evidence, kind="stable")[:_KEPT]
        odds = np.exp(evidence[kept] - evidence[kept[0]])
        fits = []
        for chosen, share in zip(kept, odds / odds.sum(), strict=True):
            inverse, (*scales, rest) = np.linalg.inv(factors[chosen]), tried[chosen].tolist()
            fits.append(_Fit(tuple(scales), rest, float(share), inverse, inverse.T @ whitened[chosen]))
        return cls(tuple(features), centre, tuple(fits))

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
