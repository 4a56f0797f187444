"""What site routers tell each other, and what they are told."""

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
    """One operator of a route."""

    operator: str
    after: tuple[str, ...]
    application: str
    """Name of the application that runs its deployment."""
    recording: str
    """Names what a replaying replica answers from; empty where it computes."""
    prefix: str = ""
    """Label of the `RouteStage.prefix`."""

    @property
    def producers(self) -> frozenset[str]:
        """Whose outputs it needs."""
        return frozenset(self.after or (INPUT,))


@dataclass(frozen=True)
class RouterTransfer:
    """One output on its way to one site."""

    site: str
    links: tuple[str, ...]
    """Names of the directed links that it crosses."""
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class RouterRoute:
    """The route of one query, with everything that a router on the way needs."""

    query: str
    source: str
    stages: tuple[RouterStage, ...]
    sinks: tuple[str, ...]
    deliveries: Mapping[str, tuple[RouterTransfer, ...]]
    """By producer."""
    admitted_per_s: float | None = None
    """Requests a second that the HTTP entry lets in; None: all."""
    audited_share: float = 0.0
    """As `Route.audited_share`."""
    configuration: str = ""
    """Label of the route's configuration."""

    @classmethod
    def of(
        cls, route: Route, network: Network, applications: Mapping[Deployment, str], recordings: Mapping[str, str]
    ) -> RouterRoute:
        """With everything looked up.

        Args:
            route: the route.
            network: its sites and links.
            applications: deployment -> name of its application.
            recordings: operator -> `WireStage.recording`; none where replicas compute.

        Raises:
            ServingError: there is no way between two sites that the route connects.
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
                    RouterTransfer(sent.site, tuple(link.name for link in sent.path), sent.consumers)
                    for sent in deliveries
                )
                for producer, deliveries in route_transfers(route, network).items()
            },
            admitted_per_s=route.rate_limit_per_s,
            audited_share=route.audit_rate,
            configuration=configuration_hash(route.configuration),
        )

    def stage(self, operator: str) -> RouterStage:
        """One of them by name."""
        return next(stage for stage in self.stages if stage.operator == operator)

    @property
    def applications(self) -> frozenset[str]:
        """All that its requests pass."""
        return frozenset(stage.application for stage in self.stages)


@dataclass(frozen=True)
class RouterDeployment:
    """One deployment of a site, as its router serves it."""

    application: str
    deployment: Deployment
    replicas: int
    batch_wait_s: float


@dataclass(frozen=True)
class RouterConfig:
    """What the router of one site is told."""

    site: str
    mode: str
    state: str
    """`desired_fingerprint` of the state in force."""
    deployments: tuple[RouterDeployment, ...]
    routes: tuple[RouterRoute, ...]
    """Of the queries whose source is this site."""
    peers: tuple[str, ...] = ()
    """Other sites that outputs of this one go to."""


@dataclass(frozen=True)
class RequestContext:
    """One request under way."""

    number: str
    """Of no other request."""
    item_key: str
    route: RouterRoute
    remaining_s: float
    """Seconds that were left until its deadline when this was sent; what crossing takes is not taken off."""


@dataclass(frozen=True)
class RequestTrace:
    """What became of a value so far, on the way on which it came."""

    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> seconds in service."""
    busy_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> its share of the replica's seconds."""
    sent_bytes: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """(producer, site that it goes to, link) -> bytes; so what two branches have in common counts once, and what
    goes to two sites over one link twice."""

    @classmethod
    def joined(cls, *parts: RequestTrace) -> RequestTrace:
        """Of several values that meet."""
        if len(parts) == 1:
            return parts[0]
        stage_s: dict[str, float] = {}
        busy_s: dict[str, float] = {}
        sent_bytes: dict[tuple[str, str, str], float] = {}
        for part in parts:
            stage_s |= part.stage_s
            busy_s |= part.busy_s
            sent_bytes |= part.sent_bytes
        return cls(stage_s, busy_s, sent_bytes)

    def served(self, operator: str, service_s: float, busy_s: float) -> RequestTrace:
        """After one more operator."""
        return RequestTrace({**self.stage_s, operator: service_s}, {**self.busy_s, operator: busy_s}, self.sent_bytes)

    def sent(self, producer: str, delivery: RouterTransfer, size_bytes: float) -> RequestTrace:
        """After crossing the links of a delivery."""
        if not delivery.links:
            return self
        crossed = {(producer, delivery.site, link): size_bytes for link in delivery.links}
        return RequestTrace(self.stage_s, self.busy_s, {**self.sent_bytes, **crossed})

    @property
    def link_bytes(self) -> dict[str, float]:
        """Link -> bytes sent over it."""
        total: dict[str, float] = {}
        for (*_, link), size_bytes in self.sent_bytes.items():
            total[link] = total.get(link, 0.0) + size_bytes
        return total


@dataclass(frozen=True)
class RouterMessage:
    """One value that comes to a site."""

    trip: RequestContext
    producer: str
    consumers: tuple[str, ...]
    """Who wants it there."""
    value: bytes | None
    """Packed; None in a replay, but for results."""
    journal: RequestTrace
    padding: bytes = b""
    """Stands for a value that a replay does not have, so that it takes as long to cross links as was recorded."""


@dataclass(frozen=True)
class ApplicationStatus:
    """One deployment as the router of its site sees it."""

    application: str
    queue_length: int
    requests: int
    losses: int
    """Batches whose replica was lost while it had them."""
    message: str
    """How the last one was."""
    batches: int = 0
    recent_batches: tuple[ServedBatch, ...] = ()
    """As of `DeploymentStatus`."""


@dataclass(frozen=True)
class RouterStatus:
    """A router as it is."""

    config: RouterConfig | None
    applications: tuple[ApplicationStatus, ...]
    under_way: Mapping[str, int]
    """Application -> requests that entered here, may need it, and are not answered yet."""
    queries: tuple[QueryStatus, ...]
    """Whose requests entered here."""


_CONFIG = TypeAdapter(RouterConfig)


def config_to_dict(config: RouterConfig) -> dict[str, Any]:
    """As it stands in a configuration of Ray Serve."""
    found: dict[str, Any] = _CONFIG.dump_python(config, mode="json")
    return found


def config_from_dict(content: Mapping[str, Any]) -> RouterConfig:
    """What `config_to_python` wrote."""
    return _CONFIG.validate_python(content, strict=False)
