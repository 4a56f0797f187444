"""Regression models of operators: service time and output size for unmeasured prefixes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.profiling import OperatorProfile
from circinus.specification import Configuration, Pipeline
from circinus.statistics.winsorizing import winsorized_mean

_CENTRE_DEVIATION = 10.0
"""Prior standard deviation of the mean logarithm, which is uninformative."""
_RESIDUAL_DEVIATIONS = (0.02, 0.1, 0.3)
"""Standard deviations of the residual to try: two per cent, ten, a third."""
_AVERAGED = 16
"""Maximum number of hyperparameter combinations in the average."""
_MIN_LIKELIHOOD = 0.02
"""Minimum likelihood of a combination in the average, relative to the most likely one."""
_UNSEEN = 1e-9
"""Maximum magnitude of the features of a group that no observation depends on."""


@dataclass(frozen=True, eq=False)
class _Fit:
    scales: tuple[float, ...]
    residual: float
    weight: float
    inverse_factor: FloatArray
    """(n, n)"""
    weights: FloatArray
    """(n,)"""


@dataclass(frozen=True, eq=False)
class LogLinear:
    """Bayesian log-linear regression on n observations, averaged over scales."""

    features: tuple[FloatArray, ...]
    """(n, f) observed features of each group."""
    centre: float
    fits: tuple[_Fit, ...]

    @classmethod
    def learn(
        cls, groups: Sequence[Sequence[float]], features: Sequence[FloatArray], logarithms: FloatArray
    ) -> LogLinear:
        """Fit (n,) logarithms, n >= 1, to (n, f) features of each group.

        The coefficients of a group have one of its standard deviations: the last one if no observation depends on them,
        as equal combinations would otherwise displace different ones from the average.
        """
        centre = float(logarithms.mean())
        products = [own @ own.T for own in features]
        seen = [abs(own).max(initial=0.0) > _UNSEEN for own in features]
        scales = [own if is_seen else own[-1:] for own, is_seen in zip(groups, seen, strict=True)]
        scale_grid = np.array(list(product(*scales, _RESIDUAL_DEVIATIONS)))
        covariances = np.tensordot(scale_grid[:, :-1] ** 2, products, 1) + _CENTRE_DEVIATION**2
        covariances += scale_grid[:, -1, None, None] ** 2 * np.eye(len(logarithms))
        factors = np.linalg.cholesky(covariances)
        whitened = np.linalg.solve(factors, (logarithms - centre)[:, None])[..., 0]
        evidence = -(whitened**2).sum(axis=1) / 2 - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        best = np.argsort(-evidence, kind="stable")[:_AVERAGED]
        best = best[evidence[best] >= evidence[best[0]] + math.log(_MIN_LIKELIHOOD)]
        likelihoods = np.exp(evidence[best] - evidence[best[0]])
        fits = []
        for index, share in zip(best, likelihoods / likelihoods.sum(), strict=True):
            inverse, (*deviations, residual) = np.linalg.inv(factors[index]), scale_grid[index].tolist()
            fits.append(_Fit(tuple(deviations), residual, float(share), inverse, inverse.T @ whitened[index]))
        return cls(tuple(features), centre, tuple(fits))

    def predict(self, features: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Return (m,) means and (m,) standard deviations of the logarithms for (m, f) features of each group."""
        products = [own @ observed.T for own, observed in zip(features, self.features, strict=True)]
        squares = [np.einsum("mf,mf->m", own, own) for own in features]
        means, variances = [], []
        for fit in self.fits:
            shared = np.full(products[0].shape, _CENTRE_DEVIATION**2)
            prior = np.full(len(shared), _CENTRE_DEVIATION**2 + fit.residual**2)
            for scale, part, square in zip(fit.scales, products, squares, strict=True):
                shared += scale**2 * part
                prior += scale**2 * square
            whitened = shared @ fit.inverse_factor.T
            means.append(shared @ fit.weights)
            variances.append(np.maximum(prior - np.einsum("mn,mn->m", whitened, whitened), fit.residual**2))
        weights = np.array([fit.weight for fit in self.fits])
        mean = weights @ np.array(means)
        variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return self.centre + mean, np.sqrt(variance)


_OWN = (0.1, 0.4, 1.0)
"""Effects of the operator's own choices, in logarithms."""
_ANCESTORS = (0.005, 0.03, 0.15)
"""Effects of ancestors' choices, in logarithms, in addition to the effect of the input size."""
_SIZE = (0.01, 0.7)
"""Exponents of the input size: about zero (independent), or about one (proportional)."""
_TREND = 3.0
"""Standard deviation of the effect of an ordered knob's range, relative to that of one choice's own effect."""
_MIN_POSITIVE = 1e-9


