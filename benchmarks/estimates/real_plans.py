"""Plans of the real pipelines: placements from the device to the cloud, replicas, batches, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from benchmarks.estimates.profiles import Measured
from circinus.estimation import Estimator, PlanCandidate
from circinus.specification import (
    Allocation,
    Deployment,
    HardwareClass,
    Infrastructure,
    Link,
    Network,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Specification,
)

SITES = ("device", "edge", "cloud")
_SPEEDS = {"device": 0.5, "edge": 0.7, "cloud": 1.2}
"""Relative speeds, as in the examples."""
_ROUND_TRIPS_S = {"device": 0.005, "edge": 0.030}
"""Round-trip time to the next site."""
_GIB = 2.0**30
_MAX_UTILIZATION = 0.95
"""Utilization target of all deployments, whose replicas are given."""
_UNLIMITED_BYTES_PER_S = 1e12
"""Bandwidth of a link that is never busy."""


@dataclass(frozen=True)
class Choice:
    """Compact description of a plan of an example."""

    example: str
    configuration: int
    """Index into `CONFIGURATIONS`."""
    places: str
    """Site of each operator in topological order: d(evice), e(dge) or c(loud)."""
    replicas: tuple[int, ...]
    """Number of replicas of each operator."""
    link: float = 0.5
    """Utilization of the links over that of the busiest deployment; above 1 a link is the bottleneck."""
    batched: str = ""
    """Operator with its largest batch size, if any."""


CHOICES: Sequence[Choice] = (
    Choice("meeting", 0, "dddd", (1, 1, 1, 1)),
    Choice("meeting", 0, "ddec", (1, 1, 2, 1)),
    Choice("meeting", 0, "cccc", (1, 1, 3, 1), link=1.4),
    Choice("meeting", 1, "dddd", (1, 1, 2, 1)),
    Choice("meeting", 1, "eeee", (1, 1, 4, 1), link=0.8),
    Choice("meeting", 2, "deee", (1, 1, 1, 1)),
    Choice("meeting", 2, "ddcc", (1, 1, 4, 1), link=0.3),
    Choice("meeting", 3, "ddcc", (1, 1, 1, 1), link=0.8),
    Choice("meeting", 3, "eeee", (1, 1, 2, 1), batched="speech_to_text"),
    Choice("meeting", 4, "deec", (1, 2, 3, 1)),
    Choice("meeting", 5, "dece", (1, 1, 1, 1)),
    Choice("meeting", 5, "eecc", (1, 1, 4, 1), link=1.2),
    Choice("documents", 0, "dddd", (1, 1, 1, 1)),
    Choice("documents", 0, "eeee", (1, 2, 1, 1), link=1.4),
    Choice("documents", 0, "dedd", (1, 1, 1, 1), batched="layout"),
    Choice("documents", 1, "deee", (1, 1, 1, 1), link=0.8),
    Choice("documents", 1, "ecec", (1, 3, 1, 1)),
    Choice("documents", 2, "deee", (1, 2, 1, 1), link=0.3),
    Choice("documents", 2, "cccc", (1, 4, 1, 1), batched="ocr"),
    Choice("documents", 3, "dede", (1, 1, 1, 1)),
    Choice("documents", 3, "ecec", (2, 4, 1, 1), link=1.2),
    Choice("documents", 4, "eeee", (1, 1, 1, 1), batched="ocr"),
    Choice("documents", 4, "ccdc", (1, 3, 1, 1), link=0.8),
    Choice("documents", 5, "deec", (1, 2, 1, 1)),
)


@dataclass(frozen=True, eq=False)
class RealPlan:
    """Plan with an infrastructure of its own."""

    name: str
    measured: Measured
    plan: QueryPlan
    replicas: Mapping[Deployment, int]
    infrastructure: Infrastructure
    capacity_per_s: float
    """Request rate at which the busiest deployment or link has a utilization of 1."""
    jitter: float | None = None
    """Maximum deviation of arrivals from their period, in periods; None: Poisson arrivals."""

    @property
    def pipeline(self) -> Pipeline:
        return self.measured.pipeline

    @property
    def network(self) -> Network:
        return Network(self.infrastructure)

    def query(self, utilization: float) -> Query:
        """Return a query with the rate at which the busiest deployment or link has the given utilization."""
        # Arrivals are drawn by name, so that plans have independent arrivals.
        name = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        fields: dict[str, Any] = {"name": name, "pipeline": self.plan.pipeline, "source": SITES[0]}
        rate_per_s = utilization * self.capacity_per_s
        if self.jitter is not None:
            fields["arrivals"] = {"kind": "periodic", "jitter": self.jitter / rate_per_s}
        return Query.model_validate({**fields, "rate": rate_per_s})

    def specification(self, query: Query) -> Specification:
        """Return the specification of the query on the plan's infrastructure."""
        return replace(self.measured.specification, infrastructure=self.infrastructure, queries=(query,))


