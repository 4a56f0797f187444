"""Second look at rejected queries: each is admitted at its final sizes, if it can be, next to the plans of a matching.

Candidates of a matching are listed at utilization targets, so that a plan on deployments that are utilized less counts
as too slow. Admission decides on final sizes instead, and `circinus admit` decides the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from circinus.matching.admission import AdmissionPlanner
from circinus.matching.explanation.rejections import names_query, query_kind
from circinus.matching.plan_set import Matching, Rejection
from circinus.matching.settings import MATCHING
from circinus.planning import Frontier
from circinus.specification import Query


def second_look(
    planner: AdmissionPlanner,
    frontiers: Mapping[str, Frontier],
    *,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> AdmissionPlanner:
    """Return the planner whose matching has the rejected queries that can be admitted, and new reasons for the others.

    Pinned queries come first, then queries by priority and weight. Queries that differ in name, weight, priority and
    tenant only share one decision. Queries beyond the limits of the settings keep their rejections.

    Args:
        planner: with the matching.
        frontiers: query name -> its plans.
        limit_s: time limit.
        clock: for the time limit.
    """
    look = _SecondLook(planner, frontiers, MATCHING.max_second_looks, MATCHING.max_second_look_simulations)
    deadline_s = clock() + limit_s
    while any(look.decide(query) for query in look.by_importance if clock() < deadline_s):
        pass  # admitted queries may run deployments that others can use
    matching = look.planner.matching
    rejections = tuple(look.rejections.get(rejection.query, rejection) for rejection in matching.rejections)
    return replace(look.planner, matching=replace(matching, rejections=rejections))


@dataclass
class _SecondLook:
    planner: AdmissionPlanner
    frontiers: Mapping[str, Frontier]
    looks: int
    """Number of decisions left."""
    simulations: int
    """Number of simulations left."""
    rejections: dict[str, Rejection] = field(default_factory=dict)
    """Query -> its rejection next to the present plans."""
    _by_kind: dict[Query, Rejection] = field(default_factory=dict)

    @cached_property
    def _queries(self) -> Mapping[str, Query]:
        return {query.name: query for query in self.planner.specification.queries}

    @property
    def by_importance(self) -> list[Query]:
        """Rejected queries, pinned ones first, then by priority and weight."""
        rejected = (self._queries[rejection.query] for rejection in self.planner.matching.rejections)
        return sorted(rejected, key=lambda query: (query.pin is None, -query.priority, -query.weight))

    def decide(self, query: Query) -> bool:
        """Admit a query or note its rejection; return whether it was admitted."""
        kind = query_kind(query)
        rejection = self._by_kind.get(kind)
        if rejection is None or names_query(rejection):
            if not self.looks:
                return False
            self.looks -= 1
            admission, matching = self.planner.admit(
                query,
                self.frontiers[query.name],
                neighbours="those of the other queries",
                preceded=_is_preceded(query, self.planner.matching, self._queries),
                max_simulations=min(self.simulations, MATCHING.max_simulated_plans),
            )
            self.simulations -= admission.simulations
            if admission.rejection is None:
                self.planner, self._by_kind = self.planner.with_matching(matching), {}
                return True
            self._by_kind[kind] = rejection = admission.rejection
        self.rejections[query.name] = replace(rejection, query=query.name)
        return False


def _is_preceded(query: Query, matching: Matching, queries: Mapping[str, Query]) -> bool:
    """Return whether pinned queries or queries of higher priority are served."""
    served = [queries[assignment.query] for assignment in matching.assignments]
    return query.pin is None and any(other.pin is not None or other.priority > query.priority for other in served)
