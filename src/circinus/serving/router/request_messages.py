"""Messages about requests: values on their way between operators, and responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from circinus.errors import ServingError
from circinus.operators.pickling import Payload, unpickle_value
from circinus.serving.engine import Response, ResponseTimings
from circinus.serving.router.compiled_route import CompiledRoute, ElementPath, RouteTransfer

UNREADABLE_RESPONSE = "engine.unreadable_response"
"""Code of the error of a response with a type that this process cannot import."""


class RequestContext(NamedTuple):
    """Request in flight. A tuple, because every hop makes some of these."""

    request_id: str
    """Id, unique among routers and their restarts."""
    item_key: str
    route: CompiledRoute
    entered_s: float
    """Time of entry, by the clock of the router that has the request."""
    timeout_s: float
    """Seconds from the entry to the deadline; infinite for none."""

    @property
    def expires_s(self) -> float:
        """Deadline, by the clock of `entered_s`."""
        return self.entered_s + self.timeout_s


RunKey = tuple[str, ElementPath]
"""Operator and path of a run."""


class RequestTrace(NamedTuple):
    """Service times and transfers of a request so far, along the paths of its values."""

    stage_s: Mapping[RunKey, float] = {}
    """Run -> seconds in service."""
    replica_s: Mapping[RunKey, float] = {}
    """Run -> the request's share of the replica's busy seconds."""
    sent_bytes: Mapping[tuple[str, ElementPath, str, str], float] = {}
    """(producer, path, target site, link) -> bytes. A shared part of two branches counts once; transfers to two sites
    over one link count twice."""
    wait_s: Mapping[RunKey, float] = {}
    """Run -> seconds from the arrival of its inputs to that of its output, less those in service."""

    @classmethod
    def joined(cls, *parts: RequestTrace) -> RequestTrace:
        """Merge the traces of values that are joined."""
        if len(parts) == 1:
            return parts[0]
        stage_s: dict[RunKey, float] = {}
        replica_s: dict[RunKey, float] = {}
        sent_bytes: dict[tuple[str, ElementPath, str, str], float] = {}
        wait_s: dict[RunKey, float] = {}
        for part in parts:
            stage_s |= part.stage_s
            replica_s |= part.replica_s
            sent_bytes |= part.sent_bytes
            wait_s |= part.wait_s
        return cls(stage_s, replica_s, sent_bytes, wait_s)

    def served(self, run: RunKey, service_s: float, replica_s: float, wait_s: float) -> RequestTrace:
        """Return the trace after one more run."""
        return RequestTrace(
            {**self.stage_s, run: service_s},
            {**self.replica_s, run: replica_s},
            self.sent_bytes,
            {**self.wait_s, run: wait_s},
        )

    def sent(self, run: RunKey, transfer: RouteTransfer, size_bytes: float) -> RequestTrace:
        """Return the trace after a transfer."""
        if not transfer.path:
            return self
        crossed = {(*run, transfer.site, link.name): size_bytes for link in transfer.path}
        return self._replace(sent_bytes={**self.sent_bytes, **crossed})

    @property
    def link_bytes(self) -> dict[str, float]:
        """Link -> bytes sent over it."""
        total: dict[str, float] = {}
        for (*_, link), size_bytes in self.sent_bytes.items():
            total[link] = total.get(link, 0.0) + size_bytes
        return total


def by_operator(seconds: Mapping[RunKey, float]) -> dict[str, float]:
    """Return operator -> seconds of all its runs."""
    total: dict[str, float] = {}
    for (operator, _), its_s in seconds.items():
        total[operator] = total.get(operator, 0.0) + its_s
    return total


class RouterMessage(NamedTuple):
    """Value for the consumers at one site, or a note that none will come."""

    context: RequestContext
    producer: str
    consumers: tuple[str, ...]
    """Operators there that need the value, or `RESULT`."""
    value: Payload | None
    """Pickled value; None in a replay, except for results, and in a note."""
    trace: RequestTrace
    path: ElementPath = ()
    branch: str | None = None
    """Branch of the value, which only some of the consumers may receive."""
    is_note: bool = False


@dataclass(frozen=True)
class PickledResponse:
    """Response with pickled outputs of the sinks."""

    outputs: Mapping[str, Payload]
    """Sink -> pickled output, in the order of the route."""
    timings: ResponseTimings

    def unpickle(self) -> Response:
        """Return the response with its output unpickled: that of the only sink, or a dict of several.

        Raises:
            ServingError: the type of an output cannot be imported in this process.
        """
        try:
            outputs = {sink: unpickle_value(output) for sink, output in self.outputs.items()}
        except Exception as error:  # unpickling of user types may raise anything
            raise ServingError(
                f"the response cannot be unpickled: {type(error).__name__}: {error}",
                code=UNREADABLE_RESPONSE,
                hint="Make the modules of its types importable in this process.",
            ) from error
        return Response(next(iter(outputs.values())) if len(outputs) == 1 else outputs, self.timings)
