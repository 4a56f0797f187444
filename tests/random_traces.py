"""Random traces of a small pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.trace.measurement_trace import MeasurementTrace, prefix_rows
from circinus.profiling.trace.trace_runner import TraceBackend
from circinus.specification import Configuration, DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline, Specification


def trace_pipeline(held_out: float = 0.0) -> Pipeline:
    """Return a pipeline first -> (second, third) -> last with eight configurations. Its code does not exist."""
    knob = (Knob(name="k", choices=(1, 2)),)
    return Pipeline(
        name="traced",
        operators=(
            OperatorSpec(name="first", uses="no_such_module:first", knobs=knob),
            OperatorSpec(
                name="second",
                uses="no_such_module:second",
                after=("first",),
                knobs=knob,
                cpus=(1.0, 2.0),
                batch_sizes=(1, 2),
            ),
            OperatorSpec(name="third", uses="no_such_module:third", after=("first",)),
            OperatorSpec(name="last", uses="no_such_module:last", after=("second", "third"), knobs=knob),
        ),
        metric=MetricSpec(name="closeness", uses="no_such_module:closeness"),
        dataset=DatasetSpec(uses="no_such_module:items", held_out=held_out),
    )


def random_trace(
    pipeline: Pipeline, items: int, *, seed: int, configurations: Sequence[Configuration] | None = None
) -> MeasurementTrace:
    """Return a trace with scores that differ by configuration and item, and times in 1/16 s, so that sums are exact."""
    rng = np.random.default_rng(seed)
    traced = tuple(prefix_order(pipeline) if configurations is None else configurations)
    rows, owners = prefix_rows(pipeline, traced)
    levels = rng.uniform(0.2, 0.9, (len(traced), 1))
    loads_s = {(name, c[name]): float(rng.integers(1, 9)) / 4 for c in traced for name in c}
    replicas = {key: StoredReplica(load_s, 2.0**20, startup_s=load_s + 0.5) for key, load_s in loads_s.items()}
    return MeasurementTrace(
        pipeline=pipeline,
        configurations=traced,
        rows=rows,
        service_s=rng.integers(1, 32, (len(owners), items)) / 16,
        output_bytes=rng.integers(0, 60, (len(owners), items)).astype(np.float64),
        scores=np.clip(levels + rng.normal(0, 0.15, (len(traced), items)), 0.0, 1.0),
        replicas=replicas,
        item_keys=tuple(f"i{i}" for i in range(items)),
        item_addresses=tuple(f"address of i{i}" for i in range(items)),
        strata=tuple({"third": str(i % 3)} for i in range(items)),
        input_bytes=rng.integers(1, 100, items).astype(np.float64),
        dataset_fingerprint=f"items {items}",
    )


def addresses_of(trace: MeasurementTrace, pipeline: Pipeline) -> MeasurementKeys:
    return TraceBackend(trace).addresses(pipeline, trace.machine)


def specification_of(pipeline: Pipeline) -> Specification:
    return Specification(pipelines={pipeline.name: pipeline}, infrastructure=None, queries=(), module_paths=())
