"""What operators take under prefixes that nobody measured here, by what the same operators took elsewhere.

Logarithms throughout: what operators take on other items, machines or in other versions differs by factors. A code here
is one of the target's space with `ABSENT` in every column that the operator does not depend on. Where nothing is known
of a code, logarithms are NaN and deviations infinite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import INACTIVE, ConfigurationSpace
from circinus.planning.sampler.mean_estimation import two_way_row_means
from circinus.planning.sampler.operator_models import OperatorPrediction
from circinus.profiling import OperatorProfile
from circinus.profiling.batch_time_ratios import allowed_allocations, batch_ratios, measured_allocations
from circinus.profiling.store.transfer_sources import SourceRuns
from circinus.specification import Configuration, Pipeline

LEAST_SPREAD = 0.05
"""Standard deviation of a logarithm that was not measured, at least."""
UNSEEN_SPREAD = 0.3
"""The same where nothing was compared yet."""
_LEAST = 1e-9
"""Seconds or bytes below which a logarithm is of no use."""


@dataclass(frozen=True, eq=False)
class SourceOperator:
    """One operator as it was measured elsewhere under r prefixes."""

    lineage: NDArray[np.bool_]
    """(d,) which columns it depends on."""
    own: NDArray[np.bool_]
    """(d,) which are its own."""
    codes: IntArray
    """(r, d)"""
    log_service_s: FloatArray
    """(r,)"""
    log_output_bytes: FloatArray
    """(r,)"""

    def rows(self, codes: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """(m,) which prefix says most of each of (m, d) codes, -1 where none does; and whether it is the very one.

        Else it is that of the same operator configuration with most other choices alike, of equals the first.
        """
        projected = np.where(self.lineage, codes, INACTIVE)
        distinct, which = np.unique(projected, axis=0, return_inverse=True)
        known = {code.tobytes(): row for row, code in enumerate(self.codes)}
        found = np.full(len(distinct), -1, dtype=np.int64)
        same = np.zeros(len(distinct), dtype=bool)
        for number, code in enumerate(distinct):
            if code.tobytes() in known:
                found[number], same[number] = known[code.tobytes()], True
            else:
                differs = self.codes != code
                donors = np.flatnonzero(~differs[:, self.own].any(axis=1))
                if len(donors):
                    found[number] = donors[int(differs[donors].sum(axis=1).argmin())]
        return found[which.reshape(-1)], same[which.reshape(-1)]


class SourceOperators:
    """What one source says of the target's operators."""

    def __init__(self, space: ConfigurationSpace, pipeline: Pipeline, runs: SourceRuns) -> None:
        """Take the items' own parts out, so that prefixes measured on few items compare with those on many.

        Prefixes with a choice that the target lacks are left out.

        Args:
            space: of the target.
            pipeline: the target.
            runs: what was measured elsewhere.
        """
        self._space, self._pipeline, self._runs = space, pipeline, runs
        self._operators: dict[str, SourceOperator] = {}
        if not runs.prefixes:
            return
        service = two_way_row_means(np.log(np.maximum(runs.service_s, _LEAST)), LEAST_SPREAD**2)
        output = two_way_row_means(np.log(np.maximum(runs.output_bytes, _LEAST)), LEAST_SPREAD**2)
        rows: dict[str, list[tuple[IntArray, float, float]]] = {}
        for row, seconds, size in zip(service.rows.tolist(), service.means, output.means, strict=True):
            operator, prefix = runs.prefixes[row]
            code = prefix_code(space, prefix)
            if code is not None:
                rows.setdefault(operator, []).append((code, float(seconds), float(size)))
        groups: list[FloatArray] = []
        for operator, found in rows.items():
            lineage, own = self._columns(operator)
            codes = np.array([code for code, _, _ in found], dtype=np.int64)
            seconds, sizes = np.array([s for _, s, _ in found]), np.array([b for _, _, b in found])
            self._operators[operator] = SourceOperator(lineage, own, codes, seconds, sizes)
            numbers = np.unique(codes[:, own], axis=0, return_inverse=True)[1].reshape(-1)
            groups += [seconds[numbers == number] for number in range(int(numbers.max()) + 1)]
        self._under_others = pooled_std(groups)

    def combined_with(self, known: Mapping[str, Mapping[Configuration, OperatorProfile]]) -> RatioModel:
        """Return the ratio model of these sources combined with local measurements.

        Args:
            known: operator -> prefix -> profile measured here.
        """
        return RatioModel(self, known)

    def of(self, operator: str) -> SourceOperator | None:
        """What was measured of an operator; None: nothing."""
        return self._operators.get(operator)

    def at(self, operator: str, codes: IntArray) -> OperatorPrediction:
        """What it took there under (m, d) codes; deviations are 0 where the very prefix was measured there."""
        found = self._operators.get(operator)
        if found is None:
            nothing, unknown = np.full(len(codes), np.nan), np.full(len(codes), np.inf)
            return OperatorPrediction(nothing, unknown, nothing, unknown)
        rows, same = found.rows(codes)
        off = np.where(rows < 0, np.inf, np.where(same, 0.0, self._under_others))
        seconds = np.where(rows < 0, np.nan, found.log_service_s[rows])
        return OperatorPrediction(seconds, off, np.where(rows < 0, np.nan, found.log_output_bytes[rows]), off)

    def with_replica(self, profile: OperatorProfile) -> OperatorProfile | None:
        """The profile with what a replica took there under the operator's own knob values; None: not measured there."""
        key = profile.operator, profile.prefix[profile.operator]
        if key not in self._runs.replicas:
            return None
        replica, measured = self._runs.replicas[key], self._runs.allocations.get(key, {})
        ratios = batch_ratios(allowed_allocations(self._pipeline.operator(profile.operator)), measured)
        return replace(
            profile,
            peak_memory_bytes=replica.peak_memory_bytes,
            load_s=replica.load_s,
            batch_ratio=ratios,
            measured_allocations=measured_allocations(ratios, measured),
            startup_s=replica.startup_s,
        )

    def code(self, prefix: Configuration) -> IntArray | None:
        """(d,) of a prefix of the target."""
        return prefix_code(self._space, prefix)

    def _columns(self, operator: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        names = {*self._pipeline.ancestors(operator), operator}
        lineage = np.array([knob.operator_name in names for knob in self._space.columns], dtype=bool)
        return lineage, np.array([knob.operator_name == operator for knob in self._space.columns], dtype=bool)


class RatioModel:
    """What was measured elsewhere in the ratio that those prefixes have which are known in both places.

    Ratios are of the operator itself, else the average of those of the others. How far those of one operator lie apart
    is what a further one may be off; before two of any operator are known, how far those of different operators do.
    """

    def __init__(self, there: SourceOperators, known: Mapping[str, Mapping[Configuration, OperatorProfile]]) -> None:
        self._there = there
        seconds: dict[str, FloatArray] = {}
        sizes: dict[str, FloatArray] = {}
        for operator, profiles in known.items():
            coded = [(code, profile) for own, profile in profiles.items() if (code := there.code(own)) is not None]
            if not coded:
                continue
            found = there.at(operator, np.array([code for code, _ in coded], dtype=np.int64))
            both = found.service_deviation == 0
            if both.any():
                here_s = np.array([_log_of_mean(profile.service_s) for _, profile in coded])
                here_bytes = np.array([_log_of_mean(profile.output_bytes) for _, profile in coded])
                seconds[operator] = (here_s - found.log_service_s)[both]
                sizes[operator] = (here_bytes - found.log_output_bytes)[both]
        self._seconds, self._sizes = _Ratios(seconds), _Ratios(sizes)

    def at(self, operator: str, codes: IntArray) -> OperatorPrediction:
        """What an operator is expected to take here under (m, d) codes."""
        there = self._there.at(operator, codes)
        ratio, spread = self._seconds.of(operator)
        size_ratio, size_spread = self._sizes.of(operator)
        return OperatorPrediction(
            there.log_service_s + ratio,
            np.hypot(there.service_deviation, spread),
            there.log_output_bytes + size_ratio,
            np.hypot(there.output_deviation, size_spread),
        )


class _Ratios:
    """Logarithms of ratios, by operator."""

    def __init__(self, found: Mapping[str, FloatArray]) -> None:
        self._own = {operator: float(ratios.mean()) for operator, ratios in found.items()}
        averages = np.array(list(self._own.values()))
        between = pooled_std([averages])
        several = any(len(ratios) > 1 for ratios in found.values())
        self._spread = pooled_std(list(found.values())) if several else between
        self._average = float(averages.mean()) if len(averages) else 0.0
        self._spread_of_others = float(np.hypot(self._spread, max(between, UNSEEN_SPREAD)))

    def of(self, operator: str) -> tuple[float, float]:
        """What to add, and its standard deviation."""
        if operator in self._own:
            return self._own[operator], self._spread
        return self._average, self._spread_of_others


def lowest_deviation(guesses: Sequence[OperatorPrediction]) -> OperatorPrediction:
    """For each code the one with the least deviation, of equals the first; seconds and bytes each by themselves.

    Args:
        guesses: of one operator under the same codes; what was learnt here first.
    """
    by_s = np.argmin([guess.service_deviation for guess in guesses], axis=0)[None]
    by_bytes = np.argmin([guess.output_deviation for guess in guesses], axis=0)[None]

    def chosen(values: Sequence[FloatArray], which: IntArray) -> FloatArray:
        return np.asarray(np.take_along_axis(np.array(values), which, axis=0)[0])

    return OperatorPrediction(
        chosen([guess.log_service_s for guess in guesses], by_s),
        chosen([guess.service_deviation for guess in guesses], by_s),
        chosen([guess.log_output_bytes for guess in guesses], by_bytes),
        chosen([guess.output_deviation for guess in guesses], by_bytes),
    )


def prefix_code(space: ConfigurationSpace, prefix: Configuration) -> IntArray | None:
    """(d,) `ABSENT` where the prefix has no such knob; None where it has a choice that the space lacks."""
    code = np.full(len(space.columns), INACTIVE, dtype=np.int64)
    values = {operator: prefix[operator].as_dict() for operator in prefix}
    for column, knob in enumerate(space.columns):
        found = values.get(knob.operator_name, {})
        if knob.name in found:
            if found[knob.name] not in knob.choices:
                return None
            code[column] = knob.choices.index(found[knob.name])
    return code


def _log_of_mean(values: FloatArray) -> float:
    return float(np.log(max(float(values.mean()), _LEAST)))


def pooled_std(groups: Sequence[FloatArray]) -> float:
    """Standard deviation within groups of logarithms; `UNSEEN_SPREAD` where no group has two."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group))
    degrees = sum(max(len(group) - 1, 0) for group in groups)
    return max(LEAST_SPREAD, float(np.sqrt(squares / degrees))) if degrees else UNSEEN_SPREAD
