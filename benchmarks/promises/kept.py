"""Promises of served queries under load: in replays and for real, on a quiet and on a busy machine."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import circinus as c
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.busy_processes import busy_processes
from benchmarks.harness.results import Figure, records_table
from benchmarks.promises.applications import real_application
from circinus.serving.local.capacity import MachineCapacity
from circinus.specification import SloKind

TESTS = 5
"""Load tests of a deployment. At the limit, a percentile misses it in all of them with a probability of 3 %."""
_QUANTILE = 1.645
"""Standard errors that a mean score misses its threshold by with a probability of 5 %, at the threshold."""
_ALL_ITEMS = 10_000
_BUSY_PROCESSES = 2
_WARM_UP_S = 2.0


def kept_part(
    examples: Sequence[str], duration_s: float, profile_s: float, state: Path, console: Console
) -> PartResult:
    """Load-test the plans of applications, and count the queries whose SLOs did not hold beyond chance."""
    rows: Rows = []
    for name in examples:
        application = real_application(name, state, profile_s)
        for mode, specification in (
            ("replay", application.specification),
            ("real", on_this_machine(application.specification)),
        ):
            workspace = application.workspace(specification)
            plan = workspace.plan()
            console.print(f"{name}, {mode}: {len(plan)} of {len(specification.queries)} queries served")
            for machine in ("quiet", "busy") if plan else ():
                with busy_processes(_BUSY_PROCESSES if machine == "busy" else 0):
                    case = {"part": "kept", "example": name, "mode": mode, "machine": machine}
                    rows += [case | row for row in _measured(workspace, plan, mode, duration_s)]
    shown = (
        "example",
        "mode",
        "machine",
        "query",
        "tests_within",
        "latency_s",
        "latency_limit_s",
        "score",
        "threshold",
    )
    console.print(records_table([{key: row.get(key) for key in shown} for row in rows]))
    tested = {(row["mode"], row["machine"]) for row in rows if "error" not in row}
    return [_figure(rows, mode, machine) for mode, machine in sorted(tested)], rows


def on_this_machine(specification: c.Specification) -> c.Specification:
    """Return the specification with its edge pool only, as small as this machine, for the mode `real`."""
    infrastructure, machine = specification.required_infrastructure, MachineCapacity.of_this_machine()
    edge = next(pool for pool in infrastructure.pools if pool.tier == "edge")
    memory_bytes = min(edge.memory_bytes, machine.memory_bytes / 2)
    pool = edge.model_copy(update={"nodes": 1, "cpus": machine.cpus, "memory_bytes": memory_bytes})
    return replace(specification, infrastructure=infrastructure.model_copy(update={"pools": (pool,)}))


def _figure(rows: Rows, mode: str, machine: str) -> Figure:
    own = [row for row in rows if (row["mode"], row["machine"]) == (mode, machine)]
    tested = [row for row in own if "error" not in row]
    refused = sorted({row["example"] for row in own if "error" in row})
    share = float(np.mean([row["latency_held"] and row["accuracy_held"] for row in tested]))
    note = f"{len(tested)} served queries of {', '.join(sorted({row['example'] for row in tested}))}"
    note += f"; not deployed: {', '.join(refused)}" if refused else ""
    return Figure(f"promises kept, {mode}, {machine} machine", share, 1.0, "higher", "of queries", note)


def _measured(workspace: c.Workspace, plan: c.Plan, mode: str, duration_s: float) -> list[dict[str, Any]]:
    """Return a row for each served query; one with an error where the plan cannot be deployed here."""
    with tempfile.TemporaryDirectory(prefix="promises-") as folder:
        own = c.Workspace(workspace.specification, store=workspace.store, run_dir=Path(folder))
        try:
            deployment = own.deploy(plan, mode=mode, items=_ALL_ITEMS)  # type: ignore[arg-type]
        except c.ServingError as error:
            return [{"query": query, "error": str(error).splitlines()[0]} for query in plan]
        load = os.getloadavg()[0]
        with deployment:
            reports = [
                deployment.load_test(
                    duration=duration_s, warm_up=_WARM_UP_S, items=_ALL_ITEMS, seed=seed, keep_observations=False
                )
                for seed in range(TESTS)
            ]
            items = {query: len(deployment.items(query, _ALL_ITEMS)) for query in plan}
    slos = {query.name: query.slos for query in workspace.specification.queries}
    return [_row(query, slos[query], reports, items[query]) | {"load_average": load} for query in plan]


def _row(query: str, slos: c.Slos, reports: Sequence[c.LoadReport], items: int) -> dict[str, Any]:
    measured = [report[query] for report in reports]
    latencies = [_finite(m.latency_s.at_percentile_s if m.latency_s else None) for m in measured]
    requests = sum(m.requests for m in measured)
    errors = [m.score_standard_error or 0.0 for m in measured]
    score = float(np.mean([m.score for m in measured if m.score is not None] or [math.nan]))
    # Items repeat, so that more requests say nothing more about other items.
    deviation = float(np.mean([error * math.sqrt(m.requests) for error, m in zip(errors, measured, strict=True)]))
    standard_error = deviation / math.sqrt(max(min(items, requests), 1))
    latency, accuracy = slos.latency, slos.accuracy
    allowance = _QUANTILE * standard_error * (1 if accuracy is None or accuracy.is_minimum else -1)
    return {
        "query": query,
        "requests": requests,
        "failures": sum(m.failures + m.unanswered for m in measured),
        "items": items,
        "latency_s": float(np.median(latencies)),
        "latency_limit_s": None if latency is None else latency.limit_s,
        "tests_within": sum(latency is None or latency.is_met_by(at) for at in latencies),
        "latency_held": latency is None or any(latency.is_met_by(at) for at in latencies),
        "score": score,
        "score_standard_error": standard_error,
        "threshold": None if accuracy is None else accuracy.threshold,
        "accuracy_held": accuracy is None or accuracy.is_met_by(score + allowance),
        "claimed": sum((m.slos_met or {}).get(SloKind.LATENCY, True) for m in measured),
    }


def _finite(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
