"""Latest starts of operators, by which queues order requests and drop late ones."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation.stage_latency import batch_time_ratios
from circinus.estimation.transfer import INPUT, link_delay_s, path_between
from circinus.profiling import ConfigurationProfile
from circinus.specification import Network, Pipeline, Query, QueryPlan

_NO_WAIT = np.zeros(1)
_SLACK_S = 0.01
"""Minimum slack of a request that never waits: event loops begin batches some milliseconds late."""


def latest_starts_s(
    query: Query, pipeline: Pipeline, plan: QueryPlan, profile: ConfigurationProfile, network: Network
) -> dict[str, float]:
    """Return for each operator the latest start of its service for a request that should meet the latency SLO.

    It is the limit minus `remaining_times_s` at the SLO's percentile over the items, in seconds after the request
    entered; infinity without a latency SLO. The percentile, because queues in overload grow until requests start
    exactly at the limit of `late: drop`: with the mean, many of them would end late. Batches are full, as in overload,
    if the limit leaves time to wait for a full batch in progress, or for a batch to fill; else they are smaller, so
    that `late: drop` costs no answers at the planned load.

    Where requests that never wait would be late at the percentile, all latest starts are later by as much, so that
    `late: drop` leaves a plan that cannot meet its SLO some answers.

    Args:
        query: the query.
        pipeline: its pipeline.
        plan: its plan.
        profile: profile of the plan's configuration.
        network: network of the infrastructure.

    Raises:
        PlanningError: an allocation was not profiled, or there is no path between sites.
    """
    slo = query.slos.latency
    if slo is None:
        return {operator.name: math.inf for operator in pipeline.operators}
    max_batch = max(allocation.batch_size for _, allocation in plan.allocations)
    fill_s = sum(o.batch_wait_s for o in pipeline.operators if plan.allocation_of(o.name).batch_size > 1)
    wait_s = max(_slowest_batch_s(pipeline, plan, profile, network), fill_s) if max_batch > 1 else 0.0
    while True:
        remaining = remaining_times_s(query, pipeline, plan, profile, network, max_batch=max_batch)
        starts_s = {
            producer: slo.limit_s - float(np.quantile(remaining_s, slo.percentile / 100, method="inverted_cdf"))
            for producer, remaining_s in remaining.items()
        }
        entry_s = starts_s.pop(INPUT)
        if entry_s >= wait_s + _SLACK_S or max_batch == 1:
            return {operator: start_s - min(entry_s - _SLACK_S, 0.0) for operator, start_s in starts_s.items()}
        max_batch //= 2


def remaining_times_s(
    query: Query,
    pipeline: Pipeline,
    plan: QueryPlan,
    profile: ConfigurationProfile,
    network: Network,
    *,
    max_batch: int | None = None,
) -> dict[str, FloatArray]:
    """Return for each operator (n,) times from the start of its service to the complete result without waiting.

    Those of `INPUT` are from the entry of the request. Hardware has its expected speed.

    Args:
        query: the query.
        pipeline: its pipeline.
        plan: its plan.
        profile: profile of the plan's configuration on n items.
        network: network of the infrastructure.
        max_batch: largest size of batches, which are full otherwise; 1 for single items.

    Raises:
        PlanningError: see `latest_starts_s`.
    """
    pools = {pool.name: pool for pool in network.infrastructure.pools}
    sites = {INPUT: query.source} | {operator: pools[pool].site for operator, pool in plan.placement}
    remaining: dict[str, FloatArray] = {}

    def add(producer: str, service_s: FloatArray, size_bytes: FloatArray, *, is_sink: bool) -> None:
        """Add the times of a producer, all consumers of which have been added."""
        consumers = [
            (sites[o.name], remaining[o.name]) for o in pipeline.operators if producer in (o.parents or (INPUT,))
        ]
        if is_sink:
            consumers.append((query.source, _NO_WAIT))
        paths = (path_between(network, sites[producer], site, results=is_sink) for site, _ in consumers)
        rest = [
            sum((link_delay_s(link, size_bytes, _NO_WAIT) for link in path), its)
            for path, (_, its) in zip(paths, consumers, strict=True)
        ]
        remaining[producer] = np.asarray(service_s + np.maximum.reduce(np.broadcast_arrays(*rest)))

    for operator in reversed(pipeline.topological_order()):
        service_s = _service_s(operator.name, plan, profile, network, max_batch)
        is_sink = operator.name in pipeline.sinks()
        add(operator.name, service_s, profile.operators[operator.name].output_bytes, is_sink=is_sink)
    add(INPUT, _NO_WAIT, profile.input_bytes, is_sink=False)
    return remaining


def _service_s(
    operator: str, plan: QueryPlan, profile: ConfigurationProfile, network: Network, max_batch: int | None
) -> FloatArray:
    """Return (n,) service times in batches. A batch takes as long as the mean of its items, which varies less."""
    measured, hardware = profile.operators[operator], network.infrastructure.pool(plan.pool_of(operator)).hardware
    allocation = plan.allocation_of(operator)
    size = allocation.batch_size if max_batch is None else min(allocation.batch_size, max_batch)
    ratio = batch_time_ratios(measured, hardware, allocation.cpus, allocation.batch_size)[size - 1]
    slowdown = ratio * measured.correction(hardware) / measured.speeds.expected(hardware)
    longest_s = measured.longest_run_s  # each element has as much time left as the slowest one needs
    mean_s = longest_s.mean()
    return np.asarray(slowdown * (mean_s + (longest_s - mean_s) / math.sqrt(size)))


def _slowest_batch_s(pipeline: Pipeline, plan: QueryPlan, profile: ConfigurationProfile, network: Network) -> float:
    """Return the longest mean time of a full batch of any operator."""
    names = [operator.name for operator in pipeline.operators]
    return max(float(_service_s(name, plan, profile, network, None).mean()) for name in names)
