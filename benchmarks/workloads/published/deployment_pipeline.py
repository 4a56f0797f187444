"""Cells of LLM deployments in the product's terms: a pipeline of one operator, and its trace.

| published | in the specification |
|---|---|
| engine, precision, parallelism, batch | knobs of the operator, those that vary in the cell |
| TPOT <= b | service time of an item (a token), and the latency SLO |
| TTFT <= a | score, its logarithm, to be minimized; the SLO of the mean score |
| GPUs over requests in decoding | GPU memory of a replica (the share of one request), known by `gpu_memory_cases` |
| GPU-seconds a token | cost: GPU memory times busy seconds |
| settings that nobody measured | GPU memory that no node has |

A pipeline has one latency, that of a request from end to end, so that two latency limits cannot be written as such.
The score carries one of them: it is as exact, since the order of logarithms is that of the times, and all items of the
data set have the published mean. There are no waits: many replicas at half load serve periodic arrivals. So the
cheapest plan is the cheapest deployment that keeps both limits; a complete measurement finds it in all cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.workloads.published.deployments import Cell
from circinus.arrays import FloatArray
from circinus.profiling import MeasurementTrace
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import (
    AccuracySlo,
    Configuration,
    DatasetSpec,
    GpuMemoryCase,
    Infrastructure,
    Knob,
    KnobValues,
    LatencySlo,
    MetricSpec,
    OperatorSpec,
    PeriodicArrivals,
    Pipeline,
    Query,
    Slos,
    Specification,
)

QUERY = "stream"
_PIPELINE, _OPERATOR, _SITE = "deployment", "serve", "data-centre"
_GPU_BYTES = 2.0**30
_NODE_GPUS = 1024
_RATE_PER_S = 2000.0
_ITEMS = 8
"""Number of items of the first checkpoint, on which a deployment is measured completely."""
_FASTEST_S, _DECADES = 1e-3, 6.0
"""Time of score 0, and powers of ten up to the time of score 1."""


def specification(cell: Cell, ttft_s: float, tpot_s: float) -> Specification:
    """Return a specification of one query with both limits on a cell's configurations."""
    cases = zip(cell.values, cell.gpus_per_stream.tolist(), strict=True)
    operator = OperatorSpec(
        name=_OPERATOR,
        uses="published_deployments:serve",
        knobs=tuple(Knob(name=k, choices=v, ordered=cell.ordered(k)) for k, v in cell.knobs.items()),
        cpus=(1e-3,),
        gpu_memory_bytes=2 * _NODE_GPUS * _GPU_BYTES,
        gpu_memory_cases=tuple(
            GpuMemoryCase(only_if={k: (v,) for k, v in values.items()}, size_bytes=gpus * _GPU_BYTES)
            for values, gpus in cases
        ),
    )
    pipeline = Pipeline(
        name=_PIPELINE,
        operators=(operator,),
        metric=MetricSpec(name="log TTFT", uses="published_deployments:log_ttft", direction="minimize"),
        dataset=DatasetSpec(uses="published_deployments:tokens", held_out=0.0, population="items"),
    )
    limits = Slos(
        latency=LatencySlo(percentile=50, limit_s=tpot_s),
        accuracy=AccuracySlo(threshold=float(_score(np.array(ttft_s))), comparison="<="),
    )
    query = Query(
        name=QUERY, pipeline=_PIPELINE, source=_SITE, rate_per_s=_RATE_PER_S, arrivals=PeriodicArrivals(), slos=limits
    )
    return Specification({_PIPELINE: pipeline}, _gpus(), (query,))


def _gpus() -> Infrastructure:
    pool = {
        "name": "gpus",
        "site": _SITE,
        "tier": "cloud",
        "nodes": 4,
        "cpus": 1e4,
        "memory": "1TiB",
        "gpu_memory": _NODE_GPUS * _GPU_BYTES,
        "hardware": {"class": "local"},
        "price": float(_NODE_GPUS),
    }
    return Infrastructure.model_validate(
        {"name": "cluster", "tiers": ["cloud"], "sites": [_SITE], "pools": [pool], "utilization_targets": [0.5]}
    )


def trace(cell: Cell, pipeline: Pipeline) -> MeasurementTrace:
    """Return the trace of a cell, whose configurations are in the cell's order."""
    chosen = configurations(cell)
    rows, _ = prefix_rows(pipeline, chosen)
    items = tuple(f"token-{number}" for number in range(_ITEMS))
    return MeasurementTrace(
        pipeline=pipeline,
        configurations=chosen,
        rows=rows,
        service_s=_for_all(cell.tpot_s),
        output_bytes=_for_all(np.zeros(len(chosen))),
        scores=_for_all(_score(cell.ttft_s)),
        replicas={(_OPERATOR, c[_OPERATOR]): StoredReplica(0.0, 0, startup_s=0.0) for c in chosen},
        item_keys=items,
        item_addresses=items,
        strata=({},) * _ITEMS,
        input_bytes=np.zeros(_ITEMS),
        dataset_fingerprint=cell.name,
    )


def configurations(cell: Cell) -> tuple[Configuration, ...]:
    """Return the configurations in the cell's order."""
    return tuple(Configuration.of({_OPERATOR: KnobValues.of(dict(values))}) for values in cell.values)


def _score(ttft_s: FloatArray) -> FloatArray:
    return np.asarray(np.log10(ttft_s / _FASTEST_S) / _DECADES)


def _for_all(values: FloatArray | Sequence[float]) -> FloatArray:
    return np.repeat(np.asarray(values)[:, None], _ITEMS, axis=1)
