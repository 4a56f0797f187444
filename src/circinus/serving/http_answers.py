"""Answers to HTTP requests, and the address that clients reach."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

_ANY_ADDRESS = ("", "0.0.0.0", "::")
_CODES = {
    400: "request.malformed", 401: "request.unauthorized", 403: "request.forbidden", 404: "request.not_found",
    405: "request.method_not_allowed", 406: "request.not_acceptable", 408: "request.timed_out",
    413: "request.too_large",
    429: "request.rate_exceeded", 431: "request.head_too_large", 501: "request.malformed",
    503: "request.refused",
}  # fmt: skip
"""Status -> code of refusals without a code of their own."""


class HttpAnswer(NamedTuple):
    """Response to an HTTP request."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}


def rejection(status: int, reason: str, headers: Mapping[str, str] | None = None, code: str = "") -> HttpAnswer:
    """Return the answer to a request that failed or was refused, with its reason as JSON."""
    content = {"error": reason, "code": code or _CODES.get(status, "request.failed")}
    return HttpAnswer(status, "application/json", json.dumps(content).encode(), headers or {})


class HttpRefusalError(Exception):
    """Refusal of a request; see `rejection` for its answer."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None, code: str = "") -> None:
        super().__init__(reason)
        self.answer = rejection(status, reason, headers, code)


def retry_header(wait_s: float = 0.0) -> dict[str, str]:
    """Return the header with the whole seconds to wait, at least 1, before a request is sent again."""
    return {"retry-after": str(max(1, math.ceil(wait_s)))}


def address_text(host: str | None, port: int) -> str:
    """Return an address as in a URL: hosts of IPv6 are in brackets."""
    return f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    return _host(f"//[{host}]" if ":" in host else f"//{host}") == "localhost"


def require_local_site(headers: Mapping[str, str], address: str = "") -> None:
    """Refuse requests of web pages in browsers on this machine, which may post text anywhere without asking.

    A browser sends the site of the page as `origin`. The page's own site may resolve to this machine; then `host` is
    that site. Behind an address that is any of the machine's, there is no list of right hosts.

    Raises:
        HttpRefusalError: the page or the host is of another machine.
    """
    if _host(headers.get("origin", "//localhost")) != "localhost":
        raise HttpRefusalError(403, "origin: web pages of other machines are not allowed")
    host = _host("//" + headers.get("host", "localhost"))
    if address not in _ANY_ADDRESS and host not in ("localhost", address.lower()):
        raise HttpRefusalError(403, f"host: must be {address} or localhost")


def _host(url: str) -> str:
    """Return the host of a URL, `localhost` for every loopback address."""
    host = ""
    with suppress(ValueError):  # neither a URL nor an address
        host = urlsplit(url).hostname or ""
        return "localhost" if ip_address(host).is_loopback else host
    return host
