"""The HTTP entry of a site: `POST /SITE/QUERY`."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from typing import TYPE_CHECKING, Any

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import pickle_value
from circinus.serving.pickled_response import unpickle_response
from circinus.serving.ray.site_router import DeadlinePassedError, NoRouteError, SiteRouterCore

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class TokenBucket:
    """A token bucket: so many requests a second, and so many at once after a lull (Turner, IEEE Communications
    Magazine 24, 1986). Pure: told the time."""

    def __init__(self, rate_per_s: float, at_once: float) -> None:
        """Full.

        Args:
            rate_per_s: above 0.
            at_once: at least 1.
        """
        self.rate_per_s = rate_per_s
        self._at_once = at_once
        self._tokens = at_once
        self._since_s: float | None = None

    def retry_after_s(self, now_s: float) -> float:
        """Let a request in and give 0, or give the seconds after which the next one will be let in."""
        if self._since_s is not None:
            self._tokens = min(self._at_once, self._tokens + (now_s - self._since_s) * self.rate_per_s)
        self._since_s = now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate_per_s


ITEM_HEADER = "circinus-item"
"""Key of the item, for messages and recordings; by default one of its own."""
DEADLINE_HEADER = "circinus-deadline-ms"
"""Milliseconds until nobody wants the answer any more."""
LATENCY_HEADER = "circinus-latency-ms"
_AT_ONCE_S = 10.0
"""Seconds whose requests may come at once after a lull: random arrivals at the admitted rate are hardly refused."""
_LEAST_AT_ONCE = 5.0


class HttpIngress:
    """Answers requests that come over HTTP to one site."""

    def __init__(self, board: SiteRouterCore, loop: asyncio.AbstractEventLoop) -> None:
        self._board = board
        self._loop = loop
        self._admissions: dict[str, TokenBucket] = {}

    async def answer(self, request: Request) -> Response:
        """What comes of one."""
        query = request.url.path.rstrip("/").rpartition("/")[2]
        if request.method != "POST":
            return _refusal(405, "send POST", {"allow": "POST"})
        try:
            route = self._board.route(query)
        except NoRouteError as error:
            return _refusal(404, str(error))
        if route.admitted_per_s is not None:
            wait_s = self._admission(query, route.admitted_per_s).retry_after_s(self._loop.time())
            if wait_s > 0:
                reason = f"query {query}: more requests come than the {route.admitted_per_s:.3g}/s that are let in"
                return _refusal(429, reason, {"retry-after": str(math.ceil(wait_s))})
        try:
            body = await request.body()
            value, left_s = _value(request.headers.get("content-type", ""), body), _left_s(request.headers)
        except ValueError as error:
            return _refusal(400, str(error))
        key = request.headers.get(ITEM_HEADER) or uuid.uuid4().hex
        try:
            found = await self._board.submit(query, key, pickle_value(value), float(len(body)), left_s)
            response = unpickle_response(found)
        except DeadlinePassedError as error:
            return _refusal(504, str(error))
        except ServingError as error:
            return _refusal(500, str(error))
        return _answer(response.output, response.latency_s)

    def _admission(self, query: str, rate_per_s: float) -> TokenBucket:
        known = self._admissions.get(query)
        if known is None or known.rate_per_s != rate_per_s:
            known = self._admissions[query] = TokenBucket(rate_per_s, max(_LEAST_AT_ONCE, _AT_ONCE_S * rate_per_s))
        return known


def _value(content_type: str, body: bytes) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", ""):
        try:
            return json.loads(body)
        except ValueError as error:
            raise ValueError(f"the body is no JSON ({error}); send JSON, or another content type") from error
    if kind == "text/plain":
        return body.decode("utf-8", errors="replace")
    if kind == "application/octet-stream":
        return body
    raise ValueError(f"found content type {kind}, expected application/json, text/plain or application/octet-stream")


def _left_s(headers: Any) -> float | None:
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        left_s = float(text) / 1e3
    except ValueError as error:
        raise ValueError(f"{DEADLINE_HEADER}: found {text!r}, expected milliseconds") from error
    if not 0 < left_s < math.inf:
        raise ValueError(f"{DEADLINE_HEADER}: found {text!r}, expected milliseconds above 0")
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
        return _refusal(406, f"the output is a {kind}, which is no JSON and no bytes; ask through the engine instead")


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": reason}, status_code=status, headers=headers)
