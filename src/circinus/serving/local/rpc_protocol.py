"""Messages between a client and the background engine.

Headers are JSON, so that nothing is run by reading a message, whoever sent it. Values of requests and their outputs are
payloads, which the engine hands on without reading them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from circinus.errors import ServingError
from circinus.operators.framing import FrameError, HeaderCodec
from circinus.operators.pickling import Payload
from circinus.serving.engine import AuditBatch, AuditSample, EngineStatus, Request, ResponseTimings
from circinus.specification.diagnostics import first_error

_MAX_HEADER_BYTES = 64 * 2**20
_MAX_PAYLOADS = 65_536
_MAX_PAYLOAD_BYTES = 2 * 2**30


class RpcMethod(StrEnum):
    """Operation of the engine."""

    APPLY = "apply"
    """Payload: the desired state as JSON."""
    LISTEN_HTTP = "listen_http"
    """Argument: address (host, port) for requests over HTTP, or None."""
    REQUIRE_TOKENS = "require_tokens"
    """Argument: `HttpTokens.text`, the hashes of the tokens of requests over HTTP."""
    SUBMIT = "submit"
    """Submit a request.

    Argument: `Request` without its value; payload: the pickled value. Content: (sinks, `ResponseTimings`); payloads:
    the pickled outputs of the sinks.
    """
    STATUS = "status"
    """Content: `EngineStatus`."""
    AUDITS = "audits"
    """Content: see `audit_reply`."""
    PING = "ping"
    """Answered at once, unless the engine is suspended or stuck."""
    CANCEL = "cancel"
    """Argument: id of an abandoned call. Not answered."""
    CLOSE = "close"
    """The connection closes when the process ends."""


class RpcRequest(NamedTuple):
    """Message from a client."""

    call_id: int
    """Id of the call within its connection, repeated in the reply."""
    method: RpcMethod
    argument: Any


class RpcReply(NamedTuple):
    """Message to a client."""

    call_id: int
    """Id of the call; `EVERY_CALL` for an error of all calls of the connection, which then closes."""
    error: str
    """Error message; empty after success."""
    content: Any
    code: str = ""
    location: str = ""
    hint: str = ""
    retry_after_s: float | None = None
    """Of an `OverloadedError`."""


EVERY_CALL = 0
TOO_MANY_CLIENTS = "engine.too_many_clients"
"""Code of the error of a client beyond those that the engine takes."""

_AuditHeader = tuple[tuple[tuple[str, str, str, bool, tuple[str, ...]], ...], int]
"""Query, item, configuration, whether there is a value, and sinks of each sample; number of dropped samples."""

_ARGUMENTS: Mapping[RpcMethod, Any] = {
    RpcMethod.LISTEN_HTTP: tuple[str, int] | None,
    RpcMethod.REQUIRE_TOKENS: str,
    RpcMethod.SUBMIT: Request,
    RpcMethod.CANCEL: int,
}
"""Types of arguments; the others have none."""
_PAYLOADS: Mapping[RpcMethod, int] = {RpcMethod.APPLY: 1, RpcMethod.SUBMIT: 1}
_CONTENTS: Mapping[RpcMethod, Any] = {
    RpcMethod.SUBMIT: tuple[tuple[str, ...], ResponseTimings],
    RpcMethod.STATUS: EngineStatus,
    RpcMethod.AUDITS: _AuditHeader,
}


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _encode(message: RpcRequest | RpcReply) -> bytes:
    return to_json(message, fallback=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot send a {type(value).__name__}")


def _decode_request(data: memoryview) -> RpcRequest:
    try:
        request = _adapter(RpcRequest).validate_json(bytes(data), strict=True)
        argument = _adapter(_ARGUMENTS.get(request.method)).validate_python(request.argument)
        return RpcRequest(request.call_id, request.method, argument)
    except ValidationError as error:
        raise FrameError(f"the request cannot be read: {first_error(error)}") from error


def _decode_reply(data: memoryview) -> RpcReply:
    try:
        reply: RpcReply = _adapter(RpcReply).validate_json(bytes(data), strict=True)
        return reply
    except ValidationError as error:
        raise FrameError(f"the reply cannot be read: {first_error(error)}") from error


REQUESTS_TO_ENGINE = HeaderCodec(
    _encode, _decode_request, _MAX_HEADER_BYTES, _MAX_PAYLOADS, _MAX_PAYLOAD_BYTES, reserved_bytes=2**20
)
"""Codec of connections whose other end is a client."""
REPLIES_OF_ENGINE = HeaderCodec(_encode, _decode_reply, _MAX_HEADER_BYTES, _MAX_PAYLOADS, _MAX_PAYLOAD_BYTES)
"""Codec of connections whose other end is the engine."""


def require_payloads(call: RpcRequest, payloads: Sequence[Payload]) -> None:
    """Raise a FrameError if a request has another number of payloads than its method."""
    if len(payloads) != (expected := _PAYLOADS.get(call.method, 0)):
        raise FrameError(f"{call.method} has {len(payloads)} payloads, expected {expected}")


def read_content(method: RpcMethod, content: Any) -> Any:
    """Return the typed content of a reply.

    Raises:
        ServingError: the content is of another type, as that of another version of Circinus may be.
    """
    try:
        return _adapter(_CONTENTS.get(method)).validate_python(content)
    except ValidationError as error:
        raise ServingError(
            f"the engine's reply to {method} cannot be read: {first_error(error)}",
            code="engine.unreadable_reply",
            hint="Use one version of Circinus for client and engine: run `circinus destroy`, then `circinus apply`.",
        ) from error


def audit_reply(batch: AuditBatch) -> tuple[Any, list[Payload]]:
    """Return the content and payloads of a reply with audit samples."""
    header = [
        (sample.query, sample.item_key, sample.configuration, sample.value is not None, tuple(sample.outputs))
        for sample in batch.samples
    ]
    values: list[Payload] = [
        value for sample in batch.samples for value in (sample.value, *sample.outputs.values()) if value is not None
    ]
    return (header, batch.dropped), values


def read_audits(content: Any, payloads: Sequence[Payload]) -> AuditBatch:
    """Return the audit samples of a reply.

    Raises:
        ServingError: see `read_content`.
    """
    header, dropped = read_content(RpcMethod.AUDITS, content)
    values = iter(payloads)
    samples = tuple(
        AuditSample(
            query,
            item_key,
            configuration,
            bytes(next(values)) if has_value else None,
            {sink: bytes(next(values)) for sink in sinks},
        )
        for query, item_key, configuration, has_value, sinks in header
    )
    return AuditBatch(samples, dropped)
