"""Random instances with everything at once, against optima of the whole problem, and their promises when simulated.

Without latency SLOs, the truth is a mixed-integer program (`whole_program`). With them, all choices of undivided plans
and replicas are enumerated (`enumeration`); matchings that may divide requests must be at least as good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from time import process_time
from typing import Any

from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure
from benchmarks.possible.enumeration import Enumeration, Optimum
from benchmarks.possible.instances import Instance
from benchmarks.possible.promises import checked_promises
from benchmarks.possible.whole_program import optimum
from circinus.matching import MatchSettings, plan_all_queries

_ROUNDING = 1e-5
"""Of equal costs. The program's rows hold to 1e-6, while shares of plans are rounded so that their accuracy holds."""


def without_latency_slos(count: int, console: Console) -> PartResult:
    """Compare matchings with default settings with the program of all plans."""
    rows = _in_processes(compared_with_program, count, console)
    return [*_figures("everything without latency SLOs", rows), _kept(rows)], _differing(rows)


def with_latency_slos(count: int, console: Console) -> PartResult:
    """Compare matchings with default settings with the best choice of undivided plans and replicas."""
    rows = _in_processes(compared_with_enumeration, count, console)
    undivided, divided = ([row for row in rows if row["may_divide"] == may_divide] for may_divide in (False, True))
    figures = [
        *_figures("everything with latency SLOs, undivided", undivided),
        *_figures("everything with latency SLOs", divided),
    ]
    return [*figures, _kept(rows)], _differing(rows)


def _kept(rows: Rows) -> Figure:
    promised, broken = sum(row["promises"] for row in rows), sum(len(row["broken"]) for row in rows)
    note = f"of {promised} promised SLOs and all capacities, in {len(rows)} matchings"
    kind = "with" if rows[0]["has_latency"] else "without"
    name = f"everything {kind} latency SLOs: promises broken when simulated"
    return Figure(name, broken, 0.0, "lower", "promises", note)


def _differing(rows: Rows) -> Rows:
    return [{"part": "everything", "differing": [row for row in rows if not row["as_good"] or row["broken"]]}]


def _in_processes(compared: Callable[[int], Mapping[str, Any]], count: int, console: Console) -> Rows:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = []
        for row in pool.map(compared, range(count), chunksize=4):
            rows.append(dict(row))
            if not row["as_good"] or row["broken"]:
                console.print(f"instance {row['seed']}: {row}")
    return rows


def _figures(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    count = len(rows)
    note = f"of {count} random ones with 1 to {max(row['queries'] for row in rows)} queries"
    same_weight = [row for row in rows if row["weight"] == row["possible"]]
    ratio = max((row["ratio"] for row in same_weight), default=1.0)
    weight = sum(row["weight"] for row in rows) / sum(row["possible"] for row in rows)
    served = sum(row["weight"] >= row["possible"] for row in rows) / count
    as_good, proved = (sum(row[key] for row in rows) / count for key in ("as_good", "proved"))
    wrong = sum(row["proved"] and not row["as_good"] for row in rows)
    return [
        Figure(f"{name}: as good as possible", as_good, 1.0, "higher", "of instances", f"{note}, weight and cost"),
        Figure(f"{name}: all weight that is possible", served, 1.0, "higher", "of instances", note),
        Figure(f"{name}: weight", weight, 1.0, "higher", "of the possible", note),
        Figure(f"{name}: cost over the optimum, worst", ratio, 1.05, "lower", "times", f"{note}, at its weight"),
        Figure(f"{name}: proved", proved, None, "higher", "of instances", f"{note}, {wrong} of them not as good"),
    ]


def compared_with_program(seed: int, settings: MatchSettings | None = None) -> dict[str, Any]:
    """Return the comparison of an instance without latency SLOs with the program at the highest utilization."""
    instance = Instance.without_latency_slos(seed)
    limit = instance.specification.required_infrastructure.utilization_limit
    return _compared(seed, instance, partial(optimum, instance, limit), settings, has_latency=False)


def compared_with_enumeration(seed: int, settings: MatchSettings | None = None) -> dict[str, Any]:
    """Return the comparison of an instance with latency SLOs with the best choice of undivided plans."""
    instance = Instance.with_latency_slos(seed)
    return _compared(seed, instance, Enumeration(instance).optimum, settings, has_latency=True)


def _compared(
    seed: int, instance: Instance, best: Callable[[], Optimum], settings: MatchSettings | None, *, has_latency: bool
) -> dict[str, Any]:
    specification, profiles = instance.specification, instance.profiles
    truth, begin_s = best(), process_time()
    matching, _ = plan_all_queries(specification, profiles, settings=settings or MatchSettings(), explain_rejections=())
    seconds = process_time() - begin_s
    may_divide = has_latency and any(query.split for query in specification.queries)
    promises = checked_promises(specification, profiles, matching)
    weight, cost = matching.satisfied_weight, matching.cost_usd_per_h
    ratio = cost / truth.cost_usd_per_h if truth.cost_usd_per_h else 1.0
    # Enumeration goes by formulas; a simulation may allow fewer replicas.
    is_cheap = ratio <= 1 + _ROUNDING if has_latency else abs(ratio - 1) <= _ROUNDING
    is_as_good = (weight == truth.weight and is_cheap) or (may_divide and weight > truth.weight)
    return {
        "seed": seed,
        "has_latency": has_latency,
        "may_divide": may_divide,
        "queries": len(specification.queries),
        "operators": len(instance.pipeline.operators),
        "weight": weight,
        "possible": truth.weight,
        "ratio": round(ratio, 6),
        "as_good": is_as_good,
        "proved": matching.optimal,
        "truth_proved": truth.is_proved,
        "promises": promises.count,
        "broken": promises.broken,
        "cpu_s": round(seconds, 3),
    }
