"""Routes of queries: the deployments that their requests pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import not_
from typing import Annotated

from pydantic import Field

from circinus.specification import Configuration, Deployment, LatePolicy
from circinus.specification.dataflow import Edge, FlowNode


@dataclass(frozen=True)
class RouteStage:
    """Operator of a route."""

    operator: str
    after: tuple[str, ...]
    deployment: Deployment
    prefix: Configuration
    """Configuration prefix, which selects the recordings of a replaying replica."""
    latest_start_s: float | None = None
    """Latest start of the service that can meet the latency SLO, in seconds after the request entered; None without
    one. The queue of a deployment serves the items with the earliest latest start."""
    flow: Annotated[FlowNode | None, Field(exclude_if=not_)] = None
    """Inputs and outputs of the operator, if it may run never or several times for an item; None if it runs once, and
    its inputs are the outputs of `after`."""

    @property
    def node(self) -> FlowNode:
        """Inputs and outputs of the operator."""
        return self.flow or FlowNode(self.operator, tuple((Edge(name),) for name in self.after))

    @property
    def unlimited(self) -> RouteStage:
        """The stage without its latest start, on which recordings do not depend."""
        return replace(self, latest_start_s=None)


@dataclass(frozen=True)
class RouteShare:
    """Share of a query's requests, and the stages that these requests pass."""

    share: float
    """In (0, 1]."""
    stages: tuple[RouteStage, ...]
    """Stages in topological order."""

    @property
    def configuration(self) -> Configuration:
        """Configuration of the pipeline."""
        return Configuration.of({stage.operator: stage.prefix[stage.operator] for stage in self.stages})


@dataclass(frozen=True)
class Route:
    """Path of the requests of one query: a DAG over deployments, or several that divide the requests."""

    query: str
    pipeline: str
    source: str
    stages: tuple[RouteStage, ...]
    """Stages in topological order; of a split route those of its largest share. Empty while the query is paused."""
    sinks: tuple[str, ...]
    late: LatePolicy = LatePolicy.ANSWER
    """Treatment of requests that wait beyond the latest start of a stage."""
    rate_limit_per_s: float | None = None
    """Admission limit of client entries, in requests per second; None for no limit."""
    audit_rate: float = 0.0
    """Fraction of answered requests to keep for `AuditableEngine.drain_audits`, sampled deterministically."""
    tenant: Annotated[str, Field(exclude_if=not_)] = ""
    """Owner of the query, whose tokens requests over HTTP need; empty if there is none."""
    others: Annotated[tuple[RouteShare, ...], Field(exclude_if=not_)] = ()
    """Smaller shares of the requests, which pass other deployments; empty if the route is not split. Each request takes
    one part, by `circinus.queueing.split_sequence`."""

    def paused(self) -> Route:
        """Return the route without deployments: requests wait, within their deadlines, for a state with another one."""
        return replace(self, stages=(), sinks=(), others=())

    @property
    def is_paused(self) -> bool:
        """Whether requests wait for another state."""
        return not self.stages

    @property
    def parts(self) -> tuple[RouteShare, ...]:
        """All shares of the requests with their stages, as in `QueryPlan.parts`; one of 1 if the route is not split."""
        first = round(1.0 - sum(part.share for part in self.others), 9)  # without errors of floating point
        return (RouteShare(first, self.stages), *self.others)

    @property
    def all_stages(self) -> tuple[RouteStage, ...]:
        """Distinct stages of all parts."""
        return tuple(dict.fromkeys(stage for part in self.parts for stage in part.stages))

    @property
    def configuration(self) -> Configuration:
        """Configuration of the pipeline; of a split route that of its largest share."""
        return self.parts[0].configuration
