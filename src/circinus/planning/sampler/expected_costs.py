"""Expected plan costs of all configurations, measured or not, by one consistent measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.sampler.plan_costs import KINDS, min_plan_costs, percentile_floor, scenario_count
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query

_ERRORS = 1.645
"""Standard errors by which operators may be faster than expected; 5 % are faster still."""
_ERRORS_WITHOUT_PLAN = 2.576
"""The same while a query has no plan; 0.5 % are faster still, as in `StoppingRule.probability_without_plan`."""
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
    """Costs of one configuration."""

    log_std: float
    ratio: float
    """Ratio of the operators' expected seconds to the optimistic seconds that plans were computed for."""
    bounds: tuple[FloatArray, ...]
    """(s,) approximate lower bounds of the cost, by query."""
    predicted: FloatArray
    """Logarithms of the operators' times and sizes that they were computed for."""
    exact: tuple[FloatArray, ...] | None = None
    """(s,) costs of the cheapest plans, by query."""


class ExpectedCosts:
    """Computes each configuration's costs once, until its predicted times or sizes change by more than `_SAME`.

    Plans are computed for optimistic service times, so that no plan that may meet a latency limit is overlooked. Their
    cost is corrected to the expected service times: the shared part by the ratio of the operators' total seconds.

    The cost of the cheapest plans is expensive to compute, a lower bound is not. So all configurations have bounds and
    few are made exact (`refine`); the mean ratio of exact costs to bounds corrects the remaining bounds.
    """

    def __init__(
        self, pipeline: Pipeline, queries: Sequence[Query], networks: Sequence[Network], predictor: ProfilePredictor
    ) -> None:
        self._pipeline, self._queries, self._networks, self._predictor = pipeline, queries, networks, predictor
        self._key: object = None
        self._errors = _ERRORS
        self._costs: dict[Configuration, _Costs] = {}
        self._current = set[Configuration]()
        shapes = map(scenario_count, queries, networks)
        self._none = _Costs(0.0, 1.0, tuple(np.full(shape, np.inf) for shape in shapes), np.zeros(0))

    def of(
        self,
        measured: PipelineProfile,
        configurations: Sequence[Configuration],
        check_time: Callable[[], None] = lambda: None,
        *,
        without_plan: bool = False,
    ) -> ExpectedCost:
        """Return the expected costs of k configurations after the predictor has learnt from `measured`.

        Args:
            without_plan: whether a query has no plan, so that configurations count that may have one only if operators
                are much faster than expected.
        """
        key = self._predictor.key, without_plan
        if self._key != key:
            self._key, self._current = key, set()
            self._errors = _ERRORS_WITHOUT_PLAN if without_plan else _ERRORS
        failed = {failure.configuration for failure in measured.failed}
        unknown = [c for c in configurations if c not in self._current and c not in failed]
        if unknown:
            self._update(measured, unknown, check_time)
        rows = [self._none if c in failed else self._costs[c] for c in configurations]
        gaps = self._gaps()
        parts = [
            _shares_and_floors(np.array([gap * row.bounds[q] if row.exact is None else row.exact[q] for row in rows]))
            for q, gap in enumerate(gaps)
        ]
        return ExpectedCost(
            usd_per_h=tuple(shares for shares, _ in parts),
            log_std=np.array([row.log_std for row in rows]),
            floor_usd_per_h=tuple(floors for _, floors in parts),
        )

    def _update(
        self, measured: PipelineProfile, configurations: Sequence[Configuration], check_time: Callable[[], None]
    ) -> None:
        """Predict configurations, and compute the costs of those that are new or have changed."""
        profile = self._predictor.predict(measured, configurations)
        fast = self._optimistic(profile)
        predictions = [self._logarithms(predicted) for predicted in fast.configurations]
        changed = [
            row
            for row, (configuration, predicted) in enumerate(zip(configurations, predictions, strict=True))
            if (earlier := self._costs.get(configuration)) is None or abs(predicted - earlier.predicted).max() > _SAME
        ]
        of_changed = replace(fast, configurations=tuple(fast.configurations[row] for row in changed))
        bounds = self._cost_bounds(of_changed, [configurations[row] for row in changed], check_time) if changed else ()
        for number, row in enumerate(changed):
            _, expected_s = self._service(profile.configurations[row], measured.population)
            ratio = expected_s / max(fast.configurations[row].mean_service_s, _MIN_S)
            costs = tuple(_expected_from_optimistic(by_query[number], ratio) for by_query in bounds)
            self._costs[configurations[row]] = _Costs(0.0, ratio, costs, predictions[row])
        for configuration, predicted in zip(configurations, profile.configurations, strict=True):
            log_std, _ = self._service(predicted, measured.population)
            self._costs[configuration] = replace(self._costs[configuration], log_std=log_std)
        self._current |= set(configurations)

    def _logarithms(self, fast: ConfigurationProfile) -> FloatArray:
        """Return logarithms of what plans depend on: mean and late times, sizes and memory."""
        percentile = max(query.slos.percentile for query in self._queries)
        values = [
            (o.service_s.mean(), np.percentile(o.service_s, percentile), o.output_bytes.mean(), o.peak_memory_bytes)
            for o in fast.operators.values()
        ]
        return np.asarray(np.log(np.maximum(np.array(values).ravel(), _MIN_S)))

    def refine(
        self,
        measured: PipelineProfile,
        configuration: Configuration,
        check_time: Callable[[], None] = lambda: None,
    ) -> bool:
        """Compute a measured configuration's costs exactly, after `of`; return False if they were exact already."""
        costs = self._costs.get(configuration)
        if costs is None or costs.exact is not None:
            return False
        profile = self._predictor.predict(measured, [configuration])
        exact = [exact_costs[0] for exact_costs in self._cost_bounds(profile, [configuration], check_time, exact=True)]
        if not all(np.isfinite(exact_costs).all() for exact_costs in exact):
            fast = self._cost_bounds(self._optimistic(profile), [configuration], check_time, exact=True)
            exact = [
                np.where(np.isfinite(exact_costs), exact_costs, _expected_from_optimistic(fast[q][0], costs.ratio))
                for q, exact_costs in enumerate(exact)
            ]
        self._costs[configuration] = replace(costs, exact=tuple(exact))
        return True

    def _cost_bounds(
        self,
        profile: PipelineProfile,
        configurations: Sequence[Configuration],
        check_time: Callable[[], None],
        *,
        exact: bool = False,
    ) -> tuple[FloatArray, ...]:
        return min_plan_costs(
            self._pipeline, self._queries, profile, self._networks, configurations, exact=exact, check_time=check_time
        )

    def _gaps(self) -> list[FloatArray]:
        """Return, for each query, (s,) the mean ratio of exact costs to their bounds."""
        refined = [(costs.exact, costs.bounds) for costs in self._costs.values() if costs.exact is not None]
        gaps = []
        for q, none in enumerate(self._none.bounds):
            ratios = [np.ones(len(none))]
            for exact, bounds in refined:
                finite = np.isfinite(exact[q]) & np.isfinite(bounds[q]) & (exact[q] > 0) & (bounds[q] > 0)
                ratios.append(np.where(finite, exact[q] / np.where(finite, bounds[q], 1.0), 1.0))
            gaps.append(np.mean(ratios[1:] or ratios, axis=0))
        return gaps

    def _optimistic(self, profile: PipelineProfile) -> PipelineProfile:
        """Return a predicted profile with times that hardly exceed the true ones: a few slow runs exclude no plan.

        Their largest is `percentile_floor`, which lowers their means, too. Predictions are faster by `_ERRORS`.
        """
        percentile = max(query.slos.percentile for query in self._queries)

        def faster(operator: OperatorProfile) -> OperatorProfile:
            limit_s = percentile_floor(operator.service_s, percentile, profile.population)
            margin = self._predictor.log_margin(operator, self._errors)
            return replace(operator, service_s=np.minimum(operator.service_s, limit_s) * math.exp(-margin))

        return profile.with_operators(faster)

    def _service(self, predicted: ConfigurationProfile, population: int) -> tuple[float, float]:
        """Return the relative deviation of the operators' total seconds, and these expected seconds."""
        deviation_of = self._predictor.deviations(predicted.configuration)
        deviations = np.array([deviation_of[name] for name in predicted.operators])
        errors = np.array([relative_standard_error(operator, population) for operator in predicted.operators.values()])
        cautious_s = np.array([max(float(o.service_s.mean()), _MIN_S) for o in predicted.operators.values()])
        expected_s = cautious_s * np.exp(CAUTION * deviations)
        # Errors of operators are assumed to be independent.
        relative_std = np.sqrt(((expected_s * np.hypot(deviations, errors)) ** 2).sum()) / expected_s.sum()
        return float(relative_std), float(expected_s.sum())


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
