"""Engine without processes, for tests of what controls an engine or sends it requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from circinus.errors import ServingError
from circinus.serving import DeploymentStatus, DesiredState, EngineStatus, Mode, Request, Response
from circinus.serving.engine import QueryStatus, ResponseTimings
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Deployment


@dataclass
class FakeEngine:
    """`Engine` that reaches every state at once and computes its answers; tests change its fields while it runs."""

    queries: tuple[str, ...] = ()
    """Queries with a route before the first `apply`."""
    answer: Callable[[Request], Any] = lambda request: request.value
    """Output of a request."""
    fails: Callable[[Request], bool] = lambda request: False
    """Whether a request fails."""
    error_code: str = "query.request_failed"
    """Code of the error of a failed request."""
    service_s: Callable[[Request, int], float | None] = lambda request, earlier: 0.05
    """Seconds until the response, by the number of earlier requests; None: never."""
    stage: str = ""
    """Operator that the seconds are reported for; empty: none."""
    link_bytes: Mapping[str, float] = field(default_factory=dict)
    part: Callable[[Request], int] = lambda request: 0
    """Index of the part of a split route that answers a request."""
    mode: Mode = Mode.REAL
    nodes: dict[str, int] = field(default_factory=dict)
    """Pool -> live nodes; a pool without nodes has no replicas. Empty: nodes are not reported."""
    refuses: Callable[[DesiredState], bool] = lambda desired: False
    """Whether a state cannot be reached."""
    received: list[tuple[float, Request]] = field(default_factory=list)
    """(time, request) of all requests."""
    applied: list[DesiredState] = field(default_factory=list)
    """States that were reached."""
    state: DesiredState | None = None
    """State in force."""
    entered: dict[str, int] = field(default_factory=dict)
    """Query -> requests received, as reported by the status; `failed` of them failed, all others were answered."""
    failed: dict[str, int] = field(default_factory=dict)
    queues: dict[Deployment, int] = field(default_factory=dict)
    """Deployment -> queue length, as reported by the status."""
    _fingerprint: tuple[DesiredState | None, str] = (None, "")
    """State and its fingerprint, which would dominate the time of a status."""

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`."""
        if self.refuses(desired) or not all(self._has_nodes(target.deployment) for target in desired.deployments):
            raise ServingError("the state cannot be reached", code="engine.refused")
        self.state = desired
        self.applied.append(desired)

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        self.received.append((begin_s, request))
        service_s = self.service_s(request, len(self.received) - 1)
        if service_s is None:
            await loop.create_future()
            raise AssertionError
        await asyncio.sleep(service_s)
        if self.fails(request):
            raise ServingError(f"item {request.item_key} is bad", code=self.error_code)
        stage_s = {self.stage: service_s} if self.stage else {}
        timings = ResponseTimings(loop.time() - begin_s, stage_s, stage_s, self.link_bytes, part=self.part(request))
        return Response(self.answer(request), timings)

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`."""
        if self._fingerprint[0] is not self.state:
            self._fingerprint = self.state, "" if self.state is None else state_fingerprint(self.state)
        return EngineStatus(
            mode=self.mode,
            deployments=tuple(
                DeploymentStatus(
                    deployment=desired.deployment,
                    target_replicas=desired.replicas,
                    replicas_ready=desired.replicas if self._has_nodes(desired.deployment) else 0,
                    queue_length=self.queues.get(desired.deployment, 0),
                    requests=0,
                    restarts=0,
                )
                for desired in (() if self.state is None else self.state.deployments)
            ),
            routes=self.queries if self.state is None else tuple(route.query for route in self.state.routes),
            state=self._fingerprint[1],
            queries=tuple(
                QueryStatus(query, count, count - self.failed.get(query, 0), self.failed.get(query, 0))
                for query, count in self.entered.items()
            ),
            nodes=self.nodes or None,
        )

    async def close(self) -> None:
        """Implement `Engine.close`."""

    def _has_nodes(self, deployment: Deployment) -> bool:
        return not self.nodes or self.nodes.get(deployment.pool, 0) > 0
