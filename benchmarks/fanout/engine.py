"""Predicted against measured latencies on the local engine: the driving example and a pipeline of fixed times."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import circinus as c
from benchmarks.fanout.driving import FOLDER, PIPELINE
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.api.planning_service import apply_corrections
from circinus.api.reporting_workspace import file_of
from circinus.matching.simulation_check import simulation_inputs
from circinus.profiling import (
    ConfigurationProfile,
    PipelineProfile,
    Recordings,
    delete_observations,
    load_profile,
    load_recordings,
)
from circinus.profiling.measurement.replay_recorder import record_for_replay
from circinus.simulation import QueryOutcome, simulate
from circinus.specification import Network, Specification, load_specification, prefix_configuration

LOADS = (0.5, 1.0, 1.5)
_NEAR = 0.15
_WORDS = Path(__file__).resolve().parents[1] / "workloads" / "word_reader.py"
_WINDOWS = 10
_FEW_REQUESTS = 200
"""Number of requests below which a 95th percentile is not judged."""
_SPECIFICATION = """
apiVersion: circinus/v1
kind: Pipeline
metadata: {name: words}
spec:
  operators:
    - {name: split, uses: word_reader:split, emits: many, cpus: 0.1}
    - name: read_cheap
      uses: word_reader:ReadCheap
      after: split
      branches: [sure, unsure]
      knobs: {longest: [5, 7]}
      cpus: 0.1
    - {name: read_dear, uses: word_reader:read_dear, after: {read_cheap: unsure}, cpus: 0.1}
    - {name: join, uses: word_reader:join, gather: true, after: {any: [{read_cheap: sure}, read_dear]}, cpus: 0.1}
  metric: {name: right, uses: "word_reader:equal"}
  dataset: {uses: "word_reader:texts", population: items}
---
apiVersion: circinus/v1
kind: Infrastructure
metadata: {name: desk}
spec:
  sites: [desk]
  pools:
    - {name: pc, site: desk, tier: device, nodes: 1, cpus: 2, memory: 8GiB, hardware: {class: local}, price: $1/h}
