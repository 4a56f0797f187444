"""Vulcan-style plans for queries on an infrastructure: each query in isolation, by utility.

`benchmarks.baselines.search.vulcan_style` is the search, in an arena. Here all measurements count as evaluated, which
is more than the search would see; what remains is the choice: the plan with the highest utility, slack of accuracy and
latency over cost, among those that meet the SLOs. As in the search, latency is mean service and transfer time; other
queries and waiting times are ignored.

Replicas have the fewest CPUs, unless a planner chooses among `useful_sizes`: those that plan all queries together, in
`ipa` and `visible_plans`. On recorded documents at load 2 the choice raised IPA-style from 32 of 40 to 36, and
Proteus-style from 29 to 35. Greedy planners served less with it, as they share fewer replicas: there JellyBean-style 23
instead of 33, and on recorded meetings at load 1 Optuna + greedy 85 of 108 instead of 97, paper-style 92, not 102.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from benchmarks.baselines.by_hand import UTILIZATION_TARGET
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Allocation, Network, OperatorSpec, Pipeline, Pool, Query, QueryPlan

_MIN_COST = 1e-12
_SECONDS_PER_H, _BYTES_PER_GB = 3600.0, 1e9

Placement = Mapping[str, Pool]
"""Operator -> its pool."""
Sizes = Mapping[str, float]
"""Operator -> CPUs of each of its replicas."""


def vulcan_plan(query: Query, pipeline: Pipeline, profile: PipelineProfile, network: Network) -> QueryPlan | None:
    """Return the plan with the highest utility for one query, or None if no plan seems to meet its SLOs.

    Args:
        query: with latency and accuracy SLOs.
        pipeline: pipeline of the query.
        profile: profile of the pipeline.
        network: pools and links.
    """
    best: tuple[float, QueryPlan] | None = None
    for configuration in profile.usable:
        for placement in placements(query, pipeline, network):
            value = utility(query, pipeline, configuration, placement, network)
            if value is not None and (best is None or value > best[0]):
                best = value, plan_on(pipeline, configuration, placement)
    return None if best is None else best[1]


def placements(query: Query, pipeline: Pipeline, network: Network) -> Iterator[Placement]:
    """Yield all placements in which values never return to a lower tier before the end."""
    tiers = network.infrastructure.tiers
    order = pipeline.topological_order()
    open_pools = network.pools_for(query.source)
    choices = [
        [pool for pool in open_pools if operator.allowed_tiers is None or pool.tier in operator.allowed_tiers]
        for operator in order
    ]
    for pools in product(*choices):
        placement = {operator.name: pool for operator, pool in zip(order, pools, strict=True)}
        levels = {name: tiers.index(pool.tier) for name, pool in placement.items()}
        if all(levels[parent] <= levels[operator.name] for operator in order for parent in operator.parents):
            yield placement


def useful_sizes(pipeline: Pipeline, configuration: ConfigurationProfile, placement: Placement) -> Sequence[Sizes]:
    """Return different CPUs that fit on nodes: the fewest, those of least work, and those of least time, of each."""
    fewest, least_work, least_time = dict[str, float](), dict[str, float](), dict[str, float]()
    for operator in pipeline.operators:
        name, pool, first = operator.name, placement[operator.name], operator.batch_sizes[0]
        ratio_of = configuration.operators[name].batch_ratio_on(pool.hardware)
        times = {cpus: ratio_of.get((cpus, first), 1.0) for cpus in sorted(operator.cpus)}
        fewest[name] = min(times)
        fitting = [cpus for cpus in times if cpus <= pool.cpus] or [fewest[name]]
        work = {cpus: cpus * times[cpus] for cpus in fitting}
        least_work[name] = min(work, key=work.__getitem__)
        least_time[name] = min(fitting, key=times.__getitem__)
    levels = fewest, least_work, least_time
    return [sizes for number, sizes in enumerate(levels) if sizes not in levels[:number]]


def utility(
    query: Query, pipeline: Pipeline, configuration: ConfigurationProfile, placement: Placement, network: Network
) -> float | None:
    """Return the slack over cost of a plan; None if it violates an SLO or an operator does not fit on a node."""
    if any(
        profile.peak_memory_bytes > placement[name].memory_bytes for name, profile in configuration.operators.items()
    ):
        return None
    slack = 0.0
    if query.slos.accuracy is not None:
        sign = 1.0 if pipeline.metric.direction == "maximize" else -1.0
        accuracy = sign * (configuration.accuracy.value - query.slos.accuracy.threshold)
        if accuracy < 0:
            return None
        slack += 0.5 * accuracy
    if query.slos.latency is not None:
        latency_s = mean_latency_s(query, pipeline, configuration, placement, network)
        if latency_s > query.slos.latency.limit_s:
            return None
        slack += 0.5 * (1.0 - latency_s / query.slos.latency.limit_s)
    return slack / max(busy_usd_per_h(query, pipeline, configuration, placement, network), _MIN_COST)


def mean_latency_s(
    query: Query,
    pipeline: Pipeline,
    configuration: ConfigurationProfile,
    placement: Placement,
    network: Network,
    *,
    sizes: Sizes | None = None,
    max_batch_size: int = 1,
    batches: float = 1.0,
) -> float:
    """Return mean service and transfer times along the slowest path and back; infinite without a path.

    Args:
        query: for its source.
        pipeline: pipeline of the query.
        configuration: measurements.
        placement: pool of each operator.
        network: links.
        sizes: CPUs of each operator; None: the fewest.
        max_batch_size: maximum size of the batches, which are full.
        batches: number of batches whose times pass at each operator, with those that a request waits for.
    """
    ready_s: dict[str, float] = {}
    sites = {name: pool.site for name, pool in placement.items()}
    sent = {name: float(profile.output_bytes.mean()) for name, profile in configuration.operators.items()}
    received = float(configuration.input_bytes.mean())
    for operator in pipeline.topological_order():
        name = operator.name
        arrival_s = [ready_s[b] + transfer_s(network, sites[b], sites[name], sent[b]) for b in operator.parents]
        first_s = transfer_s(network, query.source, sites[name], received)
        profile, hardware = configuration.operators[name], placement[name].hardware
        cpus = min(operator.cpus) if sizes is None else sizes[name]
        ratio = profile.batch_ratio_on(hardware).get((cpus, batch_size(operator, max_batch_size)), 1.0)
        service_s = float(profile.service_s.mean()) / hardware.speed
        ready_s[name] = max(arrival_s, default=first_s) + batches * ratio * service_s
    return max(
        ready_s[s] + transfer_s(network, sites[s], query.source, sent[s], results=True) for s in pipeline.sinks()
    )


def transfer_s(network: Network, source: str, target: str, size_bytes: float, *, results: bool = False) -> float:
    """Return the time of a transfer, of a pipeline's results or not, without waiting; infinite without a path."""
    path = network.path(source, target, results=results)
    if path is None:
        return float("inf")
    return sum(link.one_way_s + size_bytes / link.bandwidth_bytes_per_s for link in path)


