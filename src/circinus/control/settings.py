"""Settings of the controller: intervals, timeouts, thresholds and tolerances.

The parts `lost-node`, `bursts`, `quiet`, `drift` and `day` of `python -m benchmarks serving` measure their effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NodeSettings:
    """Time constants of the node tracker, measured by the benchmark `lost-node`."""

    lost_after_s: float = 1.0
    """Minimum duration of a loss: losses come in groups, and a heartbeat may merely be delayed."""
    back_after_s: float = 15.0
    """Minimum duration of a return: a returned machine may fail again, and plans should not oscillate."""
    max_doublings: int = 5
    """Maximum number of doublings of the wait; each return that did not last doubles it."""
    lasting_factor: float = 4.0
    """Multiple of its wait after which a return counts as lasting."""


@dataclass(frozen=True)
class CanarySettings:
    """Thresholds of canary analysis."""

    duration_s: float = 15.0
    """Duration of the analysis after deployment."""
    max_failed_share: float = 0.1
    """Share of a query's requests that may fail."""
    max_failure_ratio: float = 3.0
    """Maximum ratio to the baseline's failure rate; some queries get requests that every plan fails."""
    min_failures: int = 5
    """Minimum number of failures before the failure rate is compared."""
    min_answers: int = 20
    """Minimum number of answers before the latency is compared."""
    latency_margin: float = 0.1
    """Margin below the guaranteed share of answers in time, if the baseline met the latency SLO."""


@dataclass(frozen=True)
class DriftSettings:
    """False-alarm rate, tolerances and intervals of drift detection.

    The benchmark `quiet` compares false alarms with the promised rate, `drift` measures the time to detection.
    """

    false_alarm_every_s: float = 86400.0
    """Minimum expected time between false alarms of all monitors together."""
    reference_risk: float = 0.05
    """Probability that any baseline is outside its confidence bounds."""
    service_tolerance: float = 0.2
    """Relative tolerance of service times."""
    service_tolerance_s: float = 1e-3
    """Absolute tolerance of short service times: an engine keeps replicas by this much longer than operators take."""
    runs_tolerance: float = 0.2
    """Relative tolerance of the number of an operator's runs for a request."""
    accuracy_tolerance: float = 0.02
    """Tolerance of mean scores, as a share of the metric's range."""
    block_s: float = 15.0
    """Duration of blocks over which the share of late requests is taken, because late requests cluster."""
    block_answers: int = 10
    """Minimum number of requests per block."""
    max_alpha_budget_s: float = 60.0
    """Maximum alpha budget that an idle monitor accumulates, in seconds of traffic."""
    audit_interval_s: float = 1.0
    """Interval between requests to the engine for audit samples."""
    max_reruns: int = 4
    """Maximum number of re-runs of a reference per scoring call."""
    reprofile_budget_s: float = 60.0
    """Time budget of one re-profiling run."""
    backoff_s: float = 30.0
    """Backoff after failed re-profiling, and after a failure to set up monitors."""


@dataclass(frozen=True)
class ControlSettings:
    """Settings of the control loop."""

    interval_s: float = 0.25
    """Polling interval of the engine; the benchmark `bursts` measures the time to the first step."""
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
    file_poll_interval_s: float = 1.0
    """Polling interval of the plan files."""
    initial_replan_backoff_s: float = 2.0
    """Backoff after the first failed replanning; doubles with each failure, up to `max_backoff_s`."""
    nodes: NodeSettings = field(default_factory=NodeSettings)
    canary: CanarySettings = field(default_factory=CanarySettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
