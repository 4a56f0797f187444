"""Replicas that compute on this machine: a few plans under three loads, with corrections learnt at the lowest one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.estimates.error_figures import beside_measured, ratio, right_verdicts
from benchmarks.estimates.predictions import prediction, service_s, without_queueing_s
from benchmarks.estimates.profiles import Measured
from benchmarks.estimates.real_plans import SITES, Choice, RealPlan, name_of, plan_of, taken
from benchmarks.estimates.replay import LEVELS, description, measured_plan
from benchmarks.harness.checkpoints import Checkpoint
from circinus.estimation import learn_corrections
from circinus.profiling import ConfigurationProfile, load_predicted_service_times
from circinus.reporting.progress import load_bar
from circinus.serving import Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.engine import Engine
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.loadtest.service_time_learning import PredictionsAtRun
from circinus.serving.local.capacity import MachineCapacity
from circinus.serving.local.client import start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.run_dir import RunDirectory
from circinus.specification import Infrastructure, Link, Network, Pool, Site

COMPUTED: Sequence[Choice] = (
    Choice("meeting", 0, "eeee", (1, 1, 1, 1)),
    Choice("meeting", 3, "eeee", (1, 1, 1, 1)),
    Choice("documents", 0, "eeee", (1, 1, 1, 1)),
    Choice("documents", 1, "eeee", (1, 1, 1, 1)),
)
"""Plans with one replica per operator, which together take less than two CPUs."""
_BANDWIDTH_BYTES_PER_S = 12.5e6
_ROUND_TRIP_S = 0.004


@dataclass(frozen=True)
class ComputingOptions:
    """Durations and seed of runs."""

    duration_s: float
    """Measured seconds of each load."""
    warm_up_s: float
    seed: int


def computed_plan(choice: Choice, measured: Measured, machine: MachineCapacity) -> RealPlan:
    """Return a plan on an edge pool that is this machine; requests arrive over a link."""
    plan, replicas = plan_of(choice, measured)
    device, edge = SITES[0], SITES[1]
    pool = Pool.model_validate(
        {"name": edge, "site": edge, "tier": edge, "cpus": machine.cpus, "memory": machine.memory_bytes,
         "hardware": {"class": "local"}}
    )  # fmt: skip
    link = {"from": device, "to": edge, "bandwidth": _BANDWIDTH_BYTES_PER_S, "round_trip": _ROUND_TRIP_S}
    infrastructure = Infrastructure(
        name="machine",
        sites=(Site(name=device), Site(name=edge)),
        pools=(pool,),
        links=(Link.model_validate(link),),
        usable_link_share=0.99,
    )
    candidate = taken(plan, measured, Network(infrastructure))
    busiest = max(
        *(use.busy_replicas / replicas[use.deployment] for use in candidate.deployments),
        *(use.traffic.offered_load for use in candidate.links),
    )
    return RealPlan(f"computing {name_of(choice)}", measured, plan, replicas, infrastructure, 1.0 / busiest)


def computed(
    plans: Sequence[RealPlan], options: ComputingOptions, state: Path, console: Console
) -> list[dict[str, Any]]:
    """Run one plan after the other at each level; return a row for each. Finished plans are checkpointed in `state`."""
    rows: list[dict[str, Any]] = []
    for number, real in enumerate(plans):
        checkpoint = Checkpoint.in_folder(state, f"computing-{number}", {"plan": measured_plan(real), **vars(options)})
        console.print(real.name, highlight=False)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            _, plan_rows = checkpoint.run(lambda plan=real, loop=runner: ([], loop.run(_run(plan, options, console))))  # type: ignore[misc]
        rows += plan_rows
    return rows


async def _run(real: RealPlan, options: ComputingOptions, console: Console) -> list[dict[str, Any]]:
    profile = real.measured.of(real.plan.configuration)
    reports: dict[float, LoadReport] = {}
    with tempfile.TemporaryDirectory(prefix="circinus-truth-") as folder:
        client = start_daemon(Path(folder))
        process = RunDirectory(Path(folder)).process()
        assert process is not None, "the engine runs"
        try:
            first = prediction(real, real.query(min(LEVELS)), profile)
            assert first is not None, "no deployment or link is overloaded"
            await client.apply(build_desired_state(first.matching, real.specification(first.planned.query), Mode.REAL))
            for level in LEVELS:
                reports[level] = await _loaded(real, level, client, (os.getpid(), process), options, console)
        finally:
            with contextlib.suppress(Exception):  # keep the measurements
                await client.close()
    corrected = _corrected(real, reports[min(LEVELS)])
    return [_row(real, level, corrected, report) for level, report in reports.items()]


async def _loaded(
    real: RealPlan, level: float, engine: Engine, own: Sequence[int], options: ComputingOptions, console: Console
) -> LoadReport:
    query, profile = real.query(level), real.measured.of(real.plan.configuration)
    predicted = prediction(real, query, profile)
    assert predicted is not None, "no deployment or link is overloaded"
    specification, name = real.specification(query), real.pipeline.name
    services = load_predicted_service_times(specification, name, real.measured.store, [real.plan.configuration])
    traffic = LoadSpec(options.duration_s, options.warm_up_s, seed=options.seed)
    items = {name: real.measured.items}
    with load_bar(console) as bar:
        expected = PredictionsAtRun({name: services}, datetime.now(UTC))
        return await run_load_test(engine, specification, predicted.matching, items, traffic, bar, expected, own)


def _corrected(real: RealPlan, report: LoadReport) -> ConfigurationProfile:
    """Return the profile with corrections of service times learnt from a run."""
    observations = report.learning.observations if report.learning is not None else ()
    corrections = learn_corrections(observations, datetime.now(UTC))
    profile = corrections.applied_to(real.measured.profile, real.pipeline)
    return next(c for c in profile.configurations if c.configuration == real.plan.configuration)


def _row(real: RealPlan, level: float, corrected: ConfigurationProfile, report: LoadReport) -> dict[str, Any]:
    query, profile = real.query(level), real.measured.of(real.plan.configuration)
    predicted, after = prediction(real, query, profile), prediction(real, query, corrected)
    assert predicted is not None, "no deployment or link is overloaded"
    unit_s, machine = without_queueing_s(real, query, profile), report.machine
    assert machine is not None, "all processes are on this machine"
    row = beside_measured(predicted.estimate.latency_s.value, unit_s, service_s(real, profile), report)
    corrected_s = None if after is None else after.estimate.latency_s.value
    return {
        "part": "computing",
        **description(real, level, predicted),
        **row,
        "own_cpus": machine.own_cpus,
        "others_cpus": machine.others_cpus,
        "corrections": _factors(corrected, real),
        "corrected_p95_s": corrected_s,
        "corrected_over_measured": ratio(corrected_s, row["measured_p95_s"]),
        "verdicts_right_corrected": right_verdicts(corrected_s, row["measured_p95_s"], unit_s),
    }


def _factors(profile: ConfigurationProfile, real: RealPlan) -> Mapping[str, float]:
    pools = dict(real.plan.placement)
    return {
        name: operator.correction(real.infrastructure.pool(pools[name]).hardware)
        for name, operator in profile.operators.items()
    }
