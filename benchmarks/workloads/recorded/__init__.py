"""Recordings of the example pipelines: every configuration on every item, measured once with the real models.

`python -m benchmarks.workloads.recorded FOLDER` measures them again, within an hour, and keeps stores in `FOLDER`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.workloads.trace_items import on_items
from circinus.profiling import MeasurementTrace, PipelineProfile, SimulatedClock, TraceBackend, profile_pipeline
from circinus.profiling.trace.trace_file import load_trace
from circinus.specification import Specification

RECORDED = ("meeting", "documents")
"""Pipelines of the examples with these names."""
FOLDER = Path(__file__).parent


def recorded(pipeline: str) -> tuple[MeasurementTrace, PipelineProfile]:
    """Return a recording, and the profile of all of it.

    Args:
        pipeline: of `RECORDED`.
    """
    trace = _of_measured_items(load_trace(FOLDER / f"{pipeline}.trace"))
    with tempfile.TemporaryDirectory(prefix="circinus-recorded-") as folder:
        store, source = Path(folder) / "store.sqlite", TraceBackend(trace, SimulatedClock())
        whole = Specification({pipeline: trace.pipeline}, None, ())
        return trace, profile_pipeline(whole, pipeline, store, source=source, exhaustive=True)


def _of_measured_items(trace: MeasurementTrace) -> MeasurementTrace:
    """Return the recording without the items that the example holds out."""
    measured = np.flatnonzero(np.isfinite(trace.scores).all(axis=0))
    dataset = trace.pipeline.dataset.model_copy(update={"held_out": 0.0})
    pipeline = trace.pipeline.model_copy(update={"dataset": dataset})
    return replace(on_items(trace, measured), pipeline=pipeline)
