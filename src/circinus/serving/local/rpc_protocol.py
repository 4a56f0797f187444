"""Messages between a client and the background engine."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class RpcMethod(StrEnum):
    """Operation of the engine."""

    APPLY = "apply"
    """Argument: the desired state as JSON."""
    LISTEN_HTTP = "listen_http"
    """Argument: address (host, port) for requests over HTTP, or None."""
    SUBMIT = "submit"
    """Submit a request.

    Argument: `Request` without its value; payload: the pickled value. Content: (sinks, `ResponseTimings`); payloads:
    the pickled outputs of the sinks.
    """
    STATUS = "status"
    """Content: `EngineStatus`."""
    AUDITS = "audits"
    """Content: `AuditBatch`."""
    CANCEL = "cancel"
    """Argument: id of an abandoned call. Not answered."""
    CLOSE = "close"
    """No reply: the connection closes when the process ends."""


class RpcRequest(NamedTuple):
    """Message from a client."""

    call_id: int
    """Id of the call within its connection, repeated in the reply."""
    method: RpcMethod
    argument: Any


class RpcReply(NamedTuple):
    """Message to a client."""

    call_id: int
    error: str
    """Error message; empty after success."""
    content: Any
    code: str = ""
    location: str = ""
    hint: str = ""
    retry_after_s: float | None = None
    """Of an `OverloadedError`."""
