"""Random specifications with several queries on shared pools, and their profiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circinus.profiling import PipelineProfile
from circinus.specification import AccuracySlo, CostSlo, KnobValues, LatencySlo, Query, Slos, Specification
from random_instances import random_infrastructure, random_pipeline, random_profile


def random_specification(
    seed: int,
    *,
    queries: int = 4,
    operators: int = 2,
    cpus: float = 8.0,
    nodes: int = 2,
    batch_sizes: tuple[int, ...] = (1,),
) -> tuple[Specification, dict[str, PipelineProfile]]:
    """One pipeline, two or three sites with pools of few nodes of at most `cpus` CPUs: not all queries fit."""
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(rng, operators=operators, cpus=(1.0,), batch_sizes=batch_sizes)
    profile = _with_memory_by_knobs(random_profile(rng, pipeline, items=20))
    infrastructure = random_infrastructure(rng, sites=int(rng.integers(2, 4)))
    pools = tuple(
        pool.model_copy(update={"nodes": min(pool.nodes, nodes), "cpus": min(pool.cpus, cpus)})
        for pool in infrastructure.pools
    )
    accuracies = sorted(found.accuracy.lower for found in profile.configurations)
    asked = [_query(rng, pipeline.name, f"q{index}", accuracies) for index in range(queries)]
    specification = Specification(
        {pipeline.name: pipeline}, infrastructure.model_copy(update={"pools": pools}), tuple(asked)
    )
    return specification, {pipeline.name: profile}


def _with_memory_by_knobs(profile: PipelineProfile) -> PipelineProfile:
    """A replica takes the same memory behind all ancestors, as models do."""
    most: dict[tuple[str, KnobValues], float] = {}
    for found in profile.configurations:
        for name, operator in found.operators.items():
            key = (name, found.configuration[name])
            most[key] = max(most.get(key, 0.0), operator.peak_memory_bytes)
    return replace(
        profile,
        configurations=tuple(
            replace(
                found,
                operators={
                    name: replace(operator, peak_memory_bytes=most[name, found.configuration[name]])
                    for name, operator in found.operators.items()
                },
            )
            for found in profile.configurations
        ),
    )


def _query(rng: np.random.Generator, pipeline: str, name: str, accuracies: list[float]) -> Query:
    """A query that some configuration is accurate enough for."""
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
