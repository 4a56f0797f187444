"""Random plans under random load: estimates compared with long simulations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.random.plans import RandomPlan, random_plan
from circinus.estimation import Estimator
from circinus.matching.settings import MATCHING
from circinus.matching.simulation_check import simulation_horizon_s
from circinus.simulation.engine import Simulation
from circinus.simulation.model_builder import build_model
from circinus.specification import (
    AnyArrivals,
    BurstyArrivals,
    LatencySlo,
    PeriodicArrivals,
    PoissonArrivals,
    RecordedArrivals,
    Slos,
)

PERCENTILES = (50.0, 95.0, 99.0)
KINDS = ("poisson", "periodic", "bursty", "recorded")
_LIMIT = 0.10
_MAX_UTILIZATION = 0.8
_SHARE_OF_A_PLAN = 20
"""Approximate number of queries that share the executions of the product's simulation."""


def arrivals_of(kind: str, rng: np.random.Generator) -> AnyArrivals:
    """Return random arrivals of a kind."""
    if kind == "poisson":
        return PoissonArrivals()
    if kind == "periodic":
        return PeriodicArrivals()
    if kind == "bursty":
        burst_s = float(rng.uniform(2.0, 10.0))
        every_s = burst_s * float(rng.uniform(4.0, 8.0))
        return BurstyArrivals(peak=float(rng.uniform(1.5, 3.5)), burst_s=burst_s, every_s=every_s)
    return RecordedArrivals(file="sessions", times_s=tuple(_sessions(rng).tolist()))


def _sessions(rng: np.random.Generator) -> np.ndarray:
    """Return arrival times of sessions of about five requests, with a rate that varies over time."""
    begins = np.cumsum(rng.exponential(1.0, 1500) / (1 + 0.5 * np.sin(np.arange(1500) / 80)))
    counts = rng.geometric(0.2, len(begins))
    within = [np.cumsum(rng.exponential(2.0, count)) for count in counts]
    return np.sort(np.concatenate([begin + times for begin, times in zip(begins, within, strict=True)]))


def grid(plans: int, requests: int, console: Console) -> PartResult:
    """Compare `plans` random plans per kind of arrivals with simulations of `requests` requests each."""
    rows = []
    for number in track(range(plans * len(KINDS)), "random plans", console=console, transient=True):
        kind = KINDS[number % len(KINDS)]
        rng = np.random.default_rng([7, number])
        rate_per_s = float(np.exp(rng.uniform(np.log(2.0), np.log(60.0))))
        plan = random_plan(rng, float(rng.uniform(0.2, 0.9)), arrivals_of(kind, rng), rate_per_s)
        rows.append(plan_row(plan, kind, number, requests))
    console.print(_table(rows))
    return _figures(rows, requests), rows


def plan_row(plan: RandomPlan, kind: str, seed: int, requests: int) -> dict[str, Any]:
    """Return the percentiles of a plan by formula, as planned with, and simulated over so many requests."""
    predicted, caveats = _estimates(plan)
    truth = _simulated(plan, requests, seed)
    product = _simulated(plan, None, seed + 10_000) if caveats else predicted
    return {
        "part": "grid",
        "arrivals": kind,
        "shape": plan.shape,
        "utilization": plan.utilization,
        "batches": max(load.batch_size for load in plan.conditions.deployments.values()),
        "doubts": list(caveats),
        **{f"simulated_p{p:g}_s": value for p, value in zip(PERCENTILES, truth, strict=True)},
        **{f"formula_p{p:g}_s": value for p, value in zip(PERCENTILES, predicted, strict=True)},
        **{f"estimate_p{p:g}_s": value for p, value in zip(PERCENTILES, product, strict=True)},
        **{f"no_queues_p{p:g}_s": value for p, value in zip(PERCENTILES, _without_queues(plan), strict=True)},
    }


def _estimates(plan: RandomPlan) -> tuple[list[float], tuple[str, ...]]:
    """Return the percentiles of the formulas, and their caveats."""
    percentiles_s: list[float] = []
    caveats: tuple[str, ...] = ()
    for percentile in PERCENTILES:
        slos = Slos(latency=LatencySlo(percentile=percentile, limit_s=1e6))
        query = plan.planned.query.model_copy(update={"slos": slos})
        estimator = Estimator(query, plan.planned.pipeline, plan.planned.profile, plan.network)
        estimate = estimator.candidate(plan.planned.plan, plan.conditions).estimate
        percentiles_s.append(estimate.latency_s.value)
        caveats = estimate.caveats
    return percentiles_s, caveats


