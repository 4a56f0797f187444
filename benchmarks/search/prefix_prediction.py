"""Prediction of service times and sizes of unmeasured prefixes in the arena."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.search.arena import PlanSpace
from benchmarks.search.service_time_prediction import OperatorTimes, Times
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace


class PrefixTimes:
    """Predictor of seconds or bytes of the prefixes of configurations, operator by operator."""

    def __init__(self, space: PlanSpace, numbers: IntArray, elsewhere: FloatArray | None = None) -> None:
        """Prepare the predictor.

        Args:
            space: plan space.
            numbers: (m,) numbers of the configurations.
            elsewhere: (r,) values of prefixes measured on other data, if any.
        """
        knobs = ConfigurationSpace.of(space.pipeline)
        codes = knobs.encode([space.configurations[n] for n in numbers])
        operators = np.array([column.operator for column in knobs.columns])
        self._rows = space.rows[numbers]
        self._operators: list[_Operator] = []
        for operator in range(self._rows.shape[1]):
            prefixes, first, which = np.unique(self._rows[:, operator], return_index=True, return_inverse=True)
            columns = np.flatnonzero(operators <= operator)
            model = OperatorTimes(codes[first][:, columns], operators[columns] == operator)
            prior = None
            if elsewhere is not None and (elsewhere[prefixes] > 0).all():
                prior = model.smoothed(elsewhere[prefixes])
            self._operators.append(_Operator(prefixes, which, model, prior))

    def predict(self, measured: FloatArray, earlier: list[Times | None]) -> tuple[FloatArray, FloatArray]:
        """Return measured or predicted values of every prefix.

        Args:
            measured: (r,) values, NaN where not run; at least one of every operator is measured.
            earlier: beliefs per operator, None at first; updated in place.

        Returns:
            (m, o) medians, and deviations of their logarithms: 0 where measured.
        """
        median, deviation = np.zeros(self._rows.shape), np.zeros(self._rows.shape)
        for number, operator in enumerate(self._operators):
            values = measured[operator.prefixes]
            have = np.flatnonzero(~np.isnan(values))
            if not (values[have] > 0).all():  # a value of zero has no logarithm
                median[:, number] = np.nan_to_num(values)[operator.which]
                continue
            belief = operator.model.predict(have, values[have], operator.prior, earlier[number])
            earlier[number] = belief
            median[:, number] = np.where(np.isnan(values), np.exp(belief.mean), values)[operator.which]
            deviation[:, number] = belief.deviation[operator.which]
        return median, deviation


@dataclass(frozen=True, eq=False)
class _Operator:
    prefixes: IntArray
    """(p,) prefix numbers."""
    which: IntArray
    """(m,) index into `prefixes` of each configuration."""
    model: OperatorTimes
    prior: FloatArray | None
    """(p,) logarithms of expected values."""
