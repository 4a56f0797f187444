"""The one type in which predictions travel, and what a plan takes from pools and links."""

from __future__ import annotations

from dataclasses import dataclass

from circinus.estimation.slo_probability import SloProbabilities
from circinus.estimation.traffic import RequestStream
from circinus.profiling import Interval
from circinus.specification import Deployment, DirectedLink, QueryPlan, Slos


@dataclass(frozen=True)
class StageEstimate:
    """Where the time of one operator goes, on average."""

    operator: str
    pool: str
    transfer_s: float
    """Until the last of its inputs has arrived, after it was produced."""
    wait_s: float
    service_s: float


@dataclass(frozen=True)
class Estimate:
    """What a plan will do, with bounds."""

    percentile: float
    """The percentile (of 100) that `latency_s` is about."""
    latency_s: Interval
    accuracy: Interval
    cost_usd_per_h: Interval
    """Lower: all deployments fully shared. Upper: the query alone on its deployments. Value: alone before the
    matching, the share by busy seconds afterwards."""
    stages: tuple[StageEstimate, ...]
    """In topological order."""
    return_s: float
    """Mean seconds to bring the result back to the source."""
    slo_probability: SloProbabilities | None = None
    """How likely the objectives of the query are kept; None: not computed."""
    caveats: tuple[str, ...] = ()
    """Why formulas may not be good for the latency under the load that was asked about; of a promise, none are said."""
    simulated: bool = False
    """Whether the latency is that of a simulation of all queries together."""

    def violations(self, slos: Slos) -> tuple[str, ...]:
        """The objectives (`latency`, `accuracy`, `cost`) that are not promised.

        Latency must hold at its upper bound, accuracy at its unfavourable bound, cost at its lower bound (whether
        the share is low enough is known only after the final sizing).
        """
        found = []
        if slos.latency is not None and self.latency_s.upper > slos.latency.limit_s:
            found.append("latency")
        if slos.accuracy is not None:
            worst = self.accuracy.lower if slos.accuracy.comparison == ">=" else self.accuracy.upper
            if not slos.accuracy.is_met_by(worst):
                found.append("accuracy")
        if slos.cost is not None and self.cost_usd_per_h.lower > slos.cost.limit_usd_per_h:
            found.append("cost")
        return tuple(found)


@dataclass(frozen=True)
class ReplicaDemand:
    """What one replica of a deployment takes from one node of its pool, and its share of the node's price."""

    cpus: float
    memory_bytes: float
    gpus: float
    gpu_memory_bytes: float
    cost_usd_per_h: float
    """Price of the node times the largest share of any of its resources that the replica takes."""


@dataclass(frozen=True)
class DeploymentUse:
    """How one query uses one deployment."""

    deployment: Deployment
    demand: ReplicaDemand
    busy_replicas: float
    """Mean number of replicas that the query's requests keep busy (requests a second x seconds a request), when
    batches are full."""
    traffic: RequestStream
    """The query's requests, and the seconds that one is in service (a batch shares these seconds)."""
    fill_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) seconds of a batch of 1, 2, ... over the mean of what its items take alone."""
    batch_wait_s: float = 0.0
    """How long the oldest request may wait for its batch to fill."""
    after: tuple[tuple[Deployment, float], ...] = ()
    """Those that its requests come from, with how often each is the last that was waited for."""

    @property
    def fractional_replicas(self) -> float:
        """Replicas needed at the utilisation target, not rounded."""
        return self.busy_replicas / self.deployment.allocation.utilization_target


@dataclass(frozen=True)
class LinkUse:
    """How one query uses one direction of a link."""

    link: DirectedLink
    bytes_per_s: float
    traffic: RequestStream
    """The query's transfers, and the seconds that one holds the link."""
    others_s: float = 0.0
    """Seconds for which a request's other values may hold the link before its last one: all but the smallest."""


@dataclass(frozen=True)
class PlanCandidate:
    """A plan with its estimate and everything it takes: what matching chooses among."""

    query: str
    plan: QueryPlan
    estimate: Estimate
    deployments: tuple[DeploymentUse, ...]
    """In topological order of the operators."""
    links: tuple[LinkUse, ...]
    transfer_cost_usd_per_h: float
