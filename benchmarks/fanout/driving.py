"""The driving example: what its cascade wins, and what planning with mean multiplicities costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile, load_profile
from circinus.profiling.measurement.backend import LocalBackend
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.store.profile_store import ProfileStore
from circinus.queueing.arrivals import arrival_process
from circinus.simulation import simulate
from circinus.simulation.model_builder import PlannedQuery
from circinus.specification import Configuration, KnobValues, Network, Specification, load_specification
from circinus.statistics.interval import Interval

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "driving"
PIPELINE = "driving"
_DETECTORS = (("mobile", 480, 3), ("mobile", 480, 1), ("small", 480, 1), ("edges", 320, 2))
_WIDTHS = (96, 160)
_THRESHOLDS = (0, 0.6, 0.8, 1)
_SMALL_ALONE, _LARGE_ALONE = 0, 1
_DURATION_S = 1200.0
_MEAN = "mean over configurations"
_SEEDS = range(4)
_LOADS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def measured(state: Path, items: int, console: Console) -> tuple[Specification, PipelineProfile]:
    """Measure 32 configurations of the example on so many items each, and return their profile."""
    specification = load_specification(sorted(FOLDER.glob("*.yaml")))
    pipeline, backend = specification.pipelines[PIPELINE], LocalBackend(specification.module_paths)
    store = state / "driving.sqlite"
    configurations = [
        Configuration.of(
            {
                "detect": KnobValues.of({"model": model, "size": size, "stride": stride}),
                "read_small": KnobValues.of({"width": width, "threshold": threshold}),
                "read_large": KnobValues(),
                "track": KnobValues(),
            }
        )
        for (model, size, stride), width, threshold in product(_DETECTORS, _WIDTHS, _THRESHOLDS)
    ]
    keys, dataset = backend.addresses(pipeline, backend.machine), backend.dataset(pipeline, 0)
    indexes = dataset.profiling_items[:items]
    with ProfileStore(store, create=True) as opened, backend.runner(keys, timeout_s=600.0) as runner:
        measurer = Measurer(opened, keys, dataset, runner, backend.scorer(pipeline))
        for number, configuration in enumerate(configurations):
            console.print(f"driving: configuration {number + 1} of {len(configurations)}", style="dim")
            measurer.measure(configuration, indexes)
    return specification, load_profile(specification, PIPELINE, store)


def cascade(state: Path, items: int, console: Console) -> PartResult:
    """Compare the cascade with each of its readers alone: seconds of processing at equal accuracy."""
    _, profile = measured(state, items, console)
    rows = [_row(configuration) for configuration in profile.configurations]
    fronts = {name: frontier(own) for name, own in by_reader(rows).items()}
    wins = {name: _seconds_ratios(fronts[name], fronts["cascade"]) for name in ("small alone", "large alone")}
    table = Table("reader", "most accurate", "seconds a clip", "median seconds over the cascade's at its accuracies")
    for name, front in fronts.items():
        ratio = "" if name == "cascade" else f"{np.median(wins[name]):.2f}"
        table.add_row(name, f"{front[-1][1]:.3f}", f"{front[-1][0]:.2f}", ratio)
    console.print(table)
    note = f"{len(rows)} configurations, {items} clips each"
    added = fronts["cascade"][-1][1] - fronts["small alone"][-1][1]
    alone = fronts["small alone"] + fronts["large alone"]
    gains = [
        min((s for s, a in alone if a >= accuracy - 1e-12), default=math.inf) / seconds
        for seconds, accuracy in fronts["cascade"]
    ]
    return [
        Figure("seconds of both readers on every candidate over those of the cascade at equal accuracy, median",
               float(np.median(wins["large alone"])), None, "higher", "times", note),
        Figure("seconds of the quicker reader alone over those of the cascade at equal accuracy, median",
               float(np.median(gains)), None, "higher", "times", f"at most {max(gains):.2f}, {len(gains)} accuracies"),
        Figure("accuracy that the cascade adds to the small reader alone", added, None, "higher", "F1", note),
        Figure("candidates of a clip under the detector that finds most over the one that finds fewest", _spread(rows),
               None, "higher", "times", "the multiplicity that configurations differ by"),
    ], [{**row, "part": "cascade"} for row in rows]  # fmt: skip


def ignored(state: Path, items: int, console: Console) -> PartResult:
    """Plan the example's queries with the measured multiplicities, and with those of the mean configuration.

    Accuracies are taken as measured: bounds on so few clips would reject two thirds of the queries.
    """
    specification, profile = measured(state, items, console)
    exact = [replace(c, accuracy=Interval.exact(c.accuracy.value)) for c in profile.configurations]
    profile = replace(profile, configurations=tuple(exact))
    flat = _with_mean_multiplicities(profile)
    settings = MatchSettings(divides_requests=False)
    rows = []
    for load in track(_LOADS, "loads", console=console, transient=True):
        scaled = replace(
            specification,
            queries=tuple(q.model_copy(update={"rate_per_s": q.rate_per_s * load}) for q in specification.queries),
        )
        for name, believed in (("measured", profile), (_MEAN, flat)):
            matching, _ = plan_all_queries(scaled, {PIPELINE: believed}, settings=settings, explain_rejections=())
            rows.append({"part": "ignored", "load": load, "multiplicities": name, **_judged(scaled, profile, matching)})
    table = Table("load", "multiplicities", "promised weight", "kept weight", "broken promises")
    for row in rows:
        weights = f"{row['promised']:g}", f"{row['kept']:g}"
        table.add_row(f"{row['load']:g}", row["multiplicities"], *weights, str(row["broken"]))
    console.print(table)
    ours, theirs = ([row for row in rows if row["multiplicities"] == name] for name in ("measured", _MEAN))
    kept, other = (sum(row["kept"] for row in those) for those in (ours, theirs))
    return [
        Figure("promises broken with measured multiplicities", _share(ours), 0.05, "lower", "of promises",
               _promises(ours)),
        Figure("promises broken with mean multiplicities", _share(theirs), None, "lower", "of promises",
               _promises(theirs)),
        Figure("weight kept with mean multiplicities over that with measured ones", other / max(kept, 1e-9), None,
               "lower", "of the weight"),
    ], rows  # fmt: skip


def _row(measured_: ConfigurationProfile) -> dict[str, Any]:
    detect = measured_.configuration["detect"].as_dict()
    read = measured_.configuration["read_small"].as_dict()
    candidates = measured_.operators["read_small"].run_counts
    return {
        **detect,
        "width": read["width"],
        "threshold": read["threshold"],
        "accuracy": measured_.accuracy.value,
        "seconds": measured_.mean_service_s,
        "candidates": float(candidates.mean()),
        "unsure": float(measured_.operators["read_large"].run_counts.sum() / max(candidates.sum(), 1)),
    }


def by_reader(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the rows of the cascade, which may use one reader only, and of each reader alone."""
    return {
        "cascade": rows,
        "small alone": [row for row in rows if row["threshold"] == _SMALL_ALONE],
        "large alone": [row for row in rows if row["threshold"] == _LARGE_ALONE],
    }