---
apiVersion: circinus/v1
kind: Query
metadata: {name: quick}
spec: {pipeline: words, source: desk, rate: 4/s, slos: [latency p95 <= 400ms, accuracy >= 0.9]}
---
apiVersion: circinus/v1
kind: Query
metadata: {name: patient}
spec: {pipeline: words, source: desk, rate: 3/s, slos: [latency p95 <= 2s, accuracy >= 0.9]}
"""


def engine(state: Path, seconds: float, console: Console) -> PartResult:
    """Run a pipeline of fixed times at three loads, and replay the driving example at three loads."""
    folder = state / "words"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_WORDS, folder / "word_reader.py")
    (folder / "words.yaml").write_text(_SPECIFICATION, encoding="utf-8")
    rows = _measured("words", folder, folder / "words.sqlite", "real", seconds, console)
    rows += _measured(PIPELINE, FOLDER, state / "driving.sqlite", "replay", seconds, console)
    console.print(_table(rows))
    judged = [row for row in rows if row["requests"] >= _FEW_REQUESTS]
    near, at_first = ([abs(row[name] - 1) <= _NEAR for row in judged] for name in ("ratio", "ratio_at_first"))
    right = [row["verdict_is_right"] for row in judged if row["limit_s"] is not None]
    note = f"{len(judged)} of {len(rows)} queries and loads, those with at least {_FEW_REQUESTS} requests"
    return [
        Figure("predicted p95 within 15 % of that on the local engine", float(np.mean(near)), 0.85, "higher",
               "of queries and loads", f"{note}; the synthetic pipeline after one load test"),
        Figure("predicted p95 within 15 %, from the profile alone", float(np.mean(at_first)), None, "higher",
               "of queries and loads", "of the same measurements"),
        Figure("predicted verdict on the latency SLO is that on the engine", float(np.mean(right)), 0.95, "higher",
               "of queries and loads", note),
    ], rows  # fmt: skip


def _measured(
    name: str, source: Path, store: Path, mode: str, seconds: float, console: Console
) -> list[dict[str, Any]]:
    """Plan, deploy and load a pipeline, and compare each query with simulations of the items that were sent.

    Predicted is the median over simulations as long as the measurement, which begin empty, too: what a load beyond
    capacity costs depends on its duration. Except in a replay, a first load test corrects the profile by the time that
    the engine adds to each batch; rows have the prediction of the profile alone, too.
    """
    specification = load_specification(sorted(source.glob("*.yaml")))
    workspace = c.Workspace(source, store=store, run_dir=store.parent / f"engine-{name}")
    if name != PIPELINE:
        workspace.profile(budget=120.0)
        delete_observations(store)
        with workspace.deploy(workspace.plan(output=store.parent / f"{name}.json")) as deployment:
            console.print(f"{name}: learn, {seconds:g} s", style="dim")
            if reason := deployment.load_test(duration=seconds).not_stored_reason:
                raise RuntimeError(f"nothing was learnt: {reason}")
    plan = workspace.plan(output=store.parent / f"{name}.json")
    profile = _on_recorded(load_profile(specification, name, store), _recorded(specification, name, store, plan))
    corrected = apply_corrections(file_of(plan).corrections, {name: profile}, specification)
    planned = [simulation_inputs(specification, of, plan.matching) for of in ({name: profile}, corrected)]
    replicas = {sized.deployment: sized.replicas for sized in plan.matching.deployments}
    network = Network(specification.required_infrastructure)
    rows = []
    with workspace.deploy(plan, mode="real" if mode == "real" else "replay") as deployment:
        for load in LOADS:
            console.print(f"{name}: load {load:g}, {seconds:g} s", style="dim")
            report = deployment.load_test(duration=seconds, load_factor=load, keep_observations=False)
            windows = [
                simulate(inputs, replicas, network, duration_s=seconds, warm_up_s=0.0, load_factor=load, seed=seed)
                for inputs in planned
                for seed in range(_WINDOWS)
            ]
            rows += [
                _row(name, load, outcomes[:_WINDOWS], outcomes[_WINDOWS:], report[outcomes[0].query])
                for outcomes in zip(*(window.queries for window in windows), strict=True)
            ]
    return rows


def _recorded(specification: Specification, pipeline: str, store: Path, plan: c.Plan) -> Recordings:
    """Record the held-out items under the configurations of all plans, and return their recordings."""
    spec = specification.pipelines[pipeline]
    configurations = list(dict.fromkeys(part.plan.configuration for a in plan.values() for part in a.chosen.plan.parts))
    record_for_replay(specification, pipeline, store, configurations=configurations)
    prefixes = [prefix_configuration(spec, chosen, o.name) for chosen in configurations for o in spec.operators]
    return load_recordings(store, pipeline, prefixes)


def _on_recorded(profile: PipelineProfile, recordings: Recordings) -> PipelineProfile:
    """Return the profile of the recorded configurations on the recorded items."""
    recorded = [
        _with_runs(measured, recordings)
        for measured in profile.configurations
        if all(operator.prefix in recordings.runs for operator in measured.operators.values())
    ]
    return replace(profile, configurations=tuple(recorded))


def _with_runs(profile: ConfigurationProfile, recordings: Recordings) -> ConfigurationProfile:
    keys = recordings.items
    operators = {}
    for name, operator in profile.operators.items():
        runs = tuple(recordings.run(operator.prefix, key) for key in keys)
        operators[name] = replace(
            operator,
            service_s=np.array([item.total_s for item in runs]),
            output_bytes=np.array([item.total_bytes for item in runs]),
            runs=runs,
        )
    return replace(
        profile,
        items=np.arange(len(keys)),
        scores=np.ones(len(keys)),
        input_bytes=np.array([recordings.input_bytes[key] for key in keys]),
        operators=operators,
    )


def _row(
    name: str, load: float, at_first: Sequence[QueryOutcome], corrected: Sequence[QueryOutcome], found: Any
) -> dict[str, Any]:
    latency = found.slos.latency
    measured_s = found.latency_s.p95_s or float("inf")
    measured_at_s = found.latency_s.at_percentile_s or float("inf")
    first_p95_s, p95_s = (np.array([one.latency_s["p95"].value for one in part]) for part in (at_first, corrected))
    at_percentile_s = float(np.median([one.at_percentile_s.value for one in corrected]))
    return {
        "part": "engine",
        "pipeline": name,
        "query": found.query,
        "load": load,
        "requests": found.requests,
        "predicted_p95_s": float(np.median(p95_s)),
        "predicted_windows_s": [float(p95_s.min()), float(p95_s.max())],
        "measured_p95_s": measured_s,
        "ratio": float(np.median(p95_s)) / measured_s,
        "ratio_at_first": float(np.median(first_p95_s)) / measured_s,
        "limit_s": None if latency is None else latency.limit_s,
        "verdict_is_right": latency is None or latency.is_met_by(at_percentile_s) == latency.is_met_by(measured_at_s),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("pipeline", "query", "load", "requests", "predicted p95", "measured", "ratio", "at first", "limit")
    for row in rows:
        limit = "" if row["limit_s"] is None else f"{row['limit_s']:g} s"
        ratios = f"{row['ratio']:.2f}", f"{row['ratio_at_first']:.2f}"
        figures = f"{row['predicted_p95_s']:.3f} s", f"{row['measured_p95_s']:.3f} s", *ratios
        table.add_row(row["pipeline"], row["query"], f"{row['load']:g}", str(row["requests"]), *figures, limit)
    return table
