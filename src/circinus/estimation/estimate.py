"""Estimate of a plan, and its usage of pools and links."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from operator import not_
from typing import Annotated, assert_never

from pydantic import Field

from circinus.estimation.traffic import RequestStream
from circinus.specification import Deployment, DirectedLink, QueryPlan, Slo, SloKind, Slos
from circinus.statistics.interval import Interval

_MIN_LIMIT = 1e-9
"""Minimum limit to which an excess is relative."""


_IS_ONE = (1.0).__eq__


_MIN_LOAD = 1e-12
"""Load of a deployment that no profiled item reaches, or that is faster than the clock's resolution, in replicas."""


@dataclass(frozen=True)
class StageEstimate:
    """Mean times of an operator, and its latest start."""

    operator: str
    pool: str
    transfer_s: float
    """Time from the production to the arrival of the last input."""
    wait_s: float
    service_s: float
    latest_start_s: float | None = None
    """Latest start of its service (`latest_starts_s`), in seconds after the request entered. Plans have it from the end
    of matching on; None before, and without a latency SLO."""
    runs: Annotated[float, Field(exclude_if=_IS_ONE)] = 1.0
    """Mean number of its runs for a request."""


@dataclass(frozen=True)
class SloProbabilities:
    """Probabilities that SLOs are met; 1 without an SLO.

    If the bound of an estimate meets the SLO, its probability is at least 1 - risk, which is guaranteed. The joint
    probability is the product, as scores and times are assumed independent. Cost is computed, so its probability is 0
    or 1.
    """

    latency: float
    accuracy: float
    cost: float
    joint: float
    latency_items: int | None = None
    """Number of measured items, if the probability is the highest that so many can show; None otherwise."""

    @classmethod
    def of(cls, latency: float, accuracy: float, cost: float, latency_items: int | None = None) -> SloProbabilities:
        """Create the probabilities from those of each SLO."""
        return cls(latency, accuracy, cost, latency * accuracy * cost, latency_items)


