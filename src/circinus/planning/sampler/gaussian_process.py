"""Gaussian process regression on codes with given hyperparameters (Rasmussen & Williams 2006, algorithm 2.1).

Scores are in units of the score range, relative to their centre: the middle of the range or a prior mean. The mean also
contains *trends*, functions of the code with normal coefficients that are integrated out (section 2.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.sampler.hyperparameters import Hyperparameters
from circinus.planning.sampler.kernel import CrossCovariance, KnobKernel

JITTER = 1e-8
"""Variance added to every observation to keep the covariance invertible: 1e-4 of the range, squared."""
_RELATIVE_JITTER = 1e-11
"""Jitter as a share of the prior variance; it exceeds `JITTER` only for scores far outside the range."""
_ROWS_AT_A_TIME = 256
"""Predictions per batch; reuse of a batch's memory is many times faster than one large cross-covariance."""


@dataclass(frozen=True, eq=False)
class KernelInputs:
    """Kernel inputs of n codes; s slots, t trends."""

    slots: FloatArray
    """(n, s)"""
    trends: FloatArray
    """(n, t)"""

    def rows(self, selected: slice | BoolArray) -> KernelInputs:
        return KernelInputs(self.slots[selected], self.trends[selected])


@dataclass(frozen=True, eq=False)
class ScoreObservations:
    """Observed scores of n codes."""

    inputs: KernelInputs
    residuals: FloatArray
    """(n,) observed means minus their centre."""
    noise: FloatArray
    """(n, n) covariance of the errors of the means and of the residual effects."""


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """Gaussian process conditioned on n observations."""

    kernel: KnobKernel
    hyperparameters: Hyperparameters
    cross_covariance: CrossCovariance
    """Covariance with the observed codes."""
    observed: KernelInputs
    """Inputs of the observed codes."""
    residual_variance: float
    """Variance of the residual effect of each code."""
    inverse_factor: FloatArray
    """(n, n) inverse of the lower Cholesky factor of the observations' covariance."""
    weights: FloatArray
    """(n,) inverse covariance times the residuals."""

    @classmethod
    def condition(
        cls,
        kernel: KnobKernel,
        hyperparameters: Hyperparameters,
        observations: ScoreObservations,
        residual_variance: float = 0.0,
    ) -> GaussianProcess:
        """Condition on observations, whose noise includes the residual effects."""
        prior_covariance, _ = covariance(kernel, observations.inputs, hyperparameters)
        inverse = _inverse(_factor(prior_covariance, observations))
        weights = inverse.T @ (inverse @ observations.residuals)
        inputs = observations.inputs
        cross = kernel.cross_covariance(inputs.slots, hyperparameters.inverse_lengthscale, hyperparameters.variances)
        return cls(kernel, hyperparameters, cross, inputs, residual_variance, inverse, weights)

    def prior_variances(self, inputs: KernelInputs) -> FloatArray:
        """Return (m,) prior variances of m codes' scores."""
        h = self.hyperparameters
        return np.asarray(h.variances.sum() + self.residual_variance + inputs.trends**2 @ h.trend_deviation**2)

    def predict(self, inputs: KernelInputs) -> tuple[FloatArray, FloatArray]:
        """Return (m,) means and (m,) variances of m codes' scores."""
        count = len(inputs.slots)
        mean, explained = np.empty(count), np.empty(count)
        for start in range(0, count, _ROWS_AT_A_TIME):
            rows = slice(start, start + _ROWS_AT_A_TIME)
            mean[rows], whitened = self._posterior(inputs.rows(rows))
            np.einsum("mn,mn->m", whitened, whitened, out=explained[rows])
        return mean, np.maximum(self.prior_variances(inputs) - explained, 0.0)

    def _posterior(self, inputs: KernelInputs) -> tuple[FloatArray, FloatArray]:
        """Return (m,) means and the (m, n) whitened covariance with the observations."""
        cross = (inputs.trends * self.hyperparameters.trend_deviation**2) @ self.observed.trends.T
        self.cross_covariance.add_to(cross, inputs.slots)
        if self.residual_variance:
            maybe_equal = _maybe_equal(inputs.slots, self.observed.slots)
            if maybe_equal.any():
                cross[maybe_equal] += self._residual_covariance(inputs.rows(maybe_equal), self.observed)
        return cross @ self.weights, cross @ self.inverse_factor.T

    def _residual_covariance(self, first: KernelInputs, second: KernelInputs) -> FloatArray:
        """Return the (n, m) covariance of residual effects, which only equal codes share."""
        equal = first.slots @ second.slots.T >= len(self.kernel.space.columns)
        return np.asarray(self.residual_variance * equal)


