"""Source of plans beyond those that frontiers list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from circinus.estimation import PlanCandidate
from circinus.planning.settings import RunningLoad
from circinus.specification import Deployment, Query, QueryPlan

Candidates = Mapping[str, Sequence[PlanCandidate]]
"""Query name -> candidates."""


class CandidateSource:
    """Plans of queries, and estimates of them; this base class has none, and `PlanEstimates` those of profiles."""

    def on_deployments(self, query: Query, running: Sequence[Deployment]) -> Sequence[PlanCandidate]:
        """Return a query's plans on the given deployments that meet its SLOs."""
        return ()

    def feasible_estimate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a query's plan in isolation, or None if it violates an SLO."""
        return None

    def sized_candidate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a query's plan in isolation, or None if it violates an SLO other than latency."""
        return None

    def running_plan(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a running plan in isolation, or None if the query may not keep it."""
        return None

    def all_plans(self, queries: Sequence[Query], should_stop: Callable[[], bool]) -> Candidates | None:
        """Return all plans of queries that meet their SLOs, dominated or not; None if they are too many."""
        return None

    def parts(
        self, queries: Sequence[Query], deployments: Sequence[Deployment], should_stop: Callable[[], bool]
    ) -> tuple[Candidates, bool]:
        """Return plans for parts of queries' requests, and whether they are all; else they are on `deployments`."""
        return {}, False

    def may_be_part(self, query: str, plan: QueryPlan) -> bool:
        """Return whether a plan may take a part of a query's requests."""
        return True

    def fixed_operators(self, query: Query) -> tuple[str, ...]:
        """Return the operators of a query all of whose requests go to the same deployment (`OperatorSpec.split`)."""
        return ()

    def sized_plans(self, query: Query, running: RunningLoad) -> Sequence[PlanCandidate]:
        """Return plans that may meet a query's SLOs at the final sizes beside a running load."""
        return ()