def _simulated(plan: RandomPlan, requests: int | None, seed: int) -> list[float]:
    """Simulate the percentiles over `requests` requests; None: over the number that planning uses."""
    model = build_model([plan.planned], plan.replicas, plan.network)
    if requests is None:
        duration_s = simulation_horizon_s([plan.planned], model, MATCHING.simulated_executions / _SHARE_OF_A_PLAN)
    else:
        duration_s = requests / plan.planned.query.rate_per_s
    simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed)
    simulation.run()
    run = simulation.runs[0]
    latency_s = run.latency_s[run.arrival_s >= duration_s / 10]
    return [float(np.percentile(latency_s, p, method="inverted_cdf")) for p in PERCENTILES]


def _without_queues(plan: RandomPlan) -> list[float]:
    """Return the percentiles of requests that never wait for another one."""
    model = build_model([plan.planned], plan.replicas, plan.network)
    (query,) = model.queries
    rare = replace(query, arrivals=_Rare(query.items))
    simulation = Simulation(model.stations, [rare], duration_s=1.0, seed=0)
    simulation.run()
    return [float(np.percentile(simulation.runs[0].latency_s, p, method="inverted_cdf")) for p in PERCENTILES]


class _Rare:
    """Arrivals far apart."""

    def __init__(self, items: int) -> None:
        self._items = items

    def times_s(self, duration_s: float, rng: np.random.Generator) -> np.ndarray:
        return np.arange(self._items) * 1e5


def _figures(rows: Sequence[dict[str, Any]], requests: int) -> list[Figure]:
    calm = [row for row in rows if row["utilization"] <= _MAX_UTILIZATION]
    busy = [row for row in rows if row["utilization"] > _MAX_UTILIZATION]
    sure = [row for row in calm if not row["doubts"]]
    wrong = [row for row in rows if not all(is_near(row, "formula", p) for p in PERCENTILES)]
    groups = (
        ("formula within 10 % of the simulator", calm, "formula",
         f"of {len(calm)} plans up to a utilisation of 0.8, {requests:,} requests each"),
        ("the same where the estimate has no doubts", sure, "formula", f"{len(sure)} plans"),
        ("estimate as planned with (simulated where doubtful) within 10 %", calm, "estimate",
         f"simulated over {MATCHING.simulated_executions // _SHARE_OF_A_PLAN:,} executions a plan"),
    )  # fmt: skip
    return [
        *(
            Figure(f"{name}, p{p:g}", _share(group, which, p), 0.95, "higher", "of plans", note)
            for name, group, which, note in groups
            for p in PERCENTILES
        ),
        Figure("formulas beyond 10 % whose estimate has doubts", _doubtful(wrong) if wrong else 1.0, 1.0, "higher",
               "of those plans", f"{len(wrong)} plans"),
        Figure("plans beyond 0.8 whose estimate has doubts", _doubtful(busy), 1.0, "higher", "of plans"),
        Figure("estimates with doubts", _doubtful(calm), None, "lower", "of plans"),
        Figure("an estimate without queues within 10 %, p95", _share(calm, "no_queues", 95.0), None, "higher",
               "of plans", "for comparison"),
    ]  # fmt: skip


def _doubtful(rows: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([bool(row["doubts"]) for row in rows])) if rows else 0.0


def is_near(row: dict[str, Any], which: str, percentile: float) -> bool:
    """Return whether a percentile is within 10 % of the simulated one."""
    ratio = row[f"{which}_p{percentile:g}_s"] / row[f"simulated_p{percentile:g}_s"]
    return bool(abs(ratio - 1) <= _LIMIT)


def _share(rows: Sequence[dict[str, Any]], which: str, percentile: float) -> float:
    return float(np.mean([is_near(row, which, percentile) for row in rows])) if rows else 0.0


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a table of shares within 10 % by kind of arrivals."""
    table = Table(
        "arrivals", "plans", "formula p50 / p95 / p99", "no doubts", "estimate p50 / p95 / p99", "without queues"
    )
    table.title = "Within 10 % of the simulator, utilization up to 0.8"
    groups: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        *((kind, lambda row, kind=kind: row["arrivals"] == kind) for kind in KINDS),
        ("no batches", lambda row: row["batches"] == 1),
        ("batches", lambda row: row["batches"] > 1),
    ]
    for name, belongs in groups:
        some = [row for row in rows if row["utilization"] <= _MAX_UTILIZATION and belongs(row)]
        without_caveats = f"{1 - _doubtful(some):.0%}" if some else ""
        shares = [_three(some, which) for which in ("formula", "estimate", "no_queues")]
        table.add_row(name, str(len(some)), shares[0], without_caveats, *shares[1:])
    return table


def _three(rows: Sequence[dict[str, Any]], which: str) -> str:
    return " / ".join(f"{_share(rows, which, p):.0%}" for p in PERCENTILES)
