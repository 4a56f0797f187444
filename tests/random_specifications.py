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
