"""Transfer of operator measurements: predictions for unmeasured prefixes from sources.

All values are logarithms, as service times on other items, machines or versions differ by factors. A code is a code of
the target's space with `INACTIVE` in every column that the operator does not depend on. Without information on a code,
logarithms are NaN and deviations infinite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.configuration_space import FOREIGN, INACTIVE, ConfigurationSpace
from circinus.planning.sampler.mean_estimation import two_way_row_means
from circinus.planning.sampler.operator_models import OperatorPrediction
from circinus.profiling import OperatorProfile
from circinus.profiling.store.transfer_sources import SourceRuns
from circinus.specification import Configuration, Pipeline

MIN_LOG_STD = 0.05
"""Minimum standard deviation of a predicted logarithm."""
DEFAULT_LOG_STD = 0.3
"""Standard deviation of a logarithm before any comparison."""
_MIN_POSITIVE = 1e-9
"""Lower limit of seconds or bytes before taking logarithms."""


@dataclass(frozen=True, eq=False)
class SourceOperator:
    """Measurements of one operator in a source, under r prefixes."""

    lineage: BoolArray
    """(d,) whether the operator depends on the column."""
    own: IntArray
    """Columns of the operator's knobs."""
    codes: IntArray
    """(r, d)"""
    log_service_s: FloatArray
    """(r,)"""
    log_output_bytes: FloatArray
    """(r,)"""

    def rows(self, codes: IntArray) -> tuple[IntArray, BoolArray]:
        """Return (m,) the most informative prefix for each of (m, d) codes (-1 for none), and whether it is identical.

        Without an identical prefix, it is the one with the operator's own choices and most of the other choices in
        common; of equal ones the first.
        """
        projected = np.where(self.lineage, codes, INACTIVE)
        distinct, inverse = np.unique(projected, axis=0, return_inverse=True)
        row_of_code = {code.tobytes(): row for row, code in enumerate(self.codes)}
        rows = np.full(len(distinct), -1, dtype=np.int64)
        is_identical = np.zeros(len(distinct), dtype=bool)
        for index, code in enumerate(distinct):
            if code.tobytes() in row_of_code:
                rows[index], is_identical[index] = row_of_code[code.tobytes()], True
            else:
                differs = self.codes != code
                donors = np.flatnonzero(~differs[:, self.own].any(axis=1))
                if len(donors):
                    rows[index] = donors[int(differs[donors].sum(axis=1).argmin())]
        return rows[inverse.reshape(-1)], is_identical[inverse.reshape(-1)]


class SourceOperators:
    """Measurements of the target's operators in one source."""

    def __init__(self, space: ConfigurationSpace, pipeline: Pipeline, runs: SourceRuns) -> None:
        """Estimate row means adjusted for items, so that prefixes on few and on many items are comparable.

        Prefixes with a choice that the target lacks are left out.

        Args:
            space: space of the target.
            pipeline: target.
            runs: measurements of the source.
        """
        self.space, self._pipeline, self._runs = space, pipeline, runs
        self._operators: dict[str, SourceOperator] = {}
        reached = runs.service_s > 0  # no logarithm fits items that do not reach an operator
        if not reached.any():
            return
        service = two_way_row_means(_logs(runs.service_s, reached), MIN_LOG_STD**2)
        output = two_way_row_means(_logs(runs.output_bytes, reached), MIN_LOG_STD**2)
        measured = ~np.isnan(runs.service_s[service.rows])
        log_share = np.log(reached[service.rows].sum(axis=1) / measured.sum(axis=1))
        prefixes = [runs.prefixes[row] for row in service.rows.tolist()]
        codes = space.prefix_codes([prefix for _, prefix in prefixes])
        names = np.array([operator for operator, _ in prefixes])
        usable = (codes != FOREIGN).all(axis=1)
        groups: list[FloatArray] = []
        for operator in dict.fromkeys(names[usable].tolist()):
            rows = np.flatnonzero(usable & (names == operator))
            lineage = np.isin(np.arange(len(space.columns)), space.ancestor_columns(pipeline, operator))
            own = space.operator_columns(space.operators.index(operator))
            seconds, sizes = service.means[rows] + log_share[rows], output.means[rows] + log_share[rows]
            self._operators[operator] = SourceOperator(lineage, own, codes[rows], seconds, sizes)
            group_ids = np.unique(codes[rows][:, own], axis=0, return_inverse=True)[1].reshape(-1)
            groups += [seconds[group_ids == group_id] for group_id in range(int(group_ids.max()) + 1)]
        self._transfer_std = pooled_std(groups)

    def at(self, operator: str, codes: IntArray) -> OperatorPrediction:
        """Return the source's measurements for (m, d) codes; deviations are 0 for identical prefixes."""
        measured = self._operators.get(operator)
        if measured is None:
            nothing, unknown = np.full(len(codes), np.nan), np.full(len(codes), np.inf)
            return OperatorPrediction(nothing, unknown, nothing, unknown)
        rows, is_identical = measured.rows(codes)
        std = np.where(rows < 0, np.inf, np.where(is_identical, 0.0, self._transfer_std))
        seconds = np.where(rows < 0, np.nan, measured.log_service_s[rows])
        return OperatorPrediction(seconds, std, np.where(rows < 0, np.nan, measured.log_output_bytes[rows]), std)

    def with_replica(self, profile: OperatorProfile) -> OperatorProfile | None:
        """Return the profile with the source's replica measurements for its knob values, or None without any."""
        replica = self._runs.replicas.get((profile.operator, profile.prefix[profile.operator]))
        return None if replica is None else profile.with_replica(self._pipeline.operator(profile.operator), replica)