def busy_usd_per_h(
    query: Query, pipeline: Pipeline, configuration: ConfigurationProfile, placement: Placement, network: Network
) -> float:
    """Return the cost of busy CPU seconds and of priced transfers."""
    cost = 0.0
    for operator in pipeline.operators:
        pool, profile = placement[operator.name], configuration.operators[operator.name]
        busy = query.rate_per_s * float(profile.service_s.mean()) / pool.hardware.speed
        cost += busy * min(operator.cpus) * pool.price_usd_per_h / pool.cpus
        inputs = [(placement[b].site, float(configuration.operators[b].output_bytes.mean())) for b in operator.parents]
        for site, size_bytes in inputs or [(query.source, float(configuration.input_bytes.mean()))]:
            price = sum(link.price_usd_per_gb for link in network.path(site, pool.site) or ())
            cost += query.rate_per_s * size_bytes / _BYTES_PER_GB * _SECONDS_PER_H * price
    return cost


def batch_size(operator: OperatorSpec, max_batch_size: int) -> int:
    """Return the largest allowed batch size up to a limit, or the first."""
    return max((size for size in operator.batch_sizes if size <= max_batch_size), default=operator.batch_sizes[0])


def plan_on(
    pipeline: Pipeline,
    configuration: ConfigurationProfile,
    placement: Placement,
    max_batch_size: int = 1,
    target: float = UTILIZATION_TARGET,
    sizes: Sizes | None = None,
) -> QueryPlan:
    """Return the plan of a placement, with the largest batches up to a size, a target, and by default fewest CPUs."""
    operators = sorted(pipeline.operators, key=lambda operator: operator.name)
    cpus = sizes or {operator.name: min(operator.cpus) for operator in operators}
    return QueryPlan(
        pipeline=pipeline.name,
        configuration=configuration.configuration,
        placement=tuple((operator.name, placement[operator.name].name) for operator in operators),
        allocations=tuple((o.name, Allocation(cpus[o.name], batch_size(o, max_batch_size), target)) for o in operators),
    )
