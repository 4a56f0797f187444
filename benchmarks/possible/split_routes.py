"""Split plans under load on both engines: shares, requests lost while they change, accuracy and p95 of the mixture.

Replicas replay recorded outputs and service times, so that the speed of this machine and its other programs change
neither: all else is the engine's, namely the choice of parts, queues, links and the change of routes. A few plans also
run in mode real, where replicas sleep as long.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.estimates.error_figures import NEAR, ratio, share_near
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import ROOT, Figure, records_table
from benchmarks.serving.engine_overhead import ray_cluster
from benchmarks.workloads import quality_models
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.matching.simulation_check import simulation_inputs
from circinus.operators import Item
from circinus.profiling import PipelineProfile, load_dataset, profile_pipeline, record_for_replay
from circinus.serving import DesiredState, Engine, Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.local.client import start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.simulation import simulate
from circinus.specification import (
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    Link,
    MetricSpec,
    Network,
    OperatorSpec,
    PeriodicArrivals,
    Pipeline,
    Pool,
    Query,
    Site,
    Specification,
)

_RATE_PER_S = 27.0
"""500 requests take 19 s."""
_SPEED = 0.2
"""Relative speed of all pools: service times are far above the milliseconds that a busy machine adds."""
_CPUS = 0.05
_JITTER = 0.4999
"""Jitter of arrivals in periods, almost the most. With Poisson arrivals, chance alone would move the p95 of 500
requests by more than 15 %."""
_CASES = (("read", 2), ("read", 4), ("read", 6), ("find", 2), ("find", 4), ("find", 20))
"""First operator, and nodes of the near pool."""
_ACCURACIES = (0.84, 0.88, 0.90, 0.86, 0.82, 0.80, 0.78, 0.92)
"""Accuracy SLOs between those of the models: a case takes the first ones whose cheapest plan is split."""
_PLANS_OF_A_CASE = 2
_IN_MODE_REAL, _ON_RAY = (0, 4), (0, 3)
"""Cases that also run in mode real, and on Ray."""
_AT_ONCE = 3
"""Number of local engines that run at once."""
_AT_TARGETS = MatchSettings(fits_targets=False)
"""With fitted targets, most of these queries are served by one plan."""
_WARM_UP_S = 2.0
_SEEDS = 20
"""Number of simulated runs of a plan."""
_PORT = 18_314


@dataclass(frozen=True, eq=False)
class _Planned:
    """Plan of a case."""

    specification: Specification
    matching: Matching
    simulated_p95_s: Sequence[float]
    """p95 of simulated runs of the same length."""

    def desired(self, mode: Mode, store: Path) -> DesiredState:
        return build_desired_state(self.matching, self.specification, mode, store)


@dataclass(frozen=True)
class _Run:
    """Loads of the plans of one case on one engine."""

    case: int
    engine: str
    mode: Mode
    change_s: float
    """Seconds of load around the change of plans, which takes less."""

    async def rows(
        self, engine: Engine, plans: Sequence[_Planned], items: Mapping[str, Sequence[Item]], store: Path, load_s: float
    ) -> Rows:
        """Load a plan, change to the next one under load, load that, and so on; return a row for each."""
        reports, lost, apply_s = list[LoadReport](), 0, list[float]()
        clock = asyncio.get_running_loop().time
        for number, planned in enumerate(plans):
            specification, matching = planned.specification, planned.matching
            if number:
                change = LoadSpec(self.change_s, seed=number)
                load = asyncio.create_task(run_load_test(engine, specification, matching, items, change))
                await asyncio.sleep(1.0)
            begin_s = clock()
            await engine.apply(planned.desired(self.mode, store))
            apply_s.append(clock() - begin_s)
            if number:
                lost += _lost(await load)
            reports.append(
                await run_load_test(engine, specification, matching, items, LoadSpec(load_s, _WARM_UP_S, seed=number))
            )
        (counts,) = (await engine.status()).queries
        lost = max(lost + sum(map(_lost, reports)), counts.received - counts.answered)
        case = {"part": "split_routes", "engine": self.engine, "mode": self.mode.value, "case": self.case}
        return [
            {**case, "plan": number, **_row(planned, report), "apply_s": seconds, "received": counts.received}
            | {"lost": lost, "changed_under_load": max(apply_s[1:]) + 1.0 < self.change_s}
            for number, (planned, report, seconds) in enumerate(zip(plans, reports, apply_s, strict=True))
        ]


def split_routes(load_s: float, on_ray: bool, console: Console) -> PartResult:
    """Load split plans, in pairs between which an engine changes under load."""
    with tempfile.TemporaryDirectory(prefix="circinus-split-") as folder:
        store = Path(folder) / "profiles.sqlite"
        profiles = {
            p.name: profile_pipeline(_profiled(p), p.name, store, exhaustive=True) for p in map(_pipeline, _FIRST)
        }
        cases = [_split_plans(first, nodes, profiles, load_s) for first, nodes in _CASES]
        items = _recorded([planned for case in cases for planned in case], store)
        console.print(f"{sum(map(len, cases))} split plans of {len(cases)} queries, recorded on {_count(items)} items")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runs = [_Run(case, "local", Mode.REPLAY, 6.0) for case in range(len(cases))]
            runs += [_Run(case, "local", Mode.REAL, 8.0) for case in _IN_MODE_REAL]
            rows = Rows()
            for begin in range(0, len(runs), _AT_ONCE):
                group = runs[begin : begin + _AT_ONCE]
                rows += runner.run(_local(group, cases, items, store, load_s, Path(folder)))
        if on_ray:
            with ray_cluster() as address:
                for case in _ON_RAY:
                    run = _Run(case, "ray", Mode.REPLAY, 45.0)
                    rows += asyncio.run(_ray(address, run, cases[case], items, store, load_s))
    console.print(
        records_table([{k: v for k, v in row.items() if k not in ("part", "simulated_p95_s")} for row in rows])
    )
    return list(_figures(rows)), rows


_FIRST = ("read", "find")


def _pipeline(first: str) -> Pipeline:
    module = quality_models.__name__
    read = OperatorSpec(
        name="read",
        uses=f"{module}:Read",
        knobs=(Knob(name="model", choices=tuple(quality_models.READ)),),
        cpus=(_CPUS,),
        after=() if first == "read" else (first,),
    )
    find = OperatorSpec(
        name="find",
        uses=f"{module}:Find",
        knobs=(Knob(name="model", choices=tuple(quality_models.FIND)),),
        cpus=(_CPUS,),
    )
    return Pipeline(
        name=first,
        operators=(read,) if first == "read" else (find, read),
        metric=MetricSpec(name="quality", uses=f"{module}:quality"),
        dataset=DatasetSpec(uses=f"{module}:items"),
    )


def _profiled(pipeline: Pipeline) -> Specification:
    return Specification({pipeline.name: pipeline}, _infrastructure(1), (), module_paths=(ROOT,))


def _infrastructure(near_nodes: int) -> Infrastructure:
    pools = tuple(
        Pool(
            name=name,
            site=site,
            tier=tier,
            nodes=nodes,
            cpus=_CPUS,
            memory_bytes=2.0**28,
            price_usd_per_h=price,
            hardware=HardwareClass(name="slow", relative_speed=_SPEED),
            private=False,
        )
        for name, site, tier, nodes, price in (
            ("near", "home", "edge", near_nodes, 0.5),
            ("far", "center", "cloud", 20, 1.0),
        )
    )
    link = Link(source="home", target="center", bandwidth_bytes_per_s=1e8, round_trip_s=0.01)
    return Infrastructure(name="two", sites=(Site(name="home"), Site(name="center")), pools=pools, links=(link,))


def _split_plans(
    first: str, near_nodes: int, profiles: Mapping[str, PipelineProfile], load_s: float
) -> Sequence[_Planned]:
    """Return the split plans of a case, which differ in their accuracy SLO."""
    planned = (_planned(first, near_nodes, accuracy, profiles, load_s) for accuracy in _ACCURACIES)
    found = list(islice(filter(None, planned), _PLANS_OF_A_CASE))
    assert len(found) == _PLANS_OF_A_CASE, f"{first} with {near_nodes} near nodes: {len(found)} split plans"
    return found


def _planned(
    first: str, near_nodes: int, accuracy: float, profiles: Mapping[str, PipelineProfile], load_s: float
) -> _Planned | None:
    pipeline = _pipeline(first)
    query = Query(
        name="q",
        pipeline=first,
        source="home",
        rate_per_s=_RATE_PER_S,
        arrivals=PeriodicArrivals(jitter_s=_JITTER / _RATE_PER_S),
        slos=("latency p95 <= 1s", f"accuracy >= {accuracy}"),
    )
    infrastructure = _infrastructure(near_nodes)
    specification = Specification({first: pipeline}, infrastructure, (query,), module_paths=(ROOT,))
    matching, _ = plan_all_queries(specification, profiles, settings=_AT_TARGETS, explain_rejections=())
    if not matching.assignments or not matching.assignments[0].chosen.plan.is_split:
        return None
    inputs = simulation_inputs(specification, profiles, matching)
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    reports = [
        simulate(inputs, replicas, Network(infrastructure), duration_s=load_s, warm_up_s=_WARM_UP_S, seed=seed)
        for seed in range(_SEEDS)
    ]
    return _Planned(specification, matching, [report.queries[0].latency_s["p95"].value for report in reports])


def _recorded(plans: Sequence[_Planned], store: Path) -> dict[str, Sequence[Item]]:
    """Record the plans' configurations on held-out items; return the items by pipeline."""
    items = dict[str, Sequence[Item]]()
    for name in _FIRST:
        own = [planned for planned in plans if name in planned.specification.pipelines]
        specification = own[0].specification
        parts = [part.plan for planned in own for part in planned.matching.assignments[0].chosen.plan.parts]
        used = list(dict.fromkeys(part.configuration for part in parts))
        recorded = set(record_for_replay(specification, name, store, configurations=used).items)
        dataset = load_dataset(specification.pipelines[name], (), seed=0)
        items[name] = [item for item in dataset.items if item.key in recorded]
    return items


