"""Plans of the examples in mode real: predicted and measured p95 under three loads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.estimates.computing import COMPUTED, ComputingOptions, computed, computed_plan
from benchmarks.estimates.error_figures import NEAR, Row, ratio, share_near
from benchmarks.estimates.local_engine import rows_table
from benchmarks.estimates.predictions import planned_query
from benchmarks.estimates.profiles import measure
from benchmarks.estimates.real_plans import RealPlan
from benchmarks.estimates.replay import LEVELS
from benchmarks.estimates.trace_simulation import sent, traced_s
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.arrays import FloatArray
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.serving.local.capacity import MachineCapacity

_WARM_UP_S = 4.0
_HELD_OUT = 0.7
"""Share of the items that are neither measured nor sent: the others take two minutes."""
_JITTER = 0.4999
"""Jitter of arrivals in periods, almost the most. With Poisson arrivals, the p95 of a run of 60 s would be within 15 %
of its expectation in a third of the runs, whatever the service times."""
_SEEDS = 20
"""Number of simulated runs of a plan and a load."""


def loads_part(plans: int, duration_s: float, console: Console) -> PartResult:
    """Run plans whose replicas compute under three loads each; the profiles are measured first.

    Requests carry the profiled items, so that their choice makes no difference.
    """
    options = ComputingOptions(duration_s, _WARM_UP_S, seed=0)
    choices = [COMPUTED[number * len(COMPUTED) // plans] for number in range(plans)]
    with tempfile.TemporaryDirectory() as folder:
        state, machine, reals = Path(folder), MachineCapacity.of_this_machine(), []
        for example in dict.fromkeys(choice.example for choice in choices):
            its_choices = [choice for choice in choices if choice.example == example]
            measured = measure(example, state, console, [c.configuration for c in its_choices], _HELD_OUT)
            reals += [replace(computed_plan(choice, measured, machine), jitter=_JITTER) for choice in its_choices]
        rows = computed(reals, options, state, console)
        simulated_s = [_simulated_p95_s(real, level, options) for real in reals for level in LEVELS]
    rows = [_beside_simulated(row, p95_s) for row, p95_s in zip(rows, simulated_s, strict=True)]
    console.print(rows_table(rows))
    return _figures(rows), [row | {"part": "loads"} for row in rows]


def _simulated_p95_s(real: RealPlan, level: float, options: ComputingOptions) -> FloatArray:
    """Return the simulated p95 of runs with profiled service times; the first has the requests of the measured run."""
    keys = [item.key for item in real.measured.items]
    query, profile = real.query(level), real.measured.of_traffic(real.plan.configuration, keys)
    planned, p95_s = planned_query(real, query, profile), []
    for seed in range(options.seed, options.seed + _SEEDS):
        traffic = LoadSpec(options.duration_s, options.warm_up_s, seed=seed)
        requests = sent(query, len(keys), traffic)
        latency_s = traced_s(planned, real.replicas, real.network, requests, options.warm_up_s)
        p95_s.append(np.quantile(latency_s, 0.95))
    return np.array(p95_s)


def _beside_simulated(row: Row, simulated_s: FloatArray) -> dict[str, object]:
    same_s = float(simulated_s[0])
    return {
        **row,
        "same_requests_p95_s": same_s,
        "same_requests_over_measured": ratio(same_s, row["measured_p95_s"]),
        "simulated_near": float(np.mean(np.abs(row["predicted_p95_s"] / simulated_s - 1.0) <= NEAR)),
        "simulated_p95_s": [float(simulated_s.min()), float(simulated_s.max())],
    }


def _is_simulated(row: Row) -> bool:
    lower_s, upper_s = row["simulated_p95_s"]
    return row["measured_p95_s"] is not None and lower_s <= row["measured_p95_s"] <= upper_s


def _figures(rows: Sequence[Row]) -> list[Figure]:
    note = f"{len(rows)} pairs of a plan and a load"

    def median_error(ratio_of: str) -> float:
        return float(np.median([abs(row[ratio_of] - 1.0) for row in rows if row[ratio_of] is not None] or [np.nan]))

    return [
        Figure(f"p95 predicted to {NEAR:.0%}", share_near(rows, "predicted_over_measured"), 0.8, "higher", "of loads",
               f"0.25 before, with Poisson arrivals; {note}"),
        Figure("median error of the predicted p95", median_error("predicted_over_measured"), None, "lower",
               "of measured", note),
        Figure(f"p95 predicted to {NEAR:.0%} in simulated runs of this length", float(np.mean([row["simulated_near"]
               for row in rows])), None, "higher", "of runs", "what chance leaves, with exact service times"),
        Figure(f"p95 of the same requests simulated to {NEAR:.0%}", share_near(rows, "same_requests_over_measured"),
               None, "higher", "of loads", "without chance: errors of service times and of the engine"),
        Figure("median error of the p95 of the same requests", median_error("same_requests_over_measured"), None,
               "lower", "of measured", note),
        Figure(f"p95 beyond those of {_SEEDS} simulated runs", float(np.mean([not _is_simulated(row) for row in rows])),
               None, "lower", "of loads", f"with exact service times {2 / (_SEEDS + 1):.0%} by chance"),
        Figure("other programs", float(np.median([row["others_cpus"] for row in rows])), None, "lower", "CPUs",
               "median; measured latencies have all waits for them, predicted ones have none"),
        Figure("service times under load", float(np.median([row["service_over_profiled"] for row in rows])), None,
               "lower", "of profiled", "median"),
    ]  # fmt: skip
