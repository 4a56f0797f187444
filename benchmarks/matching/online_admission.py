"""Changes while queries run: admission of single queries, and loss of a site."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure
from benchmarks.matching.incremental_rematch import rematch
from benchmarks.matching.price_admission import AdmissionRequest, Admitted, OnlineAdmission
from benchmarks.matching.refined_search import solve_refined
from benchmarks.matching.scaling import SITES
from benchmarks.workloads.random.matchings import on_many_sites, on_shared_pools, without_site
from circinus.matching.lagrangian import RelaxedProblem

RUNNING = 100_000
ASKING = 5_000
LOST = 10
AIM_ASK_S, AIM_LOST_S = 0.01, 0.5


def online(running: int, console: Console) -> PartResult:
    """Measure admission and loss of sites; return figures and rows."""
    admission, rows = _asking(running, console)
    lost, more = _losing_sites(running, console)
    return [*admission, *lost], [*rows, *more]


def _asking(running: int, console: Console) -> PartResult:
    whole = on_shared_pools(running + ASKING, seed=0)
    answer = solve_refined(whole.part(np.arange(running)))
    admissions = OnlineAdmission(answer)
    took_s, outcomes = [], Counter[str]()
    for row in track(range(running, running + ASKING), "queries that ask", console=console):
        applicant = AdmissionRequest(float(whole.weight[row]), whole.cost_usd_per_h[row], whole.amounts[row], 0)
        start_s = perf_counter()
        decision = admissions.admit(applicant)
        took_s.append(perf_counter() - start_s)
        if isinstance(decision, Admitted):
            outcomes["in, another one makes room" if decision.moved else "in"] += 1
        else:
            outcomes["refused"] += 1
    assert admissions.usage.max() <= 1.0 + 1e-6, "the admitted queries exceed a capacity"
    p99_s = float(np.percentile(took_s, 99))
    outcome_text = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
    note = f"median {np.median(took_s) * 1e3:.2f} ms, longest {max(took_s) * 1e3:.1f} ms; {outcome_text}"
    record: dict[str, Any] = {"part": "asking", "running": running, "asked": ASKING, "p99_s": p99_s, **outcomes}
    return [Figure(f"a new query beside {running:,}: p99", p99_s, AIM_ASK_S, "lower", "s", note)], [record]


def _losing_sites(running: int, console: Console) -> PartResult:
    problem = on_many_sites(running, SITES, seed=0)
    answer = solve_refined(problem)
    rows: Rows = []
    for site in track(range(LOST), "sites that are lost", console=console):
        after = without_site(problem, site)
        start_s = perf_counter()
        rematched = rematch(answer, after, np.arange(running))
        took_s = perf_counter() - start_s
        rows.append({"part": "lost site", "site": site, "wall_s": took_s, **_touched(problem, site, rematched.changed),
                     "weight_gap": rematched.answer.weight_gap})  # fmt: skip
    took = float(np.median([row["wall_s"] for row in rows]))
    elsewhere = sum(row["elsewhere"] for row in rows)
    changed = sum(row["changed"] for row in rows)
    return [
        Figure(f"one of {SITES:,} sites lost: new answer", took, AIM_LOST_S, "lower", "s", f"median of {LOST}"),
        Figure(f"one of {SITES:,} sites lost: running queries of other sites that change", float(elsewhere), 0.0,
               "lower", "queries", f"of {changed} that change in {LOST} losses"),
    ], rows  # fmt: skip


def _touched(problem: RelaxedProblem, site: int, changed: np.ndarray) -> dict[str, int]:
    return {"changed": len(changed), "elsewhere": int((problem.site[changed] != site).sum())}