def _count(items: Mapping[str, Sequence[Item]]) -> int:
    return sum(map(len, items.values()))


async def _local(
    runs: Sequence[_Run],
    cases: Sequence[Sequence[_Planned]],
    items: Mapping[str, Sequence[Item]],
    store: Path,
    load_s: float,
    folder: Path,
) -> Rows:
    """Run cases at once, one engine in a process of its own each."""
    clients = [start_daemon(folder / f"{run.mode}-{run.case}") for run in runs]
    try:
        rows = await asyncio.gather(
            *(
                run.rows(client, cases[run.case], items, store, load_s)
                for run, client in zip(runs, clients, strict=True)
            )
        )
    finally:
        for client in clients:
            with suppress(Exception):  # end the other engines, too
                await client.close()
    return [row for of_run in rows for row in of_run]


async def _ray(
    address: str, run: _Run, plans: Sequence[_Planned], items: Mapping[str, Sequence[Item]], store: Path, load_s: float
) -> Rows:
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.settings import RaySettings

    engine = RayEngine(RaySettings(address=address, http=("127.0.0.1", _PORT)))
    try:
        return await run.rows(engine, plans, items, store, load_s)
    finally:
        await engine.close()


def _lost(report: LoadReport) -> int:
    return sum(query.failures + query.unanswered + query.dropped for query in report.queries)


