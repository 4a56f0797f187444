"""What every configuration, measured or not, may be expected to cost, all by the same measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.planning.sampler.feasibility import population_size
from circinus.planning.sampler.plan_costs import KINDS, min_plan_costs
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query

ERRORS = 2.0
"""Standard errors by which operators may well be faster than they were on the first items."""
_LEAST_S_OF_FEW_ITEMS = 1e-12


def relative_standard_error(operator: OperatorProfile, population: int) -> float:
    """Standard error of the mean service time over all items, as a share of it (Cochran 1977, section 2.6)."""
    service_s, count = operator.service_s, len(operator.service_s)
    if count < 2:
        return 1.0
    left = max(1.0 - count / population, 0.0)
    return float(service_s.std(ddof=1) / max(float(service_s.mean()), _LEAST_S_OF_FEW_ITEMS) * np.sqrt(left / count))


def optimistic_profile(profile: PipelineProfile, population: int) -> PipelineProfile:
    """Every operator faster by `ERRORS`: what may well be if the first items were slow ones."""
    known: dict[int, OperatorProfile] = {}

    def faster(operator: OperatorProfile) -> OperatorProfile:
        if id(operator) not in known:
            factor = float(np.exp(-ERRORS * relative_standard_error(operator, population)))
            known[id(operator)] = replace(operator, service_s=operator.service_s * factor)
        return known[id(operator)]

    return replace(
        profile,
        configurations=tuple(
            replace(found, operators={name: faster(operator) for name, operator in found.operators.items()})
            for found in profile.configurations
        ),
    )


_LEAST_S = 1e-12


@dataclass(frozen=True, eq=False)
class ExpectedCost:
    """Of k configurations."""

    usd_per_h: tuple[FloatArray, ...]
    """For each query (k, s) its share of what the cheapest plan costs, as expected; infinite: there is none."""
    spread: FloatArray
    """(k,) standard deviation of the logarithm of that."""
    floor_usd_per_h: tuple[FloatArray, ...]
    """For each query (k, s) what it costs at least, however small the share: alone, whole replicas are paid for."""


@dataclass(frozen=True, eq=False)
class _Costs:
    """Of one configuration."""

    spread: float
    middle: float
    """Its operators' seconds as expected over those that plans were sought for."""
    least: tuple[FloatArray, ...]
    """For each query (s,) what hardly any plan undercuts."""
    exact: tuple[FloatArray, ...] | None = None
    """For each query (s,) of the cheapest plans."""


