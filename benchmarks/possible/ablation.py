"""Ablation of all plans, divided requests and plans that fit the load, each alone and together, and of whole nodes.

Random applications, and few queries on the published traces. Without regard to whole nodes, pools are planned as if
shares of nodes were paid, and the nodes on which the replicas pack are paid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure
from benchmarks.possible.promises import checked_promises
from benchmarks.workloads.published.queries import Workload, workloads
from benchmarks.workloads.published.speech import traces_folder
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.planning import plan_queries
from circinus.planning.bin_packing import pack_on_fewest
from circinus.profiling import PipelineProfile
from circinus.specification import Billing, Specification
from circinus.testing.random_instances import random_specification

_BASE, _ALL = "none", "all three"
_SHARES, _WHOLE = "shares of nodes", "whole nodes"
_MODES: Mapping[str, MatchSettings] = {
    _BASE: MatchSettings(considers_all_plans=False, divides_requests=False, fits_targets=False),
    "all plans": MatchSettings(divides_requests=False, fits_targets=False),
    "divided requests": MatchSettings(considers_all_plans=False, fits_targets=False),
    "fitted plans": MatchSettings(considers_all_plans=False, divides_requests=False),
    _ALL: MatchSettings(),
}
_QUERIES = 6
_ON_TRACES = 20
"""Number of queries on the published traces."""
_BUSIER, _KINDS = 20.0, 20
"""Factor of the rates of queries on the traces, and kinds of queries of each data set."""
_PACKING_STEPS = 500
_SAME = 1e-6


def ablation(count: int, console: Console) -> PartResult:
    """Plan random applications of six queries in each mode, half of them on scarce pools."""
    rows = _in_processes(_random_rows, range(count), console)
    return list(_figures(rows, "", f"of {count} random applications with {_QUERIES} queries")), rows


def ablation_on_traces(console: Console) -> PartResult:
    """Plan few queries of each workload on the published traces in each mode.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    planned = workloads(traces_folder(), 0, kinds=_KINDS, busier=_BUSIER)
    rows = _in_processes(_trace_rows, list(planned), console)
    return list(_figures(rows, "traces, ", f"of four workloads with {_ON_TRACES} queries")), rows


def _in_processes(rows_of: Callable[[Any], Rows], jobs: Sequence[Any], console: Console) -> Rows:
    rows: Rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for own in pool.map(rows_of, jobs):
            rows += own
            console.print(f"{own[0]['case']}: " + ", ".join(f"{row['mode']} {row['weight']:g}" for row in own))
    return rows


def _random_rows(seed: int) -> Rows:
    scarce: dict[str, Any] = {} if seed % 2 else {"cpus": 3.0, "nodes": 1}
    specification, profiles = random_specification(seed, queries=_QUERIES, **scarce)
    return [{"part": "ablation"} | row for row in _rows(f"random {seed}", specification, profiles)]


def _trace_rows(workload: Workload) -> Rows:
    specification, _ = workload.queries(_ON_TRACES, 0)
    return [{"part": "traces"} | row for row in _rows(workload.name, specification, workload.profiles)]


def _rows(case: str, specification: Specification, profiles: Mapping[str, PipelineProfile]) -> Iterator[dict[str, Any]]:
    """Yield weight and cost in each mode, from the same frontiers; then those about whole nodes on elastic pools."""
    whole, frontiers = _elastic(specification, Billing.NODE), plan_queries(specification, profiles)
    modes = {mode: (specification, settings) for mode, settings in _MODES.items()}
    modes |= {_SHARES: (_elastic(specification, Billing.SHARE), MatchSettings()), _WHOLE: (whole, MatchSettings())}
    for mode, (planned, settings) in modes.items():
        begin_s = time.process_time()
        own = frontiers if mode in _MODES else None
        matching, _ = plan_all_queries(planned, profiles, settings=settings, frontiers=own, explain_rejections=())
        seconds = time.process_time() - begin_s
        cost = _cost_on_whole_nodes(matching, whole) if mode in (_SHARES, _WHOLE) else matching.cost_usd_per_h
        row = {"case": case, "mode": mode, "weight": matching.satisfied_weight, "usd_per_h": cost}
        if mode == _ALL:
            promises = checked_promises(specification, profiles, matching)
            row |= {"promises": promises.count, "broken": promises.broken}
        yield row | {"cpu_s": round(seconds, 3)}


def _elastic(specification: Specification, billing: Billing) -> Specification:
    """Return the specification with pools of which plans choose the number of nodes, and without cost SLOs."""
    infrastructure = specification.required_infrastructure
    pools = tuple(p.model_copy(update={"min_nodes": 0, "billing": billing}) for p in infrastructure.pools)
    queries = tuple(q.model_copy(update={"slos": q.slos.without_cost}) for q in specification.queries)
    elastic = infrastructure.model_copy(update={"pools": pools})
    return replace(specification, infrastructure=elastic, queries=queries)


def _cost_on_whole_nodes(matching: Matching, specification: Specification) -> float:
    """Return the cost of a matching if the fewest nodes on which its replicas pack are paid whole."""
    cost = sum(assignment.chosen.transfer_cost_usd_per_h for assignment in matching.assignments)
    for pool in specification.required_infrastructure.pools:
        own = [sized for sized in matching.deployments if sized.deployment.pool == pool.name]
        if own:
            demand, replicas = np.array([s.demand.amounts for s in own]), np.array([s.replicas for s in own])
            fewest = pack_on_fewest(demand, replicas, np.array(pool.amounts), 0, pool.nodes, _PACKING_STEPS)
            cost += pool.price_usd_per_h * fewest.count
    return cost


def _figures(rows: Rows, prefix: str, note: str) -> Iterator[Figure]:
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in (*_MODES, _SHARES, _WHOLE)}
    pairs = [(mode, _BASE) for mode in _MODES if mode != _BASE] + [(_WHOLE, _SHARES)]
    for mode, base in pairs:
        compared = list(zip(by_mode[mode], by_mode[base], strict=True))
        weight, seconds = (
            sum(a[key] for a, _ in compared) / sum(b[key] for _, b in compared) for key in ("weight", "cpu_s")
        )
        equal = [(a, b) for a, b in compared if abs(a["weight"] - b["weight"]) < _SAME and b["usd_per_h"] > 0]
        cost = float(np.mean([a["usd_per_h"] / b["usd_per_h"] for a, b in equal]))
        worse = sum(_key(a) < _key(b) for a, b in compared)
        named, over = f"{prefix}{mode}", f"relative to {base}, {note}"
        yield Figure(f"{named}: weight", weight, None, "higher", "times", over)
        yield Figure(f"{named}: mean cost", cost, None, "lower", "times", f"{over}; {len(equal)} of equal weight")
        yield Figure(f"{named}: worse", worse, 0.0, "lower", "matchings", over)
        yield Figure(f"{named}: processor time", seconds, None, "lower", "times", over)
    own = by_mode[_ALL]
    promised, broken = (
        sum(row[key] if key == "promises" else len(row[key]) for row in own) for key in ("promises", "broken")
    )
    about = f"of {promised} promised SLOs and all capacities, {note}"
    yield Figure(f"{prefix}promises broken when simulated", broken, 0.0, "lower", "promises", about)


def _key(row: Mapping[str, Any]) -> tuple[float, float]:
    return round(row["weight"], 6), -round(row["usd_per_h"], 6)
