"""Requests over HTTP, `POST /SITE/QUERY`: paths, headers, bodies and errors that all engines share."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value
from circinus.operators.process_output import without_excerpt
from circinus.serving.engine import DROPPED_LATE
from circinus.serving.router.request_messages import UNREADABLE_RESPONSE
from circinus.serving.router.router_core import DEADLINE_PASSED, RouterCore
from circinus.serving.settings import SERVING


def address_text(host: str | None, port: int) -> str:
    """Return an address as in a URL: hosts of IPv6 are in brackets."""
    return f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"


class TokenBucket:
    """Token bucket with a rate and a burst size (Turner, IEEE Communications Magazine 24, 1986).

    The clock is passed in.
    """

    def __init__(self, rate_per_s: float, burst: float) -> None:
        """Start with a full bucket.

        Args:
            rate_per_s: above 0.
            burst: burst size in requests, at least 1.
        """
        self.rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated_s: float | None = None

    def retry_after_s(self, now_s: float) -> float:
        """Admit a request and return 0, or return the seconds until the next one can be admitted."""
        if self._updated_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self.rate_per_s)
        self._updated_s = now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate_per_s


ITEM_HEADER = "circinus-item"
"""Key of the item, for messages and recordings; unique by default."""
DEADLINE_HEADER = "circinus-deadline-ms"
"""Milliseconds until the request expires."""
LATENCY_HEADER = "circinus-latency-ms"
_BURST_S = 10.0
"""Burst size in seconds of the admitted rate, so that random arrivals at that rate are rarely rejected."""
_MIN_BURST = 5.0
_STATUS = {DEADLINE_PASSED: 504, DROPPED_LATE: 504, UNREADABLE_RESPONSE: 406}
"""Statuses of errors by code; 500 for all others."""


class HttpAnswer(NamedTuple):
    """Response to an HTTP request."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}


class HttpRequests:
    """Handler of the HTTP requests of a router, whatever server receives them."""

    def __init__(self, core: RouterCore, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._buckets: dict[str, TokenBucket] = {}

    async def answer(
        self, method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], Awaitable[bytes]]
    ) -> HttpAnswer:
        """Handle a request.

        Args:
            method: method of the request.
            path: path of its URL.
            headers: headers by name in lower case.
            read_body: reads the body; not called for a request that is refused by its head.
        """
        *_, site, query = ("", "", *path.rstrip("/").split("/"))
        if method != "POST":
            return rejection(405, f"method {method} is not allowed. Send POST.", {"allow": "POST"})
        try:
            route = self._core.route(query)
        except ServingError as error:
            return rejection(404, str(error), code=error.code)
        if site != route.source:
            return rejection(404, f"requests of query {query} enter at /{route.source}/{query}", code="route.missing")
        if route.is_replay and ITEM_HEADER not in headers:
            return rejection(400, f"a replay answers recorded items only. Send the key of one in `{ITEM_HEADER}`.")
        if route.rate_limit_per_s is not None:
            wait_s = self._bucket(query, route.rate_limit_per_s).retry_after_s(self._loop.time())
            if wait_s > 0:
                reason = f"query {query}: the request rate exceeds the admitted {route.rate_limit_per_s:.3g}/s"
                return rejection(429, reason, {"retry-after": str(math.ceil(wait_s))})
        try:
            body = await read_body()
            value, left_s = pickle_value(_value(headers.get("content-type", ""), body)), _deadline_s(headers)
        except (ValueError, RecursionError) as error:
            return rejection(400, str(error))
        key = headers.get(ITEM_HEADER) or uuid.uuid4().hex
        try:
            pickled = await self._core.submit(query, key, value, float(len(body)), left_s)
            response = pickled.unpickle()
        except ServingError as error:
            # What operators print may be about requests of others.
            return rejection(_STATUS.get(error.code, 500), without_excerpt(str(error)), code=error.code)
        return _answer(response.output, response.timings.latency_s)

    def _bucket(self, query: str, rate_per_s: float) -> TokenBucket:
        bucket = self._buckets.get(query)
        if bucket is None or bucket.rate_per_s != rate_per_s:
            bucket = self._buckets[query] = TokenBucket(rate_per_s, max(_MIN_BURST, _BURST_S * rate_per_s))
        return bucket


def _value(content_type: str, body: bytes) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", ""):
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is not JSON: {error}. Send JSON, or another content type.") from error
    if kind == "text/plain":
        return body.decode("utf-8", errors="replace")
    if kind == "application/octet-stream" or kind.partition("/")[0] in ("audio", "image", "video"):
        return body
    raise ValueError(
        f"content type {kind} is not supported. Send application/json, text/plain, application/octet-stream, or an "
        "audio, image or video type."
    )


def _deadline_s(headers: Mapping[str, str]) -> float:
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return SERVING.default_deadline_s
    try:
        left_s = float(text) / 1e3
    except ValueError as error:
        raise ValueError(f"{DEADLINE_HEADER}: must be a number of milliseconds, got {text!r}") from error
    if not 0 < left_s < math.inf:
        raise ValueError(f"{DEADLINE_HEADER}: must be positive and finite, got {text!r}")
    return left_s


def _answer(output: Any, latency_s: float) -> HttpAnswer:
    headers = {LATENCY_HEADER: f"{latency_s * 1e3:.3f}"}
    if isinstance(output, bytes | bytearray):
        return HttpAnswer(200, "application/octet-stream", bytes(output), headers)
    try:
        return HttpAnswer(200, "application/json", json.dumps(output).encode(), headers)
    except (TypeError, ValueError, RecursionError):
        kind = type(output).__name__
        return rejection(406, f"the output is a {kind}, neither JSON nor bytes. Send the request through the engine.")


def rejection(status: int, reason: str, headers: Mapping[str, str] | None = None, code: str = "") -> HttpAnswer:
    """Return the answer to a request that failed or was refused, with its reason as JSON."""
    content = {"error": reason, "code": code} if code else {"error": reason}
    return HttpAnswer(status, "application/json", json.dumps(content).encode(), headers or {})
