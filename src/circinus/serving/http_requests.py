"""Requests over HTTP, `POST /SITE/QUERY`: paths, headers, bodies and errors that all engines share."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from circinus.errors import OverloadedError, ServingError
from circinus.operators.pickling import pickle_value
from circinus.operators.process_output import without_excerpt
from circinus.serving.engine import DROPPED_LATE
from circinus.serving.http_answers import HttpAnswer, HttpRefusalError, rejection, retry_header
from circinus.serving.http_bodies import RequestBodies, declared_bytes, decode_body, media_type
from circinus.serving.http_tokens import HttpTokens, may_use
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.router.entry_route import ROUTE_MISSING, missing_route
from circinus.serving.router.overload import INPUT_TOO_LARGE
from circinus.serving.router.request_messages import UNREADABLE_RESPONSE
from circinus.serving.router.router_core import DEADLINE_PASSED, RouterCore
from circinus.serving.settings import SERVING


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

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a request can be admitted."""
        if self._updated_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self.rate_per_s)
        self._updated_s = now_s
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self.rate_per_s

    def retry_after_s(self, now_s: float) -> float:
        """Admit a request and return 0, or return the seconds until the next one can be admitted."""
        wait_s = self.wait_s(now_s)
        if wait_s == 0.0:
            self._tokens -= 1.0
        return wait_s


ITEM_HEADER = "circinus-item"
"""Key of the item, for messages and recordings; unique by default."""
DEADLINE_HEADER = "circinus-deadline-ms"
"""Milliseconds until the request expires."""
LATENCY_HEADER = "circinus-latency-ms"
_BURST_S = 10.0
"""Burst size in seconds of the admitted rate, so that random arrivals at that rate are rarely rejected."""
_MIN_BURST = 5.0
_LARGE_BODY_BYTES = 2**16
"""Size above which decoding a body delays other requests noticeably."""
_STATUS = {
    DEADLINE_PASSED: 504, DROPPED_LATE: 504, UNREADABLE_RESPONSE: 406, ROUTE_MISSING: 404, INPUT_TOO_LARGE: 413
}  # fmt: skip
"""Statuses of errors by code; 500 for all others."""


