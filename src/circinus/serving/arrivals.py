"""When requests arrive: as the processes of their queries draw them, or as a trace has them that was recorded."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.errors import Diagnostic, SpecError
from circinus.queueing.arrivals import ArrivalProcess, Poisson
from circinus.spec.recording import QUERY, TIME, read_arrival_rows


@dataclass(frozen=True, order=True)
class Arrival:
    """One request of `query` that arrives `time_s` after the traffic began."""

    time_s: float
    query: str


def sample_arrivals(processes: Mapping[str, ArrivalProcess], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """One draw of every query's process over `[0, duration_s)`, merged in order of time.

    Every query has a random stream of its own, from the seed and its name, so that adding a query leaves the arrivals
    of the others as they were.
    """
    arrivals: list[Arrival] = []
    for query, process in processes.items():
        times_s = process.times_s(duration_s, query_rng(seed, query, "arrivals"))
        arrivals.extend(Arrival(float(time_s), query) for time_s in times_s)
    return tuple(sorted(arrivals))


def poisson_arrivals(rates_per_s: Mapping[str, float], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """`drawn_arrivals` of independent Poisson processes."""
    return sample_arrivals({query: Poisson(rate) for query, rate in rates_per_s.items()}, duration_s, seed)


def query_rng(seed: int, query: str, purpose: str) -> np.random.Generator:
    """A random stream for one query and purpose, independent of all others."""
    return np.random.default_rng([seed, zlib.crc32(f"{purpose}/{query}".encode())])


def read_trace(path: Path, queries: Collection[str]) -> tuple[Arrival, ...]:
    """Arrivals from a CSV file with the columns `time_s` and `query`, in any order of rows.

    Raises:
        SpecError: the file cannot be read, lacks a column, or has rows without a time >= 0 or a known query; all such
            rows are named.
    """
    rows, _ = read_arrival_rows(path, (TIME, QUERY))
    faults: list[Diagnostic] = []
    arrivals: list[Arrival] = []
    for row in rows:
        if row.time_s is None:
            faults.append(row.fault(path))
        elif row.query is None or row.query not in queries:
            expected = f"a query of the plan: {', '.join(sorted(queries))}"
            faults.append(Diagnostic(str(path), row.line, QUERY, repr(row.query), expected))
        else:
            arrivals.append(Arrival(row.time_s, row.query))
    if faults:
        raise SpecError(faults)
    return tuple(sorted(arrivals))
