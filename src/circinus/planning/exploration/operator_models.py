"""What an operator takes under knob values, or behind ancestors, that nobody measured: learnt from those measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.knob_space import ConfigurationSpace, IntArray
from circinus.planning.exploration.log_linear import CoefficientGroup, LogLinear
from circinus.profiling import OperatorProfile
from circinus.spec import Configuration, Pipeline

FloatArray = NDArray[np.float64]

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
