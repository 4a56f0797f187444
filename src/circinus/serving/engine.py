"""What every engine does, and the state it is asked to bring about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from circinus.specification import Configuration, Deployment, Infrastructure


class Mode(StrEnum):
    """How replicas answer."""

    REAL = "real"
    """They compute."""
    REPLAY = "replay"
    """They answer from recorded outputs and sleep the recorded service times."""


@dataclass(frozen=True)
class DesiredDeployment:
    """A deployment to run."""

    deployment: Deployment
    uses: str
    """Reference of the operator's code."""
    replicas: int
    cpus: float
    memory_bytes: float
    relative_speed: float
    """Of its pool's hardware class: service times are those of this machine divided by this."""
    operator_version: str = ""
    """Of the operator's code: replicas that run another version are replaced."""
    gpus: float = 0.0
    batch_wait_s: float = 0.0
    """How long its oldest waiting item may wait for its batch to fill.

    With a replica free at f, the oldest waiting item having arrived at a1 and the b-th at ab (never, where there are
    fewer; b the batch size), a batch begins at max(f, min(a1 + batch_wait_s, ab)) and takes the up to b oldest items
    that had arrived by then. Another wait replaces no replica."""


@dataclass(frozen=True)
class RouteStage:
    """One operator of a route."""

    operator: str
    after: tuple[str, ...]
    deployment: Deployment
    prefix: Configuration
    """Names the recordings that a replaying replica answers from."""


@dataclass(frozen=True)
class Route:
    """How the requests of one query travel: a DAG over deployments."""

    query: str
    pipeline: str
    source: str
    stages: tuple[RouteStage, ...]
    """In topological order."""
    sinks: tuple[str, ...]
    rate_limit_per_s: float | None = None
    """Requests a second that an entry for clients lets in; None: all."""
    audit_rate: float = 0.0
    """Of the answered requests that is kept for `Audited.audits`; drawn request by request, the same ones each time."""

    @property
    def configuration(self) -> Configuration:
        """Of the pipeline."""
        return Configuration.of({stage.operator: stage.prefix[stage.operator] for stage in self.stages})


@dataclass(frozen=True)
class DesiredState:
    """Everything that shall run. Applying a second state changes what differs and leaves the rest alone."""

    mode: Mode
    infrastructure: Infrastructure
    deployments: tuple[DesiredDeployment, ...]
    routes: tuple[Route, ...]
    module_paths: tuple[Path, ...]
    recordings: Path | None = None
    """The profile store that `Mode.REPLAY` answers from."""


@dataclass(frozen=True)
class Request:
    """One request of a query."""

    query: str
    item_key: str
    value: Any
    """The input. Replaying engines need only the key and the size; they may be given None."""
    input_bytes: float


@dataclass(frozen=True)
class Response:
    """The answer to one request."""

    output: Any
    latency_s: float
    """From the moment the engine received the request at the source until the result was back there."""
    stage_s: Mapping[str, float]
    """Operator -> seconds in service, for comparing with the profile."""
    replica_s: Mapping[str, float]
    """Operator -> replica-seconds used: the seconds in service shared evenly by the batch. Sums to the replicas' busy
    time, so it divides the cost of a deployment among its queries."""
    link_bytes: Mapping[str, float]
    """Name of a directed link -> bytes sent over it."""


class ServedBatch(NamedTuple):
    """One batch that a replica processed, all items of which went well."""

    service_s: float
    """Seconds of the batch in service."""
    items: int
    prefix: str
    """Configuration hash of the `RouteStage.prefix` of its items; empty where they have several."""
    batch_index: int
    """Batches that its replica had done before it: in the first ones it may still load and compile what it needs."""


@dataclass(frozen=True)
class DeploymentStatus:
    """One deployment as it is."""

    deployment: Deployment
    replicas_wanted: int
    replicas_ready: int
    queue_length: int
    requests: int
    restarts: int
    message: str = ""
    min_batches_served: int | None = None
    """Batches that the replica with the fewest has done since it was started; None: no replica is ready, or the engine
    does not count. What has done few may still load and compile what it needs."""
    startup_s: float | None = None
    """Mean seconds from asking for a replica until it could take work, over all that were started; None: none was
    ready yet."""
    batches: int = 0
    """Batches so far whose items all went well; less than before where the engine, or its part at the deployment's
    site, was started again."""
    recent_batches: tuple[ServedBatch, ...] = ()
    """The last of them, oldest first; some dozens at most. Who reads now and then knows by `batches` which are new."""


