"""Running what was planned: engines behind one protocol, routes, links, and traffic to measure them with.

The processes of replicas import this package: names are looked up when they are used, so that replicas start at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circinus.serving.engine import (
        AuditableEngine,
        AuditBatch,
        AuditSample,
        DeploymentStatus,
        DesiredDeployment,
        DesiredState,
        Engine,
        EngineStatus,
        FencedEngine,
        Guard,
        Mode,
        Request,
        Response,
        Route,
        RouteStage,
        ServedBatch,
    )
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from circinus.serving import engine

        return getattr(engine, name)


__all__ = [
    "AuditBatch",
    "AuditSample",
    "AuditableEngine",
    "DeploymentStatus",
    "DesiredDeployment",
    "DesiredState",
    "Engine",
    "EngineStatus",
    "FencedEngine",
    "Guard",
    "Mode",
    "Request",
    "Response",
    "Route",
    "RouteStage",
    "ServedBatch",
]
