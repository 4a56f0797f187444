"""What an operator takes under knob values, or behind ancestors, that nobody measured: learnt from those measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.profiling import OperatorProfile
from circinus.specification import Configuration, Pipeline

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


_OWN = CoefficientGroup((0.1, 0.4, 1.0))
"""What a choice of a knob of the operator itself may make, in logarithms."""
_ANCESTORS = CoefficientGroup((0.005, 0.03, 0.15))
"""The same of a knob of an ancestor, besides what that does to the size of the input."""
_SIZE = CoefficientGroup((0.01, 0.7))
"""Of the logarithm of the input's size: times that do not depend on it, and such as are about proportional."""
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class OperatorFeatures:
    """What an operator's times are taken to depend on; d columns of the space."""

    own: tuple[int, ...]
    """Columns of the operator's knobs."""
    ancestors: tuple[int, ...]
    choices: tuple[int, ...]
    """Of every column of the space."""
    middle_bytes: float
    """Size of the input in the middle of those measured."""

    @classmethod
    def of(
        cls, space: ConfigurationSpace, pipeline: Pipeline, operator: str, input_bytes: FloatArray
    ) -> OperatorFeatures:
        """Of an operator that was measured on (n,) inputs."""
        names, ancestors = [knob.operator_name for knob in space.columns], pipeline.ancestors(operator)
        return cls(
            own=tuple(column for column, name in enumerate(names) if name == operator),
            ancestors=tuple(column for column, name in enumerate(names) if name in ancestors),
            choices=tuple(len(knob.choices) for knob in space.columns),
            middle_bytes=float(np.exp(np.log(np.maximum(input_bytes, 1.0)).mean())),
        )

    def at(self, codes: IntArray, input_bytes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """For each of `_GROUPS` (m, f) features of (m, d) codes with (m,) inputs."""
        size = np.log(np.maximum(input_bytes, 1.0) / self.middle_bytes)[:, None]
        return self._indicators(codes, self.own), self._indicators(codes, self.ancestors), size

    def _indicators(self, codes: IntArray, columns: Sequence[int]) -> FloatArray:
        """(m, f) which choice each column has, its absence too."""
        parts = [codes[:, [column]] == np.arange(-1, self.choices[column]) for column in columns]
        return np.concatenate([np.zeros((len(codes), 1)), *parts], axis=1)


@dataclass(frozen=True, eq=False)
class OperatorModel:
    """Of one operator."""

    features: OperatorFeatures
    service: LogLinear
    """Of mean service seconds."""
    output: LogLinear
    """Of mean output bytes."""

    @classmethod
    def of(
        cls,
        space: ConfigurationSpace,
        pipeline: Pipeline,
        operator: str,
        known: Mapping[Configuration, OperatorProfile],
        input_bytes: FloatArray,
    ) -> OperatorModel:
        """Learn from an operator under n >= 1 prefixes.

        Args:
            space: of the pipeline.
            pipeline: which pipeline.
            operator: its name.
            known: prefix -> what the operator takes there, all on the same items.
            input_bytes: (n,) mean size of what it receives there.
        """
        features = OperatorFeatures.of(space, pipeline, operator, input_bytes)
        at = features.at(space.prefix_codes(list(known)), input_bytes)
        service_s = np.array([float(profile.service_s.mean()) for profile in known.values()])
        output_bytes = np.array([float(profile.output_bytes.mean()) for profile in known.values()])
        return cls(
            features,
            service=LogLinear.learn(_GROUPS, at, np.log(np.maximum(service_s, _LEAST))),
            output=LogLinear.learn(_GROUPS, at, np.log(np.maximum(output_bytes, _LEAST))),
        )

    def predict(self, codes: IntArray, input_bytes: FloatArray) -> OperatorPrediction:
        """What it takes under (m, d) codes with (m,) inputs."""
        at = self.features.at(codes, input_bytes)
        return OperatorPrediction(*self.service.predict(at), *self.output.predict(at))


@dataclass(frozen=True, eq=False)
class OperatorPrediction:
    """What one operator takes under m codes, logarithms."""

    log_service_s: FloatArray
    service_deviation: FloatArray
    log_output_bytes: FloatArray
    output_deviation: FloatArray

    def service_s(self, spreads: float) -> FloatArray:
        """(m,) seconds, so many standard deviations less than expected."""
        return np.exp(self.log_service_s - spreads * self.service_deviation)

    def output_bytes(self, spreads: float) -> FloatArray:
        """(m,) bytes, so many standard deviations less than expected."""
        return np.exp(self.log_output_bytes - spreads * self.output_deviation)


_GROUPS = (_OWN, _ANCESTORS, _SIZE)
