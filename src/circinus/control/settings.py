"""Times of the controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from circinus.control.replanning.canary import CanarySettings
from circinus.control.replanning.replanner import ReplanSettings


@dataclass(frozen=True)
class ControlSettings:
    """Times of the loop."""

    interval_s: float = 0.25
    """From one look to the next."""
    apply_wait_s: float = 0.1
    """How long a look waits for what it began to bring about; beyond that, that goes on beside the next looks."""
    status_timeout_s: float = 15.0
    """How long an engine may take to say what it runs."""
    lease_s: float = 5.0
    """How long another controller must wait for one that ended without a word."""
    initial_backoff_s: float = 1.0
    """Before what could not be brought about is tried again; doubles every time."""
    max_backoff_s: float = 60.0
    attempts: int = 3
    """Times that new plans are tried to be brought about before those before them come back, where they can."""
    shutdown_timeout_s: float = 5.0
    """How long what goes on beside the loop is waited for in the end."""
    replanning: ReplanSettings = field(default_factory=ReplanSettings)
    trial: CanarySettings = field(default_factory=CanarySettings)
