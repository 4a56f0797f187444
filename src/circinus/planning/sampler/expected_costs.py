"""Expected plan costs of all configurations, measured or not, by one consistent measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.sampler.plan_costs import KINDS, min_plan_costs, percentile_floor
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query

_ERRORS = 1.645
"""Standard errors by which operators may be faster than expected; 5 % are faster still."""
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
    exact: tuple[FloatArray, ...] | None = None
    """(s,) costs of the cheapest plans, by query."""


class ExpectedCosts:
    """Computes each configuration's costs once, until more is learnt of any operator.

    Plans are computed for optimistic service times, so that no plan that may meet a latency limit is overlooked. Their
    cost is corrected to the expected service times: the shared part by the ratio of the operators' total seconds.

    The cost of the cheapest plans is expensive to compute, a lower bound is not. So all configurations have bounds and
    few are made exact (`refine`); the mean ratio of exact costs to bounds corrects the remaining bounds.
    """

    def __init__(
        self, pipeline: Pipeline, queries: Sequence[Query], network: Network, predictor: ProfilePredictor
    ) -> None:
        self._pipeline, self._queries, self._network, self._predictor = pipeline, queries, network, predictor
        self._key: object = None
        self._costs: dict[Configuration, _Costs] = {}
        shapes = [KINDS * (1 + len(network.pools_for(query.source))) for query in queries]
        self._none = _Costs(0.0, 1.0, tuple(np.full(shape, np.inf) for shape in shapes))

    def of(
        self,
        measured: PipelineProfile,
        configurations: Sequence[Configuration],
        check_time: Callable[[], None] = lambda: None,
    ) -> ExpectedCost:
        """Return the expected costs of k configurations after the predictor has learnt from `measured`."""
        if self._key != self._predictor.key:
            self._key, self._costs = self._predictor.key, {}
        failed = {failure.configuration for failure in measured.failed}
        missing = [c for c in configurations if c not in self._costs and c not in failed]
        if missing:
            profile = self._predictor.predict(measured, missing)
            fast = self._optimistic(profile)
            bounds = self._cost_bounds(fast, missing, check_time)
            for row, predicted in enumerate(profile.configurations):
                log_std, expected_s = self._service(predicted, measured.population)
                ratio = expected_s / max(fast.configurations[row].mean_service_s, _MIN_S)
                costs = tuple(_expected_from_optimistic(by_query[row], ratio) for by_query in bounds)
                self._costs[predicted.configuration] = _Costs(log_std, ratio, costs)
        rows, gaps = [self._costs.get(c, self._none) for c in configurations], self._gaps()
        parts = [
            _shares_and_floors(np.array([gap * row.bounds[q] if row.exact is None else row.exact[q] for row in rows]))
            for q, gap in enumerate(gaps)
        ]
        return ExpectedCost(
            usd_per_h=tuple(shares for shares, _ in parts),
            log_std=np.array([row.log_std for row in rows]),
            floor_usd_per_h=tuple(floors for _, floors in parts),
        )

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
            self._pipeline, self._queries, profile, self._network, configurations, exact=exact, check_time=check_time
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
            margin = self._predictor.log_margin(operator, _ERRORS)
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
