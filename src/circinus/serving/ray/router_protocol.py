"""Messages between site routers, and their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from circinus.serving.engine import QueryStatus, ServedBatch
from circinus.serving.router.compiled_route import CompiledRoute, RouteTransfer
from circinus.specification import Deployment


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
    routes: tuple[CompiledRoute, ...]
    """Routes of the queries whose source is this site."""
    peers: tuple[str, ...] = ()
    """Other sites that receive outputs of this one."""


@dataclass(frozen=True)
class RequestContext:
    """Request in flight."""

    request_id: str
    """Unique request id."""
    item_key: str
    route: CompiledRoute
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

    def sent(self, producer: str, transfer: RouteTransfer, size_bytes: float) -> RequestTrace:
        """Return the trace after a transfer."""
        if not transfer.path:
            return self
        crossed = {(producer, transfer.site, link.name): size_bytes for link in transfer.path}
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
