"""Hyperparameters of the Gaussian process: the relevance of knobs and the variance of scores, with their priors.

The priors are weakly informative. The prior median of the inverse length scales decreases with the square root of the
number of knobs, so that two random configurations are equally correlated in small and in large spaces (Hvarfner,
Hellsten & Nardi 2024). It is wide on the log scale: two nats make an irrelevant knob's inverse length scale negligible,
and a few observations justify them.

Scores are in units of the score range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.sampler.kernel import KnobKernel

_INVERSE_LENGTHSCALE = 1.0
"""Prior median of the inverse length scale in a space of one knob, for choices at distances from 0 to 1."""
_INVERSE_LENGTHSCALE_LOG_STD = 1.3
"""Standard deviation of its logarithm."""
_DEVIATION = 0.15
"""Prior median of the standard deviation of scores over configurations, without a prior mean."""
_DEVIATION_ABOUT_PRIOR = 0.07
"""Prior median of the standard deviation of scores around a prior mean, after level and slope."""
_DEVIATION_LOG_STD = 0.8
"""Standard deviation of the logarithm of `_DEVIATION`."""
_DEVIATION_LOG_STD_ABOUT_PRIOR = 0.5
"""Standard deviation of the logarithm of `_DEVIATION_ABOUT_PRIOR`; a prior mean far from the scores is useless."""
_JOINT_SHARE = 0.1
"""Prior share of variance of the component of all knobs, next to one component for each operator."""
_CONSTANT_DEVIATION = 0.5
"""Prior standard deviation of the constant mean around the middle of the range, without a prior mean."""
_LEVEL_DEVIATION = _CONSTANT_DEVIATION
"""Prior standard deviation of the level of scores relative to a prior mean. It equals the one without a prior mean, so
that trust in a source depends on ranks and distances of scores, not on their level."""
_SLOPE_DEVIATION = 0.3
"""Prior standard deviation of the slope of scores over a prior mean, which is about 1."""
CORRECTION_CENTRES = np.linspace(0.0, 1.0, 6)
"""Centres of nonlinear corrections of a prior mean; ranks transfer better than distances do."""
_CORRECTION_DEVIATION = 0.08
"""Prior standard deviation of each correction."""


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """Hyperparameters of d columns and c components: p = d + c parameters to learn, and t trends."""

    log_inverse_lengthscale: FloatArray
    """(d,) logarithm of each knob's inverse length scale."""
    log_deviation: FloatArray
    """(c,) logarithm of each component's standard deviation."""
    deviation_log_std: float
    """Prior standard deviation of `log_deviation`."""
    trend_deviation: FloatArray
    """(t,) prior standard deviations of the trend coefficients."""

    @classmethod
    def expected(cls, kernel: KnobKernel, *, about_prior: bool) -> Hyperparameters:
        """Return the prior centre; `about_prior` if scores are relative to a prior mean."""
        components, columns = kernel.components.shape
        knobs_each = kernel.components[:-1].sum(axis=1).mean() if components > 1 else columns
        shares = np.ones(1)
        if components > 1:
            shares = np.append(np.full(components - 1, (1 - _JOINT_SHARE) / (components - 1)), _JOINT_SHARE)
        return cls(
            np.full(columns, math.log(_INVERSE_LENGTHSCALE) - math.log(max(float(knobs_each), 1.0)) / 2),
            math.log(_DEVIATION_ABOUT_PRIOR if about_prior else _DEVIATION) + np.log(shares) / 2,
            _DEVIATION_LOG_STD_ABOUT_PRIOR if about_prior else _DEVIATION_LOG_STD,
            np.array(
                [_LEVEL_DEVIATION, _SLOPE_DEVIATION, *[_CORRECTION_DEVIATION] * len(CORRECTION_CENTRES)]
                if about_prior
                else [_CONSTANT_DEVIATION]
            ),
        )

    @property
    def inverse_lengthscale(self) -> FloatArray:
        """(d,) inverse length scales."""
        return np.exp(self.log_inverse_lengthscale)

    @property
    def variances(self) -> FloatArray:
        """(c,) variances of the components."""
        return np.exp(2 * self.log_deviation)

    @property
    def parameters(self) -> FloatArray:
        """(p,) parameters to learn."""
        return np.concatenate([self.log_inverse_lengthscale, self.log_deviation])

    @property
    def scales(self) -> FloatArray:
        """(p,) prior standard deviations."""
        columns, components = len(self.log_inverse_lengthscale), len(self.log_deviation)
        return np.repeat([_INVERSE_LENGTHSCALE_LOG_STD, self.deviation_log_std], [columns, components])

    def at(self, parameters: FloatArray) -> Hyperparameters:
        """Return the hyperparameters with other (p,) `parameters`."""
        columns = len(self.log_inverse_lengthscale)
        return replace(self, log_inverse_lengthscale=parameters[:columns], log_deviation=parameters[columns:])
