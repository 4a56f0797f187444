"""One search of a synthetic pipeline: by the product from end to end, and by the baselines in the same seconds."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np

from benchmarks.baselines.synthetic_search import BASELINES, Trial, best_trial
from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.families import SyntheticCase
from benchmarks.workloads.synthetic.ground_truth import cheapest_of, judged
from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import ProfileProgress, SilentObserver, profile_pipeline
from circinus.specification import QueryPlan

OURS = "Circinus"
PATIENCE_S = 900.0
"""Simulated seconds after which the product is stopped: a quarter of an hour of profiling."""
TIMES = (1, 10)
"""Of the product's seconds, that the baselines are given."""
_KIB_PER_MIB = 1024.0


@dataclass(frozen=True)
class SyntheticRun:
    """One answer."""

    family: str
    exponent: int
    method: str
    seed: int
    answered: bool
    found: bool
    """Whether the answer keeps every objective in truth."""
    cost_over_optimum: float
    """NaN where it does not."""
    touched: int
    """Configurations that were measured."""
    items: int
    """Scores seen."""
    seconds: float
    """Simulated, of profiling."""
    wall_s: float
    cpu_s: float
    """Of this process, planning included; NaN of baselines."""
    peak_mib: float
    """Of this process until the answer; NaN of baselines."""
    steps: float
    """Increments that were measured, each after another assessment; NaN of baselines."""


class Steps(SilentObserver):
    """Counts increments."""

    def __init__(self) -> None:
        self.count = 0

    def progressed(self, progress: ProfileProgress) -> None:
        """One more."""
        self.count += progress.phase == "scores"


def run_all(case: SyntheticCase, seed: int) -> list[SyntheticRun]:
    """The product, then every baseline. In a fresh process, so that the peak of memory is the product's."""
    ours = run_product(case, seed)
    return [ours, *run_baselines(case, seed, ours.seconds)]


def run_product(case: SyntheticCase, seed: int) -> SyntheticRun:
    """`profile_pipeline` and `plan_queries`, as `circinus profile` and `circinus plan` call them."""
    name, source, steps = case.model.pipeline.name, SyntheticSource(case.model), Steps()
    began_s, began_cpu_s = perf_counter(), process_time()
    with TemporaryDirectory() as folder:
        profile = profile_pipeline(
            case.specification,
            name,
            Path(folder) / "store",
            budget_s=PATIENCE_S,
            seed=seed,
            observer=steps,
            source=source,
            explorer=make_sampler(case.specification, name),
        )
    answer = cheapest_of(plan_queries(case.specification, {name: profile})[case.query.name].candidates)
    wall_s, cpu_s, peak = perf_counter() - began_s, process_time() - began_cpu_s, peak_mib()
    items = sum(len(found.items) for found in profile.configurations)
    return _row(
        case, OURS, seed, None if answer is None else answer.plan, touched=len(profile.configurations), items=items,
        seconds=source.clock(), wall_s=wall_s, cpu_s=cpu_s, peak_mib=peak,
        steps=steps.count,
    )  # fmt: skip


def run_baselines(case: SyntheticCase, seed: int, seconds: float) -> list[SyntheticRun]:
    """Each once for the longest time; what it had found earlier is its answer in less."""
    rows = []
    for method, search in BASELINES.items():
        began_s = perf_counter()
        trials = search(case, max(TIMES) * seconds, seed)
        wall_s = perf_counter() - began_s
        for times in TIMES:
            done = _begun(trials, times * seconds)
            best, label = best_trial(done), f"{method}, {times}x seconds"
            rows.append(
                _row(
                    case,
                    label,
                    seed,
                    None if best is None else best.plan.plan,
                    touched=len(done),
                    items=len(done) * len(case.model.items.work),
                    seconds=done[-1].ended_s,
                    wall_s=wall_s,
                )
            )
    return rows


def _begun(trials: list[Trial], seconds: float) -> list[Trial]:
    """The trials that began before a time."""
    starts = [0.0, *(trial.ended_s for trial in trials)]
    return [trial for trial, start in zip(trials, starts, strict=False) if start < seconds]


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
    verdict = None if plan is None else judged(case.model, case.query, case.network, plan)
    found = verdict is not None and verdict.kept
    ratio = np.nan if verdict is None or not found else verdict.cost_usd_per_h / case.optimum.cost_usd_per_h
    return SyntheticRun(
        case.family, case.exponent, method, seed, plan is not None, found, ratio, touched, items, seconds,
        wall_s, cpu_s, peak_mib, steps,
    )  # fmt: skip


def peak_mib() -> float:
    """Resident memory that this process has had at most.

    Where the system tells, that of the program itself: what it says of resource use may be its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return float(peak.split()[1]) / _KIB_PER_MIB
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_KIB_PER_MIB if sys.platform == "darwin" else 1.0)
    return peak_kib / _KIB_PER_MIB
