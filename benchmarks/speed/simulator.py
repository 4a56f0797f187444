"""Speed of the simulator: four operators with one and with several replicas, with batches, and with return visits.

Also with two queries, one of which has a latency limit three times that of the other, so that requests overtake.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.queueing.arrivals import Poisson
from circinus.queueing.fcfs import Station
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Visit

_REPEATS = 9
_RATE_PER_S = 80.0
_UTILIZATION = 0.7
_LIMITS_S = (1.0, 3.0)


def simulator_part(requests: int, console: Console) -> PartResult:
    """Measure process seconds, medians of nine runs."""
    cases = {
        "one replica each": ([1, 1, 1, 1], 1, [0, 1, 2, 3], requests),
        "four replicas each": ([4, 4, 4, 4], 1, [0, 1, 2, 3], requests),
        "batches of 8": ([2, 2, 2, 2], 8, [0, 1, 2, 3], requests),
        "back to the first": ([2, 2, 2], 1, [0, 1, 0, 2], requests),
    }
    limited = {f"{name}, two limits": (*case[:3], requests // 10) for name, case in cases.items()}
    rows: list[dict[str, Any]] = []
    for name, (servers, batch, route, count) in (cases | limited).items():
        limits_s = _LIMITS_S if name in limited else (math.inf,)
        seconds = median(_seconds(servers, batch, route, count, seed, limits_s) for seed in range(_REPEATS))
        executions = count * len(route)
        rows.append(
            {"part": "simulator", "case": name, "requests": count, "seconds": seconds, "a_second": executions / seconds}
        )
        console.print(f"{name}: {count:,} requests in {seconds:.2f} s, {executions / seconds:,.0f} executions a second")
    slowest = max(rows[:3], key=lambda row: row["seconds"])
    overtaking = min(rows[len(cases) :], key=lambda row: row["a_second"])
    note = f"slowest of three: {slowest['case']}; process seconds, one core"
    million_s = slowest["seconds"] * 1_000_000 / requests
    figures = [
        Figure("simulation of a million requests over 4 operators", million_s, 15.0, "lower", "s", note),
        Figure("simulated executions a second", slowest["a_second"], 300_000, "higher", "/s", note),
        Figure("simulated executions a second where requests come back to a station", rows[3]["a_second"], 20_000_000,
               "higher", "/s", "process seconds, one core"),
        Figure("simulated executions a second with two latency limits", overtaking["a_second"], None, "higher", "/s",
               f"slowest of four: {overtaking['case']}"),
    ]  # fmt: skip
    return figures, rows


def _seconds(
    servers: list[int], batch: int, route: list[int], requests: int, seed: int, limits_s: tuple[float, ...]
) -> float:
    ratios = tuple(1.0 + 0.3 * k for k in range(batch))
    stations = [Station(str(number), count, ratios) for number, count in enumerate(servers)]
    service_s = np.random.default_rng(0).exponential(1.0, 4096)
    visits = []
    for index, station in enumerate(route):
        mean_s = _UTILIZATION * servers[station] * batch / ratios[-1] / _RATE_PER_S / route.count(station)
        visits.append(Visit(station, (index - 1,) if index else (), service_s * mean_s))
    queries = []
    for limit_s in limits_s:
        limited = tuple(replace(v, latest_start_s=limit_s * (n + 1) / len(visits)) for n, v in enumerate(visits))
        arrivals = Poisson(_RATE_PER_S / len(limits_s))
        queries.append(QueryModel(f"q{limit_s}", arrivals, len(service_s), limited, (len(route) - 1,)))
    start_s = process_time()
    Simulation(stations, queries, duration_s=requests / _RATE_PER_S, seed=seed).run()
    return process_time() - start_s
