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


def latest_starts_s(
    query: Query, pipeline: Pipeline, plan: QueryPlan, profile: ConfigurationProfile, network: Network
) -> dict[str, float]:
    """Return for each operator the latest start of its service for a request that should meet the latency SLO.

    It is the limit minus `remaining_times_s` at the SLO's percentile over the items, in seconds after the request
    entered; infinity without a latency SLO. The percentile, because queues in overload grow until requests start
    exactly at the limit of `late: drop`: with the mean, half of them would end late. Batches are full, as in overload,
    unless even requests that never wait would then be late.

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
    starts: dict[str, float] = {}
    for full_batches in (True, False):
        remaining = remaining_times_s(query, pipeline, plan, profile, network, full_batches=full_batches)
        quantile = slo.percentile / 100
        starts = {
            producer: slo.limit_s - float(np.quantile(remaining_s, quantile, method="inverted_cdf"))
            for producer, remaining_s in remaining.items()
        }
        if starts.pop(INPUT) >= 0:
            break
    return starts


def remaining_times_s(
    query: Query,
    pipeline: Pipeline,
    plan: QueryPlan,
    profile: ConfigurationProfile,
    network: Network,
    *,
    full_batches: bool = True,
) -> dict[str, FloatArray]:
    """Return for each operator (n,) times from the start of its service to the complete result without waiting.

    Those of `INPUT` are from the entry of the request. Hardware has its expected speed.

    Args:
        query: the query.
        pipeline: its pipeline.
        plan: its plan.
        profile: profile of the plan's configuration on n items.
        network: network of the infrastructure.
        full_batches: whether operators serve full batches instead of single items.

    Raises:
        PlanningError: see `latest_starts_s`.
    """
    pools = {pool.name: pool for pool in network.infrastructure.pools}
    sites = {INPUT: query.source} | {operator: pools[pool].site for operator, pool in plan.placement}
    remaining: dict[str, FloatArray] = {}

    def add(producer: str, service_s: FloatArray, size_bytes: FloatArray, *, is_sink: bool) -> None:
        """Add the times of a producer, all consumers of which have been added."""
        consumers = [
            (sites[o.name], remaining[o.name]) for o in pipeline.operators if producer in (o.after or (INPUT,))
        ]
        if is_sink:
            consumers.append((query.source, _NO_WAIT))
        rest = [
            sum(
                (link_delay_s(link, size_bytes, _NO_WAIT) for link in path_between(network, sites[producer], site)), its
            )
            for site, its in consumers
        ]
        remaining[producer] = np.asarray(service_s + np.maximum.reduce(np.broadcast_arrays(*rest)))

    for operator in reversed(pipeline.topological_order()):
        measured, hardware = profile.operators[operator.name], pools[plan.pool_of(operator.name)].hardware
        allocation = plan.allocation_of(operator.name)
        ratio = batch_time_ratios(measured, allocation.cpus, allocation.batch_size)[-1 if full_batches else 0]
        slowdown = ratio * measured.correction(hardware) / measured.speeds.expected(hardware)
        is_sink = operator.name in pipeline.sinks()
        add(operator.name, measured.service_s * slowdown, measured.output_bytes, is_sink=is_sink)
    add(INPUT, _NO_WAIT, profile.input_bytes, is_sink=False)
    return remaining
