"""Expected plan costs of all configurations, measured or not, by one consistent measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.sampler.plan_costs import KINDS, min_plan_costs, percentile_floor, situation_count
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query

_ERRORS = 1.645
"""Standard errors by which operators may be faster than expected; 5 % are faster still."""
_ERRORS_WITHOUT_PLAN = 2.576
"""The same while a query has no plan; 0.5 % are faster still, as in `StoppingRule.probability_of_first_plan`."""
_SAME = 0.05
"""Relative change of an operator's times and sizes up to which costs are kept. Decisions then take less of their share
of the time: 405 s instead of 561 s are measured of 125 configurations for 20 queries over six pools."""
_MIN_S = 1e-12


def relative_standard_error(operator: OperatorProfile, population: int) -> float:
    """Return the relative standard error of the mean service time over all items (Cochran 1977, section 2.6)."""
    service_s, count = operator.service_s, len(operator.service_s)
    if count < 2:
        return 1.0
    unmeasured_share = max(1.0 - count / population, 0.0)
    return float(service_s.std(ddof=1) / max(float(service_s.mean()), _MIN_S) * np.sqrt(unmeasured_share / count))


@dataclass(frozen=True, eq=False)
class ExpectedCost:
    """Expected costs of k configurations."""

    usd_per_h: tuple[FloatArray, ...]
    """(k, s) expected service share of the cheapest plan's cost, by query; infinite without a plan."""
    log_std: FloatArray
    """(k,) standard deviation of the log cost."""
    floor_usd_per_h: tuple[FloatArray, ...]
    """(k, s) minimum cost, however small the share, by query: dedicated replicas are paid whole."""


@dataclass(frozen=True, eq=False)
class _Costs:
    """Costs of one configuration for one query."""

    ratio: float
    """Ratio of the operators' expected seconds to the optimistic seconds that plans were computed for."""
    bounds: FloatArray
    """(s,) approximate lower bounds of the cost."""
    predicted: FloatArray
    """Logarithms of the operators' times and sizes that they were computed for."""
    exact: FloatArray | None = None
    """(s,) costs of the cheapest plans."""


