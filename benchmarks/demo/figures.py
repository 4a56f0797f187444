"""Figures of the demo."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import circinus as c
from benchmarks.demo.strategies import OURS
from benchmarks.harness.results import Figure


def demo_figures(
    example: Path,
    store: Path,
    report: c.ProfileReport,
    plans: Mapping[str, c.Plan],
    reports: Mapping[str, c.LoadReport],
) -> list[Figure]:
    """Return what the demo measured: SLOs met, goodput and cost of each strategy, and durations."""
    load = reports[OURS]
    measured = load.measured
    last = list(report.values())[-1]
    kept = sum(query.satisfied for query in measured.queries)
    figures = [
        Figure(
            "items sent that planning had seen",
            load.profiled_items_sent / max(load.items_sent, 1),
            0.0,
            "lower",
            "of items",
            "held-out items are never profiled",
        ),
        Figure("queries planned", len(plans[OURS]) + len(plans[OURS].rejected), None, "higher", "queries"),
        Figure("queries served", len(plans[OURS]), 12, "higher", "queries"),
        Figure(
            "promises kept when measured",
            kept / max(measured.promises, 1),
            0.9,
            "higher",
            "of plans",
            f"{kept} of {measured.promises}",
        ),
    ]
    for name, plan in plans.items():
        figures.append(Figure(f"goodput, {name}", reports[name].measured.goodput, None, "higher", "weight"))
        figures.append(Figure(f"cost, {name}", plan.cost_usd_per_h, None, "lower", "$/h", "deployments and transfers"))
    figures += [
        Figure("profiling", last.profiled_s, None, "lower", "s", "of processing, both pipelines"),
        Figure("saved by the prefix cache", last.saved_s, None, "higher", "s", "of processing"),
        Figure("planning", plans[OURS].file.planning_s, None, "lower", "s", "in the process, on stored profiles"),
        Figure("`circinus --help`", _median_s(["--help"], 5), 0.3, "lower", "s", "whole process, median of 5"),
        Figure(
            "`circinus plan` on stored profiles",
            _median_s(
                [
                    *("plan", str(example), "--store", str(store), "--seed", str(plans[OURS].file.seed)),
                    *("--from-scratch", "-o", str(store.parent / "timed-plan.json"), "--json"),
                ],
                3,
            ),
            1.0,
            "lower",
            "s",
            "whole process, median of 3",
        ),
    ]
    return figures


def _median_s(arguments: list[str], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        began_s = perf_counter()
        subprocess.run([sys.executable, "-m", "circinus", *arguments], check=True, capture_output=True)
        seconds.append(perf_counter() - began_s)
    return statistics.median(seconds)