@dataclass(frozen=True, eq=False)
class OperatorFeatures:
    """Features that an operator's service time and output size depend on; d columns of the space."""

    own: IntArray
    """Columns of the operator's knobs."""
    ancestors: IntArray
    choices: tuple[int, ...]
    """Number of choices of every column of the space."""
    trends: tuple[bool, ...]
    """Whether every column of the space has a trend: its choices are ordered, and more than two."""
    geometric_mean_bytes: float
    """Geometric mean of the measured input sizes."""

    @classmethod
    def of(
        cls, space: ConfigurationSpace, pipeline: Pipeline, operator: str, input_bytes: FloatArray
    ) -> OperatorFeatures:
        """Build the features of an operator measured on (n,) inputs."""
        own = space.operator_columns(space.operators.index(operator))
        return cls(
            own=own,
            ancestors=np.setdiff1d(space.ancestor_columns(pipeline, operator), own),
            choices=tuple(len(knob.choices) for knob in space.columns),
            trends=tuple(knob.ordered and len(knob.choices) > 2 for knob in space.columns),
            geometric_mean_bytes=float(np.exp(np.log(np.maximum(input_bytes, 1.0)).mean())),
        )

    def at(self, codes: IntArray, input_bytes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (m, f) features of (m, d) codes with (m,) inputs, for each of `_GROUPS`."""
        size = np.log(np.maximum(input_bytes, 1.0) / self.geometric_mean_bytes)[:, None]
        return self._indicators(codes, self.own), self._indicators(codes, self.ancestors), size

    def _indicators(self, codes: IntArray, columns: IntArray) -> FloatArray:
        """Return (m, f) one-hot choices of the columns, inactivity included, and the trends of ordered ones."""
        parts = [codes[:, [column]] == np.arange(-1, self.choices[column]) for column in columns.tolist()]
        trends = [self._trend(codes[:, [column]], column) for column in columns.tolist() if self.trends[column]]
        return np.concatenate([np.zeros((len(codes), 1)), *parts, *trends], axis=1)

    def _trend(self, choices: IntArray, column: int) -> FloatArray:
        """Return (m, 1) positions in the range of an ordered column, from its middle; 0 if inactive."""
        return np.where(choices < 0, 0.0, _TREND * (choices / (self.choices[column] - 1) - 0.5))


@dataclass(frozen=True, eq=False)
class OperatorModel:
    """Models of one operator."""

    features: OperatorFeatures
    service: LogLinear
    """Model of winsorized mean service seconds, which one slow run does not move."""
    output: LogLinear
    """Model of mean output bytes."""

    @classmethod
    def of(
        cls,
        space: ConfigurationSpace,
        pipeline: Pipeline,
        operator: str,
        profiles: Mapping[Configuration, OperatorProfile],
        input_bytes: FloatArray,
    ) -> OperatorModel:
        """Fit the models to an operator's measurements under n >= 1 prefixes.

        Args:
            space: space of the pipeline.
            pipeline: pipeline of the operator.
            operator: name of the operator.
            profiles: prefix -> profile of the operator, all on the same items.
            input_bytes: (n,) mean input sizes.
        """
        features = OperatorFeatures.of(space, pipeline, operator, input_bytes)
        feature_groups = features.at(space.prefix_codes(list(profiles)), input_bytes)
        service_s = np.array([winsorized_mean(profile.service_s) for profile in profiles.values()])
        output_bytes = np.array([float(profile.output_bytes.mean()) for profile in profiles.values()])
        return cls(
            features,
            service=LogLinear.learn(_GROUPS, feature_groups, np.log(np.maximum(service_s, _MIN_POSITIVE))),
            output=LogLinear.learn(_GROUPS, feature_groups, np.log(np.maximum(output_bytes, _MIN_POSITIVE))),
        )

    def predict(self, codes: IntArray, input_bytes: FloatArray) -> OperatorPrediction:
        """Return the prediction for (m, d) codes with (m,) inputs."""
        feature_groups = self.features.at(codes, input_bytes)
        return OperatorPrediction(*self.service.predict(feature_groups), *self.output.predict(feature_groups))


@dataclass(frozen=True, eq=False)
class OperatorPrediction:
    """Predicted logarithms of one operator for m codes."""

    log_service_s: FloatArray
    service_deviation: FloatArray
    log_output_bytes: FloatArray
    output_deviation: FloatArray

    def service_s(self, spreads: float) -> FloatArray:
        """Return (m,) seconds, `spreads` standard deviations below the expected logarithm."""
        return np.exp(self.log_service_s - spreads * self.service_deviation)

    def output_bytes(self, spreads: float) -> FloatArray:
        """Return (m,) bytes, `spreads` standard deviations below the expected logarithm."""
        return np.exp(self.log_output_bytes - spreads * self.output_deviation)


_GROUPS = (_OWN, _ANCESTORS, _SIZE)