def _maybe_equal(slots: FloatArray, references: FloatArray) -> BoolArray:
    """Return (n,) candidates for rows equal to one of `references`; the few false positives are compared in full."""
    weights = np.sqrt(np.arange(2.0, slots.shape[1] + 2.0))
    keys, sorted_keys = slots @ weights, np.sort(references @ weights)
    above = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    nearest = np.minimum(np.abs(sorted_keys[above] - keys), np.abs(sorted_keys[np.maximum(above - 1, 0)] - keys))
    return np.asarray(nearest <= 1e-9 * (1.0 + np.abs(keys)))


def covariance(
    kernel: KnobKernel, inputs: KernelInputs, hyperparameters: Hyperparameters
) -> tuple[FloatArray, FloatArray]:
    """Return the (n, n) covariance of n codes' scores and the (c, n, n) part of each component."""
    h = hyperparameters
    parts = kernel.correlations(inputs.slots, inputs.slots, h.inverse_lengthscale) * h.variances[:, None, None]
    weighted = inputs.trends * h.trend_deviation
    return parts.sum(axis=0) + weighted @ weighted.T, parts


def minus_log_likelihood(
    kernel: KnobKernel, hyperparameters: Hyperparameters, observations: ScoreObservations
) -> tuple[float, FloatArray]:
    """Return the negative log marginal likelihood and its gradient (p,) (Rasmussen & Williams 2006, eqs. 5.8, 5.9).

    The value is infinite if it cannot be computed.
    """
    prior_covariance, parts = covariance(kernel, observations.inputs, hyperparameters)
    try:
        factor = _factor(prior_covariance, observations)
    except np.linalg.LinAlgError:
        return math.inf, np.zeros(len(hyperparameters.parameters))
    inverse = _inverse(factor)
    weights = inverse.T @ (inverse @ observations.residuals)
    value = float(observations.residuals @ weights + len(weights) * math.log(2 * math.pi)) / 2
    weighted = (inverse.T @ inverse - np.outer(weights, weights)) * parts  # (c, n, n) twice the derivative by each part
    slots = observations.inputs.slots
    slopes = np.zeros(len(hyperparameters.log_inverse_lengthscale))
    for component, own, part in zip(kernel.components, kernel.component_slots, weighted, strict=True):
        by_choices = np.zeros((slots.shape[1], slots.shape[1]))
        by_choices[own, own] = slots[:, own].T @ part @ slots[:, own]
        slopes += component * kernel.slopes(hyperparameters.inverse_lengthscale, by_choices) / 2
    gradient = np.concatenate([slopes, weighted.sum(axis=(1, 2))])
    return value + float(np.log(np.diag(factor)).sum()), gradient


def _factor(prior: FloatArray, observations: ScoreObservations) -> FloatArray:
    jitter = max(JITTER, _RELATIVE_JITTER * float(prior.diagonal().max()))
    return np.asarray(
        np.linalg.cholesky(prior + observations.noise + jitter * np.eye(len(prior))),
        dtype=np.float64,
    )


def _inverse(factor: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(factor), dtype=np.float64)