def frontier(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return (seconds, accuracy) of the rows that no quicker row is as accurate as, quickest first."""
    front: list[tuple[float, float]] = []
    for seconds, accuracy in sorted((row["seconds"], row["accuracy"]) for row in rows):
        if not front or accuracy > front[-1][1]:
            front.append((seconds, accuracy))
    return front


def _seconds_ratios(other: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> list[float]:
    """Return, for each of the other's accuracies, its seconds over ours for at least as much."""
    ratios = []
    for seconds, accuracy in other:
        least = min((s for s, a in ours if a >= accuracy - 1e-12), default=seconds)
        ratios.append(seconds / least)
    return ratios


def _spread(rows: Sequence[Mapping[str, Any]]) -> float:
    counts = [row["candidates"] for row in rows]
    return float(max(counts) / min(counts))


def _with_mean_multiplicities(profile: PipelineProfile) -> PipelineProfile:
    """Return the profile with as many runs of each operator as in the mean configuration, which take as long as own."""
    counts: dict[str, list[float]] = {}
    for configuration in profile.configurations:
        for name, operator in configuration.operators.items():
            counts.setdefault(name, []).append(float(operator.run_counts.mean()))
    means = {name: float(np.mean(values)) for name, values in counts.items()}

    def flat(operator: OperatorProfile) -> OperatorProfile:
        own = float(operator.run_counts.mean())
        factor = means[operator.operator] / own if own else 0.0
        return operator.with_totals(operator.service_s * factor, operator.output_bytes * factor)

    return profile.with_operators(flat)


def _judged(specification: Specification, truth: PipelineProfile, matching: Matching) -> dict[str, Any]:
    """Simulate plans with the measured profile; return the weights that are promised and kept."""
    if not matching.assignments:
        return {"promised": 0.0, "kept": 0.0, "broken": 0, "promises": 0}
    by_configuration = {c.configuration: c for c in truth.configurations}
    queries = {query.name: query for query in specification.queries}
    planned = [
        PlannedQuery(
            queries[a.query],
            specification.pipelines[PIPELINE],
            a.chosen.plan,
            by_configuration[a.chosen.plan.configuration],
            arrival_process(queries[a.query]),
            a.chosen.estimate.cost_usd_per_h.value,
        )
        for a in matching.assignments
    ]
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    network = Network(specification.required_infrastructure)
    kept: dict[str, list[bool]] = {}
    for seed in _SEEDS:
        report = simulate(planned, replicas, network, duration_s=_DURATION_S, warm_up_s=None, seed=seed)
        for outcome in report.queries:
            latency = outcome.slos.latency
            is_late = latency is not None and not latency.is_met_by(outcome.at_percentile_s.lower)
            kept.setdefault(outcome.query, []).append(not is_late)
    keeps = {name: float(np.mean(values)) > 0.5 for name, values in kept.items()}
    weight = {query.name: query.weight for query in specification.queries}
    return {
        "promised": sum(weight[name] for name in keeps),
        "kept": sum(weight[name] for name, keep in keeps.items() if keep),
        "broken": sum(not keep for keep in keeps.values()),
        "promises": len(keeps),
    }


def _share(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["broken"] for row in rows) / max(sum(row["promises"] for row in rows), 1))


def _promises(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(row['promises'] for row in rows)} promises at {len(rows)} loads"
