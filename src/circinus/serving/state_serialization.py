"""A desired state as a JSON document: what the background engine is sent and keeps."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState


def validate_state(desired: DesiredState) -> None:
    """Refuse a state that contradicts itself.

    Raises:
        ServingError: a deployment is listed twice or without replicas, a pool is unknown, or a route uses a deployment
            that is not listed.
    """
    pools = {pool.name for pool in desired.infrastructure.pools}
    listed = set()
    for wanted in desired.deployments:
        name = wanted.deployment.name
        if wanted.deployment in listed:
            raise ServingError(
                "the deployment is listed twice", code="deployment.duplicate", location=f"deployment {name}"
            )
        if wanted.deployment.pool not in pools:
            raise ServingError(
                f"the infrastructure has no pool {wanted.deployment.pool}",
                code="deployment.unknown_pool",
                location=f"deployment {name}",
            )
        if wanted.replicas < 1:
            raise ServingError(
                f"the number of replicas must be at least 1, got {wanted.replicas}",
                code="deployment.no_replicas",
                location=f"deployment {name}",
            )
        listed.add(wanted.deployment)
    queries = set()
    for route in desired.routes:
        if route.query in queries:
            raise ServingError(
                "the query has two routes", code="route.duplicate_query", location=f"query {route.query}"
            )
        queries.add(route.query)
        for stage in route.stages:
            if stage.deployment not in listed:
                raise ServingError(
                    f"the route uses {stage.deployment.name}, which is not deployed",
                    code="route.missing_deployment",
                    location=f"query {route.query}",
                )


SCHEMA_VERSION = 4
_READABLE = (2, 3, SCHEMA_VERSION)
"""Schema versions that can be read: fields that a later version adds have a default."""
_RENAMED = {"admitted_per_s": "rate_limit_per_s", "audited_share": "audit_rate"}
"""Fields of routes: name up to version 3 -> present name."""

_ADAPTER = TypeAdapter(DesiredState)


def state_to_json(desired: DesiredState) -> str:
    """The document; `state_from_json` gives an equal state back."""
    document = {"schema_version": SCHEMA_VERSION, "state": _ADAPTER.dump_python(desired, mode="json")}
    return json.dumps(document, indent=1)


def state_from_json(text: str) -> DesiredState:
    """The state in a document.

    Raises:
        ServingError: it is damaged, or of another schema version.
    """
    try:
        document: Any = json.loads(text)
        version = document["schema_version"]
        if version not in _READABLE:
            raise ServingError(
                f"found schema version {version} of a desired state, expected {SCHEMA_VERSION}",
                code="engine.other_schema",
            )
        state = document["state"]
        for route in state["routes"] if version < SCHEMA_VERSION else ():
            for old, new in _RENAMED.items():
                if old in route:
                    route[new] = route.pop(old)
        return _ADAPTER.validate_python(state, strict=False)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ServingError(f"the desired state cannot be read: {error}", code="engine.unreadable_state") from error


def state_fingerprint(desired: DesiredState) -> str:
    """SHA-256, in hexadecimal, that two states share when the same would run.

    Covers the mode, the infrastructure whose links are emulated, the deployments with their replicas and versions, and
    the routes, in whatever order they are listed. Not the paths, which are written one way or another.
    """
    read_back = state_from_json(state_to_json(desired))  # so that 1 and 1.0 are the same number of CPUs
    content = _ADAPTER.dump_python(read_back, mode="json", exclude={"module_paths", "recordings"})
    for listed in ("deployments", "routes"):
        content[listed] = sorted(json.dumps(entry, sort_keys=True) for entry in content[listed])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
