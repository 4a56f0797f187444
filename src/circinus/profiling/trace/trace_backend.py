"""Measurement backend of a trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from circinus.operators import Item
from circinus.profiling.dataset.item_order import measurement_order
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.dataset.scorer import ItemScorer
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.runner import Runner
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.profiling.trace.trace_file import trace_digest
from circinus.profiling.trace.trace_runner import SimulatedClock, TraceRunner
from circinus.specification import Pipeline


class TraceBackend:
    """`MeasurementBackend` on a trace: needs neither operators nor item values, and its clock counts recorded time.

    Its measurements may share a store with real ones: they share no key with these, nor with those of other traces.
    """

    def __init__(self, trace: MeasurementTrace, clock: SimulatedClock | None = None) -> None:
        """Measure from `trace`; the default clock starts at 0."""
        self.trace = trace
        self._clock = clock or SimulatedClock()
        self._digest = trace_digest(trace)

    @property
    def clock(self) -> Callable[[], float]:
        """Clock of recorded seconds."""
        return self._clock

    @property
    def machine(self) -> Machine | None:
        """See `MeasurementBackend.machine`."""
        return self.trace.machine

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """See `MeasurementBackend.addresses`."""
        self.trace.check(pipeline)
        versions = self.trace.code_versions
        code = CodeVersions(
            operators={o.uses: versions.get(o.uses, "not recorded") for o in pipeline.operators},
            metric=versions.get(pipeline.metric.uses, "not recorded"),
            dataset=versions.get(pipeline.dataset.uses, "not recorded"),
        )
        return MeasurementKeys(pipeline, code, machine=machine, origin=f"trace {self._digest}")

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """Return the data set with keys, strata and sizes, without values (see `MeasurementBackend.dataset`)."""
        trace = self.trace
        held_out = pipeline.dataset.held_out_items(len(trace.item_keys))
        order = measurement_order(trace.strata, held_out, np.random.default_rng(seed))
        return Dataset(
            items=tuple(Item(key, None, None, dict(s)) for key, s in zip(trace.item_keys, trace.strata, strict=True)),
            order=tuple(order.tolist()),
            held_out_items=held_out,
            seed=seed,
            fingerprint=trace.dataset_fingerprint,
            addresses=trace.item_addresses,
            input_bytes=tuple(int(size) for size in trace.input_bytes),
        )

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """Return a scorer with the recorded scores (see `MeasurementBackend.scorer`)."""
        return TraceRunner(self.trace, self.addresses(pipeline, self.machine), self._clock)

    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """See `MeasurementBackend.runner`."""
        return TraceRunner(self.trace, keys, self._clock)