class ExpectedCosts:
    """Computes each configuration's costs once, until its predicted times or sizes change by more than `_SAME`.

    Plans are computed for optimistic service times, so that no plan that may meet a latency limit is overlooked. Their
    cost is corrected to the expected service times: the shared part by the ratio of the operators' total seconds.

    The cost of the cheapest plans is expensive to compute, a lower bound is not. So all requested configurations have
    bounds and few are made exact (`refine`); the mean ratio of exact costs to bounds corrects the remaining bounds.
    """

    def __init__(
        self, pipeline: Pipeline, queries: Sequence[Query], networks: Sequence[Network], predictor: ProfilePredictor
    ) -> None:
        self._pipeline, self._queries, self._networks, self._predictor = pipeline, queries, networks, predictor
        self._key: object = None
        self._errors = _ERRORS
        self._costs: tuple[dict[Configuration, _Costs], ...] = tuple({} for _ in queries)
        """By query."""
        self._current = tuple(set[Configuration]() for _ in queries)
        """Configurations whose costs are those of the predictor's key, by query."""
        self._log_std: dict[Configuration, float] = {}
        self._none = tuple(np.full(shape, np.inf) for shape in map(situation_count, queries, networks))

    def of(
        self,
        measured: PipelineProfile,
        configurations: Sequence[Configuration],
        check_time: Callable[[], None] = lambda: None,
        *,
        requested: BoolArray | None = None,
        without_plan: bool = False,
    ) -> ExpectedCost:
        """Return the expected costs of k configurations after the predictor has learnt from `measured`.

        Args:
            requested: (k, q) whether a configuration's cost is requested for a query, all by default; else it is
                infinite.
            without_plan: whether a query has no plan, so that configurations count that may have one only if operators
                are much faster than expected.
        """
        key = self._predictor.key, without_plan
        if self._key != key:
            self._key, self._current = key, tuple(set() for _ in self._queries)
            self._errors = _ERRORS_WITHOUT_PLAN if without_plan else _ERRORS
        failed = {failure.configuration for failure in measured.failed}
        included = np.ones((len(configurations), len(self._queries)), dtype=bool) if requested is None else requested
        included = included & np.array([c not in failed for c in configurations], dtype=bool)[:, None]
        rows_of = [np.flatnonzero(column).tolist() for column in included.T]
        unknown = [
            [c for row in rows if (c := configurations[row]) not in current]
            for rows, current in zip(rows_of, self._current, strict=True)
        ]
        if any(unknown):
            self._update(measured, unknown, check_time)
        parts = []
        for q, rows in enumerate(rows_of):
            gap, costs = self._gap(q), np.tile(self._none[q], (len(configurations), 1))
            for row in rows:
                own = self._costs[q][configurations[row]]
                costs[row] = gap * own.bounds if own.exact is None else own.exact
            parts.append(_shares_and_floors(costs))
        return ExpectedCost(
            usd_per_h=tuple(shares for shares, _ in parts),
            log_std=np.array([self._log_std.get(c, 0.0) for c in configurations]),
            floor_usd_per_h=tuple(floors for _, floors in parts),
        )

    def _update(
        self,
        measured: PipelineProfile,
        requested: Sequence[Sequence[Configuration]],
        check_time: Callable[[], None],
    ) -> None:
        """Predict the configurations requested for each query, and compute costs that are new or have changed."""
        configurations = list(dict.fromkeys(chain.from_iterable(requested)))
        profile = self._predictor.predict(measured, configurations)
        fast = self._optimistic(profile)
        predictions, services = self._logarithms(fast), self._services(profile)
        row_of = {configuration: row for row, configuration in enumerate(configurations)}
        changed = np.zeros((len(configurations), len(self._queries)), dtype=bool)
        for q, own in enumerate(requested):
            for row, configuration in ((row_of[c], c) for c in own):
                earlier = self._costs[q].get(configuration)
                changed[row, q] = earlier is None or abs(predictions[row] - earlier.predicted).max() > _SAME
        if changed.any():
            rows = np.flatnonzero(changed.any(axis=1)).tolist()
            of_changed = replace(fast, configurations=tuple(fast.configurations[row] for row in rows))
            bounds = self._cost_bounds(of_changed, configurations, changed, check_time)
            for row, q in np.argwhere(changed).tolist():
                ratio = services[row][1] / max(fast.configurations[row].mean_service_s, _MIN_S)
                expected = _expected_from_optimistic(bounds[q][row], ratio)
                self._costs[q][configurations[row]] = _Costs(ratio, expected, predictions[row])
        self._log_std |= {c: log_std for c, (log_std, _) in zip(configurations, services, strict=True)}
        for current, own in zip(self._current, requested, strict=True):
            current.update(own)

    def _logarithms(self, fast: PipelineProfile) -> FloatArray:
        """Return (k, values) logarithms of what plans depend on: mean and late times, sizes and memory."""
        percentile = max(query.slos.percentile for query in self._queries)

        def values(o: OperatorProfile) -> tuple[float, ...]:
            late_s = float(np.percentile(o.service_s, percentile))
            return float(o.service_s.mean()), late_s, float(o.output_bytes.mean()), o.peak_memory_bytes

        table = np.array(_by_operator(fast, values)).reshape(len(fast.configurations), -1)
        return np.asarray(np.log(np.maximum(table, _MIN_S)))

    def refine(
        self,
        measured: PipelineProfile,
        configuration: Configuration,
        requested: BoolArray,
        check_time: Callable[[], None] = lambda: None,
    ) -> bool:
        """Compute a measured configuration's costs exactly, after `of`; return False if they were exact already.

        Args:
            requested: (q,) whether the cost is requested for a query.
        """
        current = [costs.get(configuration) for costs in self._costs]
        missing = requested & [costs is not None and costs.exact is None for costs in current]
        if not missing.any():
            return False
        # Without a plan in a situation by the bound, there is none.
        may_have = [costs is not None and np.isfinite(costs.bounds) for costs in current]
        profile = self._predictor.predict(measured, [configuration])
        searched = missing & [bool(np.any(finite)) for finite in may_have]
        exact = self._cost_bounds(profile, [configuration], searched[None], check_time, exact=True)
        searched = missing & [
            bool(np.any(finite & ~np.isfinite(own[0]))) for finite, own in zip(may_have, exact, strict=True)
        ]
        fast = self._optimistic(profile) if searched.any() else profile
        optimistic = self._cost_bounds(fast, [configuration], searched[None], check_time, exact=True)
        for q, costs in enumerate(current):
            if missing[q] and costs is not None:
                rest = _expected_from_optimistic(optimistic[q][0], costs.ratio)
                own = np.where(np.isfinite(exact[q][0]), exact[q][0], rest)
                self._costs[q][configuration] = replace(costs, exact=own)
        return True

    def without_plan(self, configurations: Sequence[Configuration]) -> BoolArray:
        """Return (k, q) configurations that had no plan by their bounds, when these were last computed."""
        return np.array(
            [
                [(own := costs.get(c)) is not None and not np.isfinite(own.bounds).any() for costs in self._costs]
                for c in configurations
            ],
            dtype=bool,
        )

    def _cost_bounds(
        self,
        profile: PipelineProfile,
        configurations: Sequence[Configuration],
        requested: BoolArray,
        check_time: Callable[[], None],
        *,
        exact: bool = False,
    ) -> tuple[FloatArray, ...]:
        return min_plan_costs(
            self._pipeline,
            self._queries,
            profile,
            self._networks,
            configurations,
            requested=requested,
            exact=exact,
            check_time=check_time,
        )

    def _gap(self, q: int) -> FloatArray:
        """Return (s,) the mean ratio of exact costs to their bounds for a query."""
        ratios = []
        for costs in self._costs[q].values():
            exact, bounds = costs.exact, costs.bounds
            if exact is not None:
                finite = np.isfinite(exact) & np.isfinite(bounds) & (exact > 0) & (bounds > 0)
                ratios.append(np.where(finite, exact / np.where(finite, bounds, 1.0), 1.0))
        return np.asarray(np.mean(ratios or [np.ones(len(self._none[q]))], axis=0))

    def _optimistic(self, profile: PipelineProfile) -> PipelineProfile:
        """Return a predicted profile with times that hardly exceed the true ones: a few slow runs exclude no plan.

        Their largest is `percentile_floor`, which lowers their means, too. Predictions are faster by `_ERRORS`.
        """
        percentile = max(query.slos.percentile for query in self._queries)

        def faster(operator: OperatorProfile) -> OperatorProfile:
            limit_s = percentile_floor(operator.service_s, percentile, profile.population)
            margin = self._predictor.log_margin(operator, self._errors)
            return operator.with_totals(np.minimum(operator.service_s, limit_s) * math.exp(-margin))

        return profile.with_operators(faster)

    def _services(self, predicted: PipelineProfile) -> list[tuple[float, float]]:
        """Return the relative deviation of the operators' total seconds, and these expected seconds, of each."""

        def measures(o: OperatorProfile) -> tuple[float, float]:
            return relative_standard_error(o, predicted.population), max(float(o.service_s.mean()), _MIN_S)

        services = []
        for own, of_operators in zip(predicted.configurations, _by_operator(predicted, measures), strict=True):
            deviation_of = self._predictor.deviations(own.configuration)
            deviations = np.array([deviation_of[name] for name in own.operators])
            errors, cautious_s = np.array(of_operators).T
            expected_s = cautious_s * np.exp(CAUTION * deviations)
            # Errors of operators are assumed to be independent.
            relative_std = np.sqrt(((expected_s * np.hypot(deviations, errors)) ** 2).sum()) / expected_s.sum()
            services.append((float(relative_std), float(expected_s.sum())))
        return services


def _by_operator(
    profile: PipelineProfile, function: Callable[[OperatorProfile], tuple[float, ...]]
) -> list[list[tuple[float, ...]]]:
    """Return the function's values for the operators of each configuration, computed once of shared profiles."""
    values: dict[int, tuple[float, ...]] = {}
    for operator in (operator for own in profile.configurations for operator in own.operators.values()):
        if id(operator) not in values:
            values[id(operator)] = function(operator)
    return [[values[id(operator)] for operator in own.operators.values()] for own in profile.configurations]


def _expected_from_optimistic(costs: FloatArray, ratio: float) -> FloatArray:
    """Return (s,) expected costs from costs of optimistic plans; dedicated (whole) replicas cost the same."""
    expected = costs.copy()
    expected[::KINDS] *= ratio
    return expected


def _shares_and_floors(costs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (k, s) shares and (k, s) floors of costs; in each situation fully shared, then dedicated."""
    shared, dedicated = costs[:, ::KINDS], costs[:, 1::KINDS]
    floors = np.stack([np.where(np.isfinite(shared), 0.0, np.inf), dedicated], axis=2)
    return np.repeat(shared, KINDS, axis=1), floors.reshape(costs.shape)
