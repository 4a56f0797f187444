"""Profiles of published data sets, measured completely by the product's profiler."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.search.arena import Arena
from benchmarks.workloads.published.speech import KNOBS
from circinus.profiling import MeasurementTrace, PipelineProfile, SimulatedClock, TraceBackend, profile_pipeline
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import Pipeline, Specification

_MIB = 2**20
_DEAD_KNOB, _CHOICE = next((name, knob) for name, knob in KNOBS.items() if knob == "frequency_mask_width"), 1_000
"""(operator, knob) without effect on scores and hardly any on times, and its only retained choice."""


def without_dead_knob(arena: Arena) -> Arena:
    """Return the arena with a single choice of the knob without effect; other arenas are unchanged."""
    operator, knob = _DEAD_KNOB
    space = arena.space
    if all(o.name != operator for o in space.pipeline.operators):
        return arena
    retained = np.array([c[operator].as_dict()[knob] == _CHOICE for c in space.configurations])
    operators = tuple(
        o.model_copy(update={"knobs": tuple(k.model_copy(update={"choices": (_CHOICE,)}) for k in o.knobs)})
        if o.name == operator
        else o
        for o in space.pipeline.operators
    )
    pipeline = space.pipeline.model_copy(update={"operators": operators})
    configurations = tuple(c for c, is_retained in zip(space.configurations, retained, strict=True) if is_retained)
    rows, _ = prefix_rows(pipeline, configurations)
    original_rows = space.rows[retained]
    row_of = np.empty(int(rows.max()) + 1, dtype=np.int64)
    row_of[rows] = original_rows
    return replace(
        arena,
        space=replace(
            space, pipeline=pipeline, configurations=configurations, rows=rows, memory_mib=space.memory_mib[retained]
        ),
        service_s=arena.service_s[row_of],
        item_s=arena.item_s[row_of],
        output_bytes=arena.output_bytes[row_of],
        scores=arena.scores[retained],
        published=None if arena.published is None else arena.published[retained],
    )


def profiled(arena: Arena, name: str) -> tuple[MeasurementTrace, PipelineProfile]:
    """Profile every configuration of a drawn arena on every item, on a simulated clock; return its trace, too.

    Args:
        arena: a drawn arena.
        name: name of the pipeline.
    """
    dataset = arena.space.pipeline.dataset.model_copy(update={"held_out": 0.0})
    pipeline = arena.space.pipeline.model_copy(update={"name": name, "dataset": dataset})
    trace = _trace(arena, pipeline)
    with tempfile.TemporaryDirectory(prefix="circinus-load-") as folder:
        profile = profile_pipeline(
            Specification({name: pipeline}, None, ()),
            name,
            Path(folder) / "store.sqlite",
            source=TraceBackend(trace, SimulatedClock()),
            exhaustive=True,
        )
    return trace, profile


def _trace(arena: Arena, pipeline: Pipeline) -> MeasurementTrace:
    space, items = arena.space, arena.space.items
    names = [operator.name for operator in pipeline.topological_order()]
    return MeasurementTrace(
        pipeline=pipeline,
        configurations=space.configurations,
        rows=space.rows,
        service_s=np.broadcast_to(arena.service_s[:, None], (len(arena.service_s), items)),
        output_bytes=np.broadcast_to(np.floor(arena.output_bytes)[:, None], (len(arena.output_bytes), items)),
        scores=arena.scores,
        replicas={
            (name, configuration[name]): StoredReplica(0.0, int(memory_mib * _MIB), startup_s=0.0)
            for configuration, row in zip(space.configurations, space.memory_mib, strict=True)
            for name, memory_mib in zip(names, row, strict=True)
        },
        item_keys=tuple(str(item) for item in range(items)),
        item_addresses=tuple(f"{pipeline.name} {item}" for item in range(items)),
        strata=space.strata,
        input_bytes=np.full(items, np.floor(space.input_bytes)),
        dataset_fingerprint=f"{pipeline.name} {items}",
    )
