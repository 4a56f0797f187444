"""Result types of the planning of one query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from circinus.estimation import PlanCandidate
from circinus.specification import Configuration, Query, SloKind

if TYPE_CHECKING:
    from circinus.estimation import QueryEstimators
    from circinus.planning.plan_arrays import ColumnPool, DualPrices

MEASUREMENTS = "measurements"
"""In `Frontier.binding`: too little was measured for a guaranteed plan."""


_ANY_QUERY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Fields of a query that do not affect its plans."""


def query_kind(query: Query) -> Query:
    """Return a query without the fields that do not affect its plans: queries of a kind share plans and reasons."""
    return query.model_copy(update=_ANY_QUERY)


@dataclass(frozen=True)
class NearMiss:
    """The best plan of one configuration that is not guaranteed to meet the SLOs."""

    candidate: PlanCandidate
    violations: tuple[SloKind, ...]
    reason: str
    """Violations with values, such as `p95 1.21 s (at most 1.34 s) > 800 ms`."""
    is_sized: bool = False
    """True if `reason` is about the final sizes beside the other queries; else about utilization targets."""


@dataclass(frozen=True)
class SingleRelaxation:
    """Relaxation of a single SLO that makes the query feasible while the other SLOs stay as they are."""

    slo: SloKind
    limit: float
    """Tightest limit that some plan is guaranteed to meet: seconds, score, or US dollars per hour."""
    candidate: PlanCandidate
    """Plan that meets the limit."""


class MeasuredItems(NamedTuple):
    """Items that a configuration was measured on, and those that the data set lacks."""

    items: int
    more_items: int | None
    """Number of items to add to the data set until the configuration is guaranteed to meet the accuracy SLO of the
    query, in about half of the cases; None if no number is known to do."""


@dataclass(frozen=True)
class BestEffortPlan:
    """The best plan so far of a query without a guaranteed plan."""

    candidate: PlanCandidate
    probability: float
    """Probability that all SLOs are met; an estimate, not a guarantee (`circinus.estimation.slo_probability`)."""
    items: int | None
    """Number of items that the plan's configuration was measured on, of a split plan the least; None if not at hand."""
    population: int
    """Number of items that may be measured."""
    more_items: int | None = None
    """See `MeasuredItems.more_items`; of the plan's configuration."""
    is_sized: bool = False
    """True if the estimate is at the final sizes beside the other queries; else in isolation at utilization targets."""


_Plan = TypeVar("_Plan", NearMiss, SingleRelaxation, BestEffortPlan)


@dataclass(frozen=True)
class Frontier:
    """The non-dominated plans of one query.

    `candidates` are non-dominated in cost and resources; the matching selects among them. `high_margin` plans take more
    resources than some candidate but meet an SLO with a larger margin. Fallback ladders are built from both.
    """

    query: Query
    candidates: tuple[PlanCandidate, ...]
    """Plans guaranteed to meet every SLO, by ascending cost with dedicated replicas."""
    considered: Mapping[str, int]
    """Counters of the search: what was considered or dropped, and why -> how often."""
    near_misses: tuple[NearMiss, ...]
    """Best plans of infeasible configurations, nearest first."""
    relaxations: tuple[SingleRelaxation, ...]
    """Relaxations of SLOs that alone prevent a plan; empty if there are candidates."""
    reason: str
    """Reason why there is no candidate; empty if there is one."""
    isolated_limits: str = ""
    """End of `reason` with the limits that plans meet with the infrastructure to itself."""
    high_margin: tuple[PlanCandidate, ...] = ()
    """High-margin plans guaranteed to meet every SLO, by ascending cost with dedicated replicas."""
    best_effort: BestEffortPlan | None = None
    """Plan most likely to meet the SLOs, if any may; None if there are candidates."""
    unlisted: ColumnPool | None = field(default=None, compare=False, repr=False)
    """All non-dominated plans, if `candidates` holds only some of them."""
    estimators: QueryEstimators | None = field(default=None, compare=False, repr=False)
    """Estimators that the plans were estimated with."""
    measured_items: Mapping[Configuration, MeasuredItems] = field(default_factory=dict, compare=False, repr=False)
    """Of all configurations, if there are no candidates and near misses were asked for."""
    binding: tuple[str, ...] = ()
    """SLOs that exclude all plans, `pools` if none fits, or `measurements` if too little was measured for a guarantee;
    empty if there are candidates."""

    @property
    def plans(self) -> tuple[PlanCandidate, ...]:
        """Candidates, then high-margin plans."""
        return (*self.candidates, *self.high_margin)

    def for_query(self, query: Query) -> Frontier:
        """Return the frontier of a query of the same kind."""

        def named(plans: tuple[_Plan, ...]) -> tuple[_Plan, ...]:
            return tuple(replace(plan, candidate=plan.candidate.for_query(query.name)) for plan in plans)

        best = None if self.best_effort is None else named((self.best_effort,))[0]
        return replace(
            self,
            query=query,
            candidates=tuple(plan.for_query(query.name) for plan in self.candidates),
            near_misses=named(self.near_misses),
            relaxations=named(self.relaxations),
            high_margin=tuple(plan.for_query(query.name) for plan in self.high_margin),
            best_effort=best,
        )

    def lowest_price(self, prices: DualPrices) -> float:
        """Return the lowest price of a plan if fully shared, in single precision; infinite without a plan."""
        if self.unlisted is not None:
            return self.unlisted.lowest_price(prices)
        return min((prices.of(candidate) for candidate in self.candidates), default=math.inf)
