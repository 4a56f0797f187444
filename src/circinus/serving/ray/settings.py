"""Settings of Ray and Ray Serve for short hops and quick recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circinus.serving.http_tokens import HttpTokens

REPLICA = "replica"
"""Name of the deployment in an operator's application."""
ROUTER = "router"
"""Name of the deployment in a router's application."""


def router_name(site: str) -> str:
    """Return the name of the application of a site's router."""
    return f"site-{site}"


SERVE_ENVIRONMENT: Mapping[str, str] = {
    # Operators compute in their own threads, so that replicas and routers need no separate event loop.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Values are sent in one message; Ray Serve's default limit is 4 MiB.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "2147483647",
    # Operators block, but health checks must not.
    "RAY_SERVE_RUN_SYNC_IN_THREADPOOL": "1",
    # When the cached queue length of a replica expires, Ray Serve queries it before sending, which adds a round trip.
    # The cache stays correct here, as a replica gets requests only from the router of its site.
    "RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S": "3600",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
"""Environment of every node of the cluster, set before Ray starts."""

NOT_IN_DRIVERS = ("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP")
"""Variables that must be unset in processes that are no replicas."""

HEAD_SETTINGS: Mapping[str, int] = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 250,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""`--system-config` of the head: a node that ended is detected after 1 s instead of 15 s, and an unresponsive one after
5 s."""

DEFAULT_HTTP = "127.0.0.1", 8000

POOL_LABEL = "circinus/pool"
"""Label of nodes whose value is their pool."""
POOL_RESOURCE = "pool:"
"""Prefix of the custom resource of a pool's nodes, followed by the pool's name."""


@dataclass(frozen=True)
class RaySettings:
    """Settings of an engine on a Ray cluster."""

    address: str = "auto"
    """Address of the cluster, as for `ray.init`."""
    http: tuple[str, int] | None = None
    """HTTP address (host, port) of the ingress of every node; None: the current one, or `DEFAULT_HTTP`. The host
    `0.0.0.0` means all addresses of a node."""
    tokens: HttpTokens | None = None
    """Tokens that requests over HTTP need; None: those that are deployed, if any."""


def placement_options(pool: str, *, labelled: bool) -> dict[str, object]:
    """Return the actor options that place an actor on a node of `pool`."""
    if labelled:
        return {"label_selector": {POOL_LABEL: pool}}
    return {"resources": {f"{POOL_RESOURCE}{pool}": 0.001}}


def pool_of_placement(options: Mapping[str, Any]) -> str | None:
    """Return the pool of `placement_options` among an actor's options; None: any node."""
    labels, resources = options.get("label_selector") or {}, options.get("resources") or {}
    pools = [name.removeprefix(POOL_RESOURCE) for name in resources if name.startswith(POOL_RESOURCE)]
    return labels.get(POOL_LABEL) or next(iter(pools), None)
