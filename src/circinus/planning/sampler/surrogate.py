"""What is believed of the score of every configuration after some of them were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.gaussian_process import GaussianProcess, KernelInputs, ScoreObservations
from circinus.planning.sampler.hyperparameter_fit import fit_hyperparameters
from circinus.planning.sampler.hyperparameters import BENDS, Hyperparameters
from circinus.planning.sampler.kernel import KnobKernel, matern

_ITERATIONS = 40
_WARM_ITERATIONS = 8
_REST_DEVIATION = 0.005
"""Standard deviation expected of what a configuration has by itself, in units of the range."""
_REST_STRENGTH = 1.0
"""Observations that this expectation counts as much as."""
_REST_ROUNDS = 6
_COLD_PASSES = 3
"""Times that hyperparameters and rests are learnt in turn without an earlier fit."""
_SHARPER_ERRORS = 2.0
"""Factor by which knobs are sharper in errors of means than in means: neighbours score alike on most items only."""
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

    Their prior mean is a constant, or one given at each code as far as a level and a slope make it fit; both are
    integrated out, so that what is not known of them widens the beliefs. Their covariance is a `KnobKernel`.
    """

    hyperparameters: Hyperparameters
    """The most probable."""
    processes: tuple[GaussianProcess, ...]
    """Under hyperparameters that stand for all of them, in units of the score's range."""
    about_prior: bool
    """Whether a prior mean was given, so that it must be given of what is predicted too."""
    score_range: tuple[float, float]
    rest_variance: float
    """Of what each configuration has by itself, whatever its knobs' neighbours have; in units of the range."""
    log_evidence: float
    """Logarithm of the probability density of the observations, in units of the range, over all hyperparameters."""

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
        warm: Surrogate | None = None,
        score_range: tuple[float, float] = (0.0, 1.0),
        shared: FloatArray | None = None,
    ) -> Surrogate:
        """Learn from observations; the order of these does not matter.

        Args:
            space: of the codes.
            codes: (n, d) observed, n >= 1; a code may occur again.
            means: (n,) of the scores observed.
            variances: (n,) of these means about the true ones; 0 where they are exact.
            prior: (n,) prior mean at the observations, of which level and slope are learnt; None: a constant, learnt.
            additive: one component for each operator and one for all together, instead of a product over all knobs.
            warm: an earlier fit on the same space in the same form, near whose hyperparameters the new are sought.
            score_range: least and greatest score that can occur; beliefs may lie outside.
            shared: (n, n) covariance that the errors of the means have where configurations are alike; what is alike in
                scores is taken to be alike in errors. None: errors have nothing in common.

        Raises:
            ValueError: no observation, arrays of different lengths, a negative variance, or `warm` of another form.
        """
        if not len(codes) or any(array.shape != (len(codes),) for array in (means, variances)):
            raise ValueError(f"found {len(codes)} codes, {means.shape} means and {variances.shape} variances")
        if not (variances >= 0).all():
            raise ValueError(f"found the variance {variances.min()}, expected none below 0")
        if shared is not None and warm is None:  # how alike they are is to be learnt first
            warm = cls.fit(space, codes, means, variances, prior=prior, additive=additive, score_range=score_range)
        kernel = KnobKernel.of(space, additive=additive)
        expected = Hyperparameters.expected(kernel, about_prior=prior is not None)
        if warm is None:
            shifts = (0.0, _SHARPER, -_SHARPER)
            starts = tuple(replace(expected, log_sharpness=expected.log_sharpness + shift) for shift in shifts)
        elif warm.kernel.space == space and warm.kernel.components.shape == kernel.components.shape:
            kernel = warm.kernel  # its tables are compiled already
            starts = (expected.at(warm.hyperparameters.parameters),)
        else:
            raise ValueError("found an earlier fit of another space or form, expected one of the same")
        width = score_range[1] - score_range[0]
        centre, trends = _mean_function(len(codes), prior, score_range)
        inputs = KernelInputs(kernel.slots(codes), trends)
        noise = np.diag(variances) / width**2
        if shared is not None and warm is not None:
            alike = _alike(kernel, warm.hyperparameters, inputs)
            noise = np.where(np.eye(len(codes), dtype=bool), noise, shared / width**2 * alike)
        rest = _REST_DEVIATION**2 if warm is None else warm.rest_variance
        residuals, iterations = (means - centre) / width, _ITERATIONS if warm is None else _WARM_ITERATIONS
        for _ in range(_COLD_PASSES if warm is None else 1):
            observations = ScoreObservations(inputs, residuals, noise + rest * np.eye(len(codes)))
            learnt = fit_hyperparameters(kernel, observations, expected, starts, iterations)
            starts, iterations = (learnt.best,), _WARM_ITERATIONS
            for _ in range(_REST_ROUNDS):
                rest = _more_probable_rest(rest, GaussianProcess.condition(kernel, learnt.best, observations))
                observations = ScoreObservations(inputs, residuals, noise + rest * np.eye(len(codes)))
        processes = tuple(GaussianProcess.condition(kernel, h, observations, rest) for h in learnt.representatives)
        return cls(learnt.best, processes, prior is not None, score_range, rest, learnt.log_evidence)

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
        return np.sqrt(2 * varies * (1 - matern(h.inverse_lengthscale))) * self._width

    def predict(self, codes: IntArray, prior: FloatArray | None = None) -> Belief:
        """What is believed of (m, d) codes; `prior`: (m,) prior mean there, where the fit had one.

        Raises:
            ValueError: a prior mean is missing or not called for.
        """
        centre, inputs = self._inputs(codes, prior)
        means, variances = np.array([process.predict(inputs) for process in self.processes]).transpose(1, 0, 2)
        spread = np.minimum(variances.mean(axis=0) + means.var(axis=0), self._prior_variances(inputs))
        return Belief(centre + means.mean(axis=0) * self._width, np.sqrt(spread) * self._width)

    def prior_deviation(self, codes: IntArray, prior: FloatArray | None = None) -> FloatArray:
        """(m,) standard deviations of the scores of (m, d) codes before anything was observed; no belief is wider."""
        return np.sqrt(self._prior_variances(self._inputs(codes, prior)[1])) * self._width

    def joint(self, codes: IntArray, prior: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """(m,) means and (m, m) covariance of what is believed of (m, d) codes together.

        Raises:
            ValueError: a prior mean is missing or not called for.
        """
        centre, inputs = self._inputs(codes, prior)
        means, within = zip(*(process.joint(inputs) for process in self.processes), strict=True)
        mean = np.mean(means, axis=0)
        between = (np.array(means) - mean).T @ (np.array(means) - mean) / len(means)
        return centre + mean * self._width, (np.mean(within, axis=0) + between) * self._width**2

    @property
    def _width(self) -> float:
        return self.score_range[1] - self.score_range[0]

    def _prior_variances(self, inputs: KernelInputs) -> FloatArray:
        return np.asarray(np.mean([process.prior_variances(inputs) for process in self.processes], axis=0))

    def _inputs(self, codes: IntArray, prior: FloatArray | None) -> tuple[FloatArray, KernelInputs]:
        """(m,) centres in the score's units, and codes as processes take them."""
        if (prior is not None) != self.about_prior:
            raise ValueError(f"found {'a' if prior is not None else 'no'} prior mean, expected what the fit had")
        centre, trends = _mean_function(len(codes), prior, self.score_range)
        return centre, KernelInputs(self.kernel.slots(codes), trends)


def _alike(kernel: KnobKernel, learnt: Hyperparameters, inputs: KernelInputs) -> FloatArray:
    """(n, n) correlations of the errors of means."""
    parts = kernel.correlations(inputs.slots, inputs.slots, _SHARPER_ERRORS * learnt.inverse_lengthscale)
    return np.asarray(np.tensordot(learnt.variances / learnt.variances.sum(), parts, 1))


def _more_probable_rest(rest: float, process: GaussianProcess) -> float:
    """A minorising step (Zhou, Hu, Zhou & Lange, "MM algorithms for variance components models", 2019)."""
    quadratic = float(process.weights @ process.weights) + _REST_STRENGTH * _REST_DEVIATION**2 / rest**2
    trace = float((process.inverse_factor**2).sum()) + _REST_STRENGTH / rest
    return rest * math.sqrt(quadratic / trace)


def _mean_function(
    count: int, prior: FloatArray | None, score_range: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """(m,) centres in the score's units, (m, t) trends: a constant, and with a prior mean a slope and bends over it."""
    middle, width = (score_range[0] + score_range[1]) / 2, score_range[1] - score_range[0]
    if prior is None:
        return np.full(count, middle), np.ones((count, 1))
    place = (prior - score_range[0]) / width
    bends = np.exp(-0.5 * ((place[:, None] - BENDS) / (BENDS[1] - BENDS[0])) ** 2)
    return prior, np.column_stack([np.ones(count), place - 0.5, bends])