def _row(planned: _Planned, report: LoadReport) -> dict[str, Any]:
    (query,) = report.queries
    estimate = planned.matching.assignments[0].chosen.estimate
    measured_s = query.latency_s.p95_s if query.latency_s is not None else None
    plan = planned.matching.assignments[0].chosen.plan
    divided = [
        len({part.plan.deployment_of(o.name) for part in plan.parts}) > 1 for o in _pipeline(plan.pipeline).operators
    ]
    return {
        "divided_operators": sum(divided),
        "shares": [part.planned_share for part in query.parts],
        "requests": query.requests,
        "share_deviation": max(abs(part.share - part.planned_share) for part in query.parts),
        "accuracy": query.score,
        "accuracy_over_predicted": ratio(query.score, estimate.accuracy.value),
        "predicted_p95_s": estimate.latency_s.value,
        "measured_p95_s": measured_s,
        "p95_over_predicted": ratio(measured_s, estimate.latency_s.value),
        "simulated_p95_s": [min(planned.simulated_p95_s), max(planned.simulated_p95_s)],
        "simulated_near": float(
            np.mean(np.abs(np.array(planned.simulated_p95_s) / estimate.latency_s.value - 1.0) <= NEAR)
        ),
        "late_p99_s": report.lateness.p99_s,
    }


def _figures(rows: Rows) -> Sequence[Figure]:
    figures = list[Figure]()
    for engine, mode in dict.fromkeys((row["engine"], row["mode"]) for row in rows):
        own = [row for row in rows if (row["engine"], row["mode"]) == (engine, mode)]
        name, cases = f"split routes, {engine}, {mode}", {row["case"]: row for row in own}
        received = sum(row["received"] for row in cases.values())
        changes = sum(row["changed_under_load"] for row in cases.values())
        note = f"{len(own)} plans, {min(row['requests'] for row in own)} requests or more each"
        figures += [
            Figure(f"{name}: shares beside the plan's, worst", max(row["share_deviation"] for row in own), 0.02,
                   "lower", "of requests", note),
            Figure(f"{name}: lost requests", float(sum(row["lost"] for row in cases.values())), 0.0,
                   "lower", "requests", f"of {received}, with {changes} changes of plans under load"),
            Figure(f"{name}: accuracy as predicted to {NEAR:.0%}", share_near(own, "accuracy_over_predicted"), 0.85,
                   "higher", "of plans", note),
        ]  # fmt: skip
        aim = 0.85 if engine == "local" else None  # predictions have no hops between processes of Ray
        figures.append(
            Figure(f"{name}: p95 as predicted to {NEAR:.0%}", share_near(own, "p95_over_predicted"), aim, "higher",
                   "of plans", f"{np.mean([row['simulated_near'] for row in own]):.0%} of simulated runs as long")
        )  # fmt: skip
    return figures