class ExpectedCosts:
    """Computes each configuration once as long as nothing is learnt of any operator.

    Plans are sought for operators that are as fast as they may well be, lest a plan that keeps a latency limit be
    overlooked; their cost is put back in the middle, the share of it by the ratio of all operators' seconds.

    What the cheapest plans cost takes long to compute, a bound that no plan undercuts does not. So all have bounds, and
    few are made exact (`refine`); by what these cost over their bounds the others are expected to, too.
    """

    def __init__(
        self, pipeline: Pipeline, queries: Sequence[Query], network: Network, predictor: ProfilePredictor
    ) -> None:
        """Nothing is computed yet."""
        self._pipeline, self._queries, self._network, self._predictor = pipeline, queries, network, predictor
        self._key: object = None
        self._known: dict[Configuration, _Costs] = {}
        shapes = [KINDS * (1 + len(network.pools_for(query.source))) for query in queries]
        self._none = _Costs(0.0, 1.0, tuple(np.full(shape, np.inf) for shape in shapes))

    def of(self, known: PipelineProfile, listed: Sequence[Configuration]) -> ExpectedCost:
        """Of k configurations, after the predictor has learnt from `known`; those that failed have no plan."""
        if self._key != self._predictor.key:
            self._key, self._known = self._predictor.key, {}
        failed = {failure.configuration for failure in known.failed}
        new = [c for c in listed if c not in self._known and c not in failed]
        if new:
            population = population_size(known)
            profile = self._predictor.predict(known, new)
            least = self._least(optimistic_profile(profile, population), new)
            for row, found in enumerate(profile.configurations):
                spread, middle = self._service(found, population)
                costs = tuple(_in_the_middle(by_query[row], middle) for by_query in least)
                self._known[found.configuration] = _Costs(spread, middle, costs)
        rows, gaps = [self._known.get(c, self._none) for c in listed], self._gaps()
        parts = [
            _shares_and_floors(np.array([gap * row.least[q] if row.exact is None else row.exact[q] for row in rows]))
            for q, gap in enumerate(gaps)
        ]
        return ExpectedCost(
            usd_per_h=tuple(shares for shares, _ in parts),
            spread=np.array([row.spread for row in rows]),
            floor_usd_per_h=tuple(floors for _, floors in parts),
        )

    def refine(self, known: PipelineProfile, configuration: Configuration) -> bool:
        """Make the costs of one that was measured, and that `of` was asked for last, exact; False: they were."""
        found = self._known.get(configuration)
        if found is None or found.exact is not None:
            return False
        profile = self._predictor.predict(known, [configuration])
        exact = [costs[0] for costs in self._least(profile, [configuration], exactly=True)]
        if not all(np.isfinite(costs).all() for costs in exact):
            fast = self._least(optimistic_profile(profile, population_size(known)), [configuration], exactly=True)
            exact = [
                np.where(np.isfinite(costs), costs, _in_the_middle(fast[q][0], found.middle))
                for q, costs in enumerate(exact)
            ]
        self._known[configuration] = replace(found, exact=tuple(exact))
        return True

    def _least(
        self, profile: PipelineProfile, wanted: Sequence[Configuration], *, exactly: bool = False
    ) -> tuple[FloatArray, ...]:
        return min_plan_costs(self._pipeline, self._queries, profile, self._network, wanted, exactly=exactly)

    def _gaps(self) -> list[FloatArray]:
        """For each query (s,) what exact costs are over their bounds, on average of those known."""
        refined = [(found.exact, found.least) for found in self._known.values() if found.exact is not None]
        gaps = []
        for q, none in enumerate(self._none.least):
            ratios = [np.ones(len(none))]
            for exact, least in refined:
                finite = np.isfinite(exact[q]) & np.isfinite(least[q]) & (exact[q] > 0) & (least[q] > 0)
                ratios.append(np.where(finite, exact[q] / np.where(finite, least[q], 1.0), 1.0))
            gaps.append(np.mean(ratios[1:] or ratios, axis=0))
        return gaps

    def _service(self, found: ConfigurationProfile, population: int) -> tuple[float, float]:
        """Relative deviation of the seconds of all operators, and these as expected over those plans are sought for.

        That operators err independently is an assumption.
        """
        unsure = self._predictor.deviations(found.configuration)
        deviations = np.array([unsure[name] for name in found.operators])
        errors = np.array([relative_standard_error(operator, population) for operator in found.operators.values()])
        least_s = np.array([max(float(operator.service_s.mean()), _LEAST_S) for operator in found.operators.values()])
        middle_s, fast_s = least_s * np.exp(CAUTION * deviations), least_s * np.exp(-ERRORS * errors)
        spread = np.sqrt(((middle_s * np.hypot(deviations, errors)) ** 2).sum()) / middle_s.sum()
        return float(spread), float(middle_s.sum() / fast_s.sum())


def _in_the_middle(costs: FloatArray, middle: float) -> FloatArray:
    """(s,) costs of plans for fast operators -> as expected; alone, whole replicas cost what they cost."""
    found = costs.copy()
    found[::KINDS] *= middle
    return found


def _shares_and_floors(costs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(k, s) shares and (k, s) floors of what k configurations cost: in each situation fully shared, then alone."""
    shared, alone = costs[:, ::KINDS], costs[:, 1::KINDS]
    floors = np.stack([np.where(np.isfinite(shared), 0.0, np.inf), alone], axis=2)
    return np.repeat(shared, KINDS, axis=1), floors.reshape(costs.shape)
