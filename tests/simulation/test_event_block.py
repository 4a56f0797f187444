"""Compiled events against the reference in Python: equal to the last bit, also when buffers grow."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from python_stations import PythonBlock
from test_engine_agreement import SEEDS, scene

from circinus.queueing import edf, event_block
from circinus.queueing.event_arrays import VisitDepartures
from circinus.queueing.event_block import EventBlock
from circinus.simulation import feedback_stations
from circinus.simulation.engine import Simulation
from circinus.specification import LatePolicy

Run = tuple[list[np.ndarray], list[VisitDepartures]]


@pytest.mark.parametrize("late", LatePolicy)
@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_events_are_those_of_the_reference(
    seed: int, late: LatePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_block, "_MIN_SIZE", 1)
    times, departures = _run(seed, late, EventBlock, monkeypatch)
    expected_times, expected_departures = _run(seed, late, PythonBlock, monkeypatch)
    for column, expected in zip(times, expected_times, strict=True):
        np.testing.assert_array_equal(column, expected)
    for part, expected_part in zip(departures, expected_departures, strict=True):
        for name in ("visit", "request", "time_s", "order", "start_s", "end_s", "fill"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected_part, name))


def _run(seed: int, late: LatePolicy, block: type[object], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the times of results and drops, queues and sums, and all departures, of two windows and the rest."""
    monkeypatch.setattr(edf, "EventBlock", block)
    monkeypatch.setattr(feedback_stations, "EventBlock", block)
    drawn, departures = scene(seed, late=late), []
    simulation = Simulation(
        drawn.model.stations, drawn.model.queries, duration_s=100.0, warm_up_s=5.0, requests=drawn.requests,
        watch=departures.append,
    )  # fmt: skip
    queued = []
    for share in (0.3, 0.6):
        simulation.advance(share * float(max(requests.arrival_s[-1] for requests in drawn.requests)))
        queued.append(np.array(list(simulation.queued().values())))
    simulation.run()
    visits = [
        astuple(simulation.visit(query, visit))
        for query, run in enumerate(simulation.runs)
        for visit in range(len(run.query.visits))
    ]
    sums = [np.array(visits), np.array([astuple(station) for station in simulation.station_stats])]
    times = (column for run in simulation.runs for column in (run.done_s, run.dropped_s))
    return [*times, *queued, *sums], departures
