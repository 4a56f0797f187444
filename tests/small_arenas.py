"""Small arenas with known measurements, for tests of searches."""

from __future__ import annotations

import numpy as np
from benchmarks.search.arena import Arena, PlanSpace

from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline

MODELS = ("small", "middle", "large")


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