@dataclass(frozen=True)
class QueryStatus:
    """The requests of one query so far, as the engine counted them."""

    query: str
    received: int
    """That came."""
    answered: int
    failed: int
    """For whatever reason: an operator's error, a deadline, a client that went away."""
    recent_latency_s: tuple[float, ...] = ()
    """Of the answers among the last requests that ended, oldest first; those are some hundreds at most."""
    recent_failed: int = 0
    """How many of the last requests that ended failed. With the answers among them that is all of them."""

    @property
    def in_flight(self) -> int:
        """Requests that came and have not ended."""
        return self.received - self.answered - self.failed


@dataclass(frozen=True)
class EngineStatus:
    """An engine as it is."""

    mode: Mode
    deployments: tuple[DeploymentStatus, ...]
    routes: tuple[str, ...]
    """Queries that can be sent requests."""
    state: str = ""
    """`desired_fingerprint` of the state in force; empty when nothing was applied."""
    queries: tuple[QueryStatus, ...] = ()
    """Those that requests came of since the engine, or the part of it where they enter, was started; none of a part
    that does not answer."""
    nodes: Mapping[str, int] | None = None
    """Pool -> its nodes that live; None: the engine does not tell."""

    @property
    def healthy(self) -> bool:
        """Whether every wanted replica is ready."""
        return all(d.replicas_ready == d.replicas_wanted for d in self.deployments)


@dataclass(frozen=True)
class AuditSample:
    """An answered request that was kept."""

    query: str
    item_key: str
    configuration: str
    """`circinus.serving.configuration_hash.label_of` the configuration that answered."""
    value: bytes | None
    """Packed input; None in a replay."""
    outputs: Mapping[str, bytes]
    """By sink, packed."""

    @property
    def size_bytes(self) -> int:
        """Of input and outputs."""
        return len(self.value or b"") + sum(map(len, self.outputs.values()))


@dataclass(frozen=True)
class AuditBatch:
    """Samples that were handed over."""

    samples: tuple[AuditSample, ...]
    """Oldest first, of each part of the engine."""
    dropped: int = 0
    """How many were forgotten since the last time because nobody came for them in time."""


class Engine(Protocol):
    """Interface to deployments and routes. Implementations pass `circinus.testing.engine_conformance`."""

    async def apply(self, desired: DesiredState) -> None:
        """Bring `desired` about and return when every replica is ready; keep what already runs and is still wanted.

        Raises:
            ServingError: it cannot be; the state before stays in force.
        """
        ...

    async def submit(self, request: Request) -> Response:
        """Send one request along its query's route.

        Raises:
            ServingError: no such route, or an operator failed on it.
        """
        ...

    async def status(self) -> EngineStatus:
        """What runs now."""
        ...

    async def close(self) -> None:
        """End everything that was started, and wait until it has ended."""
        ...


Guard = Callable[[], Awaitable[None]]
"""Raises a ServingError where nothing may be changed any more; a LeaseLostError where somebody else may by now."""


@runtime_checkable
class FencedEngine(Protocol):
    """An engine whose changes are many steps that the process takes that asks for them.

    If that was asleep for long in the middle of a change, somebody else may have taken over. A local engine carries out
    changes itself, one after the other in the order in which they come, and so needs to be asked in time only once.
    """

    async def apply_fenced(self, desired: DesiredState, guard: Guard) -> None:
        """As `Engine.apply`.

        Args:
            desired: to bring about.
            guard: asked right before every step that changes something, also to undo what was begun. Once it raises,
                nothing is changed any more, not even back.

        Raises:
            LeaseLostError: the guard said so; what is in force is up to somebody else.
            ServingError: as of `Engine.apply`; where that is what the guard said, part of the change may be in force.
        """
        ...


@runtime_checkable
class AuditableEngine(Protocol):
    """An engine that keeps the requests that `Route.audited_share` asks for."""

    async def drain_audits(self) -> AuditBatch:
        """The samples since the last call, by whomever it was; they are forgotten in the engine.

        Raises:
            ServingError: the engine does not answer.
        """
        ...
