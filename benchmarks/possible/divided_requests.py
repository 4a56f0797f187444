"""Matchings that divide requests, against the optimum of the whole problem (`Workers.optimum`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.possible.workers import UNFITTED, Workers

RATES_PER_S = (30, 80, 160, 300)
ACCURACIES = (0.56, 0.60, 0.64, 0.68, 0.71, 0.73, 0.75, 0.77)
_ROUNDING = 1e-6
_MAX_QUERIES = 5


def random_instances(count: int, console: Console) -> PartResult:
    """Compare random instances of one to five queries: one or two operators, the first of which may be undivided."""
    rows = []
    for seed in range(count):
        workers = Workers.random(seed, operators=1 + seed % 2, queries=1 + seed % _MAX_QUERIES, fixed=seed % 4 == 3)
        row = _compared(workers) | {"part": "random", "seed": seed}
        rows.append(row)
        if not row["equal"]:
            console.print(f"instance {seed}: {row}")
    equal, proved = (sum(row[key] for row in rows) / count for key in ("equal", "proved"))
    note = f"of {count:,} random ones with 1 to {_MAX_QUERIES} queries, in weight and in cost"
    return [
        Figure("matchings with divided requests equal to the optimum", equal, 1.0, "higher", "of instances", note),
        Figure("matchings with divided requests proved optimal", proved, None, "higher", "of instances", note),
    ], [_differing(rows)]


def published_settings(console: Console) -> PartResult:
    """Compare one query and eight equal ones at rates and accuracies in the manner of other planners' settings."""
    figures, rows = list[Figure](), list[dict[str, Any]]()
    for queries in (1, 8):
        compared = []
        for rate_per_s in RATES_PER_S:
            for accuracy in ACCURACIES:
                row = _compared(Workers.published(rate_per_s, accuracy, queries), undivided=True)
                compared.append(row | {"part": "published", "queries": queries, "rate": rate_per_s, "slo": accuracy})
                console.print(f"{queries} queries, {rate_per_s}/s, accuracy {accuracy}: {row['ratio']:.4f}")
        rows += compared
        figures += _published_figures(compared, queries)
    return figures, rows


def _published_figures(rows: Sequence[Mapping[str, Any]], queries: int) -> Iterable[Figure]:
    name = "one query" if queries == 1 else f"{queries} equal queries"
    ratios = [row["ratio"] for row in rows if row["weight"] == row["weight_possible"]]
    undivided = [row["undivided_ratio"] for row in rows if row["undivided_weight"] == row["weight_possible"]]
    note = f"of {len(rows)} points of rate and accuracy"
    yield Figure(f"{name}: cost over the optimum, median", float(np.median(ratios)), 1.02, "lower", "times", note)
    yield Figure(f"{name}: cost over the optimum, worst", max(ratios), 1.05, "lower", "times", note)
    served = len(ratios) / len(rows)
    yield Figure(f"{name}: all served that can be", served, 1.0, "higher", "of points", note)
    yield Figure(f"{name}: slowest plan", max(row["seconds"] for row in rows), 10.0, "lower", "s", note)
    whole = f"{len(undivided)} of {len(rows)} points serve as much without division"
    yield Figure(f"{name}: without division, median", float(np.median(undivided)), None, "lower", "times", whole)
    yield Figure(f"{name}: without division, worst", max(undivided), None, "lower", "times", whole)


def _compared(workers: Workers, *, undivided: bool = False) -> dict[str, Any]:
    weight, cost_usd_per_h = workers.optimum()
    begin_s = time.perf_counter()
    matching = workers.plan()
    seconds = time.perf_counter() - begin_s
    ratio = matching.cost_usd_per_h / cost_usd_per_h if cost_usd_per_h else 1.0
    row: dict[str, Any] = {
        "weight": matching.satisfied_weight,
        "weight_possible": weight,
        "ratio": ratio,
        "equal": matching.satisfied_weight == weight and abs(ratio - 1.0) <= _ROUNDING,
        "proved": matching.optimal,
        "seconds": round(seconds, 3),
    }
    if undivided:
        whole = workers.plan(replace(UNFITTED, divides_requests=False))
        row |= {"undivided_weight": whole.satisfied_weight}
        row |= {"undivided_ratio": whole.cost_usd_per_h / cost_usd_per_h if cost_usd_per_h else 1.0}
    return row


def _differing(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seeds and ratios of the instances that are not equal to the optimum."""
    return {"part": "random", "differing": [row for row in rows if not row["equal"]]}