@dataclass(frozen=True)
class Estimate:
    """Predicted latency, accuracy and cost of a plan, with bounds."""

    percentile: float
    """Percentile of `latency_s`, in (0, 100)."""
    latency_s: Interval
    accuracy: Interval
    cost_usd_per_h: Interval
    """Lower bound: all deployments are fully shared. Upper bound: all are dedicated to the query. Value: the
    upper bound before matching, the query's share by busy seconds afterwards."""
    stages: tuple[StageEstimate, ...]
    """Stages in topological order of the operators."""
    return_s: float
    """Mean time to transfer the result to the source."""
    slo_probability: SloProbabilities | None = None
    """Probabilities that the plan meets the SLOs of the query, or None if not computed."""
    caveats: tuple[str, ...] = ()
    """Reasons why the formula for the latency may be inaccurate under the merged load; empty for a guarantee."""
    simulated: bool = False
    """True if the latency comes from a joint simulation of all queries."""
    times_allowance: float | None = None
    """Factor in the latency's upper bound for times measured on few items, without that for the items themselves. None
    before the final sizes."""

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators in topological order."""
        return tuple(stage.operator for stage in self.stages)

    def violations(self, slos: Slos, *, sized: bool = False) -> tuple[SloKind, ...]:
        """Return the SLOs that are not guaranteed; see `compared_value` for `sized`."""
        return tuple(
            [kind for kind, slo in slos.by_kind.items() if not slo.is_met_by(self.compared_value(slo, sized=sized))]
        )

    def excess(self, slos: Slos, *, sized: bool = False) -> float:
        """Return the largest relative excess of a compared value over its limit; 0 if all SLOs are guaranteed."""
        margins = ((slo.margin(self.compared_value(slo, sized=sized)), slo.limit) for slo in slos.by_kind.values())
        return max((-margin / max(abs(limit), _MIN_LIMIT) for margin, limit in margins if margin < 0), default=0.0)

    def compared_value(self, slo: Slo, *, sized: bool = False) -> float:
        """Return the value that must meet an SLO: the unfavourable bound of latency and accuracy, and a cost.

        Args:
            sized: whether the cost is the query's share at the final sizes; before, its lower bound counts.
        """
        match slo.kind:
            case SloKind.LATENCY:
                return slo.worst(self.latency_s)
            case SloKind.ACCURACY:
                return slo.worst(self.accuracy)
            case SloKind.COST:
                return self.cost_usd_per_h.value if sized else self.cost_usd_per_h.lower
            case _:
                assert_never(slo.kind)


@dataclass(frozen=True)
class ReplicaDemand:
    """Resources that a replica takes from a node of its pool, and their price."""

    cpus: float
    memory_bytes: float
    gpus: float
    gpu_memory_bytes: float
    cost_usd_per_h: float
    """Price of the node times the share of it that a replica reserves (`Pool.reserved_share`)."""
    spare_replicas: int = 0
    """Number of replicas beside those for the load, as nodes may be interrupted; then each node holds at most one."""
    late_share: float = 0.0
    """Share of requests that count as late since interruptions may delay them (`interruptions`)."""

    @property
    def amounts(self) -> tuple[float, float, float, float]:
        """CPUs, memory, GPUs and GPU memory, as in `Pool.amounts`."""
        return self.cpus, self.memory_bytes, self.gpus, self.gpu_memory_bytes


@dataclass(frozen=True)
class DeploymentUse:
    """Usage of a deployment by a query."""

    deployment: Deployment
    demand: ReplicaDemand
    busy_replicas: float
    """Mean number of busy replicas (request rate times service time) with full batches."""
    traffic: RequestStream
    """Requests of the query, with the service times of full batches."""
    fill_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) time of a batch of 1, 2, ... relative to the mean unbatched time of its items."""
    batch_wait_s: float = 0.0
    """Maximum wait of the oldest request for its batch to fill."""
    after: tuple[tuple[Deployment, float], ...] = ()
    """Upstream deployments, each with the share of requests for which its output arrives last."""

    def behind(self, after: tuple[tuple[Deployment, float], ...], traffic: RequestStream) -> DeploymentUse:
        """Return the usage by requests that arrive from upstream deployments; see `after`."""
        if not after and traffic is self.traffic:
            return self
        return DeploymentUse(  # `dataclasses.replace` takes three times as long
            self.deployment, self.demand, self.busy_replicas, traffic, self.fill_ratios, self.batch_wait_s, after
        )

    @property
    def fractional_replicas(self) -> float:
        """Number of replicas at the utilization target, not rounded; positive, so that all users pay a share."""
        return max(self.busy_replicas / self.deployment.allocation.utilization_target, _MIN_LOAD)


@dataclass(frozen=True)
class LinkUse:
    """Usage of one direction of a link by a query."""

    link: DirectedLink
    bytes_per_s: float
    traffic: RequestStream
    """Transfers of the query, with their transmission times."""
    excluding_smallest_s: float = 0.0
    """Transmission time of all values of a request but the smallest, for which the last value may wait."""


@dataclass(frozen=True)
class PlanCandidate:
    """Plan with its estimate and resource usage, as input of matching."""

    query: str
    plan: QueryPlan
    estimate: Estimate
    deployments: tuple[DeploymentUse, ...]
    """Usages in topological order of the operators."""
    links: tuple[LinkUse, ...]
    transfer_cost_usd_per_h: float
    parts: Annotated[tuple[PlanCandidate, ...], Field(exclude_if=not_)] = ()
    """Estimates of the parts of a split plan, each at its share of the requests, in the order of `QueryPlan.parts`;
    empty if the plan is not split."""

    @cached_property
    def invalid_amount(self) -> float | None:
        """A negative or infinite amount, or one that is not a number, of which there must be none."""
        amounts = [self.transfer_cost_usd_per_h, *(link.bytes_per_s for link in self.links)]
        for use in self.deployments:
            amounts += [use.busy_replicas, use.demand.cost_usd_per_h, *use.demand.amounts]
        return next((amount for amount in amounts if not (math.isfinite(amount) and amount >= 0)), None)

    @property
    def unsplit(self) -> tuple[PlanCandidate, ...]:
        """The parts, or the candidate itself if its plan is not split."""
        return self.parts or (self,)

    def for_query(self, name: str) -> PlanCandidate:
        """Return the candidate of a query of the same kind."""
        if name == self.query:
            return self
        return replace(self, query=name, parts=tuple(part.for_query(name) for part in self.parts))