class RatioModel:
    """Source measurements corrected by the ratio of local to source measurements of common prefixes.

    The ratio is the operator's own, otherwise the average over operators. The uncertainty of a further prefix is the
    standard deviation within operators; until an operator has two common prefixes, that between operators.
    """

    def __init__(self, source: SourceOperators, local: Mapping[str, Mapping[Configuration, OperatorProfile]]) -> None:
        self._source = source
        seconds: dict[str, FloatArray] = {}
        sizes: dict[str, FloatArray] = {}
        for operator, profiles in local.items():
            if not profiles:
                continue
            predicted = source.at(operator, source.space.prefix_codes(list(profiles)))
            common = predicted.service_deviation == 0
            if common.any():
                local_s = np.array([_log_of_mean(profile.service_s) for profile in profiles.values()])
                local_bytes = np.array([_log_of_mean(profile.output_bytes) for profile in profiles.values()])
                seconds[operator] = (local_s - predicted.log_service_s)[common]
                sizes[operator] = (local_bytes - predicted.log_output_bytes)[common]
        self._seconds, self._sizes = _Ratios(seconds), _Ratios(sizes)

    def at(self, operator: str, codes: IntArray) -> OperatorPrediction:
        """Return the prediction of an operator for (m, d) codes."""
        prediction = self._source.at(operator, codes)
        ratio, log_std = self._seconds.of(operator)
        size_ratio, size_log_std = self._sizes.of(operator)
        return OperatorPrediction(
            prediction.log_service_s + ratio,
            np.hypot(prediction.service_deviation, log_std),
            prediction.log_output_bytes + size_ratio,
            np.hypot(prediction.output_deviation, size_log_std),
        )


class _Ratios:
    def __init__(self, ratios_by_operator: Mapping[str, FloatArray]) -> None:
        self._own = {operator: float(ratios.mean()) for operator, ratios in ratios_by_operator.items()}
        averages = np.array(list(self._own.values()))
        between = pooled_std([averages])
        several = any(len(ratios) > 1 for ratios in ratios_by_operator.values())
        self._log_std = pooled_std(list(ratios_by_operator.values())) if several else between
        self._average = float(averages.mean()) if len(averages) else 0.0
        self._log_std_of_others = float(np.hypot(self._log_std, max(between, DEFAULT_LOG_STD)))

    def of(self, operator: str) -> tuple[float, float]:
        if operator in self._own:
            return self._own[operator], self._log_std
        return self._average, self._log_std_of_others


def lowest_deviation(predictions: Sequence[OperatorPrediction]) -> OperatorPrediction:
    """Return, for each code, the prediction of lowest deviation, of equal ones the first; seconds and bytes separately.

    Args:
        predictions: predictions of one operator for the same codes; the local model's first.
    """
    by_s = np.argmin([prediction.service_deviation for prediction in predictions], axis=0)[None]
    by_bytes = np.argmin([prediction.output_deviation for prediction in predictions], axis=0)[None]

    def select(values: Sequence[FloatArray], indexes: IntArray) -> FloatArray:
        return np.asarray(np.take_along_axis(np.array(values), indexes, axis=0)[0])

    return OperatorPrediction(
        select([prediction.log_service_s for prediction in predictions], by_s),
        select([prediction.service_deviation for prediction in predictions], by_s),
        select([prediction.log_output_bytes for prediction in predictions], by_bytes),
        select([prediction.output_deviation for prediction in predictions], by_bytes),
    )


def _logs(values: FloatArray, reached: BoolArray) -> FloatArray:
    return np.where(reached, np.log(np.maximum(values, _MIN_POSITIVE)), np.nan)


def _log_of_mean(values: FloatArray) -> float:
    return float(np.log(max(float(values.mean()), _MIN_POSITIVE)))


def pooled_std(groups: Sequence[FloatArray]) -> float:
    """Return the standard deviation within groups of logarithms; a default if no group has two."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group))
    degrees = sum(max(len(group) - 1, 0) for group in groups)
    return max(MIN_LOG_STD, float(np.sqrt(squares / degrees))) if degrees else DEFAULT_LOG_STD
