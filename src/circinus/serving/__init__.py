"""Running what was planned: engines behind one protocol, routes, links, and traffic to measure them with.

Replicas import this package, so it loads no more than it must: `circinus.serving.deploy`, `.load`, `.measurement` and
`.local` are imported by those who use them.
"""

from circinus.serving.engine import (
    DeploymentStatus,
    DesiredDeployment,
    DesiredState,
    Engine,
    EngineStatus,
    Mode,
    Request,
    Response,
    Route,
    RouteStage,
)

__all__ = [
    "DeploymentStatus",
    "DesiredDeployment",
    "DesiredState",
    "Engine",
    "EngineStatus",
    "Mode",
    "Request",
    "Response",
    "Route",
    "RouteStage",
]
