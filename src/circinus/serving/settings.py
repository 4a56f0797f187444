"""Settings of serving: limits, timeouts and intervals.

The parts `kills`, `bursts` and `lost-node` of `python -m benchmarks serving` measure what the timeouts cost.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingSettings:
    """Limits, timeouts and intervals of engines and load tests."""

    # Both engines
    admission_headroom: float = 1.2
    """Admission limit over the planned peak rate. Beyond it, SLOs are not guaranteed."""
    max_replica_losses: int = 2
    """Number of replica losses after which an item fails, as it is the likely cause."""
    batch_limit_factor: float = 20.0
    min_batch_limit_s: float = 10.0
    """Time limit of a batch over the time of a full batch of the slowest profiled item, and the least limit. With six
    busy processes on two cores, batches of 5, 50 and 400 ms took up to 18, 10 and 8 times their time alone. A replica
    that exceeds it hangs."""
    first_batch_limit_s: float = 60.0
    """Least limit of the first batch of a replica, which may compile."""
    default_deadline_s: float = 300.0
    """Deadline of a request that specifies none."""
    deadline_margin: float = 0.1
    """Share of the time to the deadline that expected waits must leave, as requests that end just late are wasted."""
    drop_margin: float = 0.25
    """Share of the latest start by which an expected start must exceed it, besides a batch, for a request to be refused
    that would be dropped as late: some of those before it will be dropped, too."""
    max_waiting_bytes: int = 256 * 2**20
    """Limit of the inputs of unanswered requests of an engine (on Ray: of a router), and of the inputs that its queues
    hold, and of the bodies that arrive over HTTP. Beyond it, requests are refused."""
    max_paused_requests: int = 64
    paused_share: float = 0.25
    """Limits of the requests of paused queries of an engine (on Ray: of a router), in requests and as a share of
    `max_waiting_bytes`. They must leave connections and memory for served queries."""
    request_bytes: int = 4096
    """Memory of an unanswered request in addition to its input."""
    sweep_period_s: float = 1.0
    """Period after which the inputs of ended requests are freed."""
    recent_batches: int = 32
    """Length of the batch history: a poll every 0.25 s misses none at 100 batches a second."""
    recent_requests: int = 200
    """Number of completed requests per query in the history."""
    audit_samples: int = 256
    audit_bytes: int = 64 * 2**20
    """Limits of the audit buffer; beyond either, the oldest samples are dropped."""

    # Load tests
    observation_requests: int = 30
    """Minimum number of requests of an observation. It also needs `MIN_ITEMS` distinct items, as a standard error from
    fewer clusters is too uncertain."""
    warm_up_batches: int = 3
    """Number of first batches of a replica that are skipped. The first one pays for initialization on first use
    (kernels, buffers, thread pools, pages of the model), the next ones for compilation and growth after inputs were
    seen. The unit is batches, not seconds, because an idle replica does not warm up."""
    max_lag_p99_s: float = 0.010
    """Lag at the 99th percentile above which the generator is reported as late."""

    # Local engine
    daemon_start_timeout_s: float = 30.0
    daemon_close_timeout_s: float = 30.0
    daemon_status_timeout_s: float = 30.0
    daemon_clear_timeout_s: float = 10.0
    """Maximum wait for the end of an engine that does not respond."""
    replica_exit_timeout_s: float = 5.0
    """Time for a draining replica to exit, before it is killed, and for the fork server to tell of a replica's end."""
    http_connections: int = 256
    http_connections_per_peer: int = 128
    """Limit of the connections from one other machine, so that it cannot take all."""
    http_head_bytes: int = 16 * 2**10
    http_body_bytes: int = 64 * 2**20
    http_json_values: int = 500_000
    """Limit of the commas and brackets of a body in JSON: values take far more memory and time than their text."""
    http_idle_timeout_s: float = 60.0
    http_head_timeout_s: float = 10.0
    http_body_timeout_s: float = 60.0
    """Limits of clients over HTTP; the last timeout is also that of sending an answer."""
    http_linger_s: float = 2.0
    """Time for a client to close its end after the last answer."""
    http_close_grace_s: float = 1.0
    """Time for the answers of requests that fail because the engine is closed."""
    restart_backoff_s: float = 0.1
    max_restart_backoff_s: float = 10.0
    watch_period_s: float = 0.5
    """Period after which replicas are checked for hanging and for their memory. Each counts as twice that at most, so
    that no replica is charged with time in which the engine was suspended or had no CPU."""
    max_absence_s: float = 30.0
    """Time for which requests wait for a deployment whose only replicas ended, while replacements cannot start."""
    memory_warning: float = 1.5
    memory_limit: float = 2.0
    memory_margin_bytes: int = 128 * 2**20
    """Resident memory of a replica, over the planned one and in addition to that, beyond which the status warns; and
    over the planned one or that after the first batches, beyond which it is replaced between batches."""

    # Ray
    health_check_period_s: float = 1.0
    replica_health_timeout_s: float = 3.0
    router_health_timeout_s: float = 10.0
    """Longer than that of replicas, as restarting a busy router loses all its requests."""
    observe_timeout_s: float = 12.0
    """Timeout of an observation of the cluster, slightly longer than the timeouts of the calls within it."""
    change_timeout_s: float = 60.0
    """Timeout for connecting, or for deploying."""
    serve_start_timeout_s: float = 120.0
    """Timeout for starting Ray Serve."""
    router_timeout_s: float = 5.0
    """Timeout after which a router counts as gone, because calls of a router without replica never return."""
    head_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0
    """Timeout of a call of Ray Serve's controller."""
    accept_timeout_s: float = 30.0
    """Timeout of Ray Serve's controller for accepting a deployment."""
    lease_timeout_s: float = 5.0
    start_timeout_s: float = 600.0
    """Timeout for starting replicas. Models may be large, and machines slow."""
    restore_timeout_s: float = 30.0
    drain_timeout_s: float = 60.0
    """Timeout of requests in flight on removed deployments, and of a removed replica for its batch."""
    end_timeout_s: float = 90.0
    router_status_timeout_s: float = 2.0
    """Timeout of a router when the status is polled."""
    profiling_start_timeout_s: float = 60.0
    """Timeout of a node for giving an actor its CPUs and importing dependencies."""


SERVING = ServingSettings()
