"""The examples' pipelines with invented measurements: plans and predictions without running a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.estimates.profiles import CONFIGURATIONS, Measured, benchmark_specification, configuration_of

from circinus.operators import Item
from circinus.profiling import (
    ConfigurationProfile,
    Dataset,
    OperatorProfile,
    PipelineProfile,
    Recordings,
)
from circinus.profiling.item_runs import ItemRuns
from circinus.specification import Configuration, prefix_configuration
from circinus.statistics.interval import Interval

ITEMS = 40


def measured_example(
    example: str, seconds: Callable[[str, np.random.Generator], np.ndarray] | None = None, seed: int = 0
) -> Measured:
    """Profiled on 40 items, and the same recorded as items of traffic.

    Args:
        example: its name.
        seconds: (operator, rng) -> (40,) service times; None: about 0.1 s, and more for the slower configurations.
        seed: of all numbers.
    """
    rng = np.random.default_rng(seed)
    specification = benchmark_specification(example)
    pipeline = specification.pipelines[example]
    configurations = tuple(configuration_of(pipeline, knobs) for knobs in CONFIGURATIONS[example])
    keys = [f"item {number}" for number in range(ITEMS)]
    input_bytes = rng.uniform(1e5, 2e5, ITEMS)
    profiles: list[ConfigurationProfile] = []
    by_prefix: dict[Configuration, OperatorProfile] = {}
    for number, configuration in enumerate(configurations):
        operators = {}
        for operator in pipeline.operators:
            of = prefix_configuration(pipeline, configuration, operator.name)
            if of not in by_prefix:
                by_prefix[of] = OperatorProfile(
                    operator=operator.name,
                    prefix=of,
                    service_s=seconds(operator.name, rng) if seconds else (1 + number) * rng.gamma(9, 0.1 / 9, ITEMS),
                    output_bytes=rng.uniform(1e3, 2e3, ITEMS),
                    peak_memory_bytes=2.0**28,
                    load_s=1.0,
                    batch_ratio={(operator.cpus[0], size): float(size) ** 0.8 for size in operator.batch_sizes},
                )
            operators[operator.name] = by_prefix[of]
        profiles.append(
            ConfigurationProfile(
                configuration, np.arange(ITEMS), np.ones(ITEMS), Interval(1.0, 0.9, 1.0), input_bytes, operators
            )
        )
    profile = PipelineProfile(example, "", 2 * ITEMS, ITEMS, "local", 0.05, tuple(profiles), 0, 0.0, 0.0)
    runs = {
        of: {
            key: ItemRuns.single(float(s), float(b))
            for key, s, b in zip(keys, operator.service_s, operator.output_bytes, strict=True)
        }
        for of, operator in by_prefix.items()
    }
    sizes_of = dict(zip(keys, input_bytes.tolist(), strict=True))
    recordings = Recordings(example, tuple(keys), sizes_of, runs, {}, {})
    items = tuple(Item(key, None, None) for key in keys)
    dataset = Dataset(items, tuple(range(ITEMS)), 0, 0, "", ("",) * ITEMS, (0,) * ITEMS)
    return Measured(specification, pipeline, Path("nowhere"), configurations, profile, recordings, dataset, items)
