"""Intervals and timeouts of the controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from circinus.control.replanning.canary import CanarySettings
from circinus.control.replanning.replanner import ReplanSettings


@dataclass(frozen=True)
class ControlSettings:
    """Intervals and timeouts of the control loop."""

    interval_s: float = 0.25
    """Polling interval of the engine."""
    apply_wait_s: float = 0.1
    """Maximum time that an iteration waits for an apply; longer applies continue during later iterations."""
    status_timeout_s: float = 15.0
    """Timeout of a status request to the engine."""
    lease_s: float = 5.0
    """Duration of the lease; a successor waits this long after a crash."""
    initial_backoff_s: float = 1.0
    """Backoff after the first failed apply; doubles with each failure."""
    max_backoff_s: float = 60.0
    attempts: int = 3
    """Number of attempts to apply new plans before a rollback, if one is possible."""
    shutdown_timeout_s: float = 5.0
    """Maximum time to wait for background work at shutdown."""
    replanning: ReplanSettings = field(default_factory=ReplanSettings)
    canary: CanarySettings = field(default_factory=CanarySettings)
