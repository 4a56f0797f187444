"""Messages between site routers, and their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import QueryStatus, Route, ServedBatch
from circinus.serving.route_transfers import INPUT, route_transfers
from circinus.specification import Deployment, Network


@dataclass(frozen=True)
class RouterStage:
    """Operator of a route."""

    operator: str
    after: tuple[str, ...]
    application: str
    """Name of the application that runs its deployment."""
    recording: str
    """Recording key that a replaying replica answers from; empty if replicas compute."""
    prefix: str = ""
    """Configuration hash of the `RouteStage.prefix`."""

    @property
    def producers(self) -> frozenset[str]:
        """Operators whose outputs the stage needs, or the request's input."""
        return frozenset(self.after or (INPUT,))


@dataclass(frozen=True)
class RouterTransfer:
    """Transfer of one output to one site."""

    site: str
    links: tuple[str, ...]
    """Names of the directed links on the path."""
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class RouterRoute:
    """Route of one query, with all information that routers on the way need."""

    query: str
    source: str
    stages: tuple[RouterStage, ...]
    sinks: tuple[str, ...]
    deliveries: Mapping[str, tuple[RouterTransfer, ...]]
    """Transfers by producer."""
    admitted_per_s: float | None = None
    """Maximum rate of requests over HTTP; None: unlimited."""
    audited_share: float = 0.0
    """Fraction of answered requests to audit: `Route.audit_rate`."""
    configuration: str = ""
    """Hash of the route's configuration."""

    @classmethod
    def of(
        cls, route: Route, network: Network, applications: Mapping[Deployment, str], recordings: Mapping[str, str]
    ) -> RouterRoute:
        """Resolve a route against its infrastructure.

        Args:
            route: the route.
            network: sites and links.
            applications: deployment -> name of its application.
            recordings: operator -> `RouterStage.recording`; empty if replicas compute.

        Raises:
            ServingError: two sites of the route are not connected.
        """
        return cls(
            query=route.query,
            source=route.source,
            stages=tuple(
                RouterStage(
                    s.operator,
                    s.after,
                    applications[s.deployment],
                    recordings.get(s.operator, ""),
                    configuration_hash(s.prefix),
                )
                for s in route.stages
            ),
            sinks=route.sinks,
            deliveries={
                producer: tuple(
                    RouterTransfer(transfer.site, tuple(link.name for link in transfer.path), transfer.consumers)
                    for transfer in deliveries
                )
                for producer, deliveries in route_transfers(route, network).items()
            },
            admitted_per_s=route.rate_limit_per_s,
            audited_share=route.audit_rate,
            configuration=configuration_hash(route.configuration),
        )

    def stage(self, operator: str) -> RouterStage:
        """Return a stage by the name of its operator."""
        return next(stage for stage in self.stages if stage.operator == operator)

    @property
    def applications(self) -> frozenset[str]:
        """Applications on the route."""
        return frozenset(stage.application for stage in self.stages)


@dataclass(frozen=True)
class RouterDeployment:
    """Deployment of a site, as its router serves it."""

    application: str
    deployment: Deployment
    replicas: int
    batch_wait_s: float


@dataclass(frozen=True)
class RouterConfig:
    """Configuration of the router of one site."""

    site: str
    mode: str
    state: str
    """`state_fingerprint` of the state in force."""
    deployments: tuple[RouterDeployment, ...]
    routes: tuple[RouterRoute, ...]
    """Routes of the queries whose source is this site."""
    peers: tuple[str, ...] = ()
    """Other sites that receive outputs of this one."""


@dataclass(frozen=True)
class RequestContext:
    """Request in flight."""

    request_id: str
    """Unique request id."""
    item_key: str
    route: RouterRoute
    remaining_s: float
    """Seconds until the deadline at the time of sending; transfer times are not subtracted."""


@dataclass(frozen=True)
class RequestTrace:
    """Service times and transfers of a request so far, along the path of one value."""

    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> seconds in service."""
    replica_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> the request's share of the replica's busy seconds."""
    sent_bytes: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """(producer, target site, link) -> bytes. A shared part of two branches counts once; transfers to two sites over
    one link count twice."""

    @classmethod
    def joined(cls, *parts: RequestTrace) -> RequestTrace:
        """Merge the traces of values that are joined."""
        if len(parts) == 1:
            return parts[0]
        stage_s: dict[str, float] = {}
        replica_s: dict[str, float] = {}
        sent_bytes: dict[tuple[str, str, str], float] = {}
        for part in parts:
            stage_s |= part.stage_s
            replica_s |= part.replica_s
            sent_bytes |= part.sent_bytes
        return cls(stage_s, replica_s, sent_bytes)

    def served(self, operator: str, service_s: float, replica_s: float) -> RequestTrace:
        """Return the trace after one more operator."""
        return RequestTrace(
            {**self.stage_s, operator: service_s}, {**self.replica_s, operator: replica_s}, self.sent_bytes
        )

    def sent(self, producer: str, delivery: RouterTransfer, size_bytes: float) -> RequestTrace:
        """Return the trace after a transfer."""
        if not delivery.links:
            return self
        crossed = {(producer, delivery.site, link): size_bytes for link in delivery.links}
        return RequestTrace(self.stage_s, self.replica_s, {**self.sent_bytes, **crossed})

    @property
    def link_bytes(self) -> dict[str, float]:
        """Link -> bytes sent over it."""
        total: dict[str, float] = {}
        for (*_, link), size_bytes in self.sent_bytes.items():
            total[link] = total.get(link, 0.0) + size_bytes
        return total


@dataclass(frozen=True)
class RouterMessage:
    """Value sent to a site."""

    context: RequestContext
    producer: str
    consumers: tuple[str, ...]
    """Operators there that need the value."""
    value: bytes | None
    """Pickled value; None in a replay, except for results."""
    trace: RequestTrace
    padding: bytes = b""
    """Stands in for a value that a replay does not have, so that the transfer takes as long as recorded."""


@dataclass(frozen=True)
class ApplicationStatus:
    """Status of one deployment, as reported by the router of its site."""

    application: str
    queue_length: int
    requests: int
    losses: int
    """Number of batches whose replica was lost."""
    message: str
    """Reason for the last loss."""
    batches: int = 0
    recent_batches: tuple[ServedBatch, ...] = ()
    """Most recent batches: see `DeploymentStatus.recent_batches`."""


@dataclass(frozen=True)
class RouterStatus:
    """Status of one router."""

    config: RouterConfig | None
    applications: tuple[ApplicationStatus, ...]
    under_way: Mapping[str, int]
    """Application -> number of unanswered requests that entered here and may need it."""
    queries: tuple[QueryStatus, ...]
    """Counters of the queries whose requests enter here."""


_CONFIG = TypeAdapter(RouterConfig)


def config_to_dict(config: RouterConfig) -> dict[str, Any]:
    """Encode a configuration for Ray Serve."""
    content: dict[str, Any] = _CONFIG.dump_python(config, mode="json")
    return content


def config_from_dict(content: Mapping[str, Any]) -> RouterConfig:
    """Decode a configuration; inverse of `config_to_dict`."""
    return _CONFIG.validate_python(content, strict=False)
