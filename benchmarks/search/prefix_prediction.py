"""What unmeasured prefixes of the arena's operators would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.search.arena import PlanSpace
from benchmarks.search.service_time_prediction import OperatorTimes, Times
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace


class PrefixTimes:
    """Predicts seconds or bytes of the prefixes of some configurations, operator by operator."""

    def __init__(self, space: PlanSpace, numbers: IntArray, elsewhere: FloatArray | None = None) -> None:
        """Compile.

        Args:
            space: of the plans.
            numbers: (m,) of the configurations.
            elsewhere: (r,) the same, measured on other data; None: nothing is known of other data.
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

    def predict(self, known: FloatArray, earlier: list[Times | None]) -> tuple[FloatArray, FloatArray]:
        """What is known and believed of every prefix.

        Args:
            known: (r,) NaN where not run; of every operator one at least is known.
            earlier: one for each operator, None at first; changed to what was learnt.

        Returns:
            (m, o) medians, and deviations of their logarithms: 0 where known.
        """
        median, deviation = np.zeros(self._rows.shape), np.zeros(self._rows.shape)
        for number, operator in enumerate(self._operators):
            values = known[operator.prefixes]
            have = np.flatnonzero(~np.isnan(values))
            if not (values[have] > 0).all():  # takes or gives nothing at all
                median[:, number] = np.nan_to_num(values)[operator.which]
                continue
            found = operator.model.predict(have, values[have], operator.prior, earlier[number])
            earlier[number] = found
            median[:, number] = np.where(np.isnan(values), np.exp(found.mean), values)[operator.which]
            deviation[:, number] = found.deviation[operator.which]
        return median, deviation


@dataclass(frozen=True, eq=False)
class _Operator:
    prefixes: IntArray
    """(p,)"""
    which: IntArray
    """(m,) of them each configuration has."""
    model: OperatorTimes
    prior: FloatArray | None
    """(p,) logarithms."""
