"""Random pipelines, profiles, infrastructures and queries, small enough to enumerate all plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from circinus.estimation import Correction, Corrections
from circinus.planning import SearchSettings
from circinus.profiling import (
    ConfigurationProfile,
    MeasuredSpeed,
    OperatorProfile,
    PipelineProfile,
    Speeds,
)
from circinus.specification import (
    AccuracySlo,
    Allocation,
    Configuration,
    CostSlo,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
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
    configurations,
    knob_values,
    prefix_configuration,
)
from circinus.statistics.interval import Interval

GIB = 2.0**30
RISK = 0.05


@dataclass(frozen=True)
class Instance:
    """Query with all inputs of planning."""

    query: Query
    pipeline: Pipeline
    profile: PipelineProfile
    network: Network


def corrected(instance: Instance) -> Instance:
    """Return `instance` with random service-time corrections for most operators, by knobs and hardware class."""
    rng = np.random.default_rng(len(instance.profile.configurations))
    operators = tuple(o.model_copy(update={"uses": f"tests:{o.name}"}) for o in instance.pipeline.operators)
    pipeline = instance.pipeline.model_copy(update={"operators": operators})
    classes = {(p.hardware.name, p.hardware.guaranteed_speed) for p in instance.network.infrastructure.pools}
    entries = [
        Correction(*hardware, o.uses, "", None, knobs, Interval.exact(float(rng.uniform(0.5, 3.0))), 1, 100)
        for hardware, o in product(sorted(classes), operators)
        for knobs in (None, *knob_values(o)[1:])
        if rng.random() < 0.8
    ]
    profile = Corrections(tuple(entries)).applied_to(instance.profile, pipeline)
    return Instance(instance.query, pipeline, profile, instance.network)


def measured_there(instance: Instance, *, factor: float | None = None) -> Instance:
    """Return `instance` with measured speeds for most operators, by knobs and hardware class.

    Args:
        instance: instance to copy.
        factor: measured over declared speed of all operators on all classes; default random.
    """
    rng = np.random.default_rng(len(instance.profile.configurations))
    classes = {pool.hardware.name: pool.hardware for pool in instance.network.infrastructure.pools}
    speeds: dict[tuple[str, KnobValues], Speeds] = {}

    def speed(hardware: HardwareClass) -> MeasuredSpeed:
        if factor is not None:
            lower, value = factor * hardware.guaranteed_speed, factor * hardware.speed
        else:
            lower, value = sorted(rng.uniform(0.3, 3.0, size=2).tolist())
        return MeasuredSpeed(Interval(value, lower, 1.1 * value), 24, None if rng.random() < 0.5 else 1.5)

    def measured(operator: OperatorProfile) -> OperatorProfile:
        key = operator.operator, operator.prefix[operator.operator]
        if key not in speeds:
            by_class = {name: speed(hw) for name, hw in classes.items() if factor is not None or rng.random() < 0.8}
            speeds[key] = Speeds(by_class)
        return shared.setdefault(id(operator), replace(operator, speeds=speeds[key]))

    shared: dict[int, OperatorProfile] = {}
    profile = replace(
        instance.profile,
        configurations=tuple(
            replace(c, operators={name: measured(operator) for name, operator in c.operators.items()})
            for c in instance.profile.configurations
        ),
    )
    return replace(instance, profile=profile)


def slower(profile: PipelineProfile, factor: float) -> PipelineProfile:
    """Return `profile` with service times multiplied by `factor`."""
    cache: dict[int, OperatorProfile] = {}

    def scaled(operator: OperatorProfile) -> OperatorProfile:
        return cache.setdefault(id(operator), replace(operator, service_s=operator.service_s * factor))

    return replace(
        profile,
        configurations=tuple(
            replace(c, operators={name: scaled(operator) for name, operator in c.operators.items()})
            for c in profile.configurations
        ),
    )


def everywhere(pipeline: Pipeline, infrastructure: Infrastructure, factor: float) -> Corrections:
    """Return corrections with the same factor for all operators in all pools."""
    classes = sorted({(p.hardware.name, p.hardware.guaranteed_speed) for p in infrastructure.pools})
    return Corrections(
        tuple(
            Correction(*hardware, uses, "", None, None, Interval.exact(factor), 1, 100)
            for hardware in classes
            for uses in sorted({o.uses for o in pipeline.operators})
        )
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
    specs = []
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
                gpu_memory=needed * 4 * GIB,
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
                memory=float(rng.integers(2, 9)) * GIB,
                gpus=(count := float(rng.integers(1, 3) * (rng.random() < gpus))),
                gpu_memory=count * 8 * GIB,
                hardware=_hardware(index, float(rng.choice([0.25, 0.5, 1.0, 2.0]))),
                price=float(rng.uniform(0.0, 1.0)),
            )
            for index, home in enumerate(homes)
        ),
        links=tuple(
            Link(
                source=tiers[index],
                target=tiers[index + 1],
                bandwidth=float(10 ** rng.uniform(6, 7.5)),
                reverse_bandwidth=float(10 ** rng.uniform(6, 7.5)),
                round_trip=float(rng.uniform(0.001, 0.06)),
                price=float(rng.uniform(0, 0.1)),
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
            limit=float(10 ** rng.uniform(-0.6, 0.6)) * tightness,
        )
        if rng.random() < 0.85
        else None,
        accuracy=AccuracySlo(threshold=float(rng.uniform(0.5, 0.8))) if rng.random() < 0.6 else None,
        cost=CostSlo(limit=float(10 ** rng.uniform(-2, 0.5)) * tightness) if rng.random() < 0.4 else None,
    )
    return Query(name=name, pipeline=pipeline.name, source=source, rate=float(10 ** rng.uniform(-1, 1.2)), slos=slos)


def random_instance(seed: int) -> Instance:
    """Return an instance with few plans: at most three operators, three pools and four allocations."""
    rng = np.random.default_rng(seed)
    sites = int(rng.integers(1, 4))
    wide = rng.random() < 0.3
    pipeline = random_pipeline(
        rng,
        operators=int(rng.integers(1, 4)),
        chain=rng.random() < 0.25,
        cpus=(1.0, 2.0) if wide else (1.0,),
        batch_sizes=(1, 4) if not wide and rng.random() < 0.3 else (1,),
        pins=0.15,
        gpus=0.1,
    )
    pools = max(sites, int(rng.integers(1, 4)))
    infrastructure = random_infrastructure(rng, sites=sites, pools=pools, gpus=0.5)
    profile = random_profile(rng, pipeline, items=int(rng.integers(3, 40)))
    query = random_query(rng, pipeline, tightness=float(rng.choice([0.5, 1.0, 2.0])))
    return Instance(query, pipeline, profile, Network(infrastructure))


def all_plans(instance: Instance, settings: SearchSettings) -> Iterator[QueryPlan]:
    """Yield all plans on accessible pools and allowed tiers, feasible or not."""
    pools = instance.network.pools_for(instance.query.source)
    names = [operator.name for operator in instance.pipeline.operators]
    choices = []
    for operator in instance.pipeline.operators:
        allocations = [
            Allocation(cpus, batch, target)
            for cpus, batch, target in product(operator.cpus, operator.batch_sizes, settings.utilization_targets)
        ]
        eligible = [p for p in pools if operator.allowed_tiers is None or p.tier in operator.allowed_tiers]
        choices.append([(pool.name, allocation) for pool in eligible for allocation in allocations])
    for profile in instance.profile.configurations:
        for choice in product(*choices):
            yield QueryPlan(
                pipeline=instance.pipeline.name,
                configuration=profile.configuration,
                placement=tuple(sorted((name, pool) for name, (pool, _) in zip(names, choice, strict=True))),
                allocations=tuple(
                    sorted((name, allocation) for name, (_, allocation) in zip(names, choice, strict=True))
                ),
            )
