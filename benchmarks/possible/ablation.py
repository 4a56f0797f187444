"""Ablation of all plans, divided requests and fitted plans, of whole nodes, and of packing in the matching's program.

Random applications, 20 queries on the published traces, and the meeting example, the last two at several loads. Without
regard to whole nodes, pools are planned as if shares of nodes were paid, and the nodes on which the replicas pack are
paid. The program packs replicas for more than 40 queries only, so that packing is compared on 64 queries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure
from benchmarks.possible.promises import checked_promises
from benchmarks.promises.applications import real_application
from benchmarks.workloads.published.queries import workloads
from benchmarks.workloads.published.speech import traces_folder
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.matching.solvers import milp_model
from circinus.planning import Frontier, plan_queries
from circinus.planning.bin_packing import pack_on_fewest
from circinus.profiling import PipelineProfile, load_profile
from circinus.specification import Billing, Specification
from circinus.testing.random_instances import random_specification

_BASE, _ALL = "none", "all three"
_SHARES, _WHOLE = "shares of nodes", "whole nodes"
_AFTERWARDS, _PACKED = "packed afterwards", "packed in the program"
_MODES: Mapping[str, MatchSettings] = {
    _BASE: MatchSettings(considers_all_plans=False, divides_requests=False, fits_targets=False),
    "all plans": MatchSettings(divides_requests=False, fits_targets=False),
    "divided requests": MatchSettings(considers_all_plans=False, fits_targets=False),
    "fitted plans": MatchSettings(considers_all_plans=False, divides_requests=False),
    _ALL: MatchSettings(),
}
_COMPARED = (*((mode, _BASE) for mode in _MODES if mode != _BASE), (_WHOLE, _SHARES), (_PACKED, _AFTERWARDS))
_QUERIES = 6
_ON_TRACES, _PACKED_QUERIES = 20, 64
"""Number of queries on the published traces, and where packing is compared."""
_LOADS = (0.5, 1.0, 2.0, 4.0)
_LIMIT_S, _PACKED_LIMIT_S = 1.0, 3.0
"""Time limits of matchings on the traces and of the meeting example, which bound the time of the parts."""
_BUSIER, _KINDS = 20.0, 20
"""Factor of the rates of queries on the traces, and kinds of queries of each data set."""
_PACKING_STEPS = 500
_SAME = 1e-6


@dataclass(frozen=True)
class _Case:
    part: str
    name: str
    specification: Specification
    profiles: Mapping[str, PipelineProfile]
    limit_s: float | None = None
    frontiers: Mapping[str, Frontier] | None = None
    """Plans of each query; by default they are searched for."""
    packs: bool = False
    """Whether packing is compared instead of all else."""

    def at(self, load: float) -> _Case:
        """Return the case at a factor of its rates."""
        queries = (q.model_copy(update={"rate_per_s": load * q.rate_per_s}) for q in self.specification.queries)
        specification = replace(self.specification, queries=tuple(queries))
        return replace(self, name=f"{self.name}, load {load:g}", specification=specification)

    def rows(self) -> Rows:
        """Return weight and cost in each mode, from the same frontiers; those about whole nodes on elastic pools."""
        return [{"part": self.part, "case": self.name} | row for row in (self._packed() if self.packs else self._all())]

    def _all(self) -> Iterator[dict[str, Any]]:
        whole, frontiers = _elastic(self.specification, Billing.NODE), plan_queries(self.specification, self.profiles)
        for mode, settings in _MODES.items():
            row, matching = self._row(mode, self.specification, settings, frontiers)
            if mode == _ALL:
                promises = checked_promises(self.specification, self.profiles, matching)
                row |= {"promises": promises.count, "broken": promises.broken}
            yield row
        for mode, specification in ((_SHARES, _elastic(self.specification, Billing.SHARE)), (_WHOLE, whole)):
            row, matching = self._row(mode, specification, MatchSettings())
            yield row | {"usd_per_h": _cost_on_whole_nodes(matching, whole)}

    def _packed(self) -> Iterator[dict[str, Any]]:
        with mock.patch.object(milp_model, "add_patterns", return_value=()):
            yield self._row(_AFTERWARDS, self.specification, MatchSettings(), self.frontiers)[0]
        yield self._row(_PACKED, self.specification, MatchSettings(), self.frontiers)[0]

    def _row(
        self,
        mode: str,
        planned: Specification,
        settings: MatchSettings,
        frontiers: Mapping[str, Frontier] | None = None,
    ) -> tuple[dict[str, Any], Matching]:
        begin_s = time.process_time()
        settings = replace(settings, time_limit_s=self.limit_s)
        matching, _ = plan_all_queries(
            planned, self.profiles, settings=settings, frontiers=frontiers, explain_rejections=()
        )
        seconds = round(time.process_time() - begin_s, 3)
        row = {"mode": mode, "weight": matching.satisfied_weight, "usd_per_h": matching.cost_usd_per_h}
        return row | {"total": matching.total_weight, "cpu_s": seconds}, matching


def ablation(count: int, console: Console) -> PartResult:
    """Plan random applications of six queries in each mode, half of them on scarce pools."""
    rows = _in_processes(map(_random_case, range(count)), console)
    return list(_figures(rows, "", f"of {count} random applications with {_QUERIES} queries")), rows


def ablation_on_traces(console: Console) -> PartResult:
    """Plan few queries of each workload on the published traces in each mode at each load, and more queries packed.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    cases, packed = list[_Case](), list[_Case]()
    for workload in workloads(traces_folder(), 0, kinds=_KINDS, busier=_BUSIER):
        specification, drawn = workload.queries(_PACKED_QUERIES, 0)
        frontiers = {name: replace(frontier, estimators=None) for name, frontier in drawn.items()}  # for processes
        many = _Case("traces", workload.name, specification, workload.profiles, _PACKED_LIMIT_S, frontiers, packs=True)
        packed.append(many)
        few = replace(specification, queries=specification.queries[:_ON_TRACES])
        case = replace(many, specification=few, limit_s=_LIMIT_S, frontiers=None, packs=False)
        cases += map(case.at, _LOADS)
    rows = _in_processes([*cases, *packed], console)
    note = f"of four workloads with {_ON_TRACES} queries, or {_PACKED_QUERIES} packed"
    return list(_by_load(rows, "traces", note)), rows


