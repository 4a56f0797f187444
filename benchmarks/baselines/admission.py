"""Admission of queries one by one into whole replicas that fit on nodes; running replicas never move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from benchmarks.baselines.by_hand import Nodes, as_matching
from circinus.errors import PlanningError
from circinus.estimation import DeploymentUse, MergedLoad, PlanCandidate, ReplicaDemand, replicas_for
from circinus.matching import Matching, Rejection
from circinus.matching.plan_estimates import PlanEstimates
from circinus.specification import Deployment, DirectedLink, Infrastructure, Query, QueryPlan, Specification


class FreeCapacity:
    """Remaining capacity of nodes and links, with the replicas that run."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        self.nodes, self._link_share = Nodes(infrastructure), infrastructure.usable_link_share
        self.demands: dict[Deployment, ReplicaDemand] = {}
        self.busy: defaultdict[Deployment, float] = defaultdict(float)
        """Mean number of busy replicas."""
        self._sent_per_s: defaultdict[DirectedLink, float] = defaultdict(float)

    def copied(self) -> FreeCapacity:
        """Return a copy, to try an admission."""
        other = copy(self)
        other.nodes, other.demands = self.nodes.copied(), dict(self.demands)
        other.busy, other._sent_per_s = self.busy.copy(), self._sent_per_s.copy()
        return other

    def replicas(self, deployment: Deployment) -> int:
        """Return the number of running replicas."""
        return len(self.nodes.placed.get(deployment, ()))

    def missing(self, deployment: Deployment, busy_replicas: float) -> int:
        """Return the number of replicas to add for a further load."""
        busy = self.busy[deployment] + busy_replicas
        return max(0, replicas_for(busy, deployment.allocation.utilization_target) - self.replicas(deployment))

    def spare(self, deployment: Deployment) -> float:
        """Return the load in busy replicas that the running replicas can take, too."""
        return deployment.allocation.utilization_target * self.replicas(deployment) - self.busy[deployment]

    def usd_per_h(self, use: DeploymentUse) -> float:
        """Return the price of a query's part of the running replicas."""
        share = use.busy_replicas / max(self.busy[use.deployment], 1e-12)
        return share * self.replicas(use.deployment) * use.demand.cost_usd_per_h

    def fits_links(self, candidate: PlanCandidate) -> bool:
        """Return whether all links stay below their usable share."""
        return all(
            self._sent_per_s[crossing.link] + crossing.bytes_per_s
            <= self._link_share * crossing.link.bandwidth_bytes_per_s
            for crossing in candidate.links
        )

    def reserve(self, candidates: Sequence[PlanCandidate]) -> None:
        """Place all replicas for the load of plans that will be admitted, the largest first, as far as they fit."""
        busy, demands = defaultdict[Deployment, float](float), dict[Deployment, ReplicaDemand]()
        for use in (use for candidate in candidates for use in candidate.deployments):
            busy[use.deployment] += use.busy_replicas
            demands[use.deployment] = use.demand
        for deployment, demand in sorted(demands.items(), key=lambda item: item[1].amounts[1:], reverse=True):
            for _ in range(self.missing(deployment, busy[deployment])):
                self.nodes.place(deployment, demand)

    def added_usd_per_h(self, candidate: PlanCandidate) -> tuple[float, float]:
        """Return the cost of the replicas that a plan adds and of its transfers, and that of its shares of replicas."""
        added = sum(
            self.missing(use.deployment, use.busy_replicas) * use.demand.cost_usd_per_h for use in candidate.deployments
        )
        return added + candidate.transfer_cost_usd_per_h, candidate.estimate.cost_usd_per_h.lower

    def admit(self, candidate: PlanCandidate, replicas: Mapping[Deployment, int] | None = None) -> bool:
        """Admit a query if it fits; return whether it does.

        Args:
            candidate: its plan.
            replicas: replicas that its deployments need with it; by default those at their utilization targets.
        """
        if not self.fits_links(candidate):
            return False
        demands = {use.deployment: use.demand for use in candidate.deployments}
        missing = {use.deployment: self.missing(use.deployment, use.busy_replicas) for use in candidate.deployments}
        for deployment, wanted in (replicas or {}).items():
            missing[deployment] = max(0, wanted - self.replicas(deployment))
        if not self.nodes.place_all(demands, missing):
            return False
        self.demands |= demands
        for use in candidate.deployments:
            self.busy[use.deployment] += use.busy_replicas
        for crossing in candidate.links:
            self._sent_per_s[crossing.link] += crossing.bytes_per_s
        return True


class Admission:
    """Queries that were admitted so far, with plans that may be split."""

    def __init__(self, specification: Specification, estimates: PlanEstimates) -> None:
        infrastructure = specification.required_infrastructure
        self.capacity = FreeCapacity(infrastructure)
        self._specification, self._estimates = specification, estimates
        self._admitted: dict[str, tuple[Query, PlanCandidate, _Reestimates]] = {}

    @property
    def weight(self) -> float:
        """Weight of the admitted queries."""
        return sum(query.weight for query, _, _ in self._admitted.values())

    def estimate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a plan in isolation, or None if the query overloads a link."""
        try:
            return self._estimates.estimate_of(query.name, plan)
        except PlanningError:
            return None

    def admit(self, query: Query, candidate: PlanCandidate) -> bool:
        """Admit a query if it fits; return whether it does."""
        if not self.capacity.admit(candidate):
            return False
        self._admitted[query.name] = query, candidate, _Reestimates(self._estimates, candidate)
        return True

    def admit_all(self, queries: Sequence[tuple[Query, PlanCandidate]]) -> None:
        """Admit those of several queries that fit, with their replicas placed together, the largest first."""
        self.capacity.reserve([candidate for _, candidate in queries])
        for query, candidate in queries:
            self.admit(query, candidate)

    @property
    def too_dear(self) -> Mapping[str, PlanCandidate]:
        """Admitted queries whose part of all replicas, by busy seconds, exceeds their cost objective; their plans."""
        dear = dict[str, PlanCandidate]()
        for query, candidate, _ in self._admitted.values():
            usd_per_h = candidate.transfer_cost_usd_per_h + sum(map(self.capacity.usd_per_h, candidate.deployments))
            if query.slos.cost is not None and not query.slos.cost.is_met_by(usd_per_h):
                dear[query.name] = candidate
        return dear

    def without_dear(self) -> Admission:
        """Return the admission of all queries but those that are too dear, as long as any is."""
        admission = self
        while dear := admission.too_dear:
            kept = [own[:2] for name, own in admission._admitted.items() if name not in dear]
            admission = Admission(self._specification, self._estimates)
            admission.admit_all(kept)
        return admission

    def matching(self) -> Matching:
        """Return the matching of the admitted queries; all others are rejected."""
        rejections = [
            Rejection(query.name, "no plan that meets its SLOs fits", ("resources",), None)
            for query in self._specification.queries
            if query.name not in self._admitted
        ]
        admitted = [self._admitted[q.name] for q in self._specification.queries if q.name in self._admitted]
        total_weight = sum(query.weight for query in self._specification.queries)
        return as_matching(admitted, rejections, self.capacity.demands, self.capacity.nodes, total_weight)


@dataclass(frozen=True)
class _Reestimates:
    """Estimates of one plan under loads."""

    estimates: PlanEstimates
    isolated: PlanCandidate

    def candidate(self, plan: QueryPlan, conditions: MergedLoad | None = None) -> PlanCandidate:
        """Return the estimate; the plan is always the same."""
        assert plan == self.isolated.plan
        return self.isolated if conditions is None else self.estimates.reestimate(self.isolated, conditions)
