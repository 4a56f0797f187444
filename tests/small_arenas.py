"""Small arenas with known measurements, for tests of searches."""

from __future__ import annotations

import numpy as np
from benchmarks.evaluation.contest import Contest
from benchmarks.search.arena import Arena, PlanSpace
from benchmarks.workloads.published.profiles import profiled
from benchmarks.workloads.published.sites import infrastructure

from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline, Query, Specification

MODELS = ("small", "middle", "large")
LIMITS = (("p95 <= 0.5s", ">= 0.5"), ("p95 <= 2s", ">= 0.7"), ("p90 <= 5s", ">= 0.85"), ("p95 <= 1ms", ">= 0.5"))
"""(latency, accuracy) of queries of `tiny_contest`; nothing meets the last one."""


def tiny_arena(rng: np.random.Generator, *, items: int = 40, sizes: int = 3, direction: str = "maximize") -> Arena:
    """Return a resize with `sizes` factors and a detector with three models; larger choices are slower and better."""
    pipeline = Pipeline(
        name="tiny",
        operators=(
            OperatorSpec(
                name="resize",
                uses="t:resize",
                knobs=(Knob(name="factor", choices=tuple(range(1, sizes + 1)), ordered=True),),
            ),
            OperatorSpec(
                name="detect", uses="t:detect", after=("resize",), knobs=(Knob(name="model", choices=MODELS),)
            ),
        ),
        metric=MetricSpec(name="score", uses="t:score", direction=direction),
        dataset=DatasetSpec(uses="t:data"),
    )
    configurations = prefix_order(pipeline)
    rows, owners = prefix_rows(pipeline, configurations)
    factors = np.array([int(c["resize"].as_dict()["factor"]) for _, c in owners])
    models = np.array([MODELS.index(str(c["detect"].as_dict()["model"])) for _, c in owners])
    resizes = np.array([name == "resize" for name, _ in owners])
    service_s = np.where(resizes, 0.01 * factors, 0.02 * factors * (1 + models) ** 2)
    detector = rows[:, 1]
    level = 0.2 + 0.4 * factors[detector] / sizes + 0.15 * models[detector]
    if direction == "minimize":
        level = 1.0 - level
    noise = rng.normal(0, 0.1, items)[None, :] + rng.normal(0, 0.03, (len(configurations), items))
    return Arena(
        space=PlanSpace(
            name="tiny",
            pipeline=pipeline,
            configurations=configurations,
            rows=rows,
            memory_mib=np.column_stack(
                [np.zeros(len(detector)), np.array([500.0, 1_500.0, 2_500.0])[models[detector]]]
            ),
            input_bytes=1e6,
            strata=tuple({"half": str(item % 2)} for item in range(items)),
        ),
        service_s=service_s,
        item_s=2 * service_s,
        output_bytes=np.where(resizes, 2e5 * factors, 0.0),
        scores=np.clip(level[:, None] + noise, 0.0, 1.0),
        population=items,
    )


def tiny_contest(rate_per_s: float = 0.5) -> Contest:
    """Return twelve queries on `tiny_arena`, of which nine can be served, at three rates from `rate_per_s`."""
    trace, profile = profiled(tiny_arena(np.random.default_rng(0)), "tiny")
    queries = tuple(
        Query(
            name=f"query-{number}",
            pipeline="tiny",
            source=f"place-{number % 4}",
            rate=rate_per_s + number % 3,
            slos={"latency": latency, "accuracy": accuracy},
            weight=1.0 + number % 2,
        )
        for number, (latency, accuracy) in enumerate(LIMITS * 3)
    )
    specification = Specification({"tiny": trace.pipeline}, infrastructure(), queries)
    return Contest("tiny", specification, {"tiny": profile}, {"tiny": trace})
