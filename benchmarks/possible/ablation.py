"""Ablation of divided requests and of plans that fit the load, alone and together, on random applications."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.matching import MatchSettings, plan_all_queries
from circinus.testing.random_instances import random_specification

_MODES: Mapping[str, MatchSettings] = {
    "neither": MatchSettings(divides_requests=False, fits_targets=False),
    "divided requests": MatchSettings(fits_targets=False),
    "fitted plans": MatchSettings(divides_requests=False),
    "both": MatchSettings(),
}
_QUERIES = 6
_ROUNDING = 1e-6


def ablation(count: int, console: Console) -> PartResult:
    """Plan random applications of six queries with and without each, half of them on scarce pools."""
    rows = list[dict[str, Any]]()
    for seed in range(count):
        if seed % 2:
            specification, profiles = random_specification(seed, queries=_QUERIES)
        else:
            specification, profiles = random_specification(seed, queries=_QUERIES, cpus=3.0, nodes=1)
        for mode, settings in _MODES.items():
            begin_s = time.process_time()
            matching, _ = plan_all_queries(specification, profiles, settings=settings, explain_rejections=())
            seconds = time.process_time() - begin_s
            row = {"part": "ablation", "seed": seed, "mode": mode, "weight": matching.satisfied_weight}
            rows.append(row | {"usd_per_h": matching.cost_usd_per_h, "cpu_s": round(seconds, 3)})
        console.print(f"application {seed}: " + ", ".join(f"{row['weight']:g}" for row in rows[-len(_MODES) :]))
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in _MODES}
    base, figures = by_mode.pop("neither"), list[Figure]()
    total = sum(row["weight"] for row in base)
    for mode, own in by_mode.items():
        pairs = list(zip(own, base, strict=True))
        weight = sum(row["weight"] for row in own) / total
        costs = [
            row["usd_per_h"] / other["usd_per_h"]
            for row, other in pairs
            if row["weight"] == other["weight"] and other["usd_per_h"]
        ]
        worse = sum(_key(row) < _key(other) for row, other in pairs)
        seconds = sum(row["cpu_s"] for row in own) / sum(row["cpu_s"] for row in base)
        note = f"relative to neither, of {count} applications with {_QUERIES} queries"
        figures += [
            Figure(f"{mode}: weight", weight, None, "higher", "times", note),
            Figure(f"{mode}: mean cost of equal weight", float(np.mean(costs)), None, "lower", "times", note),
            Figure(f"{mode}: applications that are worse", worse, 0.0, "lower", "applications", note),
            Figure(f"{mode}: processor time", seconds, None, "lower", "times", note),
        ]
    return figures, rows


def _key(row: Mapping[str, Any]) -> tuple[float, float]:
    return round(row["weight"], 6), -round(row["usd_per_h"], 6)
