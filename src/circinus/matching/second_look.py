"""Second look at rejected queries: each is admitted at its final sizes, if it can be, next to the plans of a matching.

Candidates of a matching are listed at utilization targets, so that a plan on deployments that are utilized less counts
as too slow. Admission decides on final sizes instead, and `circinus admit` decides the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from circinus.estimation import PlanCandidate
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.admission_decision import Admission
from circinus.matching.explanation.slo_relaxation import with_slos
from circinus.matching.guarantees import with_others_rejected
from circinus.matching.incumbent import Incumbent
from circinus.matching.plan_set import Matching, Rejection
from circinus.matching.settings import MATCHING
from circinus.planning import Frontier
from circinus.planning.frontier import query_kind
from circinus.specification import Query, QueryPlan

_KEPT = "unchanged from the previous plan; as sized, it still fits next to those of the other queries"
_UNCHANGEABLE = "another plan would change more running queries than are allowed"


def second_look(
    planner: AdmissionPlanner,
    frontiers: Mapping[str, Frontier],
    incumbent: Incumbent | None = None,
    *,
    limit_s: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> AdmissionPlanner:
    """Return the planner whose matching has the rejected queries that can be admitted, and new reasons for the others.

    Queries that run come first, each with its running plan, which stays if it fits; another plan is a change. Then all
    queries are looked at: pinned ones first, then by priority and weight. Queries that differ in name, weight, priority
    and tenant only share one decision. Rejections beyond the limits of the settings are undecided. These limits count
    admissions and simulations, so that the result does not depend on the speed of the machine.

    Args:
        planner: with the matching.
        frontiers: query name -> its plans.
        incumbent: running plans, and the limit on changes.
        limit_s: time limit, after which all further rejections are undecided; by default there is none.
        clock: for the time limit.
    """
    deadline_s = clock() + limit_s
    look = _SecondLook(
        planner,
        frontiers,
        incumbent or Incumbent({}),
        min(MATCHING.max_second_looks, MATCHING.max_looked_queries // max(len(frontiers), 1)),
        MATCHING.max_second_look_simulations,
        MATCHING.max_kept_trials,
        lambda: clock() >= deadline_s,
    )
    for query in look.by_importance:
        if query.name in look.incumbent.plans and not look.is_late():
            look.keep(query)
    while any(look.decide(query) for query in look.by_importance if not look.is_late()):
        pass  # admitted queries may run deployments that others can use
    matching = look.planner.matching
    rejections = tuple(look.final(rejection) for rejection in matching.rejections)
    return replace(look.planner, matching=replace(matching, rejections=rejections))


def without_plans(planner: AdmissionPlanner) -> AdmissionPlanner:
    """Return the planner with no query served."""
    nothing = replace(planner.matching, assignments=(), deployments=(), satisfied_weight=0.0, cost_usd_per_h=0.0)
    return planner.with_matching(with_others_rejected(nothing, planner.specification))


@dataclass
class _SecondLook:
    planner: AdmissionPlanner
    frontiers: Mapping[str, Frontier]
    incumbent: Incumbent
    looks: int
    """Number of decisions left."""
    simulations: int
    """Number of simulations left."""
    kept_trials: int
    """Number of running plans left of which an admission decides whether they can stay."""
    is_late: Callable[[], bool]
    rejections: dict[str, Admission] = field(default_factory=dict)
    """Query -> its rejection next to the present plans, or that of a query of its kind."""
    _by_kind: dict[Query, Admission] = field(default_factory=dict)
    _sized: dict[Query, Sequence[PlanCandidate]] = field(default_factory=dict)
    """Kind of query -> plans that the last search at the final sizes found."""

    @cached_property
    def _queries(self) -> Mapping[str, Query]:
        return {query.name: query for query in self.planner.specification.queries}

    @property
    def by_importance(self) -> list[Query]:
        """Rejected queries, pinned ones first, then by priority and weight."""
        rejected = (self._queries[rejection.query] for rejection in self.planner.matching.rejections)
        return sorted(rejected, key=_importance)

    def final(self, rejection: Rejection) -> Rejection:
        """Return the rejection of a query after all decisions."""
        name = rejection.query
        admission = self.rejections.get(name)
        if admission is None or admission.rejection is None or admission.rejection.undecided:
            undecided = f"; not decided as sized within the limits: `circinus admit {name}` decides"
            reason = f"{rejection.reason.removesuffix(undecided)}{undecided}"  # an earlier look may have said so
            return replace(rejection, reason=reason, undecided=True)
        decided = admission.explained.rejection
        assert decided is not None
        reason = decided.reason if self._may_change(self._queries[name]) else f"{decided.reason}; {_UNCHANGEABLE}"
        return replace(decided, query=name, reason=reason)

    def keep(self, query: Query) -> bool:
        """Admit a query that runs with its running plan, or note its rejection; return whether it was admitted."""
        if not self.looks or query.name in self.rejections:
            return False
        admission, matching = self._look(query, self.incumbent.plans[query.name])
        if admission.rejection is not None:
            undecided = admission.rejection.undecided or self._may_change(query)  # other plans are still to be tried
            rejection = replace(admission.rejection, undecided=undecided)
            self.rejections[query.name] = replace(admission, rejection=rejection)
            return False
        assignments = tuple(
            replace(assignment, reason=_KEPT) if assignment.query == query.name else assignment
            for assignment in matching.assignments
        )
        self._accept(replace(matching, assignments=assignments))
        return True

    def decide(self, query: Query) -> bool:
        """Admit a query or note its rejection; return whether it was admitted."""
        if not self._may_change(query):
            return self.keep(query)
        kind = query_kind(query)
        rejected = self._by_kind.get(kind)
        if rejected is None:
            if not self.looks:
                return False
            admission, matching = self._look(query)
            if admission.rejection is None:
                self._accept(matching)
                return True
            self._by_kind[kind] = rejected = admission
        self.rejections[query.name] = rejected
        return False

    def _look(self, query: Query, only: QueryPlan | None = None) -> tuple[Admission, Matching]:
        """Decide on a query: on the plans that were found for its kind beside fewer queries, then on new ones.

        A search takes 0.4 s for 13 configurations of four operators on nine pools.
        """
        self.looks -= 1
        searches, kind = only is None and query.slos.latency is not None, query_kind(query)
        found = self._sized.get(kind) if searches else None
        if found is not None:
            admission, matching = self._admit(query, only, found, 0)
            if admission.rejection is None:
                return admission, matching
        if searches:
            self._sized[kind] = found = self.planner.plans.sized_plans(query, self.planner.running.load)
        return self._admit(query, only, found, min(self.simulations, MATCHING.max_simulated_plans))

    def _admit(
        self, query: Query, only: QueryPlan | None, sized: Sequence[PlanCandidate] | None, max_simulations: int
    ) -> tuple[Admission, Matching]:
        admission, matching = self.planner.admit(
            query,
            self.frontiers[query.name],
            neighbours="those of the other queries",
            max_simulations=max_simulations,
            only=only,
            sized=sized,
            explained=False,
        )
        self.simulations = max(self.simulations - admission.simulations, 0)
        return admission, matching

    def _accept(self, matching: Matching) -> None:
        self.planner, self._by_kind, self.rejections = self.planner.with_matching(matching), {}, {}

    def _may_change(self, query: Query) -> bool:
        """Return whether a query may get a plan that it does not run, as none can stay or changes remain."""
        limit = self.incumbent.max_changes
        if limit is None or query.name not in self.incumbent.plans or query.name not in self._stayable:
            return True
        served = self._served
        return sum(served.get(name) != plan for name, plan in self._stayable.items()) <= limit

    @property
    def _served(self) -> Mapping[str, QueryPlan]:
        return {assignment.query: assignment.chosen.plan for assignment in self.planner.matching.assignments}

    @cached_property
    def _stayable(self) -> Mapping[str, QueryPlan]:
        """Running plans that can stay together as sized, and those beyond the limits, which are not tried.

        Cost SLOs are left out of account if they may be met: shares depend on the other plans.
        """
        unpriced = {name: with_slos(query, query.slos.without_cost) for name, query in self._queries.items()}
        specification = replace(self.planner.specification, queries=tuple(unpriced.values()))
        nothing = replace(self.planner.matching, assignments=(), rejections=(), deployments=(), cost_usd_per_h=0.0)
        planner = replace(self.planner, specification=specification).with_matching(nothing)
        stayable, served = dict[str, QueryPlan](), self._served
        running = [query for query in self._queries.values() if query.name in self.incumbent.plans]
        for query in sorted(running, key=lambda query: (query.name not in served, _importance(query))):
            plan = self.incumbent.plans[query.name]
            if planner.plans.running_plan(query, plan) is None:
                continue
            if not self.kept_trials or self.is_late():
                stayable[query.name] = plan
                continue
            self.kept_trials -= 1
            asked = unpriced[query.name]
            frontier = replace(self.frontiers[query.name], query=asked)
            admission, matching = planner.admit(
                asked,
                frontier,
                short=True,
                only=plan,
                max_simulations=min(self.simulations, MATCHING.max_simulated_plans),
            )
            self.simulations = max(self.simulations - admission.simulations, 0)
            if admission.assignment is not None:
                planner, stayable[query.name] = planner.with_matching(matching), plan
        return stayable


def _importance(query: Query) -> tuple[bool, int, float]:
    """Return the key that sorts pinned queries first, then by priority and weight."""
    return query.pin is None, -query.priority, -query.weight
