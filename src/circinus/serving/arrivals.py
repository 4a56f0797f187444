"""When requests arrive: Poisson processes, or a trace that was recorded elsewhere."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.errors import Fault, SpecError


@dataclass(frozen=True, order=True)
class Arrival:
    """One request of `query` that arrives `time_s` after the traffic began."""

    time_s: float
    query: str


def poisson_arrivals(rates_per_s: Mapping[str, float], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """Independent Poisson processes over `[0, duration_s)`, merged in order of time.

    Given their number, the arrivals of a Poisson process are independent and uniform (Kingman, Poisson Processes,
    chapter 2): that is how they are drawn. Every query has a random stream of its own, from the seed and its name, so
    that adding a query leaves the arrivals of the others as they were.
    """
    arrivals: list[Arrival] = []
    for query, rate_per_s in rates_per_s.items():
        rng = query_rng(seed, query, "arrivals")
        times_s = rng.uniform(0.0, duration_s, rng.poisson(rate_per_s * duration_s))
        arrivals.extend(Arrival(float(time_s), query) for time_s in times_s)
    return tuple(sorted(arrivals))


def query_rng(seed: int, query: str, purpose: str) -> np.random.Generator:
    """A random stream for one query and purpose, independent of all others."""
    return np.random.default_rng([seed, zlib.crc32(f"{purpose}/{query}".encode())])


def read_trace(path: Path, queries: Collection[str]) -> tuple[Arrival, ...]:
    """Arrivals from a CSV file with the columns `time_s` and `query`, in any order of rows.

    Raises:
        SpecError: the file cannot be read, lacks a column, or has rows without a time >= 0 or a known query; all such
            rows are named.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"time_s", "query"} - set(rows.fieldnames or ())
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "an empty file"
                raise SpecError([Fault(str(path), 1, "header", found, "the columns time_s and query")])
            numbered = [(rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError([Fault(str(path), 0, "trace", str(error), "a readable CSV file")]) from error
    faults: list[Fault] = []
    arrivals: list[Arrival] = []
    for line, row in numbered:
        time_s = _time_s(row["time_s"])
        if time_s is None:
            faults.append(Fault(str(path), line, "time_s", repr(row["time_s"]), "seconds >= 0"))
        elif row["query"] not in queries:
            expected = f"a query of the plan: {', '.join(sorted(queries))}"
            faults.append(Fault(str(path), line, "query", repr(row["query"]), expected))
        else:
            arrivals.append(Arrival(time_s, row["query"]))
    if faults:
        raise SpecError(faults)
    return tuple(sorted(arrivals))


def _time_s(text: str | None) -> float | None:
    try:
        time_s = float(text or "")
    except ValueError:
        return None
    return time_s if time_s >= 0 and math.isfinite(time_s) else None
