"""Random inputs of planning, their variants, and the enumeration of all their plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np

from budget import HANG_LIMIT_S, LEVEL
from circinus.errors import PlanningError
from circinus.estimation import Correction, Corrections, PlanCandidate, QueryEstimators
from circinus.matching import MatchSettings
from circinus.planning.search_space import utilization_targets
from circinus.profiling import (
    MeasuredSpeed,
    OperatorProfile,
    PipelineProfile,
    Speeds,
)
from circinus.profiling.hardware.machine import ClassBatchRatios
from circinus.specification import (
    Allocation,
    HardwareClass,
    Infrastructure,
    KnobValues,
    Network,
    Pipeline,
    PlanShare,
    Query,
    QueryPlan,
    knob_values,
)
from circinus.specification.infrastructure import Spot
from circinus.statistics.interval import Interval
from circinus.testing.random_fan_outs import random_fan_out, with_random_runs
from circinus.testing.random_instances import random_infrastructure, random_pipeline, random_profile, random_query

_FITS = LEVEL == "thorough"
UNFITTED = MatchSettings(time_limit_s=HANG_LIMIT_S, divides_requests=_FITS, fits_targets=_FITS)
"""Settings where neither divided requests nor fitted targets are the matter: daily, a third of the time."""
SIMPLE = MatchSettings(time_limit_s=HANG_LIMIT_S, divides_requests=False, fits_targets=False, considers_all_plans=False)
"""Settings for plans that a test begins with, which need not be the cheapest: a quarter of the time."""


@dataclass(frozen=True)
class Instance:
    """Query with all inputs of planning."""

    query: Query
    pipeline: Pipeline
    profile: PipelineProfile
    network: Network


def fanned_out(instance: Instance) -> Instance:
    """Return `instance` with lists and branches between its operators, which have random runs for each item."""
    rng = np.random.default_rng(len(instance.profile.configurations))
    pipeline = random_fan_out(rng, instance.pipeline)
    profile = random_profile(rng, pipeline, items=len(instance.profile.configurations[0].items))
    return Instance(instance.query, pipeline, with_random_runs(rng, pipeline, profile), instance.network)


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

    Random speeds come with batch time ratios of the class for about half of them.

    Args:
        instance: instance to copy.
        factor: measured over declared speed of all operators on all classes; default random.
    """
    seed = len(instance.profile.configurations)
    rng, of_batches = np.random.default_rng(seed), np.random.default_rng(seed + 1)
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
            for name, its_speed in by_class.items():
                if factor is None and of_batches.random() < 0.5:
                    ratio = {a: r * of_batches.uniform(0.5, 2.0) for a, r in operator.batch_ratio.items()}
                    batches = ClassBatchRatios(ratio, frozenset(ratio), "a table")
                    by_class[name] = replace(its_speed, batches=batches)
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


def interrupted(instance: Instance) -> Instance:
    """Return `instance` with larger pools, of which the nodes of every second one are spot nodes."""
    infrastructure = instance.network.infrastructure
    pools = []
    for number, pool in enumerate(infrastructure.pools):
        spot = Spot(price_usd_per_h=pool.price_usd_per_h / 3, interruptions_per_h=0.2 + number)
        changes = {"spot": spot, "node_startup_s": 60.0, "nodes": pool.nodes + 2}
        pools.append(pool if number % 2 else pool.model_copy(update=changes))
    return replace(instance, network=Network(infrastructure.model_copy(update={"pools": tuple(pools)})))


def restricted(instance: Instance) -> Instance:
    """Return `instance` with random prices of links back to the source, which often allow only results, and limits."""
    rng = np.random.default_rng(len(instance.profile.configurations))
    infrastructure = instance.network.infrastructure
    links = [
        link.model_copy(
            update={
                "reverse_price_usd_per_gb": float(rng.uniform(0, 0.5)),
                "allowed_traffic": rng.choice(["all", "results", "none"], p=[0.9, 0.05, 0.05]).item(),
                "reverse_allowed_traffic": rng.choice(["all", "results", "none"], p=[0.25, 0.7, 0.05]).item(),
            }
        )
        for link in infrastructure.links
    ]
    limits = {"utilization_targets": (0.2, 0.9), "usable_link_share": float(rng.uniform(0.1, 0.9))}
    network = Network(infrastructure.model_copy(update={"links": tuple(links), **limits}))
    return replace(instance, network=network)


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


def all_plans(instance: Instance) -> Iterator[QueryPlan]:
    """Yield all plans on accessible pools and allowed tiers, feasible or not."""
    pools = instance.network.pools_for(instance.query.source)
    targets = utilization_targets(instance.query, instance.network.infrastructure)
    names = [operator.name for operator in instance.pipeline.operators]
    choices = []
    for operator in instance.pipeline.operators:
        allocations = [
            Allocation(cpus, batch, target)
            for cpus, batch, target in product(operator.cpus, operator.batch_sizes, targets)
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


def random_split(
    seed: int, accuracy_of: str = "mean", rate_per_s: float = 0.1
) -> tuple[Instance, QueryEstimators, PlanCandidate]:
    """Return a random instance with a random split plan of two or three parts that overloads nothing."""
    rng = np.random.default_rng(seed)
    instance = random_instance(seed)
    query = instance.query.model_copy(update={"rate_per_s": rate_per_s, "accuracy_of": accuracy_of})
    estimators = QueryEstimators(query, instance.pipeline, instance.network)
    plans = list(islice(all_plans(instance), 2000))
    profiles = {measured.configuration: measured for measured in instance.profile.configurations}
    while True:
        drawn = [plans[index] for index in rng.choice(len(plans), size=int(rng.integers(2, 4)))]
        plan = QueryPlan.split(PlanShare(float(rng.uniform(0.1, 1.0)), part) for part in drawn)
        try:
            candidate = estimators.candidate(plan, profiles.__getitem__)
        except PlanningError:
            continue
        if plan.is_split:
            return replace(instance, query=query), estimators, candidate
