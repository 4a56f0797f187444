"""Surrogate of scores: posterior of every configuration's score given some measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.gaussian_process import GaussianProcess, KernelInputs, ScoreObservations
from circinus.planning.sampler.hyperparameter_fit import posterior_around, posterior_mode
from circinus.planning.sampler.hyperparameters import CORRECTION_CENTRES, Hyperparameters
from circinus.planning.sampler.kernel import KnobKernel

_ITERATIONS = 40
_FURTHER_ITERATIONS = 8
_RESIDUAL_DEVIATION = 0.005
"""Prior standard deviation of the residual effect of a configuration, in units of the range."""
_RESIDUAL_STRENGTH = 1.0
"""Weight of this prior, in observations."""
_RESIDUAL_ROUNDS = 6
_PASSES = 3
"""Alternations between hyperparameters and residual variance."""
_LOG_SCALE_OFFSET = 1.5
"""Offsets of log inverse length scales at which further descents start."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Normal beliefs of m configurations' scores."""

    mean: FloatArray
    """(m,)"""
    deviation: FloatArray
    """(m,) standard deviations."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Mixture of a few equally probable Gaussian processes on the same observations; `fit` creates one.

    The prior mean is a constant, or a given value for each code with a learnt level and slope. Both are integrated out,
    so that their uncertainty widens the beliefs. The covariance is a `KnobKernel`.
    """

    processes: tuple[GaussianProcess, ...]
    """Gaussian processes with the representatives of the posterior, in units of the score range."""
    about_prior: bool
    """True if the fit has a prior mean; predictions then need one too."""
    score_range: tuple[float, float]
    residual_variance: float
    """Variance of the residual effect of each configuration, in units of the range."""
    log_evidence: float
    """Log marginal likelihood over all hyperparameters, in units of the range."""

    @classmethod
    def fit(
        cls,
        space: ConfigurationSpace,
        codes: IntArray,
        means: FloatArray,
        variances: FloatArray,
        *,
        prior: FloatArray | None = None,
        additive: bool = False,
        score_range: tuple[float, float] = (0.0, 1.0),
    ) -> Surrogate:
        """Fit observations; their order does not matter.

        Args:
            space: space of the codes.
            codes: (n, d) observed codes, n >= 1; may repeat.
            means: (n,) observed mean scores.
            variances: (n,) error variances of the means; 0 if exact.
            prior: (n,) prior mean of the observations, with learnt level and slope; None for a learnt constant.
            additive: whether to use one component for each operator plus one of all, instead of a product over all
                knobs.
            score_range: minimum and maximum possible score; beliefs may exceed it.

        Raises:
            ValueError: there is no observation, lengths differ, or a variance is negative.
        """
        if not len(codes) or any(array.shape != (len(codes),) for array in (means, variances)):
            raise ValueError(f"shapes differ or are empty: {codes.shape}, {means.shape}, {variances.shape}")
        if not (variances >= 0).all():
            raise ValueError(f"variances must be nonnegative, got {variances.min()}")
        kernel = KnobKernel.of(space, additive=additive)
        expected = Hyperparameters.expected(kernel, about_prior=prior is not None)
        shifts = (0.0, _LOG_SCALE_OFFSET, -_LOG_SCALE_OFFSET)
        starts = tuple(
            replace(expected, log_inverse_lengthscale=expected.log_inverse_lengthscale + shift) for shift in shifts
        )
        width = score_range[1] - score_range[0]
        centre, trends = _mean_function(len(codes), prior, score_range)
        inputs = KernelInputs(kernel.slots(codes), trends)
        noise = np.diag(variances) / width**2
        residual_variance = _RESIDUAL_DEVIATION**2
        residuals, iterations = (means - centre) / width, _ITERATIONS
        for _ in range(_PASSES):
            observations = ScoreObservations(inputs, residuals, noise + residual_variance * np.eye(len(codes)))
            fitted_to = observations
            mode, value = posterior_mode(kernel, observations, expected, starts, iterations)
            starts, iterations = (mode,), _FURTHER_ITERATIONS
            for _ in range(_RESIDUAL_ROUNDS):
                residual_variance = _updated_residual_variance(
                    residual_variance, GaussianProcess.condition(kernel, mode, observations)
                )
                observations = ScoreObservations(inputs, residuals, noise + residual_variance * np.eye(len(codes)))
        posterior = posterior_around(kernel, fitted_to, expected, mode, value)
        processes = tuple(
            GaussianProcess.condition(kernel, h, observations, residual_variance) for h in posterior.representatives
        )
        return cls(processes, prior is not None, score_range, residual_variance, posterior.log_evidence)

    @property
    def kernel(self) -> KnobKernel:
        """Kernel of all the processes."""
        return self.processes[0].kernel

    def predict(self, codes: IntArray, prior: FloatArray | None = None) -> Belief:
        """Return the belief of (m, d) codes; `prior` is their (m,) prior mean, if the fit had one.

        Raises:
            ValueError: a prior mean is missing or superfluous.
        """
        centre, inputs = self._inputs(codes, prior)
        means, variances = np.array([process.predict(inputs) for process in self.processes]).transpose(1, 0, 2)
        total_variances = np.minimum(variances.mean(axis=0) + means.var(axis=0), self._prior_variances(inputs))
        return Belief(centre + means.mean(axis=0) * self._width, np.sqrt(total_variances) * self._width)

    @property
    def _width(self) -> float:
        return self.score_range[1] - self.score_range[0]

    def _prior_variances(self, inputs: KernelInputs) -> FloatArray:
        return np.asarray(np.mean([process.prior_variances(inputs) for process in self.processes], axis=0))

    def _inputs(self, codes: IntArray, prior: FloatArray | None) -> tuple[FloatArray, KernelInputs]:
        if (prior is not None) != self.about_prior:
            raise ValueError("the prior mean is superfluous" if prior is not None else "the prior mean is missing")
        centre, trends = _mean_function(len(codes), prior, self.score_range)
        return centre, KernelInputs(self.kernel.slots(codes), trends)


def _updated_residual_variance(variance: float, process: GaussianProcess) -> float:
    """Return the next iterate of the residual variance by an MM algorithm.

    Zhou, Hu, Zhou & Lange, "MM algorithms for variance components models", 2019.
    """
    quadratic = float(process.weights @ process.weights) + _RESIDUAL_STRENGTH * _RESIDUAL_DEVIATION**2 / variance**2
    trace = float((process.inverse_factor**2).sum()) + _RESIDUAL_STRENGTH / variance
    return variance * math.sqrt(quadratic / trace)


def _mean_function(
    count: int, prior: FloatArray | None, score_range: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return (m,) centres in units of the score, and (m, t) trends.

    Trends are a constant, and with a prior mean a slope and nonlinear corrections.
    """
    centre, width = (score_range[0] + score_range[1]) / 2, score_range[1] - score_range[0]
    if prior is None:
        return np.full(count, centre), np.ones((count, 1))
    scaled_prior = (prior - score_range[0]) / width
    corrections = np.exp(
        -0.5 * ((scaled_prior[:, None] - CORRECTION_CENTRES) / (CORRECTION_CENTRES[1] - CORRECTION_CENTRES[0])) ** 2
    )
    return prior, np.column_stack([np.ones(count), scaled_prior - 0.5, corrections])
