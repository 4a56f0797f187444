"""Engine protocol, and the desired states and statuses that all engines share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from operator import is_
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from circinus.operators.protocol import ONE, Emission
from circinus.serving.routes import Route
from circinus.specification import Deployment, Infrastructure

_IS_NONE = partial(is_, None)


class Mode(StrEnum):
    """Mode of the replicas."""

    REAL = "real"
    """Replicas run the operators."""
    REPLAY = "replay"
    """Replicas return recorded outputs after the recorded service times."""


@dataclass(frozen=True)
class DesiredDeployment:
    """Deployment that an engine must run."""

    deployment: Deployment
    uses: str
    """Reference of the operator's code."""
    replicas: int
    cpus: float
    memory_bytes: float
    relative_speed: float
    """Speed of the pool's hardware class: service times are those of this machine divided by it."""
    operator_version: str = ""
    """Version of the operator's code; replicas with another version are replaced."""
    gpus: float = 0.0
    batch_wait_s: float = 0.0
    """Maximum time that the oldest waiting item waits for its batch to fill.

    With a replica free at f, and arrival times a1 of the oldest waiting item and ab of the b-th (infinity if there are
    fewer; b is the batch size), a batch begins at max(f, min(a1 + batch_wait_s, ab)) and takes, of the items that have
    arrived by then, up to b with the earliest latest start. A change of the wait replaces no replica.
    """
    batch_ratio: tuple[tuple[int, float], ...] = ()
    """Batch sizes with the time of a full batch relative to one item, for replays; empty to use recorded ratios."""
    is_spread: bool = False
    """Whether a node runs at most one replica, as nodes may be interrupted."""
    emission: Annotated[Emission, Field(exclude_if=ONE.__eq__)] = ONE
    """What the operator returns for each input."""
    batch_limit_s: Annotated[float | None, Field(exclude_if=_IS_NONE)] = None
    """Time limit of a batch, after which its replica hangs: the replica is replaced, and the items fail. None for no
    limit. A change replaces no replica."""


@dataclass(frozen=True)
class DesiredState:
    """Complete state that an engine must reach. Applying another state changes only the differences."""

    mode: Mode
    infrastructure: Infrastructure
    deployments: tuple[DesiredDeployment, ...]
    routes: tuple[Route, ...]
    module_paths: tuple[Path, ...]
    recordings: Path | None = None
    """Profile store that `Mode.REPLAY` answers from."""


@dataclass(frozen=True)
class Request:
    """Request of a query."""

    query: str
    item_key: str
    value: Any
    """Input of the pipeline. Replaying engines need only key and size, so it may be None for them."""
    input_bytes: float


@dataclass(frozen=True)
class ResponseTimings:
    """Times and transfers of an answered request."""

    latency_s: float
    """Latency from receipt of the request at the source until the result is back at the source."""
    stage_s: Mapping[str, float]
    """Operator -> seconds in service, of all its runs, comparable to the profile; only operators that ran."""
    replica_s: Mapping[str, float]
    """Operator -> replica-seconds used: seconds in service, divided evenly among the items of the batch.

    They sum to the busy time of the replicas, so they divide the cost of a deployment among its queries.
    """
    link_bytes: Mapping[str, float]
    """Name of a directed link -> bytes sent over it."""
    wait_s: Mapping[str, float] = field(default_factory=dict)
    """Operator -> seconds in its queue, in its batch and on the way to and from the replica."""
    part: int = 0
    """Index of the part of a split route (`Route.parts`) that the request took."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Operator -> number of its runs; only operators that ran."""

    def outside_s(self, inputs: Mapping[str, Sequence[str]]) -> float:
        """Return seconds on links and in routers: the latency less the longest path of operators' times.

        Where the engine runs on one machine, the time in which a busy CPU delays the routers is part of it.

        Args:
            inputs: operator -> operators whose outputs it takes, in topological order.
        """
        ends_s = dict[str, float]()
        for operator, producers in inputs.items():
            own_s = self.stage_s.get(operator, 0.0) + self.wait_s.get(operator, 0.0)
            ends_s[operator] = own_s + max((ends_s[producer] for producer in producers), default=0.0)
        return max(self.latency_s - max(ends_s.values(), default=0.0), 0.0)


