"""Replay of recorded service times by the local engine, for plans of the real pipelines under three loads."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.estimates.error_figures import beside_measured, ratio, right_verdicts
from benchmarks.estimates.predictions import Prediction, planned_query, prediction, service_s, without_queueing_s
from benchmarks.estimates.real_plans import RealPlan
from benchmarks.estimates.trace_simulation import sent, traced_s
from benchmarks.harness.checkpoints import Checkpoint
from circinus.arrays import IntArray
from circinus.reporting.progress import load_bar
from circinus.serving import Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.simulation.report import percentile_interval

LEVELS: Mapping[float, float] = {0.3: 0.25, 0.55: 0.4, 0.8: 1.0}
"""Share of the measured seconds per utilization of the busiest deployment or link: longer queues need longer runs."""
_DRAWN = 10_000


@dataclass(frozen=True)
class ReplayOptions:
    """Durations, concurrency and seed of replays."""

    duration_s: float
    """Measured seconds at the highest load."""
    warm_up_s: float
    engines: int
    """Number of plans replayed concurrently."""
    seed: int


@dataclass(frozen=True, eq=False)
class _Load:
    """Plan under one load, before it is run."""

    real: RealPlan
    level: float
    predicted: Prediction
    without_queueing_s: float


def replayed(plans: Sequence[RealPlan], options: ReplayOptions, state: Path, console: Console) -> list[dict[str, Any]]:
    """Replay each plan at each level; return a row for each.

    Plans run in groups, one engine each, for equal durations, so that answers are scored while no run is measured.
    Finished groups are checkpointed in `state`.
    """
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(plans), options.engines):
        group = plans[begin : begin + options.engines]
        key = {"plans": [measured_plan(real) for real in group], **vars(options)}
        checkpoint = Checkpoint.in_folder(state, f"replay-{begin}-{options.engines}", key)
        console.print(f"replay: {', '.join(real.name for real in group)}", highlight=False)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            _, group_rows = checkpoint.run(lambda g=group, r=runner: ([], r.run(_wave(g, options, console))))  # type: ignore[misc]
        rows += group_rows
    return rows


async def _wave(plans: Sequence[RealPlan], options: ReplayOptions, console: Console) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    loads = {level: [_load(real, level) for real in plans] for level in LEVELS}
    with tempfile.TemporaryDirectory(prefix="circinus-truth-") as folder:
        clients: list[LocalEngineClient] = []
        try:
            for number, load in enumerate(loads[min(LEVELS)]):
                clients.append(start_daemon(Path(folder) / str(number)))
                store = load.real.measured.store.resolve()
                specification = load.real.specification(load.predicted.planned.query)
                await clients[-1].apply(build_desired_state(load.predicted.matching, specification, Mode.REPLAY, store))
            for seed, (level, share) in enumerate(LEVELS.items(), options.seed):
                traffic = LoadSpec(
                    duration_s=options.duration_s * share,
                    warm_up_s=options.warm_up_s,
                    seed=seed,
                    drain_timeout_s=10.0,
                )
                with load_bar(console) as bar:
                    reports = await asyncio.gather(
                        *(
                            run_load_test(
                                client,
                                load.real.specification(load.predicted.planned.query),
                                load.predicted.matching,
                                {load.real.pipeline.name: [load.real.measured.items[i] for i in _drawn(load.real)]},
                                traffic,
                                bar if number == 0 else None,
                            )
                            for number, (client, load) in enumerate(zip(clients, loads[level], strict=True))
                        )
                    )
                rows += [_row(load, traffic, report) for load, report in zip(loads[level], reports, strict=True)]
        finally:
            for client in clients:
                with contextlib.suppress(Exception):  # end the other engines, too
                    await client.close()
    return rows


def _load(real: RealPlan, level: float) -> _Load:
    query, profile = real.query(level), real.measured.of(real.plan.configuration)
    predicted = prediction(real, query, profile)
    assert predicted is not None, "no deployment or link is overloaded"
    return _Load(real, level, predicted, without_queueing_s(real, query, profile))


def _row(load: _Load, traffic: LoadSpec, report: LoadReport) -> dict[str, Any]:
    real, query, items = load.real, load.predicted.planned.query, load.real.measured.items
    of_traffic = real.measured.of_traffic(real.plan.configuration, [item.key for item in items])
    same_items = prediction(real, query, of_traffic)
    drawn = _drawn(real)
    requests = sent(query, len(drawn), traffic)
    traced = traced_s(
        planned_query(real, query, of_traffic),
        real.replicas,
        real.network,
        replace(requests, items=drawn[requests.items]),
        traffic.warm_up_s,
    )
    interval = percentile_interval(traced, load.predicted.estimate.percentile)
    planned_s, sent_s = (service_s(real, profile) for profile in (load.predicted.planned.profile, of_traffic))
    row = beside_measured(load.predicted.estimate.latency_s.value, load.without_queueing_s, planned_s, report)
    same_items_s = None if same_items is None else same_items.estimate.latency_s.value
    return {
        "part": "replay",
        **description(real, load.level, load.predicted),
        **row,
        "promised_p95_s": load.predicted.estimate.latency_s.upper,
        "same_items_p95_s": same_items_s,
        "same_items_over_measured": ratio(same_items_s, row["measured_p95_s"]),
        "verdicts_right_same_items": right_verdicts(same_items_s, row["measured_p95_s"], load.without_queueing_s),
        "same_requests_p95_s": interval.value,
        "same_requests_p95_lower_s": interval.lower,
        "same_requests_p95_upper_s": interval.upper,
        "service_of_items_sent_over_planned": sent_s / planned_s,
    }


def _drawn(real: RealPlan) -> IntArray:
    """Return the items of requests: independent draws, as planning assumes.

    Sending the items in turns would make queues some per cent shorter.
    """
    return np.random.default_rng(0).integers(len(real.measured.items), size=_DRAWN)


def measured_plan(real: RealPlan) -> tuple[str, float]:
    """Return plan and profiled service time, the key of a checkpoint: other measurements invalidate it."""
    return real.name, service_s(real, real.measured.of(real.plan.configuration))


def description(real: RealPlan, level: float, predicted: Prediction) -> dict[str, Any]:
    """Return the columns that describe plan and load of a row."""
    plan, estimate = real.plan, predicted.estimate
    return {
        "plan": real.name,
        "pipeline": plan.pipeline,
        "configuration": str(plan.configuration),
        "placement": dict(plan.placement),
        "replicas": {deployment.operator: count for deployment, count in real.replicas.items()},
        "batch_sizes": {operator: allocation.batch_size for operator, allocation in plan.allocations},
        "level": level,
        "utilization": predicted.utilization,
        "rate_per_s": predicted.planned.query.rate_per_s,
        "simulated": estimate.simulated,
        "doubts": list(estimate.caveats),
    }
