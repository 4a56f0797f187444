"""Random pipelines, profiles, infrastructures, queries and specifications, small enough to enumerate all plans.

Operators have no code, so that only engines without processes run them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import (
    AccuracySlo,
    Configuration,
    CostSlo,
    DatasetSpec,
    GpuMemoryCase,
    HardwareClass,
    Infrastructure,
    Knob,
    KnobValues,
    LatencySlo,
    Link,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Site,
    Slos,
    Specification,
    configurations,
    prefix_configuration,
)
from circinus.statistics.interval import Interval

GIB = 2.0**30
RISK = 0.05


def random_specification(
    seed: int,
    *,
    queries: int = 4,
    operators: int = 2,
    cpus: float = 8.0,
    nodes: int = 2,
    batch_sizes: tuple[int, ...] = (1,),
) -> tuple[Specification, dict[str, PipelineProfile]]:
    """Return a specification with one pipeline and too few resources for all queries, and its profile."""
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(rng, operators=operators, cpus=(1.0,), batch_sizes=batch_sizes)
    profile = _with_memory_by_knobs(random_profile(rng, pipeline, items=20))
    infrastructure = random_infrastructure(rng, sites=int(rng.integers(2, 4)))
    pools = tuple(
        pool.model_copy(update={"nodes": min(pool.nodes, nodes), "cpus": min(pool.cpus, cpus)})
        for pool in infrastructure.pools
    )
    accuracies = sorted(measured.accuracy.lower for measured in profile.configurations)
    drawn = tuple(_query(rng, pipeline.name, f"q{index}", accuracies) for index in range(queries))
    specification = Specification({pipeline.name: pipeline}, infrastructure.model_copy(update={"pools": pools}), drawn)
    return specification, {pipeline.name: profile}


def _with_memory_by_knobs(profile: PipelineProfile) -> PipelineProfile:
    """Return `profile` with the memory of an operator depending on its own knobs only, as for real models."""
    peak_bytes: dict[tuple[str, KnobValues], float] = {}
    for measured in profile.configurations:
        for name, operator in measured.operators.items():
            key = (name, measured.configuration[name])
            peak_bytes[key] = max(peak_bytes.get(key, 0.0), operator.peak_memory_bytes)
    return replace(
        profile,
        configurations=tuple(
            replace(
                measured,
                operators={
                    name: replace(operator, peak_memory_bytes=peak_bytes[name, measured.configuration[name]])
                    for name, operator in measured.operators.items()
                },
            )
            for measured in profile.configurations
        ),
    )


def _query(rng: np.random.Generator, pipeline: str, name: str, accuracies: list[float]) -> Query:
    """Return a query whose accuracy SLO some configuration meets."""
    threshold = float(rng.choice(accuracies)) - 0.001
    return Query(
        name=name,
        pipeline=pipeline,
        source="device",
        rate_per_s=float(10 ** rng.uniform(0, 1.2)),
        weight=float(rng.choice([1.0, 2.0])),
        slos=Slos(
            latency=LatencySlo(limit_s=float(10 ** rng.uniform(-0.6, 0.6))),
            accuracy=AccuracySlo(threshold=threshold) if rng.random() < 0.7 else None,
            cost=CostSlo(limit_usd_per_h=float(10 ** rng.uniform(-1, 0.3))) if rng.random() < 0.3 else None,
        ),
    )


def random_pipeline(
    rng: np.random.Generator,
    *,
    name: str = "pipeline",
    operators: int = 3,
    knobs: Sequence[int] | None = None,
    chain: bool = False,
    cpus: Sequence[float] = (1.0,),
    batch_sizes: Sequence[int] = (1,),
    pins: float = 0.0,
    gpus: float = 0.0,
) -> Pipeline:
    """Return a DAG with forks, joins and several sinks (or a chain) whose i-th operator has `knobs[i]` knob values.

    An operator may not run in the cloud with probability `pins`, and needs a GPU with probability `gpus`.
    """
    counts = list(knobs) if knobs is not None else [int(rng.integers(1, 3)) for _ in range(operators)]
    specs, larger = [], GpuMemoryCase(only_if={"size": 1}, size_bytes=6 * GIB)
    for index, count in enumerate(counts):
        if chain:
            after = [f"op{index - 1}"] if index else []
        else:
            parents = int(rng.integers(0, min(index, 2) + 1))
            after = [f"op{p}" for p in sorted(rng.choice(index, size=parents, replace=False))] if parents else []
        specs.append(
            OperatorSpec(
                name=f"op{index}",
                uses="tests:none",
                after=tuple(after),
                knobs=(Knob(name="size", choices=tuple(range(count))),) if count > 1 else (),
                cpus=tuple(cpus),
                batch_sizes=tuple(batch_sizes),
                gpus=(needed := float(rng.random() < gpus)),
                gpu_memory_bytes=needed * 4 * GIB,
                gpu_memory_cases=(larger,) if needed and count > 1 else (),
                allowed_tiers=("device", "edge") if rng.random() < pins else None,
            )
        )
    return Pipeline(
        name=name,
        operators=tuple(specs),
        metric=MetricSpec(name="accuracy", uses="tests:none"),
        dataset=DatasetSpec(uses="tests:none"),
    )


def random_profile(rng: np.random.Generator, pipeline: Pipeline, *, items: int = 25) -> PipelineProfile:
    """Return a profile of all configurations on `items` items, with shared profiles of equal prefixes."""
    difficulty = rng.gamma(8.0, 1 / 8, size=items)
    scale_s = {o.name: float(10 ** rng.uniform(-2.5, -0.7)) for o in pipeline.operators}
    size_bytes = {o.name: float(10 ** rng.uniform(2, 5.5)) for o in pipeline.operators}
    input_bytes = 10 ** rng.uniform(4, 5.5) * difficulty
    operators: dict[Configuration, OperatorProfile] = {}
    measured = []
    for configuration in configurations(pipeline):
        profiles = {}
        level = 0.0
        for operator in pipeline.topological_order():
            values = configuration[operator.name].as_dict()
            size = int(values.get("size", 0))
            level += size
            key = prefix_configuration(pipeline, configuration, operator.name)
            if key not in operators:
                operators[key] = _operator_profile(
                    rng, operator, key, scale_s[operator.name] * 2.0**size * difficulty, size_bytes[operator.name]
                )
            profiles[operator.name] = operators[key]
        scores = np.clip(rng.normal(0.6 + 0.08 * level, 0.1, size=items), 0, 1)
        mean = float(scores.mean())
        measured.append(
            ConfigurationProfile(
                configuration=configuration,
                items=np.arange(items),
                scores=scores,
                accuracy=Interval(mean, max(0.0, mean - 0.05), min(1.0, mean + 0.05)),
                input_bytes=input_bytes,
                operators=profiles,
            )
        )
    return PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint="random",
        dataset_items=items,
        held_out_items=0,
        hardware_class="local",
        risk=RISK,
        configurations=tuple(measured),
        unmeasured=0,
        profiled_s=0.0,
        saved_s=0.0,
    )


def _operator_profile(
    rng: np.random.Generator, operator: OperatorSpec, key: Configuration, mean_s: np.ndarray, size_bytes: float
) -> OperatorProfile:
    items = len(mean_s)
    gain = rng.uniform(0.5, 1.0)
    return OperatorProfile(
        operator=operator.name,
        prefix=key,
        service_s=mean_s * rng.lognormal(0.0, 0.3, size=items),
        output_bytes=size_bytes * rng.lognormal(0.0, 0.5, size=items),
        peak_memory_bytes=float(rng.uniform(0.1, 1.5)) * GIB,
        load_s=1.0,
        batch_ratio={
            (cpus, batch): batch ** (0.5 + gain / 2) * (cpus / operator.cpus[0]) ** -gain
            for cpus in operator.cpus
            for batch in operator.batch_sizes
        },
        startup_s=1.0 + gain,
    )


def _hardware(index: int, speed: float) -> HardwareClass:
    """Return a hardware class; every third one has an inexact speed."""
    bounds = (0.8 * speed, 1.1 * speed) if index % 3 == 2 else None
    return HardwareClass(name=f"class{index}", relative_speed=speed, relative_speed_bounds=bounds)


def random_infrastructure(
    rng: np.random.Generator, *, sites: int = 3, pools: int = 3, gpus: float = 0.0
) -> Infrastructure:
    """Return sites in a line (device, edge, cloud) with a pool each, and further pools at random sites.

    The nodes of a pool have GPUs with probability `gpus`.
    """
    tiers = ("device", "edge", "cloud")[:sites]
    homes = [*range(sites), *rng.integers(0, sites, size=max(0, pools - sites))]
    return Infrastructure(
        name="infrastructure",
        sites=tuple(Site(name=tier) for tier in tiers),
        pools=tuple(
            Pool(
                name=f"pool{index}",
                site=tiers[home],
                tier=tiers[home],
                nodes=int(rng.integers(1, 5)),
                cpus=float(rng.integers(1, 9)),
                memory_bytes=float(rng.integers(2, 9)) * GIB,
                gpus=(count := float(rng.integers(1, 3) * (rng.random() < gpus))),
                gpu_memory_bytes=count * 8 * GIB,
                hardware=_hardware(index, float(rng.choice([0.25, 0.5, 1.0, 2.0]))),
                price_usd_per_h=float(rng.uniform(0.0, 1.0)),
            )
            for index, home in enumerate(homes)
        ),
        links=tuple(
            Link(
                source=tiers[index],
                target=tiers[index + 1],
                bandwidth_bytes_per_s=float(10 ** rng.uniform(6, 7.5)),
                reverse_bandwidth_bytes_per_s=float(10 ** rng.uniform(6, 7.5)),
                round_trip_s=float(rng.uniform(0.001, 0.06)),
                price_usd_per_gb=float(rng.uniform(0, 0.1)),
            )
            for index in range(sites - 1)
        ),
    )


def random_query(
    rng: np.random.Generator, pipeline: Pipeline, *, source: str = "device", name: str = "query", tightness: float = 1.0
) -> Query:
    """Return a query with random SLOs; a smaller `tightness` makes fewer plans feasible."""
    slos = Slos(
        latency=LatencySlo(
            percentile=float(rng.choice([50.0, 90.0, 95.0, 99.0])),
            limit_s=float(10 ** rng.uniform(-0.6, 0.6)) * tightness,
        )
        if rng.random() < 0.85
        else None,
        accuracy=AccuracySlo(threshold=float(rng.uniform(0.5, 0.8))) if rng.random() < 0.6 else None,
        cost=CostSlo(limit_usd_per_h=float(10 ** rng.uniform(-2, 0.5)) * tightness) if rng.random() < 0.4 else None,
    )
    return Query(
        name=name, pipeline=pipeline.name, source=source, rate_per_s=float(10 ** rng.uniform(-1, 1.2)), slos=slos
    )