@dataclass(frozen=True)
class Response:
    """Response to a request."""

    output: Any
    timings: ResponseTimings


class ServedBatch(NamedTuple):
    """Batch that a replica processed without a failed item."""

    service_s: float
    """Service time of the whole batch."""
    items: int
    prefix: str
    """Configuration hash of the `RouteStage.prefix` of its items; empty for mixed prefixes."""
    batch_index: int
    """Number of earlier batches of its replica; the first ones may include loading and compilation."""


@dataclass(frozen=True)
class DeploymentStatus:
    """Status of a deployment."""

    deployment: Deployment
    target_replicas: int
    replicas_ready: int
    queue_length: int
    requests: int
    restarts: int
    message: str = ""
    min_batches_served: int | None = None
    """Minimum number of batches that a ready replica has processed since its start.

    None if no replica is ready, or the engine does not count. Replicas with few batches may still load and compile.
    """
    startup_s: float | None = None
    """Mean start-up time of all replicas started so far; None before the first one was ready."""
    batches: int = 0
    """Number of batches without a failed item.

    A restart of the engine, or of its part at the deployment's site, resets the number.
    """
    recent_batches: tuple[ServedBatch, ...] = ()
    """Most recent batches, oldest first (a few dozen at most).

    The change of `batches` since the last poll is the number of new ones.
    """
    timeouts: int = 0
    """Number of batches that exceeded `DesiredDeployment.batch_limit_s`; their replicas count in `restarts`."""


DROPPED_LATE = "query.dropped_late"
"""Code of the error of a request that a query with `late: drop` did not answer, as it was late."""
TIMED_OUT = "replica.timed_out"
"""Code of the error of a request whose batch exceeded `DesiredDeployment.batch_limit_s`."""
ENGINE_SILENT = "engine.silent"
"""Code of the error of calls to a local engine that does not respond, as it is suspended or stuck."""
ENGINE_ENDED = frozenset({"engine.not_running", "engine.killed"})
"""Codes of the errors of calls to a local engine that has ended."""


class RequestRuns(NamedTuple):
    """Number of runs of each operator for a request."""

    configuration: str
    """Configuration hash."""
    runs: Mapping[str, int]
    """Operator -> number of its runs; operators without a run may be missing."""


@dataclass(frozen=True)
class QueryStatus:
    """Request counters of a query."""

    query: str
    received: int
    """Number of requests received."""
    answered: int
    failed: int
    """Number of failed requests: operator errors, expired deadlines, disconnected clients."""
    recent_latency_s: tuple[float, ...] = ()
    """Latencies of the most recently ended requests, oldest first (a few hundred at most); infinite for dropped ones.
    """
    recent_failed: int = 0
    """Number of failed requests among the most recently ended; all others are in `recent_latency_s`."""
    dropped: int = 0
    """Number of requests dropped as late (`DROPPED_LATE`), or refused as they would be (`OVERLOADED`)."""
    recent_runs: tuple[RequestRuns, ...] = ()
    """Runs of the most recently answered requests, oldest first, if operators may run never or several times."""

    @property
    def completed(self) -> int:
        """Number of requests with a latency: answered and dropped ones."""
        return self.answered + self.dropped

    @property
    def in_flight(self) -> int:
        """Number of requests received and not ended."""
        return self.received - self.completed - self.failed


@dataclass(frozen=True)
class PartStatus:
    """Requests of one part of a split route, since its shares are in force."""

    share: float
    """Planned share."""
    measured_share: float | None
    """Share of the requests that took the part; None before the first request."""
    requests: int
    available: bool
    """False while a deployment of the part has no replica: new requests take the other parts, where these have one."""


@dataclass(frozen=True)
class SplitStatus:
    """Shares of a split route."""

    query: str
    parts: tuple[PartStatus, ...]
    """Parts in the order of `Route.parts`."""


