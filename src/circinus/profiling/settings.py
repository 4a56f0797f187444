"""Settings of profiling, measured by `python -m benchmarks profiling` and `python -m benchmarks search`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProfilingSettings:
    """Shares, limits and counts of profiling."""

    first_round_share: float = 0.4
    """Share of the budget for the first round; exceeded if one item of each configuration takes longer."""
    allocation_share: float = 0.2
    """Maximum share of the budget for allocations before scores get more precise."""
    decision_share: float = 0.2
    """Maximum share of the time for a sampler's decisions; in spaces too large to list, one may exceed it where nothing
    else is left to measure."""
    overhead_share: float = 0.1
    """Overhead of an increment relative to its measurement from which the increment gets more items. A configuration
    exceeds the items that it needs by one increment at most, so that longer ones would save less than they waste. From
    this share on a comparison of usages waits for more configurations, too."""
    first_profile_share: float = 0.5
    """Share of the budget for the first profile, whose verdicts rest on declared speeds."""
    latency_risk_share: float = 0.1
    """Share of a run's risk for statements about latency SLOs: these are seldom close, and scores need the rest."""
    speed_risk: float = 0.05
    """Probability that the speed of any operator of one configuration on one class lies outside its bounds."""
    latency_margin: float = 0.05
    """Relative excess of a time over its limit that counts as exceeding."""
    min_question_value: float = 0.02
    """Minimum value of an open question, as a share of the weight of its SLO requirement."""
    usage_tolerance: float = 0.05
    """Relative excess in usage up to which a configuration may replace another."""
    min_usage_tolerance: float = 0.01
    """Minimum tolerance of an operator, as a share of the total: microseconds of a trivial operator are noise."""
    heavy_tail_log_std: float = 0.6
    """Standard deviation of log service times above which few items need a large allowance for the tail."""
    noteworthy_share: float = 0.05
    """Minimum share of the CPU seconds for an operator whose times matter; below it, clock noise dominates."""
    max_enumerated: int = 20_000
    """Maximum number of configurations of a pipeline that are enumerated."""
    max_measured: int = 1_000
    """Maximum number of measured configurations, for pipelines with too many to enumerate."""
    max_sources: int = 8
    """Maximum number of sources, the newest first: older ones have likely been measured again."""
    usage_items: int = 8
    """Number of items for comparing resource usages; the same items for all, so that they make no difference."""
    allocation_items: int = 2
    """Number of items that batches are made of; smaller data sets and larger batches repeat them."""
    calibration_items: int = 24
    """Number of items on which speeds are measured."""
    disturbed_share: float = 1 / 6
    """Share of a run in which it waited for a CPU, from which its service time counts as disturbed. Below it,
    none of 27 means was more than 10 % off, and 3 of 7 between a sixth and a third (`python -m benchmarks noise`)."""
    disturbed_worker_share: float = 0.1
    """Share of a run in which its workers waited for a CPU, from which its service time, which has these waits, counts
    as disturbed."""
    quiet_share: float = 0.125
    """Share of its CPUs in use up to which a machine is quiet, and disturbed runs are worth repeating."""
    increment: int = 8
    """Number of items committed at once."""
    max_failures: int = 2
    """Number of configurations under which an operator may fail with its knob values before a class gives it up."""
    cache_bytes: int = 512 * 2**20
    """Limit of the prefix cache."""
    memory_share: float = 0.5
    """Share of the available memory that operators' processes may use."""
    slow_start_ratio: float = 2.0
    """Ratio of the first run of a process to its repetition from which first runs on other inputs are repeated, too."""
    operator_timeout_s: float = 600.0
    min_operator_timeout_s: float = 60.0
    """Bounds of the timeout for loading an operator or processing an item; in between it is the budget."""


PROFILING = ProfilingSettings()
