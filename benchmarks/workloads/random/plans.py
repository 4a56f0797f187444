"""Random plans under random load: chains and DAGs, one to sixteen replicas, batches, links, kinds of arrivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from circinus.estimation import Estimator, MergedLoad, merge_loads
from circinus.profiling import ConfigurationProfile, OperatorProfile
from circinus.queueing.arrivals import arrival_process
from circinus.simulation.model_builder import PlannedQuery
from circinus.specification import (
    Allocation,
    AnyArrivals,
    Configuration,
    DatasetSpec,
    Deployment,
    HardwareClass,
    Infrastructure,
    KnobValues,
    LatencySlo,
    Link,
    MetricSpec,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    prefix_configuration,
)
from circinus.statistics.interval import Interval

SHAPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "one": {"a": ()},
    "chain of 2": {"a": (), "b": ("a",)},
    "chain of 4": {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)},
    "fork and join": {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")},
    "two inputs": {"a": (), "b": (), "c": ("a", "b")},
}
_REPLICAS = (1, 1, 2, 3, 4, 8, 16)
_BATCHES = (1, 1, 1, 2, 4, 8, 16)
_ITEMS = 997
_GIB = 2.0**30


@dataclass(frozen=True, eq=False)
class RandomPlan:
    """A plan with the inputs of its estimate and its simulation."""

    shape: str
    utilization: float
    """Utilization of the busiest deployment or link with full batches."""
    planned: PlannedQuery
    replicas: Mapping[Deployment, int]
    network: Network
    conditions: MergedLoad


def random_plan(
    rng: np.random.Generator, utilization: float, arrivals: AnyArrivals, rate_per_s: float, percentile: float = 95.0
) -> RandomPlan:
    """Draw a plan.

    Args:
        rng: random generator.
        utilization: utilization of the busiest deployment; the others have 50 to 100 % of it.
        arrivals: arrival process of the query.
        rate_per_s: rate of the query.
        percentile: percentile of the query's latency SLO, whose limit is never reached.
    """
    shape = str(rng.choice(list(SHAPES)))
    names = SHAPES[shape]
    batch = {name: int(rng.choice(_BATCHES)) for name in names}
    count = {name: int(rng.choice(_REPLICAS)) for name in names}
    pipeline = Pipeline(
        name="p",
        operators=tuple(
            OperatorSpec(name=n, uses="m:a", after=after, batch_sizes=(1, batch[n]) if batch[n] > 1 else (1,))
            for n, after in names.items()
        ),
        metric=MetricSpec(name="accuracy", uses="m:a"),
        dataset=DatasetSpec(uses="m:a"),
    )
    shares = rng.uniform(0.5, 1.0, len(names))
    shares[rng.integers(len(names))] = 1.0
    common = rng.normal(size=_ITEMS)
    configuration = Configuration.of({name: KnobValues() for name in names})
    operators = {}
    for name, share in zip(names, shares, strict=True):
        gain = float(rng.uniform(0.3, 0.9))
        ratio = {(1.0, 1): 1.0} | ({(1.0, batch[name]): 1.0 + gain * (batch[name] - 1)} if batch[name] > 1 else {})
        mean_s = share * utilization * count[name] * batch[name] / (rate_per_s * ratio[1.0, batch[name]])
        operators[name] = OperatorProfile(
            operator=name,
            prefix=prefix_configuration(pipeline, configuration, name),
            service_s=_seconds(rng, mean_s, common),
            output_bytes=np.full(_ITEMS, 1e4),
            peak_memory_bytes=_GIB,
            load_s=1.0,
            batch_ratio=ratio,
        )
    input_bytes = rng.lognormal(0.0, 0.3, _ITEMS) * 1e6
    bandwidth = rate_per_s * float(input_bytes.mean()) / (rng.uniform(0.3, 1.0) * utilization)
    network = _network(bandwidth)
    profile = ConfigurationProfile(
        configuration=configuration,
        items=np.arange(_ITEMS),
        scores=np.full(_ITEMS, 0.9),
        accuracy=Interval(0.9, 0.85, 0.95),
        input_bytes=input_bytes,
        operators=operators,
    )
    pools = {name: str(rng.choice(["device", "edge"])) for name in names}
    # Operators after one at the edge stay at the edge; the result that returns is small.
    for name, after in names.items():
        if any(pools[parent] == "edge" for parent in after):
            pools[name] = "edge"
    plan = QueryPlan(
        pipeline="p",
        configuration=configuration,
        placement=tuple(sorted(pools.items())),
        allocations=tuple(sorted((name, Allocation(1.0, batch[name], 0.95)) for name in names)),
    )
    query = Query(
        name="q",
        pipeline="p",
        source="device",
        rate_per_s=rate_per_s,
        arrivals=arrivals,
        slos=Slos(latency=LatencySlo(percentile=percentile, limit_s=1e6)),
    )
    estimator = Estimator(query, pipeline, profile, network)
    replicas = {plan.deployment_of(name): count[name] for name in names}
    conditions = merge_loads([estimator.candidate(plan)], replicas)
    planned = PlannedQuery(query, pipeline, plan, profile, arrival_process(query))
    return RandomPlan(shape, utilization, planned, replicas, network, conditions)


def _seconds(rng: np.random.Generator, mean_s: float, common: np.ndarray) -> np.ndarray:
    """Draw (items,) service times, correlated over operators by the `common` factor of each item."""
    log_std = float(rng.choice([0.0, 0.2, 0.5, 0.8]))
    correlation = float(rng.uniform(0.0, 0.9))
    normal = correlation * common + (1 - correlation**2) ** 0.5 * rng.normal(size=len(common))
    seconds = np.exp(log_std * normal)
    return np.asarray(seconds * (mean_s / seconds.mean()))


def _network(bandwidth_bytes_per_s: float) -> Network:
    hardware = HardwareClass(name="local")
    size = {"nodes": 20, "cpus": 4.0, "memory": 8 * _GIB, "hardware": hardware}
    pools = tuple(Pool.model_validate({"name": site, "site": site, "tier": site} | size) for site in ("device", "edge"))
    sites = (Site(name="device"), Site(name="edge"))
    ends = {"from": "device", "to": "edge"}
    link = Link.model_validate(ends | {"bandwidth": bandwidth_bytes_per_s, "round_trip": 0.01})
    return Network(Infrastructure(name="i", sites=sites, pools=pools, links=(link,), usable_link_share=0.95))