class HttpRequests:
    """Handler of the HTTP requests of a router, whatever server receives them."""

    def __init__(self, core: RouterCore, loop: asyncio.AbstractEventLoop, tokens: HttpTokens | None = None) -> None:
        self.tokens = tokens or HttpTokens()
        """Tokens of the clients; may be replaced at any time."""
        self._core = core
        self._loop = loop
        self._buckets: dict[str, TokenBucket] = {}
        self._bodies = RequestBodies()
        self._decoding = asyncio.Lock()

    async def answer(
        self, method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], AsyncIterator[bytes]]
    ) -> HttpAnswer:
        """Handle a request.

        A request uses up the rate of its query only if it is valid and not refused.

        Args:
            method: method of the request.
            path: path of its URL.
            headers: headers by name in lower case.
            read_body: yields the body; not called for a request that is refused by its head.
        """
        try:
            query, route = self._route(method, path, headers)
            self._require_rate(query, route.rate_limit_per_s)
            kind, left_s = media_type(headers), _deadline_s(headers)
            self._core.require_admission(route, declared_bytes(headers), left_s)
            async with self._bodies.read(read_body()) as body:
                if len(body) > _LARGE_BODY_BYTES:
                    async with self._decoding:  # one after the other, so that other requests have their turns
                        await asyncio.sleep(0)
                value, input_bytes = pickle_value(decode_body(kind, body)), float(len(body))
            del body
            query, route = self._route(method, path, headers)  # routes and tokens may have changed while it arrived
            self._core.require_admission(route, len(value), left_s)
            self._require_rate(query, route.rate_limit_per_s, admits=True)
            key = headers.get(ITEM_HEADER) or uuid.uuid4().hex
            response = (await self._core.submit(query, key, value, input_bytes, left_s)).unpickle()
        except HttpRefusalError as error:
            return error.answer
        except OverloadedError as error:
            return rejection(503, str(error), retry_header(error.retry_after_s), code=error.code)
        except ServingError as error:
            # Neither names of other queries nor what operators print, which may be about requests of others.
            is_missing = error.code == ROUTE_MISSING
            reason = f"query {query} was removed" if is_missing else without_excerpt(str(error))
            return rejection(_STATUS.get(error.code, 500), reason, code=error.code)
        return _answer(response.output, response.timings.latency_s)

    def _route(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[str, CompiledRoute]:
        """Return the query of a request and its route.

        Raises:
            HttpRefusalError: the head of the request is wrong, or its token is not valid for the query.
        """
        tenants = self.tokens.tenants(headers)
        if method != "POST":
            raise HttpRefusalError(405, f"method {method} is not allowed. Send POST.", {"allow": "POST"})
        if not self._core.has_state:  # a new engine, such as one after a crash
            raise HttpRefusalError(503, "the engine has no plan yet. Send again later.", retry_header())
        site, query = _entry(path)
        route = self._core.route(query) if self._core.has_route(query) else None
        if route is None or not may_use(tenants, route.tenant):  # neither is told from the other
            visible = [name for name, parts in self._core.routes.items() if may_use(tenants, parts[0].tenant)]
            raise HttpRefusalError(404, str(missing_route(query, visible)), code=ROUTE_MISSING)
        if site != route.source:
            reason = f"requests of query {query} enter at /{route.source}/{query}"
            raise HttpRefusalError(404, reason, code=ROUTE_MISSING)
        if route.is_replay and ITEM_HEADER not in headers:
            reason = f"a replay answers recorded items only. Send the key of one in `{ITEM_HEADER}`."
            raise HttpRefusalError(400, reason)
        return query, route

    def _require_rate(self, query: str, rate_per_s: float | None, *, admits: bool = False) -> None:
        """Refuse a request beyond the rate of its query, before its body is read and again when it is admitted.

        Raises:
            HttpRefusalError: the rate is exceeded.
        """
        if rate_per_s is None:
            return
        bucket, now_s = self._bucket(query, rate_per_s), self._loop.time()
        wait_s = bucket.retry_after_s(now_s) if admits else bucket.wait_s(now_s)
        if wait_s > 0:
            reason = f"query {query}: the request rate exceeds the admitted {rate_per_s:.3g}/s"
            raise HttpRefusalError(429, reason, retry_header(wait_s))

    def _bucket(self, query: str, rate_per_s: float) -> TokenBucket:
        bucket = self._buckets.get(query)
        if bucket is None or bucket.rate_per_s != rate_per_s:
            bucket = self._buckets[query] = TokenBucket(rate_per_s, max(_MIN_BURST, _BURST_S * rate_per_s))
        return bucket


def _entry(path: str) -> tuple[str, str]:
    """Return site and query of a path `/SITE/QUERY`, and empty names of any other path."""
    root, *names = path.removesuffix("/").split("/")
    return (names[0], names[1]) if root == "" and len(names) == 2 else ("", "")


def _deadline_s(headers: Mapping[str, str]) -> float:
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return SERVING.default_deadline_s
    try:
        left_s = float(text) / 1e3
    except ValueError:
        left_s = math.nan
    if not 0 < left_s < math.inf:
        reason = f"{DEADLINE_HEADER}: must be a positive, finite number of milliseconds, got {text!r}"
        raise HttpRefusalError(400, reason)
    return left_s


def _answer(output: Any, latency_s: float) -> HttpAnswer:
    headers = {LATENCY_HEADER: f"{latency_s * 1e3:.3f}"}
    if isinstance(output, bytes | bytearray):
        return HttpAnswer(200, "application/octet-stream", bytes(output), headers)
    try:
        return HttpAnswer(200, "application/json", json.dumps(output, allow_nan=False).encode(), headers)
    except ValueError as error:
        return rejection(406, f"the output is no JSON: {error}. Return null in place of a number that is not finite.")
    except (TypeError, RecursionError):
        kind = type(output).__name__
        return rejection(406, f"the output is a {kind}, neither JSON nor bytes. Send the request through the engine.")
