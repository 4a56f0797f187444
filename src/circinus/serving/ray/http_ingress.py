"""HTTP ingress of a site: `POST /SITE/QUERY`."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from typing import TYPE_CHECKING, Any

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value
from circinus.serving.engine import DROPPED_LATE
from circinus.serving.router.router_core import DEADLINE_PASSED, RouterCore
from circinus.serving.settings import SERVING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


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


class HttpIngress:
    """Handles the HTTP requests of one site."""

    def __init__(self, core: RouterCore, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._buckets: dict[str, TokenBucket] = {}

    async def answer(self, request: Request) -> Response:
        """Handle a request and return its response."""
        query = request.url.path.rstrip("/").rpartition("/")[2]
        if request.method != "POST":
            return _rejection(405, f"method {request.method} is not allowed. Send POST.", {"allow": "POST"})
        try:
            route = self._core.route(query)
        except ServingError as error:
            return _rejection(404, str(error), code=error.code)
        if route.rate_limit_per_s is not None:
            wait_s = self._bucket(query, route.rate_limit_per_s).retry_after_s(self._loop.time())
            if wait_s > 0:
                reason = f"query {query}: the request rate exceeds the admitted {route.rate_limit_per_s:.3g}/s"
                return _rejection(429, reason, {"retry-after": str(math.ceil(wait_s))})
        try:
            body = await request.body()
            value, left_s = _value(request.headers.get("content-type", ""), body), _deadline_s(request.headers)
        except ValueError as error:
            return _rejection(400, str(error))
        key = request.headers.get(ITEM_HEADER) or uuid.uuid4().hex
        try:
            pickled = await self._core.submit(query, key, pickle_value(value), float(len(body)), left_s)
            response = pickled.unpickle()
        except ServingError as error:
            status = 504 if error.code in (DEADLINE_PASSED, DROPPED_LATE) else 500
            return _rejection(status, str(error), code=error.code)
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
        except ValueError as error:
            raise ValueError(f"the body is not JSON: {error}. Send JSON, or another content type.") from error
    if kind == "text/plain":
        return body.decode("utf-8", errors="replace")
    if kind == "application/octet-stream":
        return body
    raise ValueError(
        f"content type {kind} is not supported. Send application/json, text/plain or application/octet-stream."
    )


def _deadline_s(headers: Any) -> float:
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


def _answer(output: Any, latency_s: float) -> Response:
    from starlette.responses import Response

    headers = {LATENCY_HEADER: f"{latency_s * 1e3:.3f}"}
    if isinstance(output, bytes | bytearray):
        return Response(bytes(output), media_type="application/octet-stream", headers=headers)
    try:
        return Response(json.dumps(output), media_type="application/json", headers=headers)
    except TypeError:
        kind = type(output).__name__
        return _rejection(406, f"the output is a {kind}, neither JSON nor bytes. Send the request through the engine.")


def _rejection(status: int, reason: str, headers: dict[str, str] | None = None, code: str = "") -> Response:
    from starlette.responses import JSONResponse

    content = {"error": reason, "code": code} if code else {"error": reason}
    return JSONResponse(content, status_code=status, headers=headers)
