"""A Gaussian process on observed codes under known hyperparameters (Rasmussen & Williams 2006, algorithm 2.1).

Scores are in units of the score's range, less their centre: the middle of the range or a prior mean. What the mean is
made of besides are *trends*, functions of the code with normal coefficients that are integrated out (section 2.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray
from circinus.planning.sampler.hyperparameters import Hyperparameters
from circinus.planning.sampler.kernel import CrossCovariance, KnobKernel

JITTER = 1e-8
"""Variance of every observation besides its own, which keeps the covariance invertible: 1e-4 of the range, squared."""
_RELATIVE_JITTER = 1e-11
"""The same as a share of the prior variance, which is greater only where scores lie far outside their range."""
_ROWS_AT_A_TIME = 256
"""Predictions whose covariance with the observations is held at once; many times faster than all at once, because that
memory is used again."""


@dataclass(frozen=True, eq=False)
class KernelInputs:
    """n codes; s slots, t trends."""

    slots: FloatArray
    """(n, s)"""
    trends: FloatArray
    """(n, t)"""

    def rows(self, which: slice | NDArray[np.bool_]) -> KernelInputs:
        """Some of them."""
        return KernelInputs(self.slots[which], self.trends[which])


@dataclass(frozen=True, eq=False)
class ScoreObservations:
    """n observed codes."""

    inputs: KernelInputs
    residuals: FloatArray
    """(n,) observed means less their centre."""
    noise: FloatArray
    """(n, n) covariance of the errors of these means, and of the rests."""


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """Conditioned on n observations."""

    kernel: KnobKernel
    hyperparameters: Hyperparameters
    cross_covariance: CrossCovariance
    """The observed codes."""
    observed: KernelInputs
    """The same."""
    rest_variance: float
    """Of what each code has by itself."""
    inverse_factor: FloatArray
    """(n, n) inverse of the lower Cholesky factor of the observations' covariance."""
    weights: FloatArray
    """(n,) the inverse covariance times the residuals."""

    @classmethod
    def condition(
        cls,
        kernel: KnobKernel,
        hyperparameters: Hyperparameters,
        observations: ScoreObservations,
        rest_variance: float = 0.0,
    ) -> GaussianProcess:
        """Condition on observations, whose noise has the rests in it."""
        whole, _ = covariance(kernel, observations.inputs, hyperparameters)
        inverse = _inverse(_factor(whole, observations))
        weights = inverse.T @ (inverse @ observations.residuals)
        inputs = observations.inputs
        towards = kernel.cross_covariance(inputs.slots, hyperparameters.inverse_lengthscale, hyperparameters.variances)
        return cls(kernel, hyperparameters, towards, inputs, rest_variance, inverse, weights)

    def prior_variances(self, inputs: KernelInputs) -> FloatArray:
        """(m,) variances of m codes' scores before anything was observed."""
        h = self.hyperparameters
        return np.asarray(h.variances.sum() + self.rest_variance + inputs.trends**2 @ h.trend_deviation**2)

    def predict(self, inputs: KernelInputs) -> tuple[FloatArray, FloatArray]:
        """(m,) means and (m,) variances of m codes' scores."""
        count = len(inputs.slots)
        mean, explained = np.empty(count), np.empty(count)
        for start in range(0, count, _ROWS_AT_A_TIME):
            rows = slice(start, start + _ROWS_AT_A_TIME)
            mean[rows], whitened = self._posterior(inputs.rows(rows))
            np.einsum("mn,mn->m", whitened, whitened, out=explained[rows])
        return mean, np.maximum(self.prior_variances(inputs) - explained, 0.0)

    def joint(self, inputs: KernelInputs) -> tuple[FloatArray, FloatArray]:
        """(m,) means and (m, m) covariance of m codes' scores."""
        mean, whitened = self._posterior(inputs)
        before, _ = covariance(self.kernel, inputs, self.hyperparameters)
        return mean, before + self._rests(inputs, inputs) - whitened @ whitened.T

    def _posterior(self, inputs: KernelInputs) -> tuple[FloatArray, FloatArray]:
        """(m,) means, and (m, n) whitened covariance with the observations."""
        shared = (inputs.trends * self.hyperparameters.trend_deviation**2) @ self.observed.trends.T
        self.cross_covariance.add_to(shared, inputs.slots)
        if self.rest_variance:
            alike = _maybe_alike(inputs.slots, self.observed.slots)
            if alike.any():
                shared[alike] += self._rests(inputs.rows(alike), self.observed)
        return shared @ self.weights, shared @ self.inverse_factor.T

    def _rests(self, first: KernelInputs, second: KernelInputs) -> FloatArray:
        """(n, m) covariance of the rests, which only equal codes share."""
        equal = first.slots @ second.slots.T >= len(self.kernel.space.columns)
        return np.asarray(self.rest_variance * equal)


def _maybe_alike(slots: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """(n,) rows that are equal to one of the others, and hardly any besides: the few that are to be compared whole."""
    weights = np.sqrt(np.arange(2.0, slots.shape[1] + 2.0))
    keys, known = slots @ weights, np.sort(others @ weights)
    above = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    nearest = np.minimum(np.abs(known[above] - keys), np.abs(known[np.maximum(above - 1, 0)] - keys))
    return np.asarray(nearest <= 1e-9 * (1.0 + np.abs(keys)))


def covariance(
    kernel: KnobKernel, inputs: KernelInputs, hyperparameters: Hyperparameters
) -> tuple[FloatArray, FloatArray]:
    """(n, n) covariance of the scores of n codes, and (c, n, n) the part of each component."""
    h = hyperparameters
    parts = kernel.correlations(inputs.slots, inputs.slots, h.inverse_lengthscale) * h.variances[:, None, None]
    weighted = inputs.trends * h.trend_deviation
    return parts.sum(axis=0) + weighted @ weighted.T, parts


def minus_log_likelihood(
    kernel: KnobKernel, hyperparameters: Hyperparameters, observations: ScoreObservations
) -> tuple[float, FloatArray]:
    """The marginal likelihood's logarithm, negative, and (p,) its gradient (Rasmussen & Williams 2006, eqs. 5.8, 5.9).

    Infinite where it cannot be computed.
    """
    whole, parts = covariance(kernel, observations.inputs, hyperparameters)
    try:
        factor = _factor(whole, observations)
    except np.linalg.LinAlgError:
        return math.inf, np.zeros(len(hyperparameters.parameters))
    inverse = _inverse(factor)
    weights = inverse.T @ (inverse @ observations.residuals)
    value = float(observations.residuals @ weights + len(weights) * math.log(2 * math.pi)) / 2
    pull = (inverse.T @ inverse - np.outer(weights, weights)) * parts  # (c, n, n) twice the derivative by each part
    slots = observations.inputs.slots
    slopes = np.zeros(len(hyperparameters.log_sharpness))
    for component, part in zip(kernel.components, pull, strict=True):
        by_choices = slots.T @ part @ slots
        slopes += component * kernel.slopes(hyperparameters.inverse_lengthscale, by_choices) / 2
    gradient = np.concatenate([slopes, pull.sum(axis=(1, 2))])
    return value + float(np.log(np.diag(factor)).sum()), gradient


def _factor(whole: FloatArray, observations: ScoreObservations) -> FloatArray:
    jitter = max(JITTER, _RELATIVE_JITTER * float(whole.diagonal().max()))
    return np.asarray(np.linalg.cholesky(whole + observations.noise + jitter * np.eye(len(whole))), dtype=np.float64)


def _inverse(factor: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(factor), dtype=np.float64)
