"""Searches of a synthetic pipeline: the product from end to end, and baselines with the same profiled seconds."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np

from benchmarks.baselines.synthetic_search import BASELINES, best_trial
from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.families import SyntheticCase
from benchmarks.workloads.synthetic.ground_truth import cheapest_of, true_verdict
from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import ProfileProgress, SilentObserver, profile_pipeline
from circinus.specification import QueryPlan

OURS = "Circinus"
BUDGET_S = 900.0
"""Simulated seconds after which the product is stopped: a quarter of an hour of profiling."""
_KIB_PER_MIB = 1024.0


@dataclass(frozen=True)
class SyntheticRun:
    """Result of one search."""

    family: str
    exponent: int
    method: str
    seed: int
    answered: bool
    found: bool
    """True if the plan keeps every SLO in truth."""
    cost_over_optimum: float
    """Cost over that of the optimum; NaN for a plan that violates an SLO."""
    touched: int
    """Number of measured configurations."""
    items: int
    """Number of measured scores."""
    seconds: float
    """Simulated seconds of profiling."""
    wall_s: float
    cpu_s: float
    """CPU time of the process, planning included; NaN for baselines."""
    peak_mib: float
    """Peak memory of the process until the answer; NaN for baselines."""
    steps: float
    """Number of measured increments, one per assessment; NaN for baselines."""


class Steps(SilentObserver):
    """Observer that counts increments."""

    def __init__(self) -> None:
        self.count = 0

    def progressed(self, progress: ProfileProgress) -> None:
        self.count += progress.phase == "scores"


def run_all(case: SyntheticCase, seed: int) -> list[SyntheticRun]:
    """Run the product, then every baseline; in a fresh process, so that the peak memory is that of the product."""
    ours = run_product(case, seed)
    return [ours, *run_baselines(case, seed, ours.seconds)]


def run_product(case: SyntheticCase, seed: int) -> SyntheticRun:
    """Run `profile_pipeline` and `plan_queries` as `circinus profile` and `circinus plan` do."""
    name, source, steps = case.model.pipeline.name, SyntheticSource(case.model), Steps()
    began_s, began_cpu_s = perf_counter(), process_time()
    with TemporaryDirectory() as folder:
        profile = profile_pipeline(
            case.specification,
            name,
            Path(folder) / "store",
            budget_s=BUDGET_S,
            seed=seed,
            observer=steps,
            source=source,
            explorer=make_sampler(case.specification, name),
        )
    answer = cheapest_of(plan_queries(case.specification, {name: profile})[case.query.name].candidates)
    wall_s, cpu_s, peak = perf_counter() - began_s, process_time() - began_cpu_s, peak_mib()
    items = sum(len(configuration.items) for configuration in profile.configurations)
    return _row(
        case, OURS, seed, None if answer is None else answer.plan, touched=len(profile.configurations), items=items,
        seconds=source.clock(), wall_s=wall_s, cpu_s=cpu_s, peak_mib=peak,
        steps=steps.count,
    )  # fmt: skip


def run_baselines(case: SyntheticCase, seed: int, seconds: float) -> list[SyntheticRun]:
    """Run each baseline for as many simulated seconds as the product took."""
    rows = []
    for method, search in BASELINES.items():
        began_s = perf_counter()
        done = [trial for trial in search(case, seconds, seed) if trial.ended_s <= seconds]
        best = best_trial(done)
        rows.append(
            _row(
                case,
                method,
                seed,
                None if best is None else best.plan.plan,
                touched=len(done),
                items=len(done) * len(case.model.items.work),
                seconds=done[-1].ended_s if done else 0.0,
                wall_s=perf_counter() - began_s,
            )
        )
    return rows


def _row(
    case: SyntheticCase,
    method: str,
    seed: int,
    plan: QueryPlan | None,
    *,
    touched: int,
    items: int,
    seconds: float,
    wall_s: float,
    cpu_s: float = np.nan,
    peak_mib: float = np.nan,
    steps: float = np.nan,
) -> SyntheticRun:
    verdict = None if plan is None else true_verdict(case.model, case.query, case.network, plan)
    is_feasible = verdict is not None and verdict.kept
    ratio = np.nan if verdict is None or not is_feasible else verdict.cost_usd_per_h / case.optimum.cost_usd_per_h
    return SyntheticRun(
        case.family, case.exponent, method, seed, plan is not None, is_feasible, ratio, touched, items, seconds,
        wall_s, cpu_s, peak_mib, steps,
    )  # fmt: skip


def peak_mib() -> float:
    """Return the peak resident memory of this process.

    Read from `/proc` where it exists: resource usage of the system call may include that of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return float(peak.split()[1]) / _KIB_PER_MIB
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_KIB_PER_MIB if sys.platform == "darwin" else 1.0)
    return peak_kib / _KIB_PER_MIB
