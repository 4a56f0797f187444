"""JSON documents of desired states, which the background engine receives and keeps."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import TypeAdapter

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState
from circinus.specification.json_dump import parse_json


def validate_state(desired: DesiredState) -> None:
    """Raise an error if a state contradicts itself.

    Raises:
        ServingError: a deployment is duplicated or has no replicas, a pool is unknown, a route uses a deployment that
            is not in the state, or the shares of a split route do not add up to 1.
    """
    pools = {pool.name for pool in desired.infrastructure.pools}
    deployments = set()
    for target in desired.deployments:
        name = target.deployment.name
        if target.deployment in deployments:
            raise ServingError(
                "the deployment is listed twice", code="deployment.duplicate", location=f"deployment {name}"
            )
        if target.deployment.pool not in pools:
            raise ServingError(
                f"the infrastructure has no pool {target.deployment.pool}",
                code="deployment.unknown_pool",
                location=f"deployment {name}",
            )
        if target.replicas < 1:
            raise ServingError(
                f"the number of replicas must be at least 1, got {target.replicas}",
                code="deployment.no_replicas",
                location=f"deployment {name}",
            )
        deployments.add(target.deployment)
    queries = set()
    for route in desired.routes:
        if route.query in queries:
            raise ServingError(
                "the query has two routes", code="route.duplicate_query", location=f"query {route.query}"
            )
        queries.add(route.query)
        if min(part.share for part in route.parts) <= 0:
            raise ServingError(
                f"the shares of the route must be positive and sum to 1, got {[part.share for part in route.parts]}",
                code="route.invalid_shares",
                location=f"query {route.query}",
            )
        for stage in route.all_stages:
            if stage.deployment not in deployments:
                raise ServingError(
                    f"the route uses {stage.deployment.name}, which is not deployed",
                    code="route.missing_deployment",
                    location=f"query {route.query}",
                )


SCHEMA_VERSION = 7
_READABLE_VERSIONS = (2, 3, 4, 5, 6, SCHEMA_VERSION)
"""Schema versions that can be read: fields of later versions have a default."""
_UNSPLIT_VERSION, _ONE_RUN_VERSION, _SERVED_VERSION = 4, 5, 6
"""Schema versions of states without split routes, fan-outs and paused routes; without the latter two; and without
paused routes: they have nothing that readers of that version do not expect."""
_RENAMED_ROUTE_FIELDS = {"admitted_per_s": "rate_limit_per_s", "audited_share": "audit_rate"}
"""Field of a route up to version 3 -> current field."""

_ADAPTER = TypeAdapter(DesiredState)


def state_to_json(desired: DesiredState) -> str:
    """Return the JSON document of a state, the inverse of `state_from_json`."""
    version = _ONE_RUN_VERSION if any(route.others for route in desired.routes) else _UNSPLIT_VERSION
    if any(stage.flow is not None for route in desired.routes for stage in route.all_stages):
        version = _SERVED_VERSION
    if any(route.is_paused for route in desired.routes):
        version = SCHEMA_VERSION
    document = {"schema_version": version, "state": _ADAPTER.dump_python(desired, mode="json")}
    return json.dumps(document, indent=1)


def state_from_json(text: str) -> DesiredState:
    """Return the state of a JSON document.

    Raises:
        ServingError: the document is damaged, or has an unsupported schema version.
    """
    try:
        document: Any = parse_json(text)
        version = document["schema_version"]
        if version not in _READABLE_VERSIONS:
            raise ServingError(
                f"the desired state has schema version {version}, expected {SCHEMA_VERSION}",
                code="engine.other_schema",
                hint="Use the same version of Circinus for client and engine.",
            )
        state = document["state"]
        for route in state["routes"] if version < _UNSPLIT_VERSION else ():
            for old, new in _RENAMED_ROUTE_FIELDS.items():
                if old in route:
                    route[new] = route.pop(old)
        return _ADAPTER.validate_python(state, strict=False)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServingError(f"cannot read the desired state: {error}", code="engine.unreadable_state") from error


def state_fingerprint(desired: DesiredState) -> str:
    """Return a SHA-256 in hexadecimal that is equal for states that run the same.

    Covers the mode, the infrastructure with its emulated links, the deployments with their replicas and versions, and
    the routes, in any order. Excludes the paths, which may be relative or absolute.
    """
    read_back = state_from_json(state_to_json(desired))  # normalizes numbers: 1 and 1.0 CPUs are equal
    content = _ADAPTER.dump_python(read_back, mode="json", exclude={"module_paths", "recordings"})
    for field in ("deployments", "routes"):
        content[field] = sorted(json.dumps(entry, sort_keys=True) for entry in content[field])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
