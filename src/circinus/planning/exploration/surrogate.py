"""What is believed of the score of every configuration after some of them were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.gaussian_process import GaussianProcess, Observations
from circinus.planning.exploration.hyperparameters import Hyperparameters
from circinus.planning.exploration.kernel import KnobKernel, matern
from circinus.planning.exploration.knob_space import IntArray, KnobSpace
from circinus.planning.exploration.learning import learn

FloatArray = NDArray[np.float64]

_ITERATIONS = 40
_WARM_ITERATIONS = 8
_SHARPER = 1.5
"""Logarithms by which further descents begin with sharper and with blunter knobs than expected."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Of m configurations' scores, each of them taken as normally distributed."""

    mean: FloatArray
    """(m,)"""
    deviation: FloatArray
    """(m,) standard deviations."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A few Gaussian processes, equally probable, on the same observations; `fit` makes one.

    Their prior mean is a constant, learnt, or given at each code; their covariance is a `KnobKernel`.
    """

    hyperparameters: Hyperparameters
    """The most probable."""
    processes: tuple[GaussianProcess, ...]
    """Under hyperparameters that stand for all of them, in units of the score's range."""
    about_prior: bool
    """Whether a prior mean was given, so that it must be given of what is predicted too."""
    score_range: tuple[float, float]
    log_evidence: float
    """Logarithm of the probability density of the observations, in units of the range, over all hyperparameters."""

    @classmethod
    def fit(
        cls,
        space: KnobSpace,
        codes: IntArray,
        means: FloatArray,
        variances: FloatArray,
        *,
        prior: FloatArray | None = None,
        additive: bool = False,
        warm: Surrogate | None = None,
        score_range: tuple[float, float] = (0.0, 1.0),
    ) -> Surrogate:
        """Learn from observations; the order of these does not matter.

        Args:
            space: of the codes.
            codes: (n, d) observed, n >= 1; a code may occur again.
            means: (n,) of the scores observed.
            variances: (n,) of these means about the true ones; 0 where they are exact.
            prior: (n,) prior mean at the observations; None: a constant, learnt.
            additive: one component for each operator and one for all together, instead of a product over all knobs.
            warm: an earlier fit on the same space in the same form, near whose hyperparameters the new are sought.
            score_range: least and greatest score that can occur; beliefs may lie outside.

        Raises:
            ValueError: no observation, arrays of different lengths, a negative variance, or `warm` of another form.
        """
        if not len(codes) or any(array.shape != (len(codes),) for array in (means, variances)):
            raise ValueError(f"found {len(codes)} codes, {means.shape} means and {variances.shape} variances")
        if not (variances >= 0).all():
            raise ValueError(f"found the variance {variances.min()}, expected none below 0")
        kernel = KnobKernel.of(space, additive=additive)
        expected = Hyperparameters.expected(kernel, about_prior=prior is not None)
        if warm is None:
            shifts = (0.0, _SHARPER, -_SHARPER)
            starts = tuple(replace(expected, log_sharpness=expected.log_sharpness + shift) for shift in shifts)
        elif warm.kernel.space == space and warm.kernel.components.shape == kernel.components.shape:
            kernel = warm.kernel  # its tables are compiled already
            starts = (replace(warm.hyperparameters, constant_deviation=expected.constant_deviation),)
        else:
            raise ValueError("found an earlier fit of another space or form, expected one of the same")
        low, width = score_range[0], score_range[1] - score_range[0]
        centre = low + width / 2 if prior is None else prior
        observations = Observations(kernel.slots(codes), (means - centre) / width, variances / width**2)
        learnt = learn(kernel, observations, expected, starts, _ITERATIONS if warm is None else _WARM_ITERATIONS)
        processes = tuple(GaussianProcess.given(kernel, h, observations) for h in learnt.representatives)
        return cls(learnt.best, processes, prior is not None, score_range, learnt.log_evidence)

    @property
    def kernel(self) -> KnobKernel:
        """Of all the processes."""
        return self.processes[0].kernel

    @property
    def relevance(self) -> FloatArray:
        """(d,) standard deviation of the difference in score by a knob's whole range and nothing else; 0: it is dead.

        Before observations, as learnt; how blunt a knob is and how much scores vary are known only together.
        """
        h = self.hyperparameters
        varies = h.variances @ self.kernel.components
        return np.sqrt(2 * varies * (1 - matern(h.sharpness))) * self._width

    @property
    def prior_deviation(self) -> float:
        """Standard deviation of a score before anything was observed; no belief is wider."""
        return math.sqrt(np.mean([p.hyperparameters.prior_variance for p in self.processes])) * self._width

    def predict(self, codes: IntArray, prior: FloatArray | None = None) -> Belief:
        """What is believed of (m, d) codes; `prior`: (m,) prior mean there, where the fit had one.

        Raises:
            ValueError: a prior mean is missing or not called for.
        """
        centre, slots = self._centre(prior), self.kernel.slots(codes)
        means, variances = np.array([process.predict(slots) for process in self.processes]).transpose(1, 0, 2)
        deviation = np.sqrt(variances.mean(axis=0) + means.var(axis=0)) * self._width
        return Belief(centre + means.mean(axis=0) * self._width, np.minimum(deviation, self.prior_deviation))

    def joint(self, codes: IntArray, prior: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """(m,) means and (m, m) covariance of what is believed of (m, d) codes together.

        Raises:
            ValueError: a prior mean is missing or not called for.
        """
        centre, slots = self._centre(prior), self.kernel.slots(codes)
        means, within = zip(*(process.joint(slots) for process in self.processes), strict=True)
        mean = np.mean(means, axis=0)
        between = (np.array(means) - mean).T @ (np.array(means) - mean) / len(means)
        return centre + mean * self._width, (np.mean(within, axis=0) + between) * self._width**2

    @property
    def _width(self) -> float:
        return self.score_range[1] - self.score_range[0]

    def _centre(self, prior: FloatArray | None) -> FloatArray | float:
        if (prior is not None) != self.about_prior:
            raise ValueError(f"found {'a' if prior is not None else 'no'} prior mean, expected what the fit had")
        return self.score_range[0] + self._width / 2 if prior is None else prior