@dataclass(frozen=True)
class EngineStatus:
    """Status of an engine."""

    mode: Mode
    deployments: tuple[DeploymentStatus, ...]
    routes: tuple[str, ...]
    """Names of the queries with a route."""
    state: str = ""
    """`state_fingerprint` of the deployed state; empty before the first apply."""
    queries: tuple[QueryStatus, ...] = ()
    """Counters per query since the engine (on Ray: the entry router) started.

    Queries without requests are left out, and so are those of routers that do not respond.
    """
    nodes: Mapping[str, int] | None = None
    """Number of live nodes per pool, or None if the engine does not report nodes."""
    output: str = ""
    """Folder with a file of the output of each operator; empty if the engine keeps none."""
    http: str = ""
    """Base of the URLs `http://HOST:PORT/SITE/QUERY` of requests over HTTP; empty if there are none."""
    starting: tuple[DeploymentStatus, ...] = ()
    """Deployments that a running `apply` starts; empty if the engine does not report them."""
    splits: tuple[SplitStatus, ...] = ()
    """Shares of the split routes; on Ray without those of routers that do not respond."""

    @property
    def healthy(self) -> bool:
        """Return whether every desired replica is ready."""
        return all(d.replicas_ready == d.target_replicas for d in self.deployments)

    def __str__(self) -> str:
        """Return a line for each deployment."""
        lines = [f"{len(self.routes)} queries served in mode {self.mode}"]
        lines += [
            f"{d.deployment.name}: {d.replicas_ready} of {d.target_replicas} replicas ready, {d.requests} requests, "
            f"{d.queue_length} queued" + (f", {d.message}" if d.message else "")
            for d in self.deployments
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class AuditSample:
    """Answered request, kept for an audit."""

    query: str
    item_key: str
    configuration: str
    """`configuration_hash` of the configuration that answered."""
    value: bytes | None
    """Pickled input; None in a replay."""
    outputs: Mapping[str, bytes]
    """Sink -> pickled output."""

    @property
    def size_bytes(self) -> int:
        """Size of the input and all outputs."""
        return len(self.value or b"") + sum(map(len, self.outputs.values()))


@dataclass(frozen=True)
class AuditBatch:
    """Audit samples drained from an engine."""

    samples: tuple[AuditSample, ...]
    """Samples, oldest first within each part of the engine."""
    dropped: int = 0
    """Number of samples lost to buffer limits since the last drain."""


class Engine(Protocol):
    """Interface to deployments and routes. Implementations pass `circinus.testing.engine_conformance`."""

    async def apply(self, desired: DesiredState) -> None:
        """Reach the desired state, and return when every replica is ready. Deployments in both states keep running.

        Raises:
            ServingError: the change failed; the previous state stays deployed.
        """
        ...

    async def submit(self, request: Request) -> Response:
        """Send one request along its query's route.

        Raises:
            OverloadedError: the engine refused the request.
            ServingError: the query has no route, an operator failed on the request, or it was dropped (`DROPPED_LATE`).
        """
        ...

    async def status(self) -> EngineStatus:
        """Return the current status."""
        ...

    async def close(self) -> None:
        """End everything that the engine started, and wait until it has ended."""
        ...


Guard = Callable[[], Awaitable[None]]
"""Fencing check.

Raises a LeaseLostError if another controller holds the lease, and a ServingError if changes are not allowed for another
reason.
"""


@runtime_checkable
class FencedEngine(Protocol):
    """Engine whose changes take several steps in the calling process.

    A process that is suspended during a change may lose its lease to another controller. A local engine carries out
    changes itself, in order of arrival, and so needs only one fencing check before each call.
    """

    async def apply_fenced(self, desired: DesiredState, guard: Guard) -> None:
        """Apply a desired state as `Engine.apply` does, with a fencing check before every step.

        Args:
            desired: the state to reach.
            guard: fencing check, called before every step that changes something, also during a rollback. Once it
                raises, nothing is changed any more, not even back.

        Raises:
            LeaseLostError: the lease was lost; the deployed state now belongs to another controller.
            ServingError: as for `Engine.apply`; if the guard raised it, part of the change may be deployed.
        """
        ...


@runtime_checkable
class AuditableEngine(Protocol):
    """Engine that keeps audit samples, at the `Route.audit_rate` of each query."""

    async def drain_audits(self) -> AuditBatch:
        """Return all samples since the last call, and remove them from the engine.

        Raises:
            ServingError: the engine does not respond.
        """
        ...
