"""Whether a desired state makes sense, whatever the engine."""

from __future__ import annotations

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
            raise ServingError(f"deployment {name} is listed twice")
        if wanted.deployment.pool not in pools:
            raise ServingError(f"deployment {name}: found no pool {wanted.deployment.pool} in the infrastructure")
        if wanted.replicas < 1:
            raise ServingError(f"deployment {name}: found {wanted.replicas} replicas, expected at least 1")
        listed.add(wanted.deployment)
    queries = set()
    for route in desired.routes:
        if route.query in queries:
            raise ServingError(f"query {route.query} has two routes")
        queries.add(route.query)
        for stage in route.stages:
            if stage.deployment not in listed:
                raise ServingError(f"query {route.query} is routed to {stage.deployment.name}, which is not deployed")
