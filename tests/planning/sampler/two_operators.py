"""A recorded pipeline of two operators, and two queries on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    ConfigurationProfile,
    MeasurementTrace,
    PipelineProfile,
    ProfileProgress,
    SilentObserver,
    SimulatedClock,
    TraceBackend,
    profile_pipeline,
)
from circinus.specification import (
    AccuracySlo,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    LatencySlo,
    Link,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Slos,
    Specification,
)
from random_traces import random_trace

CHOICES = 5
ITEMS = 80
PIPELINE = Pipeline(
    name="two",
    operators=(
        OperatorSpec(
            name="see",
            uses="no_such_module:see",
            knobs=(Knob(name="size", choices=tuple(range(CHOICES)), ordered=True),),
        ),
        OperatorSpec(
            name="tell",
            uses="no_such_module:tell",
            after=("see",),
            knobs=(Knob(name="width", choices=tuple(range(CHOICES)), ordered=True),),
        ),
    ),
    metric=MetricSpec(name="closeness", uses="no_such_module:closeness"),
    dataset=DatasetSpec(uses="no_such_module:items", held_out=0.0, population="items"),
)


def level(configuration: Configuration) -> tuple[int, int]:
    return tuple(int(own.values[0][1]) for _, own in configuration.operators)  # type: ignore[return-value]


def recorded(seed: int) -> MeasurementTrace:
    """Return a trace in which greater knob values take longer and score higher, with diminishing gains."""
    trace = random_trace(PIPELINE, ITEMS, seed=seed)
    rng = np.random.default_rng(seed)
    easiness = rng.normal(0, 0.12, ITEMS)
    levels = np.array([0.55 + 0.3 * (1 - 0.5**a) + 0.15 * (1 - 0.5**b) for a, b in map(level, trace.configurations)])
    service_s = np.zeros_like(trace.service_s)
    for rows, configuration in zip(trace.rows, trace.configurations, strict=True):
        for row, value in zip(rows, level(configuration), strict=True):
            service_s[row] = (2.0**value) / 16
    scores = levels[:, None] + easiness + rng.normal(0, 0.05, (len(levels), ITEMS))
    return replace(trace, service_s=service_s, scores=np.clip(scores, 0.0, 1.0))


def two_queries(thresholds: tuple[float, ...] = (0.7, 0.8)) -> Specification:
    pools = (
        Pool(
            name="near",
            site="here",
            tier="edge",
            cpus=4,
            memory=2**30,
            price=1.0,
            hardware=HardwareClass(**{"class": "local"}),
        ),
        Pool(
            name="far",
            site="there",
            tier="cloud",
            cpus=64,
            memory=2**33,
            price=20.0,
            hardware=HardwareClass(**{"class": "big"}, relative_speed=4.0),
        ),
    )
    infrastructure = Infrastructure(
        name="all",
        sites=("here", "there"),
        pools=pools,
        links=(Link(**{"from": "here", "to": "there"}, bandwidth=1e6, round_trip=0.01),),
    )
    queries = tuple(
        Query(
            name=f"q{threshold}",
            pipeline=PIPELINE.name,
            source="here",
            rate=0.2,
            slos=Slos(accuracy=AccuracySlo(threshold=threshold), latency=LatencySlo(limit=6.0)),
        )
        for threshold in thresholds
    )
    return Specification({PIPELINE.name: PIPELINE}, infrastructure, queries)


def measured(
    trace: MeasurementTrace,
    specification: Specification,
    store: Path,
    *,
    explored: bool = True,
    budget_s: float | None = None,
    observer: SilentObserver | None = None,
) -> tuple[PipelineProfile, float]:
    """Return the profile with or without a sampler, and the simulated seconds that it took."""
    clock = SimulatedClock()
    found = profile_pipeline(
        specification,
        PIPELINE.name,
        store,
        budget_s=budget_s,
        observer=observer,
        source=TraceBackend(trace, clock),
        explorer=make_sampler(specification, PIPELINE.name) if explored else None,
        exhaustive=not explored,
    )
    return found, clock()


def beginning(known: ConfigurationProfile, items: int) -> ConfigurationProfile:
    """Return the profile on its first items."""
    operators = {
        name: replace(o, service_s=o.service_s[:items], output_bytes=o.output_bytes[:items])
        for name, o in known.operators.items()
    }
    return replace(
        known,
        items=known.items[:items],
        scores=known.scores[:items],
        input_bytes=known.input_bytes[:items],
        operators=operators,
    )


@dataclass(frozen=True)
class Whole:
    """Uninterrupted profiling run with a sampler."""

    profile: PipelineProfile
    seconds: float
    store: Path
    """Store for reading only."""


class Breaker(SilentObserver):
    """Observer that interrupts profiling after some increments, like Ctrl-C."""

    def __init__(self, after: int) -> None:
        self._left = after

    def progressed(self, progress: ProfileProgress) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
