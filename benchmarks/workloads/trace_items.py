"""Recorded measurements on some of their items."""

from __future__ import annotations

from dataclasses import replace

from circinus.arrays import IntArray
from circinus.profiling import MeasurementTrace


def on_items(trace: MeasurementTrace, items: IntArray) -> MeasurementTrace:
    """Return a trace on (n,) of its items, in their order."""
    rows = items.tolist()
    return replace(
        trace,
        service_s=trace.service_s[:, items],
        output_bytes=trace.output_bytes[:, items],
        scores=trace.scores[:, items],
        item_keys=tuple(trace.item_keys[row] for row in rows),
        item_addresses=tuple(trace.item_addresses[row] for row in rows),
        strata=tuple(trace.strata[row] for row in rows),
        input_bytes=trace.input_bytes[items],
        dataset_fingerprint=f"{trace.dataset_fingerprint} of {len(rows)} items",
    )
