"""What a Gaussian process has to learn besides the scores: which knobs matter, and how much scores vary.

What is expected of them before any observation is weakly informative. The sharpness expected of a knob falls with the
square root of the number of knobs, so that two random configurations are alike to the same degree in small spaces and
in large ones (Hvarfner, Hellsten & Nardi 2024). It is wide in the logarithm: it takes two nats to make a dead knob's
sharpness negligible, and a few observations pay that.

Scores are in units of the score's range here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.sampler.kernel import KnobKernel

_SHARPNESS = 1.0
"""Inverse length scale of a knob expected in a space of one, for choices that are 0 to 1 apart."""
_SHARPNESS_SPREAD = 1.3
"""Standard deviation of its logarithm."""
_DEVIATION = 0.15
"""Standard deviation of scores over configurations that is expected where no prior mean is given."""
_DEVIATION_ABOUT_PRIOR = 0.07
"""Standard deviation of scores about a given prior mean, after level and slope, that is expected."""
_DEVIATION_SPREAD = 0.8
"""Standard deviation of the logarithm of the former."""
_DEVIATION_SPREAD_ABOUT_PRIOR = 0.5
"""Standard deviation of the logarithm of the latter; a prior mean about which scores stray far is none."""
_JOINT_SHARE = 0.1
"""Of the variance, that is expected in the component of all knobs together where each operator has its own."""
_CONSTANT_DEVIATION = 0.5
"""Standard deviation of the constant mean about the middle of the range, where no prior mean is given."""
_LEVEL_DEVIATION = _CONSTANT_DEVIATION
"""Standard deviation expected of the level by which scores differ from a given prior mean. As without one: whether it
is to be trusted shall follow from how scores rank and lie apart, and not from where they are."""
_SLOPE_DEVIATION = 0.3
"""Standard deviation expected of the slope of scores over a given prior mean, which is about 1."""
BENDS = np.linspace(0.0, 1.0, 6)
"""Places in the range at which scores may bend over a given prior mean: ranks agree sooner than distances do."""
_BEND_DEVIATION = 0.08
"""Standard deviation expected of each bend."""


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """d columns, c components, p = d + c parameters that are learnt, t trends."""

    log_sharpness: FloatArray
    """(d,) logarithm of each knob's inverse length scale."""
    log_deviation: FloatArray
    """(c,) logarithm of each component's standard deviation."""
    deviation_spread: float
    """Standard deviation expected of `log_deviation`."""
    trend_deviation: FloatArray
    """(t,) standard deviations of the coefficients of what the mean is made of besides its centre."""

    @classmethod
    def expected(cls, kernel: KnobKernel, *, about_prior: bool) -> Hyperparameters:
        """The centre of what is expected; `about_prior`: of scores less a prior mean."""
        components, columns = kernel.components.shape
        knobs_each = kernel.components[:-1].sum(axis=1).mean() if components > 1 else columns
        shares = np.ones(1)
        if components > 1:
            shares = np.append(np.full(components - 1, (1 - _JOINT_SHARE) / (components - 1)), _JOINT_SHARE)
        return cls(
            np.full(columns, math.log(_SHARPNESS) - math.log(max(float(knobs_each), 1.0)) / 2),
            math.log(_DEVIATION_ABOUT_PRIOR if about_prior else _DEVIATION) + np.log(shares) / 2,
            _DEVIATION_SPREAD_ABOUT_PRIOR if about_prior else _DEVIATION_SPREAD,
            np.array(
                [_LEVEL_DEVIATION, _SLOPE_DEVIATION, *[_BEND_DEVIATION] * len(BENDS)]
                if about_prior
                else [_CONSTANT_DEVIATION]
            ),
        )

    @property
    def inverse_lengthscale(self) -> FloatArray:
        """(d,)"""
        return np.exp(self.log_sharpness)

    @property
    def variances(self) -> FloatArray:
        """(c,)"""
        return np.exp(2 * self.log_deviation)

    @property
    def parameters(self) -> FloatArray:
        """(p,) those that are learnt."""
        return np.concatenate([self.log_sharpness, self.log_deviation])

    @property
    def spread(self) -> FloatArray:
        """(p,) the standard deviations of what is expected."""
        columns, components = len(self.log_sharpness), len(self.log_deviation)
        return np.repeat([_SHARPNESS_SPREAD, self.deviation_spread], [columns, components])

    def at(self, parameters: FloatArray) -> Hyperparameters:
        """The same with other (p,) `parameters`."""
        columns = len(self.log_sharpness)
        return replace(self, log_sharpness=parameters[:columns], log_deviation=parameters[columns:])