def ablation_on_meeting(state: Path, profile_s: float, console: Console) -> PartResult:
    """Plan the meeting example in each mode at each load.

    Args:
        state: folder of the profile store.
        profile_s: seconds of profiling each of its two pipelines; what the store has is kept.
        console: of the progress.
    """
    application = real_application("meeting", state, profile_s)
    specification = application.specification
    profiles = {name: load_profile(specification, name, application.store) for name in specification.pipelines}
    case = _Case("meeting", "meeting", specification, profiles, _LIMIT_S)
    rows = _in_processes(map(case.at, _LOADS), console)
    return list(_by_load(rows, "meeting", f"of the example with {len(specification.queries)} queries")), rows


def _in_processes(cases: Iterable[_Case], console: Console) -> Rows:
    rows: Rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for own in pool.map(_Case.rows, cases):
            rows += own
            shown = (f"{row['mode']} {row['weight']:g}, ${row['usd_per_h']:.4f}/h" for row in own)
            console.print(f"{own[0]['case']}: {'; '.join(shown)}", highlight=False)
    return rows


def _random_case(seed: int) -> _Case:
    scarce: dict[str, Any] = {} if seed % 2 else {"cpus": 3.0, "nodes": 1}
    return _Case("ablation", f"random {seed}", *random_specification(seed, queries=_QUERIES, **scarce))


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


def _by_load(rows: Rows, prefix: str, note: str) -> Iterator[Figure]:
    """Yield the figures of all loads, then weight and cost with everything at each load."""
    yield from _figures(rows, f"{prefix}, ", note)
    shown = tuple(f"{mode}: {what}" for mode in (_ALL, _WHOLE) for what in ("weight", "mean cost"))
    for load in _LOADS:
        own = [row for row in rows if row["case"].endswith(f", load {load:g}")]
        yield from (f for f in _figures(own, f"{prefix} at load {load:g}, ", note) if f.name.endswith(shown))


def _figures(rows: Rows, prefix: str, note: str) -> Iterator[Figure]:
    for mode, base in _COMPARED:
        compared = list(zip(*([row for row in rows if row["mode"] == name] for name in (mode, base)), strict=True))
        if not compared:
            continue
        named, over = f"{prefix}{mode}", f"relative to {base}, {note}"
        weight, seconds = (
            sum(a[key] for a, _ in compared) / max(sum(b[key] for _, b in compared), _SAME)
            for key in ("weight", "cpu_s")
        )
        yield Figure(f"{named}: weight", weight, None, "higher", "times", over)
        equal = [(a, b) for a, b in compared if abs(a["weight"] - b["weight"]) < _SAME and b["usd_per_h"] > 0]
        if equal:
            cost = float(np.mean([a["usd_per_h"] / b["usd_per_h"] for a, b in equal]))
            about = f"{over}; {len(equal)} of equal weight"
            yield Figure(f"{named}: mean cost", cost, None, "lower", "times", about)
        worse = sum(_key(a) < _key(b) for a, b in compared)
        yield Figure(f"{named}: worse", worse, 0.0, "lower", "matchings", over)
        yield Figure(f"{named}: processor time", seconds, None, "lower", "times", over)
    own = [row for row in rows if row["mode"] == _ALL]
    promised, broken = sum(row["promises"] for row in own), sum(len(row["broken"]) for row in own)
    about = f"of {promised} promised SLOs and all capacities, {note}"
    yield Figure(f"{prefix}promises broken when simulated", broken, 0.0, "lower", "promises", about)


def _key(row: Mapping[str, Any]) -> tuple[float, float]:
    return round(row["weight"], 6), -round(row["usd_per_h"], 6)
