"""Estimators of the plans of one query under all its configurations, split plans included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation.estimate import Estimate, PlanCandidate, SloProbabilities
from circinus.estimation.estimator import Estimator, latency_percentile
from circinus.estimation.merged_load import MergedLoad
from circinus.estimation.percentiles import MeasuredSamples, PercentileEstimator
from circinus.estimation.slo_probability import bounded_latency_probability
from circinus.estimation.split_traffic import merged_links, merged_uses, thinned
from circinus.profiling import ConfigurationProfile
from circinus.specification import Configuration, Network, Pipeline, Query, QueryPlan, SloKind, Slos
from circinus.statistics.interval import Interval

ProfileOf = Callable[[Configuration], ConfigurationProfile]
"""Returns the profile of a configuration."""

_ROUTES = "routes"
"""Name of the draws for the part of a split plan that a request takes."""
_MAX_SHARES = 100
"""Maximum number of shares of the requests whose estimators are cached; a search of divisions takes some tens."""


class QueryEstimators:
    """Estimators of one query, one for each configuration, which share the latencies of equal stages and transfers."""

    def __init__(
        self,
        query: Query,
        pipeline: Pipeline,
        network: Network,
        *,
        population: int | None = None,
        samples: MeasuredSamples | None = None,
    ) -> None:
        """Set what all estimators have in common; see `Estimator`."""
        self._query = query
        self._create = partial(
            Estimator,
            pipeline=pipeline,
            network=network,
            population=population,
            samples=samples,
        )
        self._of_share = partial(
            QueryEstimators,
            pipeline=pipeline,
            network=network,
            population=population,
            samples=samples,
        )
        self._estimators: dict[Configuration, Estimator] = {}
        self._template: Estimator | None = None
        """Any of the estimators, or one of a query with the same latencies."""
        self._shares: dict[float, QueryEstimators] = {}

    def of(self, profile: ConfigurationProfile) -> Estimator:
        """Return the estimator of a configuration."""
        estimator = self._estimators.get(profile.configuration)
        if estimator is None:
            estimator = self._create(self._query, profile=profile, template=self._template)
            self._estimators[profile.configuration] = self._template = estimator
        return estimator

    def with_slos(self, slos: Slos) -> QueryEstimators:
        """Return the estimators of the query with other SLOs; at the same percentile they share all latencies."""
        other = copy(self)
        other._query = self._query.model_copy(update={"slos": slos})
        other._estimators, other._shares = {}, {}
        if latency_percentile(other._query) != latency_percentile(self._query):
            other._template = None
        return other

    def candidate(
        self,
        plan: QueryPlan,
        profile_of: ProfileOf,
        conditions: MergedLoad | None = None,
        *,
        as_part: bool = False,
    ) -> PlanCandidate:
        """Estimate a plan, which may be split.

        Every part of a split plan meets the latency SLO for its own requests: a bound of the latency is the highest of
        the parts. The expected latency is that of all requests. The accuracy is the mean over the requests; its bounds
        hold for all configurations at once (`circinus.profiling.race.run_confidence`), and so do their means.

        Args:
            plan: a plan of this query.
            profile_of: returns the profile of each configuration of the plan.
            conditions: see `Estimator.candidate`.

        Raises:
            PlanningError: see `Estimator.candidate`.
        """
        if not plan.is_split:
            return self.of(profile_of(plan.configuration)).candidate(plan, conditions, as_part=as_part)
        shares, profiles = [part.share for part in plan.parts], [profile_of(p.plan.configuration) for p in plan.parts]
        estimators = [self._at(share).of(profile) for share, profile in zip(shares, profiles, strict=True)]
        with_plans = [(e, part.plan) for e, part in zip(estimators, plan.parts, strict=True)]
        parts = [estimator.candidate(plan, conditions) for estimator, plan in with_plans]
        latency_s = np.array([estimator.latency_s(plan, conditions) for estimator, plan in with_plans])
        items = min(len(profile.items) for profile in profiles)
        estimate = self._mixture([part.estimate for part in parts], shares, latency_s, items)
        return PlanCandidate(
            query=self._query.name,
            plan=plan,
            estimate=estimate,
            deployments=merged_uses(use for part in parts for use in part.deployments),
            links=merged_links(use for part in parts for use in part.links),
            transfer_cost_usd_per_h=sum(part.transfer_cost_usd_per_h for part in parts),
            parts=tuple(parts),
        )

    def _at(self, share: float) -> QueryEstimators:
        """Return the estimators for a share of the requests."""
        if share not in self._shares:
            if len(self._shares) >= _MAX_SHARES:
                self._shares.clear()
            self._shares[share] = self._of_share(thinned(self._query, share))
        return self._shares[share]

    def _mixture(
        self, parts: Sequence[Estimate], shares: Sequence[float], scenarios_s: FloatArray, items: int
    ) -> Estimate:
        """Return the estimate for all requests.

        Args:
            parts: estimates of the parts.
            shares: of the parts.
            scenarios_s: (parts, scenarios) latencies.
            items: number of items that every part was measured on.
        """
        percentile = latency_percentile(self._query)
        mixed_s = _mixed(scenarios_s, shares, percentile)
        latency_s, upper_s = percentile.of(mixed_s), max(part.latency_s.upper for part in parts)
        latency_s = Interval(min(latency_s.value, upper_s), min(latency_s.lower, upper_s), upper_s)
        estimate = Estimate(
            percentile=percentile.percentile,
            latency_s=latency_s,
            accuracy=self._accuracy([part.accuracy for part in parts], shares),
            cost_usd_per_h=_weighted([part.cost_usd_per_h for part in parts], [1.0] * len(parts)),
            stages=parts[0].stages,
            return_s=sum(share * part.return_s for share, part in zip(shares, parts, strict=True)),
            caveats=tuple(dict.fromkeys(caveat for part in parts for caveat in part.caveats)),
        )
        return replace(estimate, slo_probability=self._probabilities(estimate, parts, mixed_s, items))

    def _accuracy(self, parts: Sequence[Interval], shares: Sequence[float]) -> Interval:
        mean = _weighted(parts, shares)
        if self._query.accuracy_of == "mean":
            return mean
        return Interval(mean.value, min(part.lower for part in parts), max(part.upper for part in parts))

    def _probabilities(
        self, estimate: Estimate, parts: Sequence[Estimate], mixed_s: FloatArray, items: int
    ) -> SloProbabilities:
        """Return the SLO probabilities: of a guaranteed accuracy at least 1 - risk, else the lowest of a part."""
        slos, risk, violations = self._query.slos, self._query.risk, estimate.violations(self._query.slos)
        accuracy = min((part.slo_probability.accuracy for part in parts if part.slo_probability), default=1.0)
        latency, latency_items = 1.0, None
        if slos.latency is not None:
            is_guaranteed = SloKind.LATENCY not in violations
            latency, latency_items = bounded_latency_probability(
                mixed_s, items, slos.latency, risk, is_guaranteed=is_guaranteed
            )
        return SloProbabilities.of(
            latency=latency,
            accuracy=accuracy if SloKind.ACCURACY in violations else max(accuracy, 1.0 - risk),
            cost=float(SloKind.COST not in violations),
            latency_items=latency_items,
        )


def _mixed(latency_s: FloatArray, shares: Sequence[float], percentile: PercentileEstimator) -> FloatArray:
    """Return (scenarios,) the latency of a request, of (parts, scenarios) latencies, each of which has its share."""
    uniforms = -np.expm1(-percentile.grid.exponentials(_ROUTES))
    part = np.searchsorted(np.cumsum(shares)[:-1], uniforms, side="right")
    return np.asarray(latency_s[part, np.arange(len(uniforms))])


def _weighted(parts: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Return the weighted sum of the parts."""

    def total(values: Iterable[float]) -> float:
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    value, lower = total(part.value for part in parts), total(part.lower for part in parts)
    return Interval(value, min(lower, value), max(value, total(part.upper for part in parts)))