def real_plan(choice: Choice, measured: Measured, capacity_per_s: float) -> RealPlan:
    """Return the plan on hardware and links whose speed give it a capacity.

    Recorded seconds are replayed on hardware some tens of times as fast as the machine that profiled, so that minutes
    show as many requests as hours would.

    Args:
        choice: description of the plan.
        measured: measured example of the plan.
        capacity_per_s: request rate at which the busiest deployment or link has a utilization of 1.
    """
    plan, replicas = plan_of(choice, measured)
    # Utilization is linear in the rate, so that one request per second shows the bottleneck.
    candidate = taken(plan, measured, Network(_infrastructure(1.0, [_UNLIMITED_BYTES_PER_S, _UNLIMITED_BYTES_PER_S])))
    busiest = max(use.busy_replicas / replicas[use.deployment] for use in candidate.deployments)
    deployments_per_s = capacity_per_s * max(choice.link, 1.0)
    sent = [max((u.bytes_per_s for u in candidate.links if {u.link.source, u.link.target} == {a, b}), default=0.0)
            for a, b in pairwise(SITES)]  # fmt: skip
    bandwidths = [max(bytes_a_request * deployments_per_s / choice.link, 1.0) for bytes_a_request in sent]
    return RealPlan(
        name=name_of(choice),
        measured=measured,
        plan=plan,
        replicas=replicas,
        infrastructure=_infrastructure(busiest * deployments_per_s, bandwidths),
        capacity_per_s=capacity_per_s,
    )


def plan_of(choice: Choice, measured: Measured) -> tuple[QueryPlan, Mapping[Deployment, int]]:
    """Return the plan and the number of replicas per deployment."""
    pipeline = measured.pipeline
    order = [operator.name for operator in pipeline.topological_order()]
    pools = dict(zip(order, (_site(letter) for letter in choice.places), strict=True))
    allocations = {}
    for name in order:
        operator = pipeline.operator(name)
        size = max(operator.batch_sizes) if name == choice.batched else 1
        allocations[name] = Allocation(operator.cpus[0], size, _MAX_UTILIZATION)
    plan = QueryPlan(
        pipeline=pipeline.name,
        configuration=measured.configurations[choice.configuration],
        placement=tuple(sorted(pools.items())),
        allocations=tuple(sorted(allocations.items())),
    )
    return plan, {plan.deployment_of(name): count for name, count in zip(order, choice.replicas, strict=True)}


def taken(plan: QueryPlan, measured: Measured, network: Network) -> PlanCandidate:
    """Return the plan as a candidate with its use of deployments and links at one request per second."""
    query = Query.model_validate({"name": "q", "pipeline": plan.pipeline, "source": SITES[0], "rate": 1.0})
    estimator = Estimator(query, measured.pipeline, measured.of(plan.configuration), network)
    return estimator.candidate(plan)


def _infrastructure(speed: float, bandwidths_bytes_per_s: Sequence[float]) -> Infrastructure:
    size = {"nodes": 16, "cpus": 16.0, "memory": 256 * _GIB}
    pools = tuple(
        Pool.model_validate(
            {"name": site, "site": site, "tier": site, **size,
             "hardware": HardwareClass.model_validate({"class": site, "relative_speed": speed * _SPEEDS[site]})}
        )
        for site in SITES
    )  # fmt: skip
    links = tuple(
        Link.model_validate({"from": a, "to": b, "bandwidth": bandwidth, "round_trip": _ROUND_TRIPS_S[a]})
        for (a, b), bandwidth in zip(pairwise(SITES), bandwidths_bytes_per_s, strict=True)
    )
    sites = tuple(Site(name=site) for site in SITES)
    return Infrastructure(name="places", sites=sites, pools=pools, links=links, usable_link_share=0.99)


def _site(letter: str) -> str:
    return next(site for site in SITES if site.startswith(letter))


def name_of(choice: Choice) -> str:
    """Return the name of a plan in tables."""
    batched = f" batches of {choice.batched}" if choice.batched else ""
    return f"{choice.example} {choice.configuration} {choice.places} x{','.join(map(str, choice.replicas))}{batched}"
