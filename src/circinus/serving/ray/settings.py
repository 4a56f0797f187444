"""How Ray and Ray Serve are set up for short hops and quick recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REPLICA = "replica"
"""The deployment within an operator's application."""
ROUTER = "router"
"""The deployment within a router's application."""


def router_name(site: str) -> str:
    """Of the application of a site's router."""
    return f"site-{site}"


SERVE_ENVIRONMENT: Mapping[str, str] = {
    # Operators compute in threads of their own anyway: no other loop is needed to keep replicas and routers alive.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Values are sent whole; Ray Serve's own limit is 4 MiB.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "2147483647",
    # Operators block; health checks must not.
    "RAY_SERVE_RUN_SYNC_IN_THREADPOOL": "1",
    # Whoever has heard nothing of a replica for so long asks it before it sends: a round trip more across slow links.
    # What is known stays true here, as nobody but the router of its site gives a replica work.
    "RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S": "3600",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
"""Of every node of the cluster, before Ray starts there."""

NOT_IN_DRIVERS = ("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP")
"""What a process that is no replica must not have in its environment."""

HEAD_SETTINGS: Mapping[str, int] = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 250,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""`--system-config` of the head: a node that ended is noticed after a second, not fifteen, and one that only does not
answer after five."""

DEFAULT_HTTP = "127.0.0.1", 8000

POOL_LABEL = "circinus/pool"
"""Label whose value is the pool of a node."""
POOL_RESOURCE = "pool:"
"""What the custom resource of the nodes of a pool begins with; its name follows."""

HEALTH_CHECK_PERIOD_S = 1.0
HEALTH_CHECK_TIMEOUT_S = 3.0
"""Of replicas."""
ROUTER_TIMEOUT_S = 10.0
"""Of routers: one that has very much to do is slow to answer, and to end it would lose all that it has."""


@dataclass(frozen=True)
class RaySettings:
    """What an engine on Ray needs to know of its cluster."""

    address: str = "auto"
    """Of the cluster, as of `ray.init`."""
    http: tuple[str, int] | None = None
    """(host, port) that the entries of all nodes listen on for HTTP; None: where they do already, else `DEFAULT_HTTP`.
    The host `0.0.0.0` is all addresses of a node."""
    emulate_speeds: bool = False
    """Whether replicas take as long as the hardware of their pool would, where that is slower than their machine."""


def placement_options(pool: str, *, labelled: bool) -> dict[str, object]:
    """The part of an actor's options that has it run on a node of `pool`."""
    if labelled:
        return {"label_selector": {POOL_LABEL: pool}}
    return {"resources": {f"{POOL_RESOURCE}{pool}": 0.001}}


def pool_of_placement(options: Mapping[str, Any]) -> str | None:
    """The pool that `placement` is about among an actor's options; None: it may run anywhere."""
    labels, resources = options.get("label_selector") or {}, options.get("resources") or {}
    of_resources = [name.removeprefix(POOL_RESOURCE) for name in resources if name.startswith(POOL_RESOURCE)]
    return labels.get(POOL_LABEL) or next(iter(of_resources), None)
